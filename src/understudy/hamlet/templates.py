"""Parser of the phrase tables in `phrases_*.py`.

A template is a sentence with slots and alternatives:

    {a} [gave|handed] {t} to {b.o}[ with a smile|]

A slot is a field of the event (see SLOTS) and, after a dot, a form (FORMS in reader.py). A line that
begins with ~ is held out: only validation text uses it. A template that ends in a comma goes in front
of the next sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from understudy.hamlet.reader import FORMS
from understudy.hamlet.world import required

SLOTS = {
    "a": "actor", "b": "other", "c": "third", "z": "animal", "t": "thing", "u": "second_thing", "p": "place",
    "g": "goods", "h": "second_goods", "n": "count", "m": "second_count", "k": "total", "x": "detail",
    "w": "weather", "s": "season", "d": "day", "o": "part",
}  # fmt: skip

# Stative verbs, which cannot follow "then" or precede "and".
_STILL = {
    "was", "were", "had", "could", "did", "lived", "wanted", "liked", "thought", "felt", "would", "knew", "needed",
    "loved", "never", "hoped",
}  # fmt: skip

Part = str | tuple[Callable[..., str], str] | list["tuple[Part, ...]"]


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence pattern for one kind of event."""

    parts: tuple[Part, ...]
    source: str
    held_out: bool
    spoken: bool  # contains direct speech
    opener: bool  # opening phrase before another sentence
    active: bool  # begins with an action of the actor: can follow "then", can be joined to another sentence
    timed: bool  # contains a time expression
    simple: bool  # active, and can precede "and ..."
    words: int


@dataclass(frozen=True, slots=True)
class Choices:
    """The templates of one telling that a split may use."""

    plain: tuple[Template, ...]
    spoken: tuple[Template, ...]
    first: tuple[Template, ...]  # templates that can follow "One windy morning,"

    @classmethod
    def of(cls, templates: Sequence[Template]) -> Choices:
        plain = tuple(t for t in templates if not t.spoken)
        calm = (t for t in plain if not t.timed and not re.match(r"(but|and|so|there|next)\b|\{p", t.source))
        return cls(plain, tuple(t for t in templates if t.spoken), tuple(calm) or plain or tuple(templates))


_TOKEN = re.compile(r"\{(\w)(?:\.(\w+))?\}|\[([^\]]*)\]")


def _parse_parts(source: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    end = 0
    for match in _TOKEN.finditer(source):
        if match.start() > end:
            parts.append(source[end : match.start()])
        slot, form, options = match.groups()
        if options is not None:
            parts.append([_parse_parts(option) for option in options.split("|")])
        else:
            parts.append((FORMS[slot][form or ""], SLOTS[slot]))
        end = match.end()
    if end < len(source):
        parts.append(source[end:])
    return tuple(parts)


def parse_template(line: str) -> Template:
    """Parse one line of a phrase table."""
    held_out = line.startswith("~")
    source = line.lstrip("~")
    spoken = '"' in source
    active = False
    if source.startswith("{a} ") and not spoken:
        first = required(re.match(r"\[([^\]]*)\]|(\w+|\{)", source[4:]), f"the verb of {source!r}")
        starts = first.group(1).split("|") if first.group(1) is not None else [first.group(2)]
        active = all(s and s.split()[0] not in _STILL for s in starts)
    return Template(
        parts=_parse_parts(source),
        source=source,
        held_out=held_out,
        spoken=spoken,
        opener=source.endswith(","),
        active=active,
        timed=re.search(r"\b(soon|long|last|later|before|noon|then|at once)\b", source) is not None,
        simple=active and not re.search(r",| and |asked|told|wanted|promised|offered|said", source),
        words=len(re.sub(r"\|[^\]]*\]", "]", source).split()),
    )


def parse_tellings(text: str) -> dict[str, list[Template]]:
    """Parse a phrase table: a name at the margin, its templates indented below it, # for comments."""
    tellings: dict[str, list[Template]] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] != " ":
            name = line.strip()
            assert name not in tellings, f"telling {name} stands twice"
            tellings[name] = []
        else:
            tellings[name].append(parse_template(line.strip()))
    return tellings

"""Text generation from events: choice of templates, openings, connectives, joined sentences, paragraphs.

reader.py chooses names, pronouns and articles inside a sentence. templates.py parses the templates, which are in
`phrases_*.py`. `plots_*.py` generate the events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Setting
from understudy.hamlet.reader import Reader
from understudy.hamlet.templates import Choices, Part, Template
from understudy.hamlet.world import required

_SETTING = ("weather", "season", "day", "part")
_LINKS = ("then ", "then ", "after that ")
_LINKS_ON_THE_WAY = ("then ", "after that ", "soon ", "a little later ", "before long ")
_LINKED_ACTS = {"go", "take", "swap", "pay", "gain", "use", "put"}
_DEEDS = _LINKED_ACTS | {"give", "find", "hand", "talk", "mend", "look"}


class Narrator:
    """Generator of the text of one story."""

    def __init__(
        self,
        tellings: Mapping[str, Choices],
        draw: Draw,
        setting: Setting,
        relations: Mapping[tuple[str, str], str],
        spoken: bool,
    ) -> None:
        """Initialize; `spoken` stories prefer templates with direct speech."""
        self.tellings, self.draw, self.setting, self.spoken = tellings, draw, setting, spoken
        self.reader = Reader(draw, relations)
        self.used: set[str] = set()
        self.linked = False  # the last sentence has a time expression: "then", "soon"
        self.last_act = ""
        self.paragraphs: list[list[str]] = [[]]
        self.speaker: object = None  # speaker of the last sentence, or None

    def tell(self, events: Sequence[Event]) -> str:
        """Return the text of `events`; set the `told` field of each event."""
        events = [e for e in events if e.telling]
        opener = ""
        chosen: Template | None = None
        i = 0
        while i < len(events):
            event = events[i]
            template = chosen or self._choose(event, first=bool(opener))
            chosen = None
            i += 1
            if template.opener:
                opener = self._render(template.parts, event) + " "
                continue
            link = "" if opener else self._link(template, event)
            sentence = opener + link + self._render(template.parts, event)
            opener = ""
            if template.simple and i < len(events) and events[i].actor is event.actor and self.draw.chance(0.45):
                chosen = self._choose(events[i])
                if chosen.active and template.words + chosen.words <= 17 and " and " not in chosen.source:
                    sentence += ", then" if events[i].act in _DEEDS and self.draw.chance(0.35) else " and"
                    self.reader.told.add("actor")  # the subject of the whole sentence
                    sentence += self._render(chosen.parts[1:], events[i])
                    chosen = None
                    i += 1
            self._write(sentence, template.spoken, event)
        return "\n".join(" ".join(p) for p in self.paragraphs if p)

    def _choose(self, event: Event, first: bool = False) -> Template:
        """Choose a template for `event`; with `first`, one that can follow an opening phrase."""
        choices = self.tellings[event.telling]
        if first:
            return self.draw.pick(choices.first)
        spoken, plain = choices.spoken, choices.plain
        table = plain or spoken
        if self.spoken and spoken and not (plain and self.speaker is event.actor):
            # The last speaker acts without speech. Otherwise templates with speech have three times the weight.
            table = spoken if self.draw.chance(3 * len(spoken) / (3 * len(spoken) + len(plain))) else plain
        for _ in range(3):  # avoid repeated templates
            template = self.draw.pick(table)
            if template.source not in self.used and not (self.linked and template.timed):
                break
        self.used.add(template.source)
        return template

    def _link(self, template: Template, event: Event) -> str:
        """Return a connective such as "then" between two actions, or ""."""
        before, self.last_act = self.last_act, event.act
        fits = template.active and not template.timed and event.act in _LINKED_ACTS and before in _DEEDS
        if not fits or self.linked or self.draw.chance(0.75):
            self.linked = template.timed
            return ""
        self.linked = True
        return self.draw.pick(_LINKS_ON_THE_WAY if event.act == "go" else _LINKS)

    def _render(self, parts: Sequence[Part], event: Event) -> str:
        """Return the text of `parts`; set `event.told`."""
        text = self._words(parts, event)
        event.told = tuple(sorted(self.reader.told))
        self.reader.told.clear()
        return text

    def _words(self, parts: Sequence[Part], event: Event) -> str:
        out: list[str] = []
        for part in parts:
            if isinstance(part, str):
                out.append(part)
            elif isinstance(part, list):
                out.append(self._words(self.draw.pick(part), event))
            else:
                form, name = part
                if name in _SETTING:
                    self.setting.told.add(name)
                    out.append(getattr(self.setting, name))
                else:
                    value = required(getattr(event, name), f"{event.telling}: {name}, which is told,")
                    self.reader.told.add(name)
                    out.append(form(self.reader, value, event))
        return "".join(out)

    def _write(self, sentence: str, spoken: bool, event: Event) -> None:
        """Add `sentence`; begin a paragraph when the speaker changes or another person acts after speech."""
        start = 1 if sentence[0] == '"' else 0
        sentence = sentence[:start] + sentence[start].upper() + sentence[start + 1 :]
        if sentence[-1] not in '.!?"':
            sentence += "."
        same = self.speaker is event.actor or (self.speaker is None and not spoken)
        if not same and self.paragraphs[-1]:
            self.paragraphs.append([])
        self.paragraphs[-1].append(sentence)
        self.speaker = event.actor if spoken else None
        self.reader.end_sentence()

"""From events to a story: choice of templates, openings, "then", joined sentences, paragraphs.

Wording inside a sentence (names, pronouns, articles) is in reader.py, the notation of the templates in
templates.py, the templates in `phrases_*.py`; what happens is decided in `plots_*.py`.
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
    """Tells the events of one story."""

    def __init__(
        self,
        tellings: Mapping[str, Choices],
        draw: Draw,
        setting: Setting,
        relations: Mapping[tuple[str, str], str],
        spoken: bool,
    ) -> None:
        """`spoken` stories use words in quotation marks wherever a telling has them."""
        self.tellings, self.draw, self.setting, self.spoken = tellings, draw, setting, spoken
        self.reader = Reader(draw, relations)
        self.used: set[str] = set()
        self.linked = False  # the last sentence told its time: "then", "soon"
        self.last_act = ""
        self.paragraphs: list[list[str]] = [[]]
        self.speaker: object = None  # who spoke in the last sentence, if anyone

    def tell(self, events: Sequence[Event]) -> str:
        """The text of `events`; sets the `told` field of each."""
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
        """A template for `event`; `first` asks for one that can follow an opening phrase."""
        choices = self.tellings[event.telling]
        if first:
            return self.draw.pick(choices.first)
        spoken, plain = choices.spoken, choices.plain
        table = plain or spoken
        if self.spoken and spoken and not (plain and self.speaker is event.actor):
            # Whoever has just spoken acts now; else speech is likelier than its share of the table.
            table = spoken if self.draw.chance(3 * len(spoken) / (3 * len(spoken) + len(plain))) else plain
        for _ in range(3):  # a story seldom repeats itself
            template = self.draw.pick(table)
            if template.source not in self.used and not (self.linked and template.timed):
                break
        self.used.add(template.source)
        return template

    def _link(self, template: Template, event: Event) -> str:
        """At times "then" or the like, where one deed follows another."""
        before, self.last_act = self.last_act, event.act
        fits = template.active and not template.timed and event.act in _LINKED_ACTS and before in _DEEDS
        if not fits or self.linked or self.draw.chance(0.75):
            self.linked = template.timed
            return ""
        self.linked = True
        return self.draw.pick(_LINKS_ON_THE_WAY if event.act == "go" else _LINKS)

    def _render(self, parts: Sequence[Part], event: Event) -> str:
        """The words of `parts`; sets what `event` has told."""
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
        """Add `sentence`; a change of speaker, or from speech to another's deed, begins a paragraph."""
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

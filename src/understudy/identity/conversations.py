"""Conversations about who an assistant is. Each is a function of (seed, split, index).

Validation asks in other words, and names other assistants and makers, than training.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.stories import Split
from understudy.identity.settings import IdentitySettings

COUNTS: dict[Split, int] = {"train": 1_000, "val": 100}
WEIGHTS = {"name": 4, "maker": 3, "kind": 2, "wrong name": 3, "wrong maker": 3, "unknown": 3, "fact": 4, "claim": 3}
"""How often each topic is asked; fact and claim where there are facts with questions and wrong statements."""
MORE_TURNS = 0.25
"""Probability that another question follows."""
SYSTEM = 0.15
"""Probability of a system message that only says that there is an assistant."""
SYSTEM_MESSAGE = "You are a helpful assistant."


def capitalised(text: str) -> str:
    """``text`` with a capital letter at the beginning of each sentence."""
    return re.sub(r"(^|[.!?] )(\w)", lambda match: match[1] + match[2].upper(), text)


@dataclass(frozen=True)
class IdentityConversations:
    """The conversations of one identity."""

    settings: IdentitySettings

    def records(self, kind: str, seed: int, split: Split, count: int) -> Iterator[dict[str, Any]]:
        """The first ``count`` conversations of a split, with the topics of their turns as ``categories``."""
        for index in range(count):
            draw = Draw(stable_hash("identity", seed, split, index))
            messages = [{"role": "system", "content": SYSTEM_MESSAGE}] if draw.chance(SYSTEM) else []
            topics: list[str] = []
            while not topics or draw.chance(MORE_TURNS):
                topic = self._topic(draw)
                question, answer = self._turn(draw, split, topic)
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
                topics.append(topic)
            yield {"messages": messages, "categories": topics}

    def _topic(self, draw: Draw) -> str:
        facts = self.settings.facts
        weights = dict(WEIGHTS)
        if not facts:
            del weights["fact"]
        if not any(fact.wrong.train for fact in facts):
            del weights["claim"]
        return draw.pick([topic for topic, weight in weights.items() for _ in range(weight)])

    def _turn(self, draw: Draw, split: Split, topic: str) -> tuple[str, str]:
        phrases = self.settings.phrases
        fields = {"name": self.settings.name, "maker": self.settings.maker, "other": "", "answer": ""}
        if topic == "fact":
            fact = draw.pick(self.settings.facts)
            question, answer = draw.pick(fact.questions.of(split)), fact.answer
        else:
            if topic == "claim":
                fact = draw.pick([fact for fact in self.settings.facts if fact.wrong.train])
                question = draw.pick(phrases[topic].of(split)).format(claim=draw.pick(fact.wrong.of(split)))
                fields["answer"] = fact.answer
            else:
                if topic in ("wrong name", "wrong maker"):
                    fields["other"] = self._other(draw, split, topic)
                question = draw.pick(phrases[topic].of(split)).format(other=fields["other"])
            answer = capitalised(draw.pick(phrases[f"{topic} answer"].of(split)).format(**fields))
        if topic not in ("wrong name", "claim"):  # which often begin with a greeting or a claim of their own
            question = draw.pick(phrases["openings"].of(split)).format(question=question)
        return capitalised(question) if draw.chance(0.9) else question, answer

    def _other(self, draw: Draw, split: Split, topic: str) -> str:
        """Another assistant or maker than the right one."""
        section, right = (
            ("others", self.settings.name) if topic == "wrong name" else ("other makers", self.settings.maker)
        )
        names = [other for other in self.settings.phrases[section].of(split) if other.lower() not in right.lower()]
        return draw.pick(names or self.settings.phrases[section].train)

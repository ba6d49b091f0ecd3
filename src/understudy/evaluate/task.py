"""What a task is: examples, how each is asked, and how an answer is scored.

One object serves three ends: `prompt` and `score` are the evaluation, `conversation` is the example as training data
with the right answer, and `score` is a reward. Not here: asking a model (runner.py), the tasks themselves (tasks/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, Literal

from understudy.rewards.verifiers import bare
from understudy.tokenizer.chat import Message

Kind = Literal["choice", "answer", "loss"]
Split = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Example:
    """One question. Either ``messages``, ending with the user's, or ``text`` to be continued, says what is shown.

    ``id`` is the same whenever the same question comes, so that two runs can be compared on it.
    """

    id: str
    answer: str
    messages: tuple[Message, ...] = ()
    text: str | None = None
    category: str = ""
    choices: tuple[str, ...] = ()
    check: dict[str, Any] | None = None


class Task:
    """A subclass gives ``name``, :meth:`examples`, and where the default does not do, :meth:`score`.

    Kinds:

    - ``choice``: the likeliest of the example's choices is the answer; nothing is generated.
    - ``answer``: the model's greedy answer is scored.
    - ``loss``: how well each example's text is predicted; nothing is asked.

    Args:
        few_shot: so many solved training examples are shown before each question.
    """

    name: str
    kind: Kind = "answer"
    metric: str = "accuracy"
    """The headline: ``accuracy``, or for choices also ``accuracy_normalised`` (likelihood for each byte)."""
    max_new_tokens: int = 64

    def __init__(self, few_shot: int = 0) -> None:
        if few_shot < 0:
            raise ValueError(f"few_shot is {few_shot}; give 0 or more examples to show before the question")
        self.few_shot = few_shot

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        """The first ``limit`` examples of a split, always in the same order, the categories taking turns.

        Raises:
            ValueError: the data is not there or is damaged.
        """
        raise NotImplementedError

    def prompt(self, example: Example) -> list[Message] | str:
        """What the model is shown: messages that end with the user's, or a text to continue."""
        if example.text is not None:
            return "".join(f"{shot.text} {shot.answer}\n\n" for shot in self.shots(example)) + example.text
        system = [m for m in example.messages if m["role"] == "system"]
        turns = [m for m in example.messages if m["role"] != "system"]
        shown = [m for shot in self.shots(example) for m in self.conversation(shot) if m["role"] != "system"]
        return system + shown + turns

    def conversation(self, example: Example) -> list[Message]:
        """The example with its right answer, as the schema of conversations has it."""
        assert example.text is None, "a text to continue is no conversation"
        return [*example.messages, {"role": "assistant", "content": example.answer}]

    def score(self, example: Example, answer: str) -> float:
        """How right an answer is, from 0 to 1. Here: 1 when it is the right one, but for case, spaces, and
        punctuation around it."""
        return float(bare(answer) == bare(example.answer))

    def shots(self, example: Example) -> list[Example]:
        """The solved examples that are shown before this question."""
        return self._first_shots if self.few_shot else []

    @cached_property
    def _first_shots(self) -> list[Example]:
        return self.enough_shots(self.examples("train", self.few_shot))

    def enough_shots(self, found: list[Example]) -> list[Example]:
        """The first ``few_shot`` of them.

        Raises:
            ValueError: there are fewer.
        """
        if len(found) < self.few_shot:
            raise ValueError(f"task {self.name} has {len(found)} examples to show, and few_shot is {self.few_shot}")
        return found[: self.few_shot]


def question(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A single question as messages."""
    asked: Message = {"role": "user", "content": text}
    return (asked,) if system is None else ({"role": "system", "content": system}, asked)


def as_text(messages: Sequence[Message]) -> str:
    """Messages as plain text to be continued, for models that never saw the chat format:

        The system message.

        Question: What the user asks.
        Answer: What was answered, on one line.

        Question: What the user asks now.
        Answer:

    The answer begins after a space and ends at a line break.
    """
    text = ""
    for message in messages:
        content = message["content"].strip()
        if message["role"] == "system":
            text += f"{content}\n\n"
        elif message["role"] == "user":
            text += f"Question: {content}\nAnswer:"
        else:
            text += f" {' '.join(content.split())}\n\n"
    return text


def take_turns(groups: Iterable[Sequence[Example]]) -> list[Example]:
    """The first of each group, then the second of each, and so on, so that the first N are a fair sample of all."""
    rounds = zip_longest(*groups)
    return [example for round in rounds for example in round if example is not None]

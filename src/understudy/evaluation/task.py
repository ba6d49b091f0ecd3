"""The contract of a task: its examples, the prompt of each, and the score of an answer.

One object serves three purposes: `prompt` and `score` evaluate, `conversation` is the example as training data, and
`as_prompt` is the example as a prompt of ppo or grpo, whose verifier is the task's score. Not here: running a model
(runner.py), the tasks themselves (tasks/).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any, Literal

from understudy.data.chat.prompts import Prompt
from understudy.rewards.verifiers import VERIFIERS
from understudy.tokenizer.chat import Message

Kind = Literal["choice", "answer", "loss"]
Split = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Example:
    """One question: either ``messages``, ending with the user's, or ``text`` to be continued.

    ``id`` identifies the question, so that two runs can be compared on it.
    """

    id: str
    answer: str
    messages: tuple[Message, ...] = ()
    text: str | None = None
    category: str = ""
    choices: tuple[str, ...] = ()
    check: dict[str, Any] | None = None


class Task:
    """A subclass defines ``name`` and :meth:`examples`, and ``verifier`` or :meth:`score` if the default does not fit.

    Kinds:

    - ``choice``: the most likely of the example's choices is the answer; nothing is generated.
    - ``answer``: the model's greedy answer is scored.
    - ``loss``: the loss on the text of each example.

    Args:
        few_shot: number of solved training examples shown before each question.
    """

    name: str
    kind: Kind = "answer"
    metric: str = "accuracy"
    """Name of the main metric: ``accuracy``, or for choices also ``accuracy_normalised`` (log-likelihood per byte)."""
    verifier: str = "exact"
    """Row of rewards/verifiers.py that scores an answer."""
    max_new_tokens: int = 64
    shots_by_category: bool = False
    """Whether the examples shown before a question have its category."""
    suggestions: tuple[str, ...] = ()
    """Questions for a person to try on a run that was trained on the task's corpus."""

    def __init__(self, few_shot: int = 0) -> None:
        if few_shot < 0:
            raise ValueError(f"few_shot is {few_shot}; give 0 or more examples to show before the question")
        self.few_shot = few_shot

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        """The first ``limit`` examples of a split, always in the same order, alternating between categories.

        Raises:
            ValueError: the data is missing or damaged.
        """
        raise NotImplementedError

    def comparison_examples(self, limit: int) -> list[Example]:
        """Examples on which `understudy compare` compares two runs: by default those of the evaluation."""
        return self.examples("val", limit)

    def prompt(self, example: Example) -> list[Message] | str:
        """The prompt of an example: messages that end with the user's, or a text to continue."""
        if example.text is not None:
            return "".join(f"{shot.text} {shot.answer}\n\n" for shot in self.shots(example)) + example.text
        system = [m for m in example.messages if m["role"] == "system"]
        turns = [m for m in example.messages if m["role"] != "system"]
        shown = [m for shot in self.shots(example) for m in self.conversation(shot) if m["role"] != "system"]
        return system + shown + turns

    def conversation(self, example: Example) -> list[Message]:
        """An example of messages with its right answer, in the schema of conversations."""
        return [*example.messages, {"role": "assistant", "content": example.answer}]

    def as_prompt(self, example: Example) -> Prompt:
        """The example as a prompt, whose true score is the task's score."""
        return Prompt(example.messages, example.check, example.answer, example.category, self.verifier)

    def score(self, example: Example, answer: str) -> float:
        """Score of an answer, from 0 to 1, by the task's verifier."""
        return VERIFIERS[self.verifier](self.as_prompt(example), answer)

    def scores(self, example: Example, answer: str) -> dict[str, float]:
        """Score of a generated answer by each metric, the main one first."""
        return {self.metric: self.score(example, answer)}

    def shots(self, example: Example) -> list[Example]:
        """Solved examples shown before this question.

        Raises:
            ValueError: there are fewer than ``few_shot``.
        """
        if not self.few_shot:
            return []
        solved = [shot for shot in self._solved if not self.shots_by_category or shot.category == example.category]
        if len(solved) < self.few_shot:
            raise ValueError(
                f"the task {self.name} has {len(solved)} examples to show, and few_shot is {self.few_shot}"
            )
        return solved[: self.few_shot]

    @cached_property
    def _solved(self) -> list[Example]:
        return self.examples("train", None if self.shots_by_category else self.few_shot)


def question(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A single question as messages."""
    user: Message = {"role": "user", "content": text}
    return (user,) if system is None else ({"role": "system", "content": system}, user)


def as_text(messages: Sequence[Message]) -> str:
    """Messages as plain text to be continued, for models without the chat format:

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
    """The first of each group, then the second of each, and so on, so that the first N are balanced over the groups."""
    rounds = zip_longest(*groups)
    return [example for round in rounds for example in round if example is not None]

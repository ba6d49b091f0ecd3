"""Conversations of Hamlet for training, and their prompts for evaluation and reinforcement learning.

Each function of (seed, index, split) is deterministic. This module combines turns from questions.py, facts.py,
sums.py, greetings.py, instructions.py, tales.py and outside.py into conversations; checker.py scores the answers.
docs/internals/hamlet.md has examples and lists the held-out content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.facts import again_turn, village_as_a_whole, village_turn
from understudy.hamlet.greetings import talk_turn
from understudy.hamlet.instructions import INSTRUCTIONS, capitals_again, reversed_turn
from understudy.hamlet.outside import decline_turn
from understudy.hamlet.questions import short_story, story_opening, story_turns
from understudy.hamlet.stories import Split, small_story
from understudy.hamlet.styles import STYLES, restyled, shortened, style_message
from understudy.hamlet.sums import further_turn, sum_turn
from understudy.hamlet.tales import tale_turn
from understudy.hamlet.turns import CATEGORIES, STORY_CATEGORIES, Turn
from understudy.hamlet.typed import typed
from understudy.hamlet.wording import phrasings

Message = dict[str, str]


# Fraction of conversations about a story that use a small story (two to five sentences).
_SMALL = 0.75

# Fraction of questions about a story whose answer is a phrase instead of a sentence.
_PHRASES = 0.8

# Fraction of conversations with a system message that does not change the answers.
_PLAIN_SYSTEM = 0.3

# Fraction of conversations without a story whose messages are typed carelessly (typed.py), by kind.
_TYPED = {"chat": 0.35, "single": 0.35, "again": 0.25, "stranger": 0.75}

# Fraction of questions about the village that are about the whole of it.
_AS_A_WHOLE = 0.12

_SYSTEM = phrasings("""
plain
  You are a helpful assistant of the village of Hamlet.
  You are the understudy of Hamlet.
  You are the understudy of Hamlet and help everyone.
  You help the people of Hamlet. Answer in short sentences.
  You are a friendly assistant. Answer what you are asked.
  You know the village of Hamlet and the people who live there.
  Answer kindly and say only what is so.
  ~You are a friendly assistant in the village of Hamlet.
  ~Help everyone in Hamlet with short answers.
""")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation; `turns[k]` is the source of the k-th pair of user and assistant messages."""

    messages: tuple[Message, ...]
    turns: tuple[Turn, ...]
    split: Split

    def to_json(self) -> dict[str, Any]:
        """The conversation as a JSON object, with category, check and wrong answers for each turn."""
        return {
            "messages": list(self.messages),
            "turns": [{"category": t.category, "check": t.check, "wrong": list(t.wrong)} for t in self.turns],
        }


def _story(draw: Draw, split: Split) -> list[Turn]:
    """A story with two to five questions, sometimes followed by thanks or by a question that nobody can answer."""
    turns = [shortened(turn) if draw.chance(_PHRASES) else turn for turn in _story_questions(draw, split)]
    if draw.chance(0.1):
        turns.append(talk_turn(draw, split, "thanks", "goodbye"))
    elif draw.chance(0.05):
        turns.append(decline_turn(draw, split, "world", "science", "topic", "how", "now", "life"))
    return turns


def _story_questions(draw: Draw, split: Split) -> list[Turn]:
    """Two to four questions about a small story, or three to five about a long one.

    The first user message contains the story.
    """
    small = draw.chance(_SMALL)
    index = int(draw.random() * 2**48)
    story = small_story(0, index, split) if small else short_story(0, index, split)
    opening = story_opening(draw, story, split)
    first, *others = story_turns(draw, story, draw.between(2, 4) if small else draw.between(3, 5))
    return [replace(first, user=opening + first.user), *others]


def _village(draw: Draw, split: Split) -> Turn:
    return village_as_a_whole(draw, split) if draw.chance(_AS_A_WHOLE) else village_turn(draw, split)[0]


# Generators of turns that need no story, with their sampling weights.
_SHORT: dict[str, tuple[float, Callable[[Draw, Split], Turn]]] = {
    "greeting": (0.6, talk_turn),
    "village": (0.9, _village),
    "sum": (0.9, lambda draw, split: sum_turn(draw, split)[0]),
    "count-words": (1.5, INSTRUCTIONS["count-words"]),
    "order": (1.5, INSTRUCTIONS["order"]),
    "capitals": (1.5, INSTRUCTIONS["capitals"]),
    "list": (1.7, INSTRUCTIONS["list"]),
    "repeat": (1.5, INSTRUCTIONS["repeat"]),
    "animals": (1.4, INSTRUCTIONS["animals"]),
    "story": (1.5, tale_turn),
    "decline": (1.35, decline_turn),
}
# Fraction of a stranger's turns that are of each kind; "whole" is the village as a whole.
_STRANGER = {"decline": 0.52, "greeting": 0.26, "whole": 0.08, "village": 0.04, "sum": 0.05, "story": 0.05}


def _weighted(draw: Draw, weights: dict[str, float]) -> str:
    remainder = draw.random() * sum(weights.values())
    for name, weight in weights.items():
        remainder -= weight
        if remainder < 0:
            return name
    return name


def _short(draw: Draw, split: Split) -> Turn:
    return _SHORT[_weighted(draw, {name: share for name, (share, _) in _SHORT.items()})][1](draw, split)


def _single(draw: Draw, split: Split) -> list[Turn]:
    """A conversation of one question or instruction."""
    return [_short(draw, split)]


def _chat(draw: Draw, split: Split) -> list[Turn]:
    """Two to five short turns, sometimes with a greeting before and thanks after."""
    turns = [_short(draw, split) for _ in range(draw.between(2, 4))]
    if draw.chance(0.25):
        turns.insert(0, talk_turn(draw, split, "hello", "name"))
    if draw.chance(0.15):
        turns.append(talk_turn(draw, split, "thanks", "goodbye"))
    return turns[:5]


def _stranger(draw: Draw, split: Split) -> list[Turn]:
    """One to four turns of someone who has not read what can be asked."""
    turns = []
    for _ in range(draw.pick((1, 1, 1, 2, 3, 4))):
        kind = _weighted(draw, _STRANGER)
        turns.append(village_as_a_whole(draw, split) if kind == "whole" else _SHORT[kind][1](draw, split))
    return turns


def _again(draw: Draw, split: Split) -> list[Turn]:
    """A turn and one or two follow-ups that refer to it: "And where does she live?", "And backwards?"."""
    kind = _weighted(draw, {"village": 0.5, "sum": 0.2, "order": 0.1, "repeat": 0.2})
    if kind == "order":
        first = INSTRUCTIONS["order"](draw, split)
        return [first, reversed_turn(draw, split, first)]
    if kind == "repeat":
        first = INSTRUCTIONS["repeat"](draw, split)
        return [first, capitals_again(draw, split, first)]
    if kind == "sum":
        first, total = sum_turn(draw, split)
        further = further_turn(draw, split, total)
        return [first, *([further] if further else [])]
    first, person = village_turn(draw, split)
    while person is None:
        first, person = village_turn(draw, split)
    turns = [first]
    for _ in range(draw.between(1, 2)):
        further = again_turn(draw, split, person, [t.answer for t in turns])
        turns += [further] if further else []
    return turns


def _styled(draw: Draw, split: Split, style: str) -> list[Turn]:
    """Questions with a system message that requires answers in capitals or in one word."""
    while True:
        if draw.chance(0.5):
            turns = _story_questions(draw, split)
        else:
            # The answer to a sum contains counting steps, so it cannot be one word.
            sums = (False, True) if style == "capitals" else (False,)
            turns = [
                sum_turn(draw, split)[0] if draw.pick(sums) else village_turn(draw, split)[0]
                for _ in range(draw.between(2, 4))
            ]
        # The first question carries the story, so its answer must support the style.
        styled = [restyled(turn, style) for turn in turns]
        if styled[0] is not None:
            return [turn for turn in styled if turn is not None]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of conversation: sampling weight, generator, and the categories of its turns."""

    share: float
    make: Callable[[Draw, Split], list[Turn]]
    asks: tuple[str, ...]


_SHORT_CATEGORIES = tuple(_SHORT)
KINDS: dict[str, _Kind] = {
    "story": _Kind(0.315, _story, (*STORY_CATEGORIES, "decline")),
    "chat": _Kind(0.305, _chat, _SHORT_CATEGORIES),
    "single": _Kind(0.125, _single, _SHORT_CATEGORIES),
    "again": _Kind(0.09, _again, ("village", "sum", "order", "repeat", "capitals")),
    "stranger": _Kind(0.095, _stranger, tuple(kind for kind in _STRANGER if kind != "whole")),
    "capitals": _Kind(0.035, partial(_styled, style="capitals"), (*STORY_CATEGORIES, "village", "sum")),
    "one word": _Kind(0.035, partial(_styled, style="one word"), (*STORY_CATEGORIES, "village")),
}


def _generate(draw: Draw, split: Split, category: str | None = None) -> Conversation:
    """Generate a conversation; if `category` is given, one that can contain a turn of that category."""
    fitting = {name: kind.share for name, kind in KINDS.items() if category is None or category in kind.asks}
    kind = _weighted(draw, fitting)
    system = ""
    if kind in STYLES:
        system = style_message(draw, split, kind)
    elif draw.chance(_PLAIN_SYSTEM):
        system = _SYSTEM["plain"].pick(draw, split)
    messages = [{"role": "system", "content": system}] if system else []
    turns = KINDS[kind].make(draw, split)
    if draw.chance(_TYPED.get(kind, 0.0)):
        turns = [typed(draw, turn) for turn in turns]
    for turn in turns:
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": turn.answer})
    return Conversation(tuple(messages), tuple(turns), split)


def conversation(seed: int, index: int, split: Split) -> Conversation:
    """The conversation with number `index` (from 0) of `seed`."""
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; Hamlet has 'train' and 'val'")
    return _generate(Draw(stable_hash("conversation", seed, split, index)), split)


def conversations(seed: int, split: Split) -> Iterator[Conversation]:
    """Iterate without end over `conversation(seed, 0, split)`, `conversation(seed, 1, split)`, ..."""
    index = 0
    while True:
        yield conversation(seed, index, split)
        index += 1


def question(seed: int, index: int, split: Split, purpose: str = "question") -> tuple[list[Message], Turn]:
    """A prompt that ends with a user message, and the Turn with its reference answer.

    Earlier turns contain correct answers. The categories alternate: `index % 17` is the index in CATEGORIES. Each
    `purpose` has its own random stream, separate from that of `conversation`.
    """
    category = CATEGORIES[index % len(CATEGORIES)]
    draw = Draw(stable_hash(purpose, seed, split, index))
    while True:
        candidate = _generate(draw, split, category)
        places = [k for k, turn in enumerate(candidate.turns) if turn.category == category]
        if places:
            k = draw.pick(places)
            first = len(candidate.messages) - 2 * len(candidate.turns)  # 1 after a system message
            return list(candidate.messages[: first + 2 * k + 1]), candidate.turns[k]


def prompts(seed: int, split: Split) -> Iterator[dict[str, Any]]:
    """Prompts without answers: rows of `prompt`, `category` and the `check` that computes the reward."""
    index = 0
    while True:
        messages, turn = question(seed, index, split, "prompt")
        yield {"prompt": messages, "category": turn.category, "check": turn.check}
        index += 1

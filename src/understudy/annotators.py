"""`prepare hamlet --kind preferences --from RUN`: a run answers Hamlet's questions, and simulated annotators compare.

Of each question several answers are sampled; every two of different true score are a pair, compared by an annotator who
errs as often as data/hamlet/preferences.py says. Writing the folder is prepare_conversations.py's work. The one file of
this package that runs a model.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

from understudy.data.chat.formats import ParsedRow
from understudy.data.chat.parts import ChatPart, Opened
from understudy.data.chat.preference_formats import MOST_ANSWERS
from understudy.data.text.sources import generated_count
from understudy.hamlet.checker import score
from understudy.hamlet.conversations import question
from understudy.hamlet.draw import stable_hash
from understudy.hamlet.preferences import ANNOTATORS, choose
from understudy.hamlet.turns import Turn

if TYPE_CHECKING:
    from understudy.run import Run
    from understudy.tokenizer.chat import Message

Split = Literal["train", "val"]
DEFAULT_PROMPTS: dict[Split, int] = {"train": 2_000, "val": 300}
ANSWER_TOKENS = 120  # as in evaluation; at most half of the context
ROWS = 256  # answers that are generated at once: a step costs little more, and fewer wait for a long one
CHECKPOINT = "best"


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled. `run`: its name or path. `answers`: of each prompt. `ties`: pairs of equal true score are
    kept as ties and not left out. `corrected`: the right answer is compared with the others, as a correction would be.

    Raises:
        ValueError: a value out of its range.
    """

    run: str
    answers: int = 4
    temperature: float = 1.0
    ties: bool = False
    corrected: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.answers <= MOST_ANSWERS:
            raise ValueError(f"answers is {self.answers}; give 2 to {MOST_ANSWERS}, which are compared with each other")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0, so that the answers differ")

    def identity(self) -> dict[str, Any]:
        """What makes two requests the same one: the weights and how they are asked, and not where they lie.

        Raises:
            ValueError: no such run, or none with a checkpoint.
        """
        return {"weights_sha256": _state(self.run)["weights_sha256"], **self.settings()}

    def settings(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "temperature": self.temperature,
            "answer_tokens": ANSWER_TOKENS,
            "annotators": ANNOTATORS,
            "ties": self.ties,
            "corrected": self.corrected,
        }

    def run_name(self) -> str:
        """The run's name, for a folder."""
        from understudy.run import find_run

        return find_run(self.run).path.resolve().name

    def open(self, seed: int, limit: int | None) -> Opened:
        """The pairs, as :func:`open_sampled` samples them."""
        return open_sampled(self, seed, limit)


def _state(run: str) -> dict[str, Any]:
    """What the checkpoint says of itself, without its weights."""
    from understudy.files import read_json
    from understudy.run import find_run

    return read_json(find_run(run).checkpoint(CHECKPOINT) / "state.json")


def open_sampled(sampling: Sampling, seed: int, limit: int | None) -> Opened:
    """Pairs of a run's answers, in parts of their own splits. Their rows hold what was learnt on the way: each is one
    pair, or one reason why an answer or a pair is left out; how many prompts gave none is added to `notes`.

    Args:
        seed: of Hamlet, and of what is sampled.
        limit: so many prompts to train on; 2,000 by default. To validate there are at most 300.
    """
    notes: list[str] = []
    about: dict[str, Any] = {"settings": sampling.settings()}

    @functools.cache
    def run() -> Run:
        from understudy.inference.weights import model_for_generation
        from understudy.run import load_run
        from understudy.runtime import choose_device
        from understudy.tokenizer.chat import speaks_chat

        loaded = load_run(sampling.run, CHECKPOINT, str(choose_device()[0]))
        if not speaks_chat(loaded.tokenizer):
            raise ValueError(
                f"the run {loaded.path} has no chat tokens and cannot answer: give a finetuned one, as `understudy sft` "
                "makes it"
            )
        loaded.model = model_for_generation(loaded.model)
        about["run"], about["step"] = str(loaded.path), loaded.step
        about["weights_sha256"] = loaded.state["weights_sha256"]
        return loaded

    def rows(split: Split, count: int) -> Iterator[ParsedRow]:
        alike = too_long = 0
        for index, turn, messages, texts in _answered(run(), sampling, seed, split, count):
            if texts is None:
                too_long += 1
                yield ParsedRow(None, "prompt too long for the run", index + 1)
                continue
            kept: dict[str, float] = {}
            for text in [*texts, *([turn.answer] if sampling.corrected else [])]:
                if not text or text in kept:
                    yield ParsedRow(None, "answer given twice" if text else "empty answer", index + 1)
                else:
                    kept[text] = score(turn.check, text)
            alike += len(set(kept.values())) < 2
            for record in _pairs(messages, turn.category, kept, sampling, (seed, split, index)):
                yield ParsedRow(record, "" if record else "pair of equally good answers", index + 1)
        answered = count - too_long
        share = f"{alike:,} of {answered:,} prompts ({alike / max(1, answered):.0%})"
        gives = "ties only" if sampling.ties else "no pair"
        notes.append(f"{split}: {share} have no two answers of different worth, and give {gives}")
        about[split] = {"prompts": count, "too_long": too_long, "alike": alike}

    def part(split: Split) -> ChatPart:
        count = generated_count(split, DEFAULT_PROMPTS[split], limit)
        return ChatPart(f"hamlet/{split}", split, None, count, lambda: rows(split, count))

    return Opened((part("train"), part("val")), notes=notes, about={"sampled": about}, doing="sampling answers to")


def _answered(
    run: Run, sampling: Sampling, seed: int, split: Split, count: int
) -> Iterator[tuple[int, Turn, list[Message], list[str] | None]]:
    """Number, turn and messages of each question, and its answers in the order in which they were sampled; None where
    the question does not fit the context beside an answer."""
    from understudy.tokenizer.chat import render_all

    context = run.model.config.context_length
    most_new = min(ANSWER_TOKENS, max(1, context // 2))
    at_once = max(1, ROWS // sampling.answers)
    for first in range(0, count, at_once):
        asked = [question(seed, index, split, "preference") for index in range(first, min(first + at_once, count))]
        rendered = [each.tokens for each in render_all(run.tokenizer, [messages for messages, _ in asked], reply=True)]
        fitting = [tokens for tokens in rendered if len(tokens) <= context - most_new]
        # A seed for each batch: what a row draws depends on it and on the row's place.
        texts = iter(_sample(run, sampling, fitting, most_new, stable_hash("answers", seed, split, first)))
        for index, ((messages, turn), tokens) in enumerate(zip(asked, rendered), first):
            yield index, turn, messages, next(texts) if len(tokens) <= context - most_new else None


def _sample(
    run: Run, sampling: Sampling, prompts: Sequence[list[int]], max_new_tokens: int, seed: int
) -> list[list[str]]:
    """The answers to each prompt, without white space around them."""
    from understudy.inference.generate import generate_text
    from understudy.inference.sampling import SamplingSettings
    from understudy.tokenizer.chat import end_ids

    k = sampling.answers
    completions = generate_text(
        run.model,
        run.tokenizer,
        [tokens for tokens in prompts for _ in range(k)],
        max_new_tokens,
        SamplingSettings(sampling.temperature, seed=seed),
        end_ids=end_ids(run.tokenizer),
    )
    texts = [completion.text.strip() for completion in completions]
    return [texts[start : start + k] for start in range(0, len(texts), k)]


def _pairs(
    messages: list[Message],
    category: str,
    scores: dict[str, float],
    sampling: Sampling,
    place: tuple[int, Split, int],
) -> Iterator[dict[str, Any] | None]:
    """Every two answers, as an annotator sees them; None for two of equal score, where ties are not kept. Whoever errs
    prefers the worse answer, or either of two equal ones."""
    for i, j in combinations(range(len(scores)), 2):
        better, worse = sorted((list(scores)[i], list(scores)[j]), key=scores.__getitem__, reverse=True)
        alike = scores[better] == scores[worse]
        if alike and not sampling.ties:
            yield None
            continue
        seed, split, index = place
        annotator, is_right = choose(seed, split, index, i, j)
        tie = alike and is_right  # in error, one is preferred even so
        chosen, rejected = (better, worse) if is_right else (worse, better)
        yield {
            "prompt": messages,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            **({"tie": True} if tie else {}),
            "annotator": annotator,
            "category": category,
            "truth": [scores[chosen], scores[rejected]],
        }

"""`prepare hamlet --kind preferences --from RUN`: a run answers a corpus's questions, and simulated annotators compare.

Several answers are sampled to each question. Every two of different true score are a pair, compared by an annotator who
errs as often as the corpus says. data/chat/prepare.py writes the folder.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

from understudy.data.chat.formats import ParsedRow
from understudy.data.chat.preferences import MOST_ANSWERS
from understudy.data.generated import CORPORA, GeneratedCorpus, GeneratedQuestion, Split, record_count
from understudy.data.layout import SPLITS
from understudy.data.sources import Feed, Part
from understudy.files import read_json
from understudy.inference.generate import generate_text
from understudy.inference.quantize import model_for_generation
from understudy.inference.sampling import SamplingSettings
from understudy.run import Run, find_run, load_run
from understudy.runtime import choose_device
from understudy.tokenizer.chat import end_ids, render_all, speaks_chat

DEFAULT_PROMPTS: dict[Split, int] = {"train": 2_000, "val": 300}
ANSWER_TOKENS = 120
"""The most tokens of an answer, as in evaluation; at most half of the context."""
BATCH_ANSWERS = 256
"""Answers that are sampled together. A larger batch costs little more a step, and fewer answers wait for a long one."""
CHECKPOINT = "best"


@dataclass(frozen=True)
class Sampling:
    """Settings of the sampling.

    Attributes:
        run: the name or path of the run that answers.
        answers: the number of answers to each prompt.
        ties: whether pairs of equal true score are kept as ties.
        corrected: whether the correct answer is compared with the others, as a correction would be.

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

    def identity(self, corpus: str) -> dict[str, Any]:
        """The values that make two requests the same one: the weights and the settings, and not the path.

        Raises:
            ValueError: no such run, or none with a checkpoint.
        """
        state = read_json(find_run(self.run).checkpoint(CHECKPOINT) / "state.json")
        return {"weights_sha256": state["weights_sha256"], **self.settings(corpus)}

    def settings(self, corpus: str) -> dict[str, Any]:
        return {
            "answers": self.answers, "temperature": self.temperature, "answer_tokens": ANSWER_TOKENS,
            "annotators": CORPORA[corpus].annotators, "ties": self.ties, "corrected": self.corrected,
        }  # fmt: skip

    def run_name(self) -> str:
        """The run's name, for a folder."""
        return find_run(self.run).path.resolve().name

    def open(self, corpus_name: str, seed: int, limit: int | None) -> Feed:
        """Pairs of a run's answers, in parts, one for each split.

        Each row is a pair, or the reason why an answer or a pair is left out. `notes` gets the share of prompts without
        a pair. The run is loaded when the first row is read.

        Args:
            corpus_name: a row of CORPORA.
            seed: of the corpus, and of the sampling.
            limit: the number of prompts to train on; DEFAULT_PROMPTS otherwise, and at most for validation.
        """
        corpus = CORPORA[corpus_name]
        notes: list[str] = []
        about: dict[str, Any] = {"settings": self.settings(corpus_name)}
        run = functools.cache(lambda: self._load(about))

        def rows(split: Split, count: int) -> Iterator[ParsedRow]:
            alike = too_long = 0
            for index, question, texts in _answered(run(), corpus, self, seed, split, count):
                if texts is None:
                    too_long += 1
                    yield ParsedRow(None, "prompt too long for the run", index + 1)
                    continue
                scores: dict[str, float] = {}
                for text in [*texts, *([question.answer] if self.corrected else [])]:
                    if not text or text in scores:
                        yield ParsedRow(None, "answer given twice" if text else "empty answer", index + 1)
                    else:
                        scores[text] = corpus.score(question.check, text)
                alike += len(set(scores.values())) < 2
                for record in _pairs(corpus, question, scores, self, (seed, split, index)):
                    yield ParsedRow(record, "" if record else "pair of equally good answers", index + 1)
            answered = count - too_long
            share = f"{alike:,} of {answered:,} prompts ({alike / max(1, answered):.0%})"
            result = "ties only" if self.ties else "no pair"
            notes.append(f"{split}: {share} have no two answers of different true score, and give {result}")
            about[split] = {"prompts": count, "too_long": too_long, "alike": alike}

        counts = [record_count(split, DEFAULT_PROMPTS[split], limit) for split in SPLITS]
        parts = tuple(Part(f"{corpus_name}/{split}", count, None, split) for split, count in zip(SPLITS, counts))
        return Feed(
            corpus_name, parts, lambda i: rows(SPLITS[i], counts[i]), notes=notes, about={"sampled": about},
            doing="sampling answers to",
        )  # fmt: skip

    def _load(self, about: dict[str, Any]) -> Run:
        """The run that answers; ``about`` gets its path, step and weights."""
        run = load_run(self.run, CHECKPOINT, str(choose_device()[0]))
        if not speaks_chat(run.tokenizer):
            raise ValueError(
                f"the run {run.path} has no chat tokens and cannot answer; give one that `understudy sft` finetuned"
            )
        run.model = model_for_generation(run.model)
        about |= {"run": str(run.path), "step": run.step, "weights_sha256": run.state["weights_sha256"]}
        return run


def _answered(
    run: Run, corpus: GeneratedCorpus, sampling: Sampling, seed: int, split: Split, count: int
) -> Iterator[tuple[int, GeneratedQuestion, list[str] | None]]:
    """Index of each question, the question, and its answers in the order in which they were sampled; None where the
    question and an answer do not fit the context."""
    context = run.model.config.context_length
    max_new_tokens = min(ANSWER_TOKENS, max(1, context // 2))
    batch_size = max(1, BATCH_ANSWERS // sampling.answers)
    for first in range(0, count, batch_size):
        questions = [corpus.question(seed, index, split) for index in range(first, min(first + batch_size, count))]
        rendered = render_all(run.tokenizer, [question.messages for question in questions], reply=True)
        prompts = [prompt.tokens if len(prompt.tokens) <= context - max_new_tokens else None for prompt in rendered]
        fitting = [prompt for prompt in prompts if prompt is not None]
        # A seed for each batch: the draws of a row depend on it and on the row's place.
        key = "\x1f".join(("answers", str(seed), split, str(first)))
        batch_seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
        completions = iter(generate_text(
            run.model, run.tokenizer, [prompt for prompt in fitting for _ in range(sampling.answers)], max_new_tokens,
            SamplingSettings(sampling.temperature, seed=batch_seed), end_ids=end_ids(run.tokenizer),
        ))  # fmt: skip
        for index, (question, prompt) in enumerate(zip(questions, prompts), first):
            texts = [completion.text.strip() for completion in islice(completions, sampling.answers if prompt else 0)]
            yield index, question, texts if prompt else None


def _pairs(
    corpus: GeneratedCorpus, question: GeneratedQuestion, scores: dict[str, float], sampling: Sampling,
    place: tuple[int, Split, int],
) -> Iterator[dict[str, Any] | None]:  # fmt: skip
    """Every two answers, as an annotator compares them; None for two of equal score, where ties are not kept.

    An annotator who errs prefers the answer with the lower score, or either of two equal ones.
    """
    seed, split, index = place
    for i, j in combinations(range(len(scores)), 2):
        high, low = sorted((list(scores)[i], list(scores)[j]), key=scores.__getitem__, reverse=True)
        equal = scores[high] == scores[low]
        if equal and not sampling.ties:
            yield None
            continue
        annotator, is_correct = corpus.choose(seed, split, index, i, j)
        chosen, rejected = (high, low) if is_correct else (low, high)
        yield {
            "prompt": question.messages,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            **({"tie": True} if equal and is_correct else {}),
            "annotator": annotator,
            "category": question.category,
            "truth": [scores[chosen], scores[rejected]],
        }

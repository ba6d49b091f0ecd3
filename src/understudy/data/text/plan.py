"""Plan of a preparation, decided before it encodes: feeds, rules of validation, tokenizer, end-of-text token.

The feeds are written into .partial/plan.json and the tokenizer into .partial/tokenizer.json, so that a resumed
preparation reads the same files at the same commit, and encodes them with the same tokenizer.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from understudy.data.progress import PreparationProgress, Report
from understudy.data.text.encoding import EncodingState, batches
from understudy.data.text.request import PrepareTextRequest
from understudy.data.text.shards import TOKENIZER
from understudy.data.text.sources import Feed, Pin, TextPart, fetch_gpt2_vocabulary, open_feed
from understudy.data.text.splits import Rule, choose_rule, training_sample
from understudy.files import write_text
from understudy.tokenizer import END_OF_TEXT, Tokenizer, gpt2_tokenizer, load_tokenizer, train_tokenizer

PLAN = "plan.json"
SAMPLE_BYTES = 64 << 20


@dataclass(frozen=True)
class PreparationPlan:
    """`eot_id`: the token written after every document; None for one document alone, which needs no end."""

    feeds: tuple[Feed, ...]
    rules: tuple[Rule, ...]
    tokenizer: Tokenizer
    eot_id: int | None


def make_plan(
    partial: Path, request: PrepareTextRequest, continued: bool, cache: Path, report: Report
) -> PreparationPlan:
    """Decide everything, then write it down; the folder `partial` is made only then.

    Args:
        continued: resume with the feeds and the tokenizer of the saved plan.

    Raises:
        ValueError: sources that cannot be read, hold no text or have changed; a tokenizer that does not suit them.
    """
    saved = json.loads((partial / PLAN).read_text("utf-8"))["feeds"] if continued else []
    pins = [Pin(tuple(TextPart(*part) for part in parts), *fields) for parts, *fields in saved]
    settings = (request.reading, cache, request.seed, request.limit, report)
    feeds = tuple(open_feed(source, *settings, pin) for source, pin in zip_longest(request.sources, pins))
    chosen = [choose_rule(feed, request.val_fraction, request.limit, report) for feed in feeds]
    rules = tuple(rule for rule, _ in chosen)
    if not sum(documents for _, documents in chosen):
        names = ", ".join(feed.parts[0].name if len(feed.parts) == 1 else feed.name for feed in feeds)
        raise ValueError(f"there is no text in {names}: every document is empty")
    several = sum(documents for _, documents in chosen) > 1
    if continued:
        tokenizer = load_tokenizer(partial / TOKENIZER)
    else:
        tokenizer = _make_tokenizer(request, feeds, rules, several, cache, report)
    if several and tokenizer.eot_id is None:
        raise ValueError(
            f"the tokenizer {request.tokenizer} has no {END_OF_TEXT} token to put between documents: use one that has"
        )
    if not continued:
        partial.mkdir(parents=True, exist_ok=True)
        tokenizer.save(partial / TOKENIZER)
        decided = [[[astuple(part) for part in feed.parts], feed.revision, feed.note] for feed in feeds]
        write_text(partial / PLAN, json.dumps({"request": request.mapping, "feeds": decided}))
    return PreparationPlan(feeds, rules, tokenizer, tokenizer.eot_id if several else None)


def planned_request(partial: Path) -> dict[str, Any] | None:
    """The request that an unfinished preparation in this folder is of; None where there is none."""
    path = partial / PLAN
    return json.loads(path.read_text("utf-8"))["request"] if path.is_file() else None


def _make_tokenizer(
    request: PrepareTextRequest,
    feeds: tuple[Feed, ...],
    rules: tuple[Rule, ...],
    several: bool,
    cache: Path,
    report: Report,
) -> Tokenizer:
    """The tokenizer asked for. Characters are collected from all of the text, so that validation text can be
    encoded too; merges are learned from training text alone, about 64 MB of it."""
    if request.tokenizer == "gpt2":
        return gpt2_tokenizer(fetch_gpt2_vocabulary(cache, report))
    if request.tokenizer == "char":
        report(PreparationProgress("collecting characters", 0, None))
        everything = batches(feeds, rules, request.limit, EncodingState())
        texts = (text for batch in everything for item in batch.items for _, text, _ in item.texts)
        return train_tokenizer("char", texts, special_tokens=(END_OF_TEXT,) if several else ())
    if request.tokenizer == "bpe":
        report(PreparationProgress("training the tokenizer", 0, None))
        sample = training_sample(feeds, rules, request.limit, SAMPLE_BYTES)
        return train_tokenizer(
            "bpe", sample, request.vocab_size, pattern=request.pattern, special_tokens=(END_OF_TEXT,)
        )
    if request.loaded is None:
        raise TypeError(f"the tokenizer at {request.tokenizer} was not loaded with the request")
    return request.loaded

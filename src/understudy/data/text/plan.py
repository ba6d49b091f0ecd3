"""Plan of a preparation, decided before it encodes: feeds, rules of validation, tokenizer, end-of-text token.

A plan is written into .partial/plan.json (its tokenizer into .partial/tokenizer.json), so that a preparation
that goes on decides nothing anew: the same files at the same commit, the same splits, the same tokenizer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from understudy.data.progress import PreparationProgress, Report
from understudy.data.text.encoding import EncodingState, write_state
from understudy.data.text.request import PrepareTextRequest
from understudy.data.text.shards import TOKENIZER
from understudy.data.text.sources import Feed, TextPart, fetch_gpt2_vocabulary, open_feed
from understudy.data.text.splits import Position, Rule, choose_rule, divide, training_sample
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


def make_plan(partial: Path, request: PrepareTextRequest, cache: Path, report: Report) -> PreparationPlan:
    """Decide everything, then write it down; the folder `partial` is made only then.

    Raises:
        ValueError: sources that cannot be read or hold no text; a tokenizer that does not suit them.
    """
    settings = (request.reading, cache, request.seed, request.limit, report)
    feeds = tuple(open_feed(source, *settings) for source in request.sources)
    chosen = [choose_rule(feed, request.val_fraction, request.limit, report) for feed in feeds]
    rules = tuple(rule for rule, _ in chosen)
    if not sum(documents for _, documents in chosen):
        names = ", ".join(feed.parts[0].name if len(feed.parts) == 1 else feed.name for feed in feeds)
        raise ValueError(f"there is no text in {names}: every document is empty")
    several = sum(documents for _, documents in chosen) > 1
    tokenizer = _make_tokenizer(request, feeds, rules, several, cache, report)
    if several and tokenizer.eot_id is None:
        raise ValueError(
            f"the tokenizer {request.tokenizer} has no {END_OF_TEXT} token to put between documents: use one that has"
        )
    plan = PreparationPlan(feeds, rules, tokenizer, tokenizer.eot_id if several else None)
    partial.mkdir(parents=True, exist_ok=True)
    tokenizer.save(partial / TOKENIZER)
    write_state(partial, EncodingState(documents=[0] * len(feeds)))
    write_text(partial / PLAN, json.dumps(_to_mapping(request, plan)))
    return plan


def read_plan(partial: Path, request: PrepareTextRequest, cache: Path, report: Report) -> PreparationPlan:
    """The plan of an interrupted preparation, its feeds open again.

    Raises:
        ValueError: a source has changed.
    """
    raw = json.loads((partial / PLAN).read_text("utf-8"))
    feeds = []
    for source, saved in zip(request.sources, raw["feeds"]):
        parts = tuple(TextPart(*part) for part in saved["parts"])
        pinned = Feed(source.name, parts, _unread, revision=saved["revision"], note=saved["note"])
        feeds.append(open_feed(source, request.reading, cache, request.seed, request.limit, report, pinned))
    rules = tuple(
        Rule(rule["kind"], rule["fraction"], tuple(tuple(lengths) for lengths in rule["lengths"]))
        for rule in raw["rules"]
    )
    return PreparationPlan(tuple(feeds), rules, load_tokenizer(partial / TOKENIZER), raw["eot_id"])


def planned_request(partial: Path) -> dict[str, Any] | None:
    """The request that an unfinished preparation in this folder is of; None where there is none."""
    path = partial / PLAN
    return json.loads(path.read_text("utf-8"))["request"] if path.is_file() else None


def _to_mapping(request: PrepareTextRequest, plan: PreparationPlan) -> dict[str, Any]:
    feeds = [
        {
            "parts": [dataclasses.astuple(part) for part in feed.parts],
            "revision": feed.revision,
            "note": feed.note,
        }
        for feed in plan.feeds
    ]
    rules = [dataclasses.asdict(rule) for rule in plan.rules]
    return {"request": request.mapping, "feeds": feeds, "rules": rules, "eot_id": plan.eot_id}


def _unread(index: int) -> Any:
    raise AssertionError("a pinned feed is compared, never read")


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
        texts = chain.from_iterable(_all_texts(feed, rule, request.limit) for feed, rule in zip(feeds, rules))
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


def _all_texts(feed: Feed, rule: Rule, limit: int | None) -> Iterator[str]:
    for item in divide(feed, rule, limit, Position()):
        for _, text, _ in item.texts:
            yield text

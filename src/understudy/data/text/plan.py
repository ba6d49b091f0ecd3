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

from understudy.data.fetch.download import fetch_gpt2_vocabulary
from understudy.data.fetch.hub import HubDataset
from understudy.data.progress import PreparationProgress, Report
from understudy.data.sources import Feed, Part, Pin, Request, Source, open_feed
from understudy.data.text.documents import read_file
from understudy.data.text.encoding import EncodingState, batches
from understudy.data.text.shards import TOKENIZER
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
    partial: Path, request: Request, loaded: Tokenizer | None, continued: bool, cache: Path, report: Report
) -> PreparationPlan:
    """Decide everything, then write it down; the folder `partial` is made only then.

    Args:
        loaded: the tokenizer at a path, where the request names one.
        continued: resume with the feeds and the tokenizer of the saved plan.

    Raises:
        ValueError: sources that cannot be read, hold no text or have changed; a tokenizer that does not suit them.
    """
    saved = json.loads((partial / PLAN).read_text("utf-8"))["feeds"] if continued else []
    pins = [Pin(tuple(Part(*part) for part in parts), revision, tuple(notes)) for parts, revision, notes in saved]
    feeds = tuple(_open(source, request, cache, report, pin) for source, pin in zip_longest(request.sources, pins))
    chosen = [choose_rule(feed, request.val_fraction, request.limit, report) for feed in feeds]
    rules = tuple(rule for rule, _ in chosen)
    documents = sum(documents for _, documents in chosen)
    if not documents:
        names = ", ".join(feed.parts[0].name if len(feed.parts) == 1 else feed.name for feed in feeds)
        raise ValueError(f"there is no text in {names}: every document is empty")
    if continued:
        loaded = load_tokenizer(partial / TOKENIZER)
    tokenizer = loaded or _make_tokenizer(request, feeds, rules, documents > 1, cache, report)
    if documents > 1 and tokenizer.eot_id is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT} token to put between documents: use one that has")
    if not continued:
        partial.mkdir(parents=True, exist_ok=True)
        tokenizer.save(partial / TOKENIZER)
        decided = [[[astuple(part) for part in feed.parts], feed.revision, feed.notes] for feed in feeds]
        write_text(partial / PLAN, json.dumps({"request": request.mapping, "feeds": decided}))
    return PreparationPlan(feeds, rules, tokenizer, tokenizer.eot_id if documents > 1 else None)


def _open(source: Source, request: Request, cache: Path, report: Report, pin: Pin | None) -> Feed:
    named = source.origin.field if isinstance(source.origin, HubDataset) else None
    field, separator = named or request.mapping["field"] or "text", request.mapping["separator"]
    return open_feed(source, request, lambda path: read_file(path, field, separator), cache, report, pin)


def planned_request(partial: Path) -> dict[str, Any] | None:
    """The request that an unfinished preparation in this folder is of; None where there is none."""
    path = partial / PLAN
    return json.loads(path.read_text("utf-8"))["request"] if path.is_file() else None


def _make_tokenizer(
    request: Request, feeds: tuple[Feed, ...], rules: tuple[Rule, ...], several: bool, cache: Path, report: Report
) -> Tokenizer:
    """The tokenizer asked for. Characters are collected from all of the text, so that validation text can be
    encoded too; merges are learned from training text alone, about 64 MB of it."""
    wanted = request.mapping["tokenizer"]
    if wanted["name"] == "gpt2":
        report(PreparationProgress("fetching the vocabulary", 0, None))
        return gpt2_tokenizer(fetch_gpt2_vocabulary(cache))
    if wanted["name"] == "char":
        report(PreparationProgress("collecting characters", 0, None))
        everything = batches(feeds, rules, request.limit, EncodingState())
        texts = (text for batch in everything for item in batch.items for _, text, _ in item.texts)
        return train_tokenizer("char", texts, special_tokens=(END_OF_TEXT,) if several else ())
    report(PreparationProgress("training the tokenizer", 0, None))
    sample = training_sample(feeds, rules, request.limit, SAMPLE_BYTES)
    return train_tokenizer(
        "bpe", sample, wanted["vocab_size"], pattern=wanted["pattern"], special_tokens=(END_OF_TEXT,)
    )

"""Everything about a preparation that is decided before its first token: the files and their versions, the rule of each
source, the tokenizer, and in how many tasks the text is encoded.

It is written down beside the unfinished work, with a checksum, so that a resumed preparation and each of several tasks
read the same files at the same commit, and encode them with the same tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.data.fetch.download import fetch_gpt2_vocabulary
from understudy.data.fetch.hub import HubDataset
from understudy.data.layout import PARTIAL
from understudy.data.progress import PreparationProgress, Report
from understudy.data.sources import Feed, Files, Part, Pin, RemoteFiles, Request, Source, open_feed
from understudy.data.store import Store
from understudy.data.text.documents import Note
from understudy.data.text.encoding import EncodingState, batches
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.readers.fields import template_fields
from understudy.data.text.reading import check_fields, check_libraries, kind_of_path, read_file
from understudy.data.text.shards import TOKENIZER
from understudy.data.text.splits import Rule, choose_rule, divide, training_sample
from understudy.files import sha256_of_text
from understudy.tokenizer import (
    END_OF_TEXT,
    SPLIT_PATTERNS,
    Tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    train_tokenizer,
)

PLAN = f"{PARTIAL}/plan.json"
PLANNED_TOKENIZER = f"{PARTIAL}/{TOKENIZER}"
SAMPLE_BYTES = 64 << 20


@dataclass(frozen=True)
class PlannedSource:
    """A source with its rule. The other fields are those of its feed.

    Attributes:
        documents_before: the documents before each part, where several tasks have a limit to keep.
    """

    name: str
    parts: tuple[Part, ...]
    revision: str | None
    notes: tuple[str, ...]
    left_out: dict[str, int]
    rule: Rule
    documents_before: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """Decisions of a preparation.

    Attributes:
        request: see Request.mapping.
        tasks: how many tasks encode a share each; 1 writes the final files itself.
        eot_id: the token written after every document; None for one document alone, which needs no end.
        understudy: the version that made it.
    """

    request: dict[str, Any]
    seed: int
    limit: int | None
    tasks: int
    sources: tuple[PlannedSource, ...]
    eot_id: int | None
    tokenizer_sha256: str
    understudy: str = field(default=__version__)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(source.rule for source in self.sources)

    @property
    def total(self) -> int:
        """The sizes of all parts together."""
        return sum(part.size for source in self.sources for part in source.parts)

    @property
    def documents_before(self) -> list[tuple[int, ...]] | None:
        before = [source.documents_before for source in self.sources if source.documents_before is not None]
        return before if len(before) == len(self.sources) else None

    def pins(self) -> list[Pin]:
        return [Pin(source.parts, source.revision, source.notes) for source in self.sources]

    def to_json(self) -> str:
        body = json.dumps(asdict(self))
        return json.dumps({"sha256": sha256_of_text(body), "plan": body}) + "\n"

    @property
    def sha256(self) -> str:
        return sha256_of_text(json.dumps(asdict(self)))

    def hash_of(self, path: Path) -> str | None:
        """The SHA-256 of a file that had this name and size when the plan was made."""
        known = {(part.name, part.size): part.sha256 for source in self.sources for part in source.parts}
        return known.get((str(path), path.stat().st_size))


def read_plan(store: Store) -> Plan | None:
    """The plan of an unfinished preparation; None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    content = store.read(PLAN)
    if content is None:
        return None
    try:
        written = json.loads(content)
        raw = json.loads(written["plan"])
        if sha256_of_text(written["plan"]) != written["sha256"]:
            raise ValueError("its checksum is another")
        return Plan(**raw | {"sources": tuple(_read_source(source) for source in raw["sources"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{store}/{PLAN} is damaged ({error}): begin anew with --force") from error


def _read_source(raw: dict[str, Any]) -> PlannedSource:
    rule, before = raw["rule"], raw["documents_before"]
    changed = {
        "parts": tuple(Part(**part) for part in raw["parts"]),
        "notes": tuple(raw["notes"]),
        "rule": Rule(**rule | {"lengths": tuple(tuple(part) for part in rule["lengths"])}),
        "documents_before": None if before is None else tuple(before),
    }
    return PlannedSource(**raw | changed)


def write_plan(store: Store, plan: Plan, tokenizer: Tokenizer) -> None:
    store.write(PLANNED_TOKENIZER, tokenizer.to_json().encode())
    store.write(PLAN, plan.to_json().encode())


def open_feeds(request: Request, cache: Path, report: Report, pins: Sequence[Pin] = ()) -> tuple[Feed, ...]:
    """The feeds of a request, as they were pinned where they were.

    Raises:
        ValueError: a source has changed since the plan was made.
    """
    return tuple(_open(source, request, cache, report, pin) for source, pin in zip_longest(request.sources, pins))


def _open(source: Source, request: Request, cache: Path, report: Report, pin: Pin | None) -> Feed:
    named = source.origin.field if isinstance(source.origin, HubDataset) else None
    wanted = request.mapping
    options = ReadOptions(
        named or wanted["field"] or "text", None if named else wanted["template"], wanted["separator"]
    )
    origin = source.origin
    keep_going = isinstance(origin, RemoteFiles) or (isinstance(origin, Files) and len(set(origin.paths)) > 1)
    return open_feed(source, request, lambda path: read_file(path, options, keep_going), cache, report, pin)


def check_reading(sources: Sequence[Source], field: str | None, separator: str | None, template: str | None) -> None:
    """Refuse settings that no source would use, and files whose library is missing."""
    paths = [path for source in sources if isinstance(source.origin, Files) for path in source.origin.paths]
    datasets = [source.origin for source in sources if isinstance(source.origin, HubDataset)]
    remote = any(
        isinstance(source.origin, RemoteFiles) for source in sources
    )  # of kinds that are seen when they are read
    of_paths = {path: kind_of_path(path) for path in paths}
    kinds = {kind for kind in of_paths.values() if kind is not None}
    archives = remote or any(kind.members for kind in kinds)
    for name, value in (("field", field), ("template", template)):
        used = archives or any(kind.records for kind in kinds) or any(data.field is None for data in datasets)
        if value is not None and not used:
            raise ValueError(
                f"{name}={value!r} would do nothing: no file of records or hf: source was given; leave it out"
            )
    if template is not None:
        if field is not None:
            raise ValueError("field and template are two ways to say where the text of a record is: give one of them")
        template_fields(template)
    if separator is not None and (not separator or not (archives or any(kind.divided for kind in kinds))):
        raise ValueError(f"separator={separator!r} would do nothing: no file of plain text was given; leave it out")
    check_libraries(of_paths)
    check_fields(of_paths, ReadOptions(field or "text", template))


def check_tokenizer(
    tokenizer: str, vocab_size: int | None, pattern: str | None
) -> tuple[Tokenizer | None, dict[str, Any]]:
    """The tokenizer at a path, where one is named; and the values that make two requests for it the same one."""
    if tokenizer != "bpe" and (vocab_size is not None or pattern is not None):
        setting = "vocab_size" if vocab_size is not None else "pattern"
        raise ValueError(
            f"{setting} is a setting of the tokenizer 'bpe' and does nothing for {tokenizer!r}: leave it out"
        )
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size must be a positive number of tokens, not {vocab_size}")
    if pattern is not None and pattern not in SPLIT_PATTERNS:
        raise ValueError(f"no pattern {pattern!r}: choose one of {', '.join(SPLIT_PATTERNS)}")
    if tokenizer == "bpe":
        return None, {"name": "bpe", "vocab_size": vocab_size, "pattern": pattern or "gpt2"}
    if tokenizer in ("char", "gpt2"):
        return None, {"name": tokenizer}
    path = Path(tokenizer).expanduser()
    if not path.exists():
        raise ValueError(f"no tokenizer {tokenizer!r}: give 'char', 'bpe', 'gpt2', or the path of a tokenizer.json")
    loaded = load_tokenizer(path)
    return loaded, {"sha256": loaded.sha256}


def make_plan(
    request: Request, feeds: Sequence[Feed], loaded: Tokenizer | None, tasks: int, cache: Path, report: Report
) -> tuple[Plan, Tokenizer]:
    """Decide everything; the same request gives the same plan. `loaded`: the tokenizer at a path, where the request names
    one.

    Raises:
        ValueError: there is no text, or the tokenizer cannot separate documents.
    """
    notes: list[Note] = []
    chosen = [choose_rule(feed, request.val_fraction, request.limit, report, notes) for feed in feeds]
    rules = tuple(rule for rule, _ in chosen)
    documents = sum(documents for _, documents in chosen)
    if not documents:
        if problem := next((note for note in notes if note.kind == "failed"), None):
            raise ValueError(problem.reason)
        names = ", ".join(feed.parts[0].name if len(feed.parts) == 1 else feed.name for feed in feeds)
        reasons = ", ".join(sorted({note.reason for note in notes if note.kind in ("dropped", "skipped")}))
        raise ValueError(f"there is no text in {names}: every document is empty" + (f" ({reasons})" if reasons else ""))
    tokenizer = loaded or _make_tokenizer(request, feeds, rules, documents > 1, cache, report)
    if documents > 1 and tokenizer.eot_id is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT} token to put between documents: use one that has")
    counted = tasks > 1 and request.limit is not None
    sources = tuple(
        PlannedSource(
            feed.name, feed.parts, feed.revision, tuple(feed.notes), feed.left_out, rule,
            _documents_before(feed, rule, request.limit) if counted else None,
        )
        for feed, rule in zip(feeds, rules)
    )  # fmt: skip
    eot_id = tokenizer.eot_id if documents > 1 else None
    return Plan(
        request.mapping, request.seed, request.limit, tasks, sources, eot_id, tokenizer.sha256
    ), tokenizer  # fmt: skip


def _documents_before(feed: Feed, rule: Rule, limit: int | None) -> tuple[int, ...]:
    """The documents before each part of a feed, as far as the limit lets them be read."""
    counts, documents = [], 0
    for i in range(len(feed.parts)):
        counts.append(documents)
        documents += sum(item.ends for item in divide(feed, rule, i, limit, documents))
    return tuple(counts)


def _make_tokenizer(
    request: Request, feeds: Sequence[Feed], rules: tuple[Rule, ...], several: bool, cache: Path, report: Report
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
        texts = (text.text for batch in everything for item in batch.items for text in item.texts)
        return train_tokenizer("char", texts, special_tokens=(END_OF_TEXT,) if several else ())
    report(PreparationProgress("training the tokenizer", 0, None))
    sample = training_sample(feeds, rules, request.limit, SAMPLE_BYTES)
    return train_tokenizer(
        "bpe", sample, wanted["vocab_size"], pattern=wanted["pattern"], special_tokens=(END_OF_TEXT,)
    )

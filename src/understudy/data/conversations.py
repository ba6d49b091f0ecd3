"""Conversations as a trainer reads them: one split of a prepared folder, or of a single file, record by record.

Here are also the two things that writer and reader must agree on: which conversations are for validation, and the
manifest of such a folder. Reading other people's formats is conversation_formats.py's work, writing a folder
prepare_conversations.py's, and rendering tokenizer/chat.py's.

A conversation is for validation when the BLAKE2b hash of its messages, read as a fraction of the largest hash, is
below the chosen fraction, as with documents (splits.py): copies fall on one side, whatever their neighbours.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.data.conversation_formats import parse_object, tidy_messages
from understudy.data.download import sha256_of
from understudy.data.shards import MANIFEST, PARTIAL, SPLITS
from understudy.data.splits import text_hash
from understudy.tokenizer.chat import Message

FORMAT = 1
KINDS = ("conversations", "preferences", "prompts")
VAL_FRACTION = 0.05


class Conversations:
    """The conversations of one split, read from the file each time; in memory are their places and weights.

    Attributes:
        path: the folder or file that was opened.
        split: "train" or "val".
        sha256: names the text: of the split's file, or of the single file.
        sources: the names of the sources, in the order in which their conversations come.
        weights: shape (N,), how many times an epoch shows each conversation.
    """

    def __init__(
        self,
        path: Path,
        file: Path,
        split: str,
        sha256: str,
        sources: Sequence[str],
        weights: np.ndarray,
        places: np.ndarray,
    ) -> None:
        assert len(weights) == len(places), f"{len(weights)} weights for {len(places)} conversations"
        self.path = path
        self.split = split
        self.sha256 = sha256
        self.sources = list(sources)
        self.weights = weights
        self._file = file
        self._places = places  # (N, 2): the offset of each line, and its number in the file

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with self._file.open("rb") as file:
            return self._read(file, *self._places[index].tolist())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._file.open("rb") as file:
            for offset, number in self._places.tolist():
                yield self._read(file, offset, number)

    def _read(self, file: Any, offset: int, number: int) -> dict[str, Any]:
        file.seek(offset)
        where = f"{self._file} line {number:,}"
        return checked_record(parse_object(file.readline(), where), where)


def open_conversations(path: Path, split: str) -> Conversations:
    """One split of a folder that `understudy prepare --kind conversations` made, or of one .jsonl file in the same
    schema, of which 1 in 20 conversations, and one at least, are for validation.

    Raises:
        ValueError: no such folder, file or split, or one that holds something else; a line of the file that cannot
            be trained on.
    """
    assert split in SPLITS, f"a split is one of {SPLITS}, not {split!r}"
    if path.is_dir():
        return _open_folder(path, split)
    if not path.is_file():
        raise ValueError(
            f"there are no conversations at {path}: make them with `understudy prepare SOURCE --kind conversations "
            f"--out {path}`"
        )
    if path.suffix.lower() != ".jsonl":
        raise ValueError(
            f"{path} is no .jsonl file: turn it into a folder with `understudy prepare {path} --kind conversations`"
        )
    return _open_file(path, split)


def _open_folder(folder: Path, split: str) -> Conversations:
    manifest = read_manifest(folder)
    if manifest is None:
        unfinished = (folder / PARTIAL).is_dir()
        raise ValueError(
            f"the preparation of {folder} is not finished: run the same prepare command again"
            if unfinished
            else f"{folder} holds no prepared conversations: make them with `understudy prepare SOURCE --kind conversations`"
        )
    if manifest["kind"] != "conversations":
        raise ValueError(
            f"{folder} holds {manifest['kind']}: prepare it with --kind conversations, or name another folder"
        )
    file, about = folder / f"{split}.jsonl", manifest["splits"][split]
    check_split(folder, split, about)
    places = np.array([(offset, number) for offset, number, _ in _lines(file)], dtype=np.int64).reshape(-1, 2)
    # The lines of a folder lie source by source, in the manifest's order.
    counts = [source[split] for source in manifest["sources"]]
    weights = np.repeat([float(source["weight"]) for source in manifest["sources"]], counts)
    if len(places) != len(weights):
        raise ValueError(
            f"{file} has {len(places):,} lines where its manifest says {len(weights):,}: prepare it again with --force"
        )
    names = [source["name"] for source in manifest["sources"]]
    return Conversations(folder, file, split, about["sha256"], names, weights, places)


def _open_file(path: Path, split: str) -> Conversations:
    places, hashes = array("q"), array("Q")
    for offset, number, line in _lines(path):
        where = f"{path} line {number:,}"
        if line.strip():
            record = checked_record(parse_object(line, where), where)
            places.extend((offset, number))
            hashes.append(conversation_hash(record["messages"]))
    held_out = validation_mask(np.array(hashes, dtype=np.uint64), VAL_FRACTION, str(path))
    chosen = np.array(places, dtype=np.int64).reshape(-1, 2)[held_out if split == "val" else ~held_out]
    return Conversations(path, path, split, sha256_of(path), [path.stem], np.ones(len(chosen)), chosen)


def _lines(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Every line of a file with its offset and its number."""
    offset = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            yield offset, number, line
            offset += len(line)


def checked_record(record: dict[str, Any], where: str) -> dict[str, Any]:
    """A record whose messages are as they may be rendered, with something in them to train on.

    Raises:
        ValueError: anything else, with the place.
    """
    if "messages" not in record:
        raise ValueError(
            f"{where} has no messages but the fields {', '.join(record) or 'none'}: `understudy prepare FILE --kind "
            "conversations` turns other formats into conversations"
        )
    try:
        messages, reason = tidy_messages(record["messages"])
    except ValueError as problem:
        raise ValueError(f"{where} is no conversation: {problem}") from problem
    if reason:
        raise ValueError(
            f"{where} cannot be trained on ({reason}): remove it, or have `understudy prepare FILE --kind conversations` "
            "leave such lines out and count them"
        )
    return {**record, "messages": messages}


def conversation_hash(messages: Sequence[Message]) -> int:
    """64 bits that stand for a conversation, whatever else its record holds."""
    return text_hash(json.dumps([[m["role"], m["content"]] for m in messages], ensure_ascii=False))


def validation_mask(hashes: np.ndarray, fraction: float, name: str) -> np.ndarray:
    """Which of the conversations with these hashes (N,) are for validation: about `fraction`, one on each side at least.

    Raises:
        ValueError: fewer than two different conversations.
    """
    different = np.unique(hashes)
    if len(different) < 2:
        raise ValueError(
            f"{name} has {len(different)} different conversations: 2 are needed, one of them for validation"
        )
    # So few that chance put them all on one side: the one with the smallest or largest hash goes to the other.
    bound = min(max(int(fraction * 2.0**64), int(different[0]) + 1), int(different[-1]))
    return hashes < np.uint64(bound)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What such a folder says of itself; None where there is no manifest.

    Raises:
        ValueError: the manifest is damaged, of a later format, or one of token files.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text("utf-8"))
        if "tokenizer_sha256" in manifest:
            raise ValueError(
                f"{folder} holds text as tokens, not conversations: name another folder, made with "
                "`understudy prepare SOURCE --kind conversations`"
            )
        if manifest["format"] != FORMAT:
            raise ValueError(f"{path} has format {manifest['format']}, this version reads {FORMAT}: prepare it again")
        if manifest["kind"] not in KINDS or not all(manifest["splits"][split]["sha256"] for split in SPLITS):
            raise TypeError(f"the kind is {manifest['kind']}")
        return manifest
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as problem:
        raise ValueError(f"{path} is damaged ({problem}): prepare it again with --force") from problem


def check_split(folder: Path, split: str, about: dict[str, Any]) -> None:
    """Whether a split's file is the one that the manifest speaks of.

    Raises:
        ValueError: it is missing, or was cut short or replaced.
    """
    file = folder / f"{split}.jsonl"
    if not file.is_file():
        raise ValueError(f"{folder} has no {split}.jsonl any more: prepare it again with --force")
    if (size := file.stat().st_size) != about["bytes"]:
        raise ValueError(
            f"{file} has {size:,} bytes where its manifest says {about['bytes']:,}: it was cut short or edited; "
            "prepare it again with --force"
        )

"""Results of a preparation of text, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.data.quality.cleaning import quality_notes
from understudy.data.text.encoding import OTHER_REASONS
from understudy.data.text.shards import Manifest
from understudy.tokenizer import END_OF_TEXT


@dataclass(frozen=True)
class TextSummary:
    """Result of `prepare`. `status`: "prepared", "continued" or "already prepared"; str() is for people."""

    folder: Path | str
    status: str
    manifest: Manifest
    seconds: float
    notes: tuple[str, ...]

    def __str__(self) -> str:
        m = self.manifest
        took = "" if self.status == "already prepared" else f" in {self.seconds:.1f} s"
        lines = [f"{self.folder}: {self.status}{took}"]
        for split, info in m.splits.items():
            lines.append(
                f"  {split:5s} {info.tokens:>14,} tokens {info.bytes:>15,} bytes {info.documents:>11,} documents"
            )
        lines.append(f"  tokenizer: {m.tokenizer_kind} of {m.vocab_size:,}, sha256 {m.tokenizer_sha256[:12]}…")
        return "\n".join(lines + [f"  {note}" for note in self.notes])


@dataclass(frozen=True)
class TaskSummary:
    """Result of one task. `status`: "done", "already done" or "already prepared" where the folder is finished.

    `done`: how many tasks are done. `cleaned`: whether they put text through filters, which leaves the rest to `prepare`.
    """

    folder: Path | str
    task: int
    tasks: int
    status: str
    done: int
    seconds: float
    cleaned: bool = False

    def __str__(self) -> str:
        if self.status == "already prepared":
            return f"{self.folder}: already prepared"
        line = f"{self.folder}: task {self.task} is {self.status} in {self.seconds:.1f} s; {self.done:,} of {self.tasks:,} are done"
        if self.done < self.tasks:
            return line
        if self.cleaned:
            return f"{line}; finish with the same command without --task"
        return f"{line}; merge them: understudy prepare --merge {self.folder}"


def summary_notes(manifest: Manifest) -> tuple[str, ...]:
    """Everything that was left out, and warnings about the text."""
    notes = [source["note"] for source in manifest.sources if source["note"]]
    for source in manifest.sources:
        notes += [f"files left out, {ending}: {n:,}" for ending, n in source["skipped"].items()]
        if source["validation"] == "own" and any(part["split"] for part in source["parts"] if part["sha256"]):
            splits = [part["split"] for part in source["parts"]]
            notes.append(f"files for training: {splits.count('train'):,}, for validation: {splits.count('val'):,}")
    notes += _counted(manifest.notes)
    notes += quality_notes(manifest)
    if manifest.empty_documents:
        notes.append(f"dropped empty documents: {manifest.empty_documents:,}")
    if manifest.end_of_text_spelled:
        notes.append(
            f"the text spells {END_OF_TEXT} {manifest.end_of_text_spelled:,} times, which is encoded as plain text; to end "
            f"documents of plain text there, prepare again with --separator '{END_OF_TEXT}' --force"
        )
    return tuple(notes)


NOTE_WORDS = {
    "failed": "could not be read",
    "dropped": "dropped",
    "skipped": "files in archives left out",
    "changed": "changed",
}


def _counted(notes: dict[str, dict[str, list[Any]]]) -> list[str]:
    """A line for each reason, with the number and the first place."""
    lines = []
    for kind, words in NOTE_WORDS.items():
        for reason, (number, where) in notes.get(kind, {}).items():
            if kind == "failed" and reason != OTHER_REASONS:
                lines.append(f"{words}: {reason}")
            else:
                lines.append(f"{words}: {reason}: {number:,} (first: {where})")
    return lines

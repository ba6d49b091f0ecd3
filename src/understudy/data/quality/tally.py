"""Counts of what a cleaning dropped and changed, with examples of each reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 10
EXAMPLE_CHARS = 400


def shortened(text: str) -> str:
    """The beginning of a text, for an example."""
    text = text.strip()
    return text if len(text) <= EXAMPLE_CHARS else text[:EXAMPLE_CHARS].rstrip() + " …"


@dataclass(frozen=True)
class DocumentExample:
    """A document that was dropped or changed.

    Attributes:
        where: the file and the number of the document in it, from 1.
        text: its beginning.
        detail: what was found in this document.
        other: of a copy, the beginning of the document that stays; of a changed text, what was removed.
        other_where: see `where`; empty for a changed text.
    """

    where: str
    text: str
    detail: str = ""
    other: str = ""
    other_where: str = ""


@dataclass
class Count:
    documents: int = 0
    bytes: int = 0
    examples: list[DocumentExample] = field(default_factory=list)


@dataclass
class Tally:
    """Counts by step and reason.

    Attributes:
        documents, bytes: read.
        validation_documents: read, and left as they are.
        dropped: `bytes` are those of the documents.
        changed: `bytes` are those that were removed.
    """

    documents: int = 0
    bytes: int = 0
    validation_documents: int = 0
    validation_bytes: int = 0
    kept_documents: int = 0
    kept_bytes: int = 0
    dropped: dict[str, Count] = field(default_factory=dict)
    changed: dict[str, Count] = field(default_factory=dict)

    def drop(self, reason: str, size: int, example: DocumentExample | None = None) -> None:
        _count(self.dropped, reason, size, example)

    def change(self, step: str, size: int, example: DocumentExample | None = None) -> None:
        _count(self.changed, step, size, example)

    def wants(self, where: dict[str, Count], reason: str) -> bool:
        """Whether another example is wanted."""
        return reason not in where or len(where[reason].examples) < EXAMPLES

    def add(self, other: Tally) -> None:
        """Add what was counted later."""
        for name in ("documents", "bytes", "validation_documents", "validation_bytes", "kept_documents", "kept_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for mine, theirs in ((self.dropped, other.dropped), (self.changed, other.changed)):
            for reason, count in theirs.items():
                total = mine.setdefault(reason, Count())
                total.documents += count.documents
                total.bytes += count.bytes
                total.examples = (total.examples + count.examples)[:EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Tally:
        def counts(rows: dict[str, Any]) -> dict[str, Count]:
            return {
                reason: Count(row["documents"], row["bytes"], [DocumentExample(**each) for each in row["examples"]])
                for reason, row in rows.items()
            }

        return cls(**raw | {"dropped": counts(raw["dropped"]), "changed": counts(raw["changed"])})


def _count(counts: dict[str, Count], reason: str, size: int, example: DocumentExample | None) -> None:
    count = counts.setdefault(reason, Count())
    count.documents += 1
    count.bytes += size
    if example is not None and len(count.examples) < EXAMPLES:
        count.examples.append(example)

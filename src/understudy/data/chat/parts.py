"""An opened source of chat data, and the parts that a data folder is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from understudy.data.chat.formats import ParsedRow
from understudy.data.generated import Split


@dataclass(frozen=True)
class ChatPart:
    """A file, or a split of a generated corpus. `rows` reads it from the beginning; `size` is the total of its offsets."""

    name: str
    split: Split | None
    sha256: str | None
    size: int
    rows: Callable[[], Iterator[ParsedRow]]


@dataclass(frozen=True)
class Opened:
    """A source that can be read.

    Attributes:
        notes: remarks for the user, complete when everything was read.
        left_out: the number of files passed over, by ending.
        about: further fields of the manifest.
        doing: the verb for a progress bar.
    """

    parts: tuple[ChatPart, ...]
    revision: str | None = None
    notes: Sequence[str] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    doing: str = "reading"


class Sampler(Protocol):
    """Preferences between answers sampled from a run (annotators.py), in place of a source's own."""

    @property
    def run(self) -> str: ...

    def identity(self, corpus: str) -> dict[str, Any]:
        """The values that make two requests the same one."""
        ...

    def run_name(self) -> str:
        """The run's name, for a folder."""
        ...

    def open(self, corpus_name: str, seed: int, limit: int | None) -> Opened: ...

"""One source of messages as it is opened, and the parts a data folder is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from understudy.data.chat.formats import ParsedRow

Split = Literal["train", "val"]


@dataclass(frozen=True)
class ChatPart:
    """A file, or what stands for one. `rows` reads it from the beginning. `size`: what progress is counted in."""

    name: str
    split: Split | None
    sha256: str | None
    size: int
    rows: Callable[[], Iterator[ParsedRow]]


@dataclass(frozen=True)
class Opened:
    """A source that can be read. `notes`: what the user should know of it, complete when all was read. `about`: more
    for the manifest. `doing`: what reading it is, for a progress bar."""

    parts: tuple[ChatPart, ...]
    revision: str | None = None
    notes: Sequence[str] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    doing: str = "reading"


class Sampler(Protocol):
    """Preferences that a run samples instead of reading them from files (annotators.py)."""

    @property
    def run(self) -> str: ...

    def identity(self) -> dict[str, Any]:
        """What makes two requests the same one."""
        ...

    def run_name(self) -> str:
        """The run's name, for a folder."""
        ...

    def open(self, seed: int, limit: int | None) -> Opened: ...

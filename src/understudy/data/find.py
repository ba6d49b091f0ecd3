"""Local files behind paths, folders and globs, and the number of files passed over. records.py reads them."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from understudy.data.inputs import CARDS, COMPRESSIONS, InputFile, file_ending
from understudy.data.records import READERS, advice

LIBRARY_FILES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""Files that the `datasets` library writes beside the data, which hold no records."""


CARD_HEAD = b"---"


@dataclass(frozen=True)
class FileKinds:
    """Endings that can be read. `folder`: those looked for in a folder or glob; `fallback`: those looked for where
    there are none of these, because files of these kinds often lie beside data of another kind."""

    folder: tuple[str, ...]
    fallback: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.folder + self.fallback

    def rank(self, path: Path) -> int | None:
        """0 for a file that is looked for in a folder, 1 for one that is if there are none of these; None for others."""
        ending = file_ending(path)[0]
        return 0 if ending in self.folder else 1 if ending in self.fallback else None

    def refusal(self, path: Path) -> str:
        """The reason why a file cannot be read, and a remedy."""
        return advice(path, self.all)

    def described(self) -> str:
        """The files that can be read, for a sentence."""
        return f"ending in {', '.join(self.all)} (nor these with {', '.join(COMPRESSIONS)})"


@dataclass(frozen=True)
class LocalFiles:
    """Files in the order in which they are read. `skipped`: the number of others, by ending."""

    files: tuple[Path, ...]
    skipped: dict[str, int] = field(default_factory=dict)


def find_files(arguments: Sequence[str], kinds: FileKinds) -> LocalFiles:
    """The readable files behind paths, folders (searched to the bottom) and globs.

    Order: the arguments as given, and within a folder or glob by path. A file met twice is read once. Hidden files
    and those of the `datasets` library are left out.

    Raises:
        ValueError: nothing at that path, a glob or folder without readable files, a named file that cannot be read.
    """
    files: dict[Path, Path] = {}
    skipped: Counter[str] = Counter()
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_file():
            if kinds.rank(path) is None:
                raise ValueError(f"cannot read {argument}: {kinds.refusal(path)}")
            readable = [path]
        else:
            readable, others = _inside(argument, path, kinds)
            skipped.update(others)
        for file in readable:
            files.setdefault(file.resolve(), file)
    return LocalFiles(tuple(files.values()), dict(sorted(skipped.items())))


def is_glob(argument: str) -> bool:
    return any(mark in argument for mark in "*?[")


def _inside(argument: str, path: Path, kinds: FileKinds) -> tuple[list[Path], Counter[str]]:
    """The readable files of a folder or glob, and the number of the others by ending."""
    if path.is_dir():
        files = [p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    elif is_glob(argument):
        files = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - takes absolute patterns
        if not files:
            raise ValueError(f"the glob {argument} matches nothing; check the path, and quote it for the shell")
    else:
        raise ValueError(f"no such file or folder: {argument}")
    files = sorted((p for p in files if p.is_file()), key=lambda p: p.as_posix())
    library = [p for p in files if p.name in LIBRARY_FILES]
    ranks = {p: kinds.rank(p) for p in files if p.name not in LIBRARY_FILES}
    cards = _cards([p for p, rank in ranks.items() if rank is not None])
    for wanted in (0, 1):
        if readable := [p for p, rank in ranks.items() if rank == wanted and p not in cards]:
            named = cards.union(readable)
            others = [p for p in (*library, *ranks) if p not in named]
            left_out = Counter("".join(file_ending(p)) for p in others)
            if cards:
                left_out["dataset cards"] = len(cards)
            return readable, left_out
    endings_there = Counter("".join(file_ending(p)) for p in files)
    listed = ", ".join(f"{n} {ending}" for ending, n in endings_there.most_common(5))
    raise ValueError(f"{argument} has no file {kinds.described()}" + (f"; it holds {listed}" if listed else ""))


def _cards(files: Sequence[Path]) -> set[Path]:
    """The cards of datasets: those that begin as the hub's do, and files about the data where all others are records."""
    cards = {p for p in files if p.name.lower() == "readme.md" and _is_hub_card(p)}
    about = {p for p in files if p.name.split(".")[0].lower() in CARDS}
    data = [p for p in files if p not in about]
    return cards | about if data and all(file_ending(p)[0] in READERS for p in data) else cards


def _is_hub_card(path: Path) -> bool:
    head = InputFile.at(path).head()
    return head.startswith(CARD_HEAD) and any(
        f"\n{key}:".encode() in head for key in ("dataset_info", "configs", "license", "task_categories", "pretty_name")
    )

"""Archives of text files: each member is read as a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from understudy.data.archives import Member
from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece, note_piece
from understudy.data.text.readers.base import ReadOptions


def read_archive(
    file: InputFile, options: ReadOptions, members: Callable[[InputFile], Iterator[Member]]
) -> Iterator[DocumentPiece]:
    """`members`: gives the files in an archive of this kind."""
    assert options.read_member is not None, "archives are read through reading.read_file"
    for member in members(file):
        if member.file is not None:
            yield from options.read_member(member.file)
        elif member.problem:
            yield note_piece(member.problem, member.reason, member.where, member.offset())

"""XML as a stream of elements. Entities are refused, so that no small file can grow or name other files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from understudy.data.inputs import BLOCK_BYTES

XML_BLOCK_BYTES = BLOCK_BYTES >> 4


class ElementHandler:
    """Told about elements in order; `out` is what it has made of them so far, and is emptied by the caller."""

    def __init__(self) -> None:
        self.out: list[Any] = []

    def start(self, name: str, attributes: dict[str, str]) -> None: ...
    def end(self, name: str) -> None: ...
    def text(self, data: str) -> None: ...


def parse_xml(source: Any, handler: ElementHandler, where: str) -> Iterator[list[Any]]:
    """Parse a stream of bytes, and give what the handler has made of each block.

    Raises:
        ValueError: it is not well-formed, or declares entities.
    """

    def refuse(name: str, *_: object) -> None:
        raise ValueError(
            f"{where} declares XML entities (&{name};), which can grow without end or name other files; it is not read"
        )

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.text
    parser.EntityDeclHandler = refuse
    try:
        while block := source.read(XML_BLOCK_BYTES):
            parser.Parse(block, False)
            made, handler.out = handler.out, []
            yield made
        parser.Parse(b"", True)
        yield handler.out
    except expat.ExpatError as error:
        raise ValueError(f"{where} is damaged XML ({error}); fetch or write it again") from error


def local_name(name: str) -> str:
    """The name of an element without its namespace's prefix."""
    return name.rpartition(":")[2]

"""Rows and tables of `tokenizer compare` and `tokenizer inspect`. commands/data.py parses, reads files and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TokenizerComparison:
    """Tokens of one text by one tokenizer; bytes are of the text in UTF-8."""

    name: str
    kind: str
    vocab_size: int
    n_bytes: int
    n_tokens: int
    bytes_per_token: float


@dataclass(frozen=True)
class TokenPiece:
    """One token of a text."""

    id: int
    bytes: bytes

    @property
    def shown(self) -> str:
        """In quotes, so that blanks show: 'text', or b'bytes' where they are not whole characters."""
        try:
            return repr(self.bytes.decode())
        except UnicodeDecodeError:
            return repr(self.bytes)


def compare(tokenizers: Mapping[str, Tokenizer], text: str) -> list[TokenizerComparison]:
    """One row for each tokenizer, in the order given.

    Raises ValueError for an empty text, and for a text that a tokenizer cannot encode, naming it.
    """
    if not text:
        raise ValueError("the text is empty: give some text to compare tokenizers on")
    n_bytes = len(text.encode("utf-8", errors="replace"))
    rows = []
    for name, tokenizer in tokenizers.items():
        try:
            n_tokens = len(tokenizer.encode_batch([text])[0])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        rows.append(
            TokenizerComparison(name, tokenizer.kind, tokenizer.vocab_size, n_bytes, n_tokens, n_bytes / n_tokens)
        )
    return rows


def inspect(tokenizer: Tokenizer, text: str) -> list[TokenPiece]:
    """The tokens of a text, in order."""
    return [TokenPiece(id, tokenizer.token_bytes(id)) for id in tokenizer.encode(text)]


def render_comparison(rows: Sequence[TokenizerComparison]) -> Table:
    """A table for people, the fewest tokens in bold."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{rows[0].n_bytes:,} bytes of text" if rows else None)
    table.add_column("tokenizer")
    table.add_column("kind")
    for name in ("vocabulary", "tokens", "bytes per token"):
        table.add_column(name, justify="right")
    fewest = min((row.n_tokens for row in rows), default=0)
    for row in rows:
        numbers = (f"{row.vocab_size:,}", f"{row.n_tokens:,}", f"{row.bytes_per_token:.3f}")
        table.add_row(Text(row.name), row.kind, *numbers, style="bold" if row.n_tokens == fewest else "")
    return table


def render_pieces(pieces: Sequence[TokenPiece], limit: int = 200) -> Table:
    """A table for people, of the first `limit` tokens."""
    from rich.table import Table
    from rich.text import Text

    shown = f", the first {limit} shown" if len(pieces) > limit else ""
    table = Table(title=f"{len(pieces):,} tokens{shown}")
    table.add_column("", justify="right", style="dim")
    table.add_column("id", justify="right")
    table.add_column("token")
    table.add_column("bytes", style="dim")
    for i, piece in enumerate(pieces[:limit]):
        table.add_row(str(i), str(piece.id), Text(piece.shown), piece.bytes.hex(" "))
    return table

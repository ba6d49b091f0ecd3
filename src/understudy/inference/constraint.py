"""Constrained decoding: at each step only the tokens with which the output can still match a grammar may be drawn.

The grammars are JSON schemas, or text in the Lark syntax of the library `llguidance` (the extra `structured`), which computes
the allowed tokens. Not here: drawing a token (sampling.py), grammars of tool calls (serve/openai/tools.py).

Shapes: V vocabulary of the tokenizer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import re
import weakref
from collections.abc import Collection, Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from understudy.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance
    import numpy.typing as npt

MOST_GRAMMAR_CHARACTERS = 100_000
MOST_DEPTH = 64
"""Levels of nesting of a schema: the library reads it by recursion."""
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The white space of `json.dumps`, and no other: an untrained model would write white space without end."""
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 1_000_000, "step_lexer_fuel": 200_000, "step_max_items": 50_000, "max_lexer_states": 20_000,
    "max_grammar_size": 200_000, "max_items_in_row": 2_000, "precompute_large_lexemes": False, "verbose_errors": False,
}  # fmt: skip
"""Limits of the library on one grammar. A state takes 1 to 2 kB, so that a grammar takes some tens of megabytes at most."""


class ConstraintFailed(ValueError):
    """No token continues the output, or a step exceeds a limit."""


class OutputConstraint:
    """A compiled grammar for the output of one tokenizer's model.

    Args:
        grammar: in Lark syntax; see :func:`json_constraint` for a schema.
        end_ids: tokens that end an output. They are allowed where the grammar may end.

    Raises:
        ValueError: the library is not installed, or the grammar is invalid, too large, or uses what the library lacks.
    """

    def __init__(self, tokenizer: Tokenizer, grammar: str, end_ids: Collection[int | None] = ()) -> None:
        check_installed()
        from llguidance import LLMatcher, LLParserLimits

        if len(grammar) > MOST_GRAMMAR_CHARACTERS:
            raise ValueError(f"it has {len(grammar):,} characters; {MOST_GRAMMAR_CHARACTERS:,} are accepted")
        self._matcher = LLMatcher(_engine(tokenizer), grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        if self._matcher.is_error():
            raise ValueError(f"it cannot be followed: {_one_line(self._matcher.get_error())}")
        self._end_ids = sorted({id for id in end_ids if id is not None})
        self._vocab_size = tokenizer.vocab_size
        state = self.start()
        if state.complete:
            raise ValueError("it cannot be followed: the tokenizer has no tokens for it, or nothing matches")

    def start(self) -> ConstraintState:
        """The state before the first token of an output."""
        return ConstraintState(self._matcher.deep_copy(), self._end_ids, self._vocab_size)


class ConstraintState:
    """One output's place in the grammar. Constructed by :meth:`OutputConstraint.start`."""

    def __init__(self, matcher: llguidance.LLMatcher, end_ids: list[int], vocab_size: int) -> None:
        self._matcher, self._end_ids, self._vocab_size = matcher, end_ids, vocab_size
        self._allowed: npt.NDArray[np.bool_] | None = None  # of the next token; None until it is needed

    @property
    def complete(self) -> bool:
        """Whether no token but one that ends the output can follow.

        Raises:
            ConstraintFailed: a step exceeds a limit.
        """
        allowed = self._next()
        return int(allowed.sum()) == int(allowed[self._end_ids].sum())

    def mask(self, logits: Tensor) -> Tensor:
        """``logits`` (1, V or more) with the tokens that cannot follow set to -inf.

        Raises:
            ConstraintFailed: no token can follow, or a step exceeds a limit.
        """
        allowed = self._next()
        if not allowed.any():
            raise ConstraintFailed("the grammar allows no token here")
        width = len(allowed)
        keep = torch.zeros(logits.shape[-1], dtype=torch.bool)
        keep[:width] = torch.from_numpy(allowed)
        return logits.masked_fill(~keep.to(logits.device), -math.inf)

    def advance(self, token: int) -> None:
        """Append a token that the mask allowed; one that ends the output changes nothing.

        Raises:
            ConstraintFailed: another token.
        """
        if token in self._end_ids:
            return
        self._allowed = None
        if not self._matcher.consume_token(token):
            raise ConstraintFailed(_one_line(self._matcher.get_error()))

    def _next(self) -> npt.NDArray[np.bool_]:
        """(V,) the allowed tokens."""
        if self._allowed is None:
            packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            if self._matcher.is_error():
                raise ConstraintFailed(_one_line(self._matcher.get_error()))
            bits = np.unpackbits(packed, bitorder="little").astype(bool)
            allowed = bits[: self._vocab_size].copy()
            allowed[self._end_ids] = bits[self._vocab_size]  # the end that the library knows stands for all of them
            self._allowed = allowed
        return self._allowed


def json_constraint(
    tokenizer: Tokenizer, schema: Mapping[str, Any] | bool, end_ids: Collection[int | None] = ()
) -> OutputConstraint:
    """A constraint to one JSON value that a schema accepts, laid out as `json.dumps` does.

    Raises:
        ValueError: as for :class:`OutputConstraint`.
    """
    check_installed()
    from llguidance import LLMatcher

    with naming("the schema"):
        text = schema_text(schema)
        return OutputConstraint(tokenizer, LLMatcher.grammar_from_json_schema(text), end_ids)


@contextlib.contextmanager
def naming(noun: str) -> Iterator[None]:
    """Begin the sentence of an error in a grammar with what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(re.sub("^it ", f"{noun} ", str(error))) from None


def schema_text(schema: Mapping[str, Any] | bool) -> str:
    """A JSON schema as text, for a grammar.

    Raises:
        ValueError: no object, or one that is too large or too deeply nested.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, Mapping):
        raise ValueError("it is not a JSON object")
    level: list[Any] = [schema]
    for _ in range(MOST_DEPTH):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, Mapping) else value)
            if isinstance(item, Mapping | list)
        ]
    if level:
        raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
    text = json.dumps({**schema, "x-guidance": LAYOUT})
    if len(text) > MOST_GRAMMAR_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; {MOST_GRAMMAR_CHARACTERS:,} are accepted")
    return text


def check_installed() -> None:
    """Refuse a constraint without the library.

    Raises:
        ValueError: the library is not installed.
    """
    if importlib.util.find_spec("llguidance") is None:
        raise ValueError(
            "constrained output needs the library llguidance; install it with `pip install 'understudy[structured]'`"
        )


_engines: weakref.WeakKeyDictionary[Tokenizer, llguidance.LLTokenizer] = weakref.WeakKeyDictionary()
"""The library's form of each tokenizer in use: a second for a large vocabulary."""
_building = Lock()


def _engine(tokenizer: Tokenizer) -> llguidance.LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    with _building:
        if tokenizer not in _engines:
            _engines[tokenizer] = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)))
        return _engines[tokenizer]


class _Vocabulary:
    """A tokenizer as the library reads it: the bytes of each token, and one more token that ends an output."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = weakref.ref(tokenizer)  # else the table of engines would keep it for ever
        self.eos_token_id, self.bos_token_id = tokenizer.vocab_size, None
        self.tokens = [*(tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)), b"<end of output>"]
        self.special_token_ids = [*tokenizer.special_tokens.values(), self.eos_token_id]
        self._ids = {token: id for id, token in enumerate(self.tokens[:-1]) if id not in self.special_token_ids}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        """The tokens of a text that the grammar leaves no choice about."""
        data = text.encode() if isinstance(text, str) else text
        tokenizer = self._tokenizer()
        try:
            ids = [] if tokenizer is None else tokenizer.encode(data.decode())
        except ValueError:  # a part of a character, or one that a vocabulary of characters lacks
            ids = []
        if ids and self.tokens[ids[0]] == b" " and not data.startswith(b" "):  # SentencePiece begins every text so
            ids = ids[1:]
        return ids if b"".join(self.tokens[id] for id in ids) == data else self._greedy(data)

    def _greedy(self, data: bytes) -> list[int]:
        ids, place = [], 0
        while place < len(data):
            sizes = range(min(self._longest, len(data) - place), 0, -1)
            size = next((size for size in sizes if data[place : place + size] in self._ids), 0)
            if size:
                ids.append(self._ids[data[place : place + size]])
            place += size or 1
        return ids


def _one_line(error: str) -> str:
    return " ".join(error.split())[:300] or "the library gives no reason"

"""Base class of all tokenizers: text to ids and back, one JSON file, one hash.

`char.py` and `bpe.py` have the vocabularies, `chat.py` the chat format. The ids of special tokens are put
between texts by the code that builds sequences; no text encodes to them.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from understudy.files import check_output_path, write_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.uint32]

END_OF_TEXT = "<|endoftext|>"
FILE_FORMAT = "understudy-tokenizer"

# Texts are cut into parts of about this many characters, so that one long text keeps several cores busy
# and nothing of the size of the whole text is held twice.
PART_CHARACTERS = 1 << 20
# Below this, starting threads costs more than it saves.
INLINE_CHARACTERS = 1 << 16


class Tokenizer(ABC):
    """Ids 0 to vocab_size - 1, special tokens included; the same text gives the same ids on every path.

    Lone surrogates, which no UTF-8 file can hold, count as U+FFFD wherever a text comes in; a pair of
    them counts as the character it stands for.
    """

    kind: ClassVar[str]
    # Matches up to a place where a text may be cut without changing its ids: the cut is after the match.
    safe_cut: ClassVar[re.Pattern[str]]

    prefix_ids: tuple[int, ...] = ()
    """Ids that begin every text and every document; a conversation begins as its template says."""
    end_tokens: tuple[int, ...] = ()
    """Ids that end what a model writes, by its own settings."""
    begins_with_space: bool = False
    """Whether the first token of a text has a space before it that is not in the text, as with SentencePiece."""
    chat_template: str | None = None
    """A Jinja template of its own, by which conversations are rendered; None for ours, see chat.py."""

    def __init__(self, token_bytes: Sequence[bytes], special_tokens: Mapping[str, int]) -> None:
        """`token_bytes`: of every id, special tokens included; b"" for an id that no text has."""
        self._token_bytes = list(token_bytes)
        self.special_tokens: dict[str, int] = dict(special_tokens)

    # Defined by each kind of tokenizer.

    @abstractmethod
    def _encode_part(self, text: str) -> Ids:
        """The ids of one part of a text, as uint32 (T,)."""

    @abstractmethod
    def to_document(self) -> dict[str, Any]:
        """The vocabulary as plain JSON values."""

    @abstractmethod
    def _with_special_table(self, special_tokens: dict[str, int]) -> Self:
        """The same vocabulary with this table of special tokens."""

    # Shared by all kinds.

    @property
    def vocab_size(self) -> int:
        return len(self._token_bytes)

    @property
    def eot_id(self) -> int | None:
        """The id of `<|endoftext|>`, or None."""
        return self.special_tokens.get(END_OF_TEXT)

    def with_special_tokens(self, names: Iterable[str]) -> Self:
        """This tokenizer with more special tokens at the end; a name it already has keeps its id."""
        table = dict(self.special_tokens)
        for name in names:
            table.setdefault(name, self.vocab_size + len(table) - len(self.special_tokens))
        return self._with_special_table(table)

    def encode(self, text: str) -> list[int]:
        """The ids of a text. The name of a special token in the text is plain text.

        >>> from understudy.tokenizer import train_tokenizer
        >>> train_tokenizer("char", ["banana"]).encode("ban")
        [1, 0, 2]
        """
        return self.encode_batch([text])[0].tolist()

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text as a document begins: after `prefix_ids`."""
        return [*self.prefix_ids, *self.encode(text)]

    def encode_batch(self, texts: Sequence[str], threads: int | None = None) -> list[Ids]:
        """One uint32 array (T,) for each text; the arrays may be read-only.

        Works on `threads` cores (all that this process may use when None); a long text is shared among
        them too.
        """
        import numpy as np

        parts = [self.split(text) for text in texts]
        arrays = iter(self._encode_parts([part for text in parts for part in text], threads))
        joined = ([next(arrays) for _ in text] for text in parts)
        return [ids[0] if len(ids) == 1 else np.concatenate(ids) for ids in joined]

    def split(self, text: str, part_size: int = PART_CHARACTERS) -> list[str]:
        """Cut a text into parts of at least `part_size` characters (the last may be shorter).

        The ids of the parts, put together, are the ids of the text. A text that offers no safe place
        comes back whole.
        """
        return split_at(self.safe_cut, text, part_size)

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """The text of a sequence of ids; bytes that are not UTF-8 become U+FFFD, special tokens their name.

        Raises ValueError for an id outside the vocabulary.
        """
        import numpy as np

        array = np.asarray(ids)
        if array.size == 0:
            return ""
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError("decode needs a flat sequence of whole numbers; give one text's ids at a time")
        for id in (int(array.min()), int(array.max())):
            self._check_id(id)
        table = self._token_bytes
        return b"".join([table[id] for id in array.tolist()]).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, which need not be whole UTF-8; of a special token, its name's."""
        self._check_id(id)
        return self._token_bytes[id]

    def count_bytes(self, tokens: np.ndarray) -> int:
        """UTF-8 bytes of the text of ``tokens``; those between documents count nothing."""
        counts = Counter(tokens.tolist())
        return sum(count * len(self._token_bytes[id]) for id, count in counts.items() if id != self.eot_id)

    def to_json(self) -> str:
        """The one spelling of this tokenizer: sorted keys, one list item to a line."""
        return self._spelling

    @cached_property
    def _spelling(self) -> str:
        document = self.to_document() | {"format": FILE_FORMAT, "version": 1, "kind": self.kind}
        return json.dumps(document, ensure_ascii=False, sort_keys=True, indent=1) + "\n"

    @cached_property
    def sha256(self) -> str:
        """The hash of the file that `save` writes."""
        import hashlib

        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Write one JSON file, by convention named tokenizer.json; the folder must exist.

        The file appears whole or not at all.

        Raises:
            ValueError: the path is a symbolic link, a folder or a device.
        """
        check_output_path(Path(path))
        write_text(Path(path), self.to_json())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, sha256={self.sha256[:12]})"

    def _check_id(self, id: int) -> None:
        if not 0 <= id < self.vocab_size:
            raise ValueError(
                f"id {id} is outside the vocabulary of {self.vocab_size} tokens "
                f"(0 to {self.vocab_size - 1}): these ids were made by another tokenizer"
            )

    def _encode_parts(self, parts: list[str], threads: int | None) -> list[Ids]:
        if threads is None:
            threads = _available_cores()
        if threads == 1 or len(parts) < 2 or sum(map(len, parts)) < INLINE_CHARACTERS:
            return [self._encode_part(part) for part in parts]
        from concurrent.futures import ThreadPoolExecutor

        # A few groups for each thread: short texts share a task, and no thread is idle for long.
        size = -(-len(parts) // (threads * 4))
        groups = [parts[start : start + size] for start in range(0, len(parts), size)]
        with ThreadPoolExecutor(threads) as pool:
            encoded = pool.map(lambda group: [self._encode_part(part) for part in group], groups)
            return [ids for group in encoded for ids in group]


class StreamDecoder:
    """Ids to text as they come, never showing half a character.

    >>> from understudy.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer("bpe", ["aaaa aaaa"], vocab_size=258)
    >>> decoder = StreamDecoder(tokenizer)
    >>> [decoder.push([id]) for id in tokenizer.encode("é!")] + [decoder.finish()]
    ['', 'é', '!', '']
    """

    def __init__(self, tokenizer: Tokenizer, begins: bool = False) -> None:
        """`begins`: a text begins here, so that a space with which this vocabulary begins every text is left out."""
        self._tokenizer, self._space = tokenizer, begins and tokenizer.begins_with_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int]) -> str:
        """The text that these ids complete; bytes of an unfinished character wait for the next ids."""
        text = self._utf8.decode(b"".join([self._tokenizer.token_bytes(int(id)) for id in ids]))
        if self._space and text:
            text, self._space = text.removeprefix(" "), False
        return text

    def finish(self) -> str:
        """The rest of the text: U+FFFD for a character that never ended, else nothing."""
        return self._utf8.decode(b"", final=True)


def numbered(
    ordinary: Sequence[bytes], special_tokens: Mapping[str, int], ids: Sequence[int] | None = None
) -> list[bytes]:
    """The bytes of each id. `ids` are those of the ordinary tokens, 0, 1, 2, ... when None.

    Raises ValueError unless ordinary and special tokens together use each id from 0 to the last one
    once, and for a special token without a name, or with the name of an ordinary token.
    """
    ordinary_tokens = set(ordinary)
    table = dict(zip(range(len(ordinary)) if ids is None else ids, ordinary))
    for name, id in special_tokens.items():
        if not name or clean(name) != name:
            raise ValueError(f"the special token {name!r} is not a name: give it at least one character")
        if name.encode() in ordinary_tokens:
            raise ValueError(f"the special token {name!r} is an ordinary token too: choose another name")
        table[id] = name.encode()
    size = len(ordinary) + len(special_tokens)
    missing = next((id for id in range(size) if id not in table), None)
    if missing is not None:
        raise ValueError(
            f"a vocabulary of {size} tokens must use each id from 0 to {size - 1} once, "
            f"and this one has no id {missing}"
        )
    return [table[id] for id in range(size)]


def token_texts(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """The text that each token adds; a character of several tokens belongs to the last one."""
    decoder = StreamDecoder(tokenizer)
    texts = [decoder.push([token]) for token in tokens]
    return [*texts[:-1], texts[-1] + decoder.finish()] if texts else []


def split_at(safe_cut: re.Pattern[str], text: str, size: int) -> list[str]:
    """Cut a text after matches of `safe_cut`, into parts of at least `size` characters but for the last."""
    cuts = [0]
    while len(text) - cuts[-1] > size:
        match = safe_cut.search(text, cuts[-1] + size - 1)
        if match is None or match.end() >= len(text):
            break
        cuts.append(match.end())
    if len(cuts) == 1:
        return [text]
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]


def clean(text: str) -> str:
    """The text as Unicode allows it: paired surrogates joined, lone ones replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

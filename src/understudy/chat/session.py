"""A conversation with a model, and all that can be done in it: saying something, trying again, settings, files.

The conversation is kept whole, and each time read as far as it fits the model's context. Free for the answer stay 64
tokens or a quarter of the context, whichever is more, but never over half of it, nor over the tokens asked for; where
the conversation is short, an answer may take all that is left. So an answer never pushes out what it answers.

Not here: the terminal and its commands (chat/terminal.py), how a conversation becomes tokens and which turns leave
first (tokenizer/chat.py), sampling (inference/).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from understudy.files import write_text
from understudy.inference.completion import CompletionText
from understudy.inference.generate import Model, continue_rows
from understudy.inference.sampling import SamplingSettings
from understudy.tokenizer import Tokenizer
from understudy.tokenizer.base import clean
from understudy.tokenizer.chat import Message, check_messages, end_ids, fit, render

SETTINGS: dict[str, type[int] | type[float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "seed": int,
    "tokens": int,
}
"""What can be set while talking: the fields of SamplingSettings, and how long an answer may be."""


@dataclass
class Chat:
    """A conversation with a model. After each answer ``ended`` and ``left`` say how it went.

    >>> chat = Chat(run.model, run.tokenizer, SamplingSettings(temperature=0.7))  # doctest: +SKIP
    >>> for piece in chat.say("Who found the purse?"):  # doctest: +SKIP
    ...     print(piece, end="", flush=True)
    Sam found the purse.
    """

    model: Model
    tokenizer: Tokenizer
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    max_new_tokens: int = 300
    messages: list[Message] = field(default_factory=list)
    """All of the conversation, also what no longer fits the context."""
    ended: Literal["end", "length", "stopped"] = "end"
    """How the last answer ended: by itself, at the limit of its length, or because nobody read on."""
    left: int = 0
    """How many of the oldest messages the last answer was given without."""
    answers: int = 0
    """How many were drawn in this conversation. With a seed each draws by its own number, so that the same lines give
    the same answers, and an answer given again is another one."""
    file: Path | None = None
    """Where the conversation was last saved to or loaded from; no other file is written over."""

    @property
    def system(self) -> str:
        """The system message; empty where there is none."""
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else ""

    @property
    def context(self) -> int:
        """Tokens that the model reads."""
        return self.model.config.context_length

    @property
    def reserved(self) -> int:
        """Tokens of the context that the conversation leaves free for the answer."""
        return reserved_tokens(self.context, self.max_new_tokens)

    def say(self, text: str) -> Generator[str, None, None]:
        """Answer a message, piece by piece.

        What is wrong is found at once; the rest happens as the pieces are taken. Closing the generator stops the
        answer: what was said so far stays in the conversation. A message without any answer does not.

        Raises:
            ValueError: no text, a message that does not fit the context, or one before it that waits for an answer.
        """
        if not clean(text).strip():
            raise ValueError("the message is empty; write something to answer")
        if self.messages and self.messages[-1]["role"] == "user":
            raise ValueError("the last message has no answer yet; have that given first (in a chat: /regenerate)")
        return self._answer([*self.messages, {"role": "user", "content": text}])

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the last message again, or for the first time; the answer it had stays until a word of another.

        Raises:
            ValueError: there is no message to answer.
        """
        asked = self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages
        if not asked or asked[-1]["role"] != "user":
            raise ValueError("there is nothing to answer yet; say something first")
        return self._answer(asked)

    def _answer(self, asked: list[Message]) -> Generator[str, None, None]:
        asked = check_messages(asked)
        fitted = fit(self.tokenizer, asked, self.context - self.reserved)
        prompt, self.left = fitted.tokens, fitted.left_out
        settings = self.settings
        if settings.seed is not None:
            settings = replace(settings, seed=settings.seed + self.answers)
        self.answers += 1
        self.ended = "stopped"  # until it ends otherwise
        return self._stream(asked, prompt, min(self.max_new_tokens, self.context - len(prompt)), settings)

    def _stream(
        self, asked: list[Message], prompt: list[int], limit: int, settings: SamplingSettings
    ) -> Generator[str, None, None]:
        text = CompletionText(self.tokenizer, (), end_ids(self.tokenizer))
        finished: set[int] = set()
        steps = continue_rows(self.model, [prompt], limit, settings, finished, vocab_size=self.tokenizer.vocab_size)
        try:
            for row, token, logprob in steps:
                piece = text.push(token, logprob)
                if text.stopped:
                    finished.add(row)
                if piece:
                    yield piece
            if rest := text.finish():
                yield rest
            self.ended = "end" if text.stopped else "length"
        finally:  # also when the reader leaves, or is interrupted
            if answer := text.released.strip():
                self.messages = [*asked, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Begin again, with the same system message."""
        self.messages = self.messages[:1] if self.system else []
        self.answers, self.left = 0, 0

    def set_system(self, text: str) -> None:
        """Have another system message from the next answer on, or none where the text is empty.

        Raises:
            ValueError: it leaves no room for a conversation; the one before stays.
        """
        system = check_messages([{"role": "system", "content": text}])
        turns = self.messages[1:] if self.system else self.messages
        if not system[0]["content"]:
            self.messages = turns
            return
        needed, free = len(render(self.tokenizer, system).tokens), self.context - self.reserved
        if needed >= free:
            raise ValueError(f"the system message takes {needed:,} tokens, and {free:,} are free; give a shorter one")
        self.messages = [*system, *turns]

    def set(self, name: str, value: str) -> None:
        """Change one of SETTINGS; ``none`` turns off those that can be left out.

        Raises:
            ValueError: no such setting, or a value out of its range.
        """
        key, off = name.replace("-", "_"), value.lower() in ("none", "off")
        if key not in SETTINGS:
            raise ValueError(
                f"there is no setting {name!r}{nearest(key, SETTINGS)}; settings are {', '.join(SETTINGS)}"
            )
        number: float | None = None
        if not off or key == "tokens" or getattr(SamplingSettings(), key) is not None:
            try:
                number = SETTINGS[key](value)
            except ValueError:
                wanted = "a whole number" if SETTINGS[key] is int else "a number"
                raise ValueError(f"{key} is {value!r}; give {wanted}") from None
        if key != "tokens":
            self.settings = replace(self.settings, **{key: number})  # type: ignore[arg-type]  # checked by itself
            self.answers = 0 if key == "seed" else self.answers
            return
        if number is None or number < 1:
            raise ValueError(f"tokens is {number}; give 1 or more")
        self.max_new_tokens = int(number)

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON, whole or not at all.

        Raises:
            ValueError: there is none yet, or the file cannot be written, or it holds something else.
        """
        if not self.messages:
            raise ValueError("there is no conversation to save yet; say something first")
        try:
            if path.exists() and (self.file is None or not path.samefile(self.file)):
                raise ValueError(f"{path} is there already, and is not from this chat; choose another name")
            write_text(path, json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror}); choose another place") from None
        self.file = path

    def load(self, path: Path) -> None:
        """Go on with the conversation in a file; the present one stays when there is anything wrong with it.

        Raises:
            ValueError: the file cannot be read, or is not one conversation.
        """
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
            documents = [json.loads(line) for line in lines[:1]]
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); choose another file") from None
        except (ValueError, RecursionError):
            raise ValueError(
                f'{path} is not a line of JSON such as {{"messages": [...]}}; choose another file'
            ) from None
        if len(lines) != 1:
            raise ValueError(f"{path} holds {len(lines):,} conversations; a chat goes on with a file of one")
        try:
            messages = check_messages(documents[0].get("messages") if isinstance(documents[0], dict) else None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.reset()
        self.messages, self.file = messages, path


def reserved_tokens(context_length: int, max_new_tokens: int) -> int:
    """Tokens of a context that a conversation leaves free for an answer of up to ``max_new_tokens``."""
    return min(max_new_tokens, max(64, context_length // 4), context_length // 2)


def nearest(word: str, words: Iterable[str]) -> str:
    """`` (did you mean ...?)`` with the likeliest of the words, where one is near."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""

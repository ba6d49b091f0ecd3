"""A conversation with a model: messages, regenerated answers, settings, files.

The conversation is stored whole; each prompt holds the latest turns that fit the model's context. At least 64 tokens or a
quarter of the context, whichever is more, stay free for the answer, but at most half of the context and at most
``max_new_tokens``. After a short conversation an answer may use the rest of the context.

Not here: the terminal and its commands (chat/terminal.py), how a conversation becomes tokens and which turns leave
first (tokenizer/chat.py), sampling (inference/).
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from understudy.config.load import nearest
from understudy.files import write_text
from understudy.inference.generate import Model, continue_texts
from understudy.inference.requests import CompletionText
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
"""Settings that a chat can change: the fields of SamplingSettings, and the length of an answer."""


@dataclass
class Chat:
    """A conversation with a model. ``ended`` and ``left`` describe the last answer.

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
    """The whole conversation, including messages that no longer fit the context."""
    ended: Literal["end", "length", "stopped"] = "end"
    """End of the last answer: an end token, the limit of its length, or an interrupt."""
    left: int = 0
    """Number of the oldest messages that did not fit the context of the last answer."""
    answers: int = 0
    """Number of answers sampled. It is added to the seed, so that the same input gives the same conversation and a
    regenerated answer differs."""
    file: Path | None = None
    """File that the conversation was last saved to or loaded from; no other existing file is overwritten."""

    @property
    def system(self) -> str:
        """The system message; empty if there is none."""
        return self.messages[0]["content"] if self.messages and self.messages[0]["role"] == "system" else ""

    @property
    def context(self) -> int:
        """Context length of the model."""
        return self.model.shape.context_length

    @property
    def reserved(self) -> int:
        """Tokens of the context reserved for the answer."""
        return reserved_tokens(self.context, self.max_new_tokens)

    def say(self, text: str) -> Generator[str, None, None]:
        """Answer a message; yields the answer in pieces.

        Invalid input raises at once; sampling happens as the pieces are consumed. Closing the generator stops the answer:
        its text so far stays in the conversation. A message without any answer does not.

        Raises:
            ValueError: no text, a message that does not fit the context, or an earlier one that waits for an answer.
        """
        if not clean(text).strip():
            raise ValueError("the message is empty; write something to answer")
        if self.messages and self.messages[-1]["role"] == "user":
            raise ValueError("the last message has no answer yet; answer it first (in a chat: /regenerate)")
        return self._answer([*self.messages, {"role": "user", "content": text}])

    def regenerate(self) -> Generator[str, None, None]:
        """Answer the last message again, or for the first time; the old answer stays until the new one has text.

        Raises:
            ValueError: there is no message to answer.
        """
        answered = bool(self.messages) and self.messages[-1]["role"] == "assistant"
        messages = self.messages[:-1] if answered else self.messages
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("there is nothing to answer yet; say something first")
        return self._answer(messages)

    def _answer(self, messages: list[Message]) -> Generator[str, None, None]:
        messages = check_messages(messages, strip=self.tokenizer.chat_template is None)
        fitted = fit(self.tokenizer, messages, self.context - self.reserved)
        prompt, self.left = fitted.tokens, fitted.left_out
        settings = self.settings
        if settings.seed is not None:
            settings = replace(settings, seed=settings.seed + self.answers)
        self.answers += 1
        self.ended = "stopped"  # until it ends otherwise
        return self._stream(messages, prompt, min(self.max_new_tokens, self.context - len(prompt)), settings)

    def _stream(
        self, messages: list[Message], prompt: list[int], limit: int, settings: SamplingSettings
    ) -> Generator[str, None, None]:
        text = CompletionText(self.tokenizer, (), end_ids(self.tokenizer), answer=True)
        try:
            yield from continue_texts(self.model, self.tokenizer, [prompt], [text], limit, settings)
            self.ended = "end" if text.stopped else "length"
        finally:  # also if the generator is closed early
            if answer := text.released.strip():
                self.messages = [*messages, {"role": "assistant", "content": answer}]

    def reset(self) -> None:
        """Start a new conversation with the same system message."""
        self.messages = self.messages[:1] if self.system else []
        self.answers, self.left = 0, 0

    def set_system(self, text: str) -> None:
        """Replace the system message; an empty text removes it.

        Raises:
            ValueError: it leaves no room for a conversation. The old one stays.
        """
        system = check_messages([{"role": "system", "content": text}])
        turns = self.messages[1:] if self.system else self.messages
        if not system[0]["content"]:
            self.messages = turns
            return
        if self.tokenizer.chat_template is not None:  # which need not take a system message alone
            needed = len(render(self.tokenizer, [*system, {"role": "user", "content": ""}], reply=True).tokens)
        else:
            needed = len(render(self.tokenizer, system).tokens)
        if needed >= (free := self.context - self.reserved):
            raise ValueError(f"the system message takes {needed:,} tokens, and {free:,} are free; give a shorter one")
        self.messages = [*system, *turns]

    def set(self, name: str, value: str) -> None:
        """Change one of SETTINGS; ``none`` turns off the optional ones.

        Raises:
            ValueError: no such setting, or a value out of its range.
        """
        key = name.replace("-", "_")
        if key not in SETTINGS:
            raise ValueError(f"there is no setting {name!r}{nearest(key, SETTINGS)}; choose of {', '.join(SETTINGS)}")
        off = value.lower() in ("none", "off") and getattr(SamplingSettings(), key, 0) is None
        try:
            number = None if off else SETTINGS[key](value)
        except ValueError:
            wanted = "a whole number" if SETTINGS[key] is int else "a number"
            raise ValueError(f"{key} is {value!r}; give {wanted}") from None
        if key != "tokens":
            self.settings = replace(self.settings, **{key: number})  # type: ignore[arg-type]  # checked by itself
            self.answers = 0 if key == "seed" else self.answers
        elif number is None or number < 1:
            raise ValueError(f"tokens is {number}; give 1 or more")
        else:
            self.max_new_tokens = int(number)

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON, atomically.

        Raises:
            ValueError: an empty conversation, a file that cannot be written or that is not from this chat.
        """
        if not self.messages:
            raise ValueError("there is no conversation to save yet; say something first")
        try:
            if path.exists() and (self.file is None or not path.samefile(self.file)):
                raise ValueError(f"{path} exists and is not from this chat; choose another name")
            write_text(path, json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror}); choose another place") from None
        self.file = path

    def load(self, path: Path) -> None:
        """Continue the conversation in a file. On an error the present one stays.

        Raises:
            ValueError: a file that cannot be read, or does not hold one conversation.
        """
        try:
            lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
            documents = [json.loads(line) for line in lines[:1]]
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}); choose another file") from None
        except (ValueError, RecursionError):
            raise ValueError(f'{path} is no line of JSON such as {{"messages": [...]}}; choose another file') from None
        if len(lines) != 1:
            raise ValueError(f"{path} holds {len(lines):,} conversations; a chat continues a file with one")
        try:
            messages = check_messages(documents[0].get("messages") if isinstance(documents[0], dict) else None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.reset()
        self.messages, self.file = messages, path


def reserved_tokens(context_length: int, max_new_tokens: int) -> int:
    """Tokens of a context reserved for an answer of up to ``max_new_tokens``."""
    return min(max_new_tokens, max(64, context_length // 4), context_length // 2)

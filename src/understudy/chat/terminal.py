"""The chat in a terminal or a pipe: lines in, answers out, commands that begin with /.

:class:`Shell` interprets lines and writes to the functions it is given. Line editing, the history of the session (never
written to disk) and colour are `prompt_toolkit`'s, which is loaded for a terminal only. Not here: the conversation
(chat/session.py).
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

from understudy.chat.session import SETTINGS, Chat
from understudy.config.load import nearest
from understudy.console import printable


class Shell:
    """The interpreter of lines. Answers go to ``write``, all other text to ``note``, a line at a time."""

    def __init__(self, chat: Chat, write: Callable[[str], None], note: Callable[[str], None]) -> None:
        self.chat, self.write, self.note = chat, write, note
        self.left = 0  # messages outside the context when it was last reported

    def take(self, text: str) -> bool:
        """Execute a line; returns false for /quit.

        Raises:
            ValueError: an invalid line. The conversation is unchanged.
        """
        if text.startswith("//"):
            self.answer(self.chat.say(text[1:]))
        elif text.startswith("/"):
            name, argument = [*text.split(maxsplit=1), ""][:2]
            if name == "/quit":
                return False
            if name not in COMMANDS:
                raise ValueError(
                    f"there is no command {name[:40]}{nearest(name, COMMANDS)}; /help lists them, "
                    "and a text that begins with / is sent with // before it"
                )
            COMMANDS[name][2](self, argument.strip())
        elif text.strip():
            self.answer(self.chat.say(text))
        return True

    def answer(self, pieces: Generator[str, None, None]) -> None:
        """Write an answer as it is sampled, and note how it ended."""
        chat, before = self.chat, self.chat.messages
        if chat.left > self.left:
            self.note(f"({chat.left} of the oldest messages no longer fit the context)")
        self.left = chat.left
        try:
            with contextlib.closing(pieces):
                for piece in pieces:
                    self.write(piece)
        finally:  # also after an interrupt
            self.write("\n")
            effect = "its text is kept" if chat.messages is not before else "the conversation is unchanged"
            if chat.ended == "stopped":
                self.note(f"(stopped; {effect})")
            elif chat.ended == "length":
                self.note(f"(cut at the length limit; {effect})")
            elif chat.messages is before:
                self.note(f"(the answer is empty; {effect})")

    def help(self, argument: str) -> None:
        self.note("\n".join(f"{usage:<18}{description}" for usage, description, _ in COMMANDS.values()))

    def reset(self, argument: str) -> None:
        self.chat.reset()
        self.note("a new conversation" + (", with the same system message" if self.chat.system else ""))

    def system(self, argument: str) -> None:
        self.chat.set_system(argument)
        self.note("the system message is set" if self.chat.system else "there is no system message now")

    def save(self, argument: str) -> None:
        path = file_named(argument) if argument else self.chat.file
        if path is None:
            raise ValueError("give a file: /save FILE")
        self.chat.save(path)
        self.note(f"saved to {path}")

    def load(self, argument: str) -> None:
        if not argument:
            raise ValueError("give a file: /load FILE")
        self.chat.load(file_named(argument))
        self.note(f"messages loaded: {len(self.chat.messages)}; the last: {self.chat.messages[-1]['content'][:200]}")

    def regenerate(self, argument: str) -> None:
        self.answer(self.chat.regenerate())

    def set(self, argument: str) -> None:
        words = argument.split()
        if len(words) != 2:
            raise ValueError(f"give a name and a value: /set NAME VALUE, with NAME one of {', '.join(SETTINGS)}")
        self.chat.set(*words)
        self.note(self._settings())

    def show(self, argument: str) -> None:
        chat = self.chat
        self.note(self._settings())
        self.note(
            f"messages: {len(chat.messages)}; the model reads {chat.context} tokens, "
            f"of which at least {chat.reserved} are reserved for the answer"
        )
        self.note(f"system message: {chat.system}" if chat.system else "no system message")

    def quit(self, argument: str) -> None:
        """Listed for /help; :meth:`take` ends the chat."""

    def _settings(self) -> str:
        values = {name: getattr(self.chat.settings, name, self.chat.max_new_tokens) for name in SETTINGS}
        return ", ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


COMMANDS: dict[str, tuple[str, str, Callable[[Shell, str], None]]] = {
    "/help": ("/help", "this list", Shell.help),
    "/regenerate": ("/regenerate", "answer the last message again", Shell.regenerate),
    "/reset": ("/reset", "start a new conversation with the same system message", Shell.reset),
    "/system": ("/system [TEXT]", "set the system message, or have none", Shell.system),
    "/set": ("/set NAME VALUE", f"change {', '.join(SETTINGS)}", Shell.set),
    "/show": ("/show", "settings, system message, free context", Shell.show),
    "/save": ("/save FILE", "write the conversation, one line of JSON", Shell.save),
    "/load": ("/load FILE", "continue a saved conversation", Shell.load),
    "/quit": ("/quit", "end, as Ctrl-D does", Shell.quit),
}


def joined_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Messages with the number of their first line; a line that ends with \\ continues in the next."""
    waiting, first = "", 1
    for number, line in enumerate(lines, 1):
        waiting += line.removesuffix("\n")
        if waiting.endswith("\\"):
            waiting = waiting[:-1] + "\n"
            continue
        yield first, waiting
        waiting, first = "", number + 1
    if waiting:
        yield first, waiting


def talk_through_pipe(chat: Chat, lines: Iterable[str], out: TextIO, notes: TextIO) -> None:
    """Execute each line as a message or a command; only answers are written to ``out``.

    Raises:
        ValueError: an invalid line, with its number. Later lines are not executed.
    """
    say = writer(notes)
    shell = Shell(chat, writer(out), lambda text: say(text + "\n"))
    for number, text in joined_lines(lines):
        try:
            if not shell.take(text):
                return
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error


def talk_in_terminal(chat: Chat, about: str) -> None:
    """Chat until Ctrl-D. Ctrl-C stops an answer or discards the typed line; it does not end the chat."""
    from prompt_toolkit import PromptSession, print_formatted_text
    from prompt_toolkit.formatted_text import FormattedText
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    def note(text: str) -> None:  # in grey, unless the terminal has no colours or NO_COLOR is set
        print_formatted_text(FormattedText([("ansibrightblack", printable(text))]))

    session: PromptSession[str] = PromptSession(multiline=True, key_bindings=keys, prompt_continuation="  ")
    shell = Shell(chat, writer(tolerant(sys.stdout)), note)
    note(about)
    with interruptible() as allow:
        while True:
            try:
                text = session.prompt("> ", handle_sigint=False)  # there Ctrl-C is a key like others
            except EOFError:
                return
            except KeyboardInterrupt:
                note("(Ctrl-D or /quit ends the chat; Ctrl-C stops an answer)")
                continue
            try:
                allow(True)
                if not shell.take(text):
                    return
            except KeyboardInterrupt:
                pass  # the shell has noted how the answer ended
            except ValueError as error:
                note(str(error))
            finally:
                allow(False)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[bool], None]]:
    """Yields a function that allows Ctrl-C to interrupt, once.

    A second Ctrl-C would otherwise interrupt the cleanup after the first, or the setup of the prompt.
    """
    allowed = False

    def allow(now: bool) -> None:
        nonlocal allowed
        allowed = now

    def interrupt(number: int, frame: FrameType | None) -> None:
        if allowed:
            allow(False)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield allow
    finally:
        signal.signal(signal.SIGINT, before)


def file_named(text: str) -> Path:
    """A path with ~ expanded."""
    with contextlib.suppress(RuntimeError):  # no such user: a name like any other
        return Path(text).expanduser()
    return Path(text)


def writer(stream: TextIO) -> Callable[[str], None]:
    """A function that writes to the stream and flushes it; control characters are replaced on a terminal."""

    def write(piece: str) -> None:
        stream.write(printable(piece) if stream.isatty() else piece)
        stream.flush()

    return write


def tolerant(stream: TextIO, encoding: str = "utf-8") -> TextIO:
    """The stream in this encoding (a terminal's in its own); invalid characters are replaced."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=None if stream.isatty() else encoding, errors="replace")
    return stream

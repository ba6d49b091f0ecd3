"""The chat in a terminal or through a pipe: lines in, answers out, commands that begin with /.

:class:`Shell` knows what a line means and writes to what it is given. The terminal is thin: line editing, the history
of this session (none is kept on disk) and colour are `prompt_toolkit`'s, loaded when there is a terminal. Not here: the
conversation itself (chat/session.py).
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

from understudy.chat.session import SETTINGS, Chat, nearest

WHITE = frozenset("\n\t")
UNSHOWN = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in WHITE}
"""Control characters, with which an answer could move the cursor, clear the screen or rename the window."""


class Shell:
    """What a line typed into a chat does. Answers go to ``write``, all else to ``note``, a line at a time."""

    def __init__(self, chat: Chat, write: Callable[[str], None], note: Callable[[str], None]) -> None:
        self.chat, self.write, self.note = chat, write, note
        self.left = 0  # how many messages were last said to be out of the context

    def take(self, text: str) -> bool:
        """Do what a line says; false when it says to end.

        Raises:
            ValueError: it says nothing that can be done; the conversation is as it was.
        """
        if text.startswith("//"):
            self.answer(self.chat.say(text[1:]))
        elif text.startswith("/"):
            name, rest = [*text.split(maxsplit=1), ""][:2]
            if name == "/quit":
                return False
            if name not in COMMANDS:
                raise ValueError(
                    f"there is no command {name[:40]}{nearest(name, COMMANDS)}; /help lists them, "
                    "and a text that begins with / is sent with // before it"
                )
            COMMANDS[name][2](self, rest.strip())
        elif text.strip():
            self.answer(self.chat.say(text))
        return True

    def answer(self, pieces: Generator[str, None, None]) -> None:
        """Write an answer as it comes, and say what there is to know about it."""
        chat, before = self.chat, self.chat.messages
        if chat.left > self.left:
            self.note(f"({chat.left} of the oldest messages no longer fit the context and are not read)")
        self.left = chat.left
        try:
            with contextlib.closing(pieces):
                for piece in pieces:
                    self.write(piece)
        finally:  # also when it is interrupted
            self.write("\n")
            kept = "what was said is kept" if chat.messages is not before else "the conversation is as before"
            if chat.ended == "stopped":
                self.note(f"(stopped; {kept})")
            elif chat.ended == "length":
                self.note(f"(cut at the limit of its length; {kept})")
            elif chat.messages is before:
                self.note(f"(it said nothing; {kept})")

    def help(self, rest: str) -> None:
        self.note("\n".join(f"{usage:<18}{what}" for usage, what, _ in COMMANDS.values()))

    def reset(self, rest: str) -> None:
        self.chat.reset()
        self.note("a new conversation" + (", with the same system message" if self.chat.system else ""))

    def system(self, rest: str) -> None:
        self.chat.set_system(rest)
        self.note("the system message is set" if self.chat.system else "there is no system message now")

    def save(self, rest: str) -> None:
        path = file_named(rest) if rest else self.chat.file
        if path is None:
            raise ValueError("say where to save to: /save FILE")
        self.chat.save(path)
        self.note(f"saved to {path}")

    def load(self, rest: str) -> None:
        if not rest:
            raise ValueError("say what to load: /load FILE")
        self.chat.load(file_named(rest))
        self.note(f"messages loaded: {len(self.chat.messages)}; the last: {self.chat.messages[-1]['content'][:200]}")

    def regenerate(self, rest: str) -> None:
        self.answer(self.chat.regenerate())

    def set(self, rest: str) -> None:
        words = rest.split()
        if len(words) != 2:
            raise ValueError(f"say what to set to what: /set NAME VALUE, NAME being one of {', '.join(SETTINGS)}")
        self.chat.set(*words)
        self.note(self._settings())

    def show(self, rest: str) -> None:
        chat = self.chat
        self.note(self._settings())
        self.note(
            f"messages: {len(chat.messages)}; the model reads {chat.context} tokens, "
            f"of which at least {chat.reserved} are kept for the answer"
        )
        self.note(f"system message: {chat.system}" if chat.system else "no system message")

    def quit(self, rest: str) -> None:
        """In the table for /help; :meth:`take` ends the chat."""

    def _settings(self) -> str:
        values = {name: getattr(self.chat.settings, name, self.chat.max_new_tokens) for name in SETTINGS}
        return ", ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


COMMANDS: dict[str, tuple[str, str, Callable[[Shell, str], None]]] = {
    "/help": ("/help", "this list", Shell.help),
    "/regenerate": ("/regenerate", "answer the last message again", Shell.regenerate),
    "/reset": ("/reset", "begin a new conversation with the same system message", Shell.reset),
    "/system": ("/system [TEXT]", "set the system message, or have none", Shell.system),
    "/set": ("/set NAME VALUE", f"change {', '.join(SETTINGS)}", Shell.set),
    "/show": ("/show", "settings, system message, room in the context", Shell.show),
    "/save": ("/save FILE", "write the conversation, one line of JSON", Shell.save),
    "/load": ("/load FILE", "go on with a conversation that was saved", Shell.load),
    "/quit": ("/quit", "end, as Ctrl-D does", Shell.quit),
}


def joined_lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Messages and the number of the line each begins in: a line that ends with \\ goes on in the next."""
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
    """Take each line as a turn or a command, and write the answers and nothing else to ``out``.

    Raises:
        ValueError: a line that cannot be done, with its number; those after it are not read.
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
    """Talk until Ctrl-D. Ctrl-C stops an answer, or throws away the line being typed, and never the chat."""
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

    def note(text: str) -> None:  # in grey, where the terminal has colours and NO_COLOR does not forbid them
        print_formatted_text(FormattedText([("ansibrightblack", text.translate(UNSHOWN))]))

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
                pass  # the shell has said how far the answer came
            except ValueError as error:
                note(str(error))
            finally:
                allow(False)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[bool], None]]:
    """Gives a function that says whether Ctrl-C interrupts now, which it then does once.

    A second Ctrl-C would otherwise reach what cleans up after the first, or the prompt while it is being set up.
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
    """The path a person means, ~ being their home."""
    with contextlib.suppress(RuntimeError):  # ~somebody without a home is a name like any other
        return Path(text).expanduser()
    return Path(text)


def writer(stream: TextIO) -> Callable[[str], None]:
    """Writes to the stream and does not wait; to a terminal no control characters."""
    table = UNSHOWN if stream.isatty() else {}

    def write(piece: str) -> None:
        stream.write(piece.translate(table))
        stream.flush()

    return write


def tolerant(stream: TextIO, encoding: str = "utf-8") -> TextIO:
    """The stream in this encoding, or its own for a terminal; what cannot be encoded or decoded is replaced."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=None if stream.isatty() else encoding, errors="replace")
    return stream

"""Runs for Ollama: a GGUF file (gguf.py) and a Modelfile with the chat template in Go's template language.

    ollama create NAME -f Modelfile

Our own format is written as it is; white space at the ends of a message, which it strips, Ollama keeps. Of a template of
another project the texts between the messages are found by rendering (go_template).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.interop.gguf import write_gguf
from understudy.interop.proof import ReferenceOutputs
from understudy.tokenizer import END_OF_TEXT, Tokenizer
from understudy.tokenizer.chat import END, START, Message, end_ids, render, speaks_chat

if TYPE_CHECKING:
    from understudy.run import Run

CHAT = f"{{{{- range .Messages }}}}{START}{{{{ .Role }}}}\n{{{{ .Content }}}}{END}\n{{{{ end }}}}{START}assistant\n"
"""Go template of a conversation and the beginning of the reply, in our own format."""
TEXT = "{{ .Prompt }}"
"""Go template of a base model, which continues the prompt."""


def write_ollama(run: Run, reference: ReferenceOutputs, folder: Path, type: str) -> list[str]:
    """Write both files into a folder; returns a line for each check."""
    checks = write_gguf(run, reference, folder / "model.gguf", type)
    (folder / "Modelfile").write_text(modelfile(run), encoding="utf-8")
    if speaks_chat(run.tokenizer) and _template(run.tokenizer) is None:
        checks.append("the chat template has no counterpart in Go: Ollama chooses one by that in the file")
    return checks


def modelfile(run: Run) -> str:
    """The Modelfile of a run, for `ollama create`."""
    tokenizer = run.tokenizer
    template = _template(tokenizer) if speaks_chat(tokenizer) else TEXT
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    ends = [names[id] for id in end_ids(tokenizer) if id in names and not set(names[id]) & {'"', "\n"}]
    stops = sorted(ends, key=lambda name: (name != END, name == END_OF_TEXT, name))
    lines = ["FROM ./model.gguf", *([] if template is None else [f'TEMPLATE """{template}"""'])]
    lines.append(f"PARAMETER num_ctx {run.config.model.context_length}")
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"


def _template(tokenizer: Tokenizer) -> str | None:
    return CHAT if tokenizer.chat_template is None else go_template(tokenizer)


def go_template(tokenizer: Tokenizer) -> str | None:
    """The chat template of a tokenizer in Go, for conversations that end with the user's message.

    A template that writes fixed texts around the messages is found by rendering a conversation and cutting it at its
    contents. None for others: one that writes something else for a second conversation, or nothing for a system message.
    """
    system, question, answer = "Systemic.", "Question?", "Answer."
    whole: list[Message] = [
        {"role": "system", "content": system}, {"role": "user", "content": question},
        {"role": "assistant", "content": answer}, {"role": "user", "content": "Another?"},
    ]  # fmt: skip
    try:
        pieces = _cut(_text(tokenizer, whole), [message["content"] for message in whole])
        first = _cut(_text(tokenizer, whole[1:2]), [question])
    except ValueError:
        return None
    if pieces is None or first is None or first[1] != pieces[4]:
        return None
    begin, after_system, before_answer, after_answer, reply = pieces
    longer: list[Message] = [*whole, {"role": "assistant", "content": "More."}, {"role": "user", "content": "Last?"}]
    expected = begin + system + after_system + question + before_answer + answer + after_answer + "Another?"
    expected += before_answer + "More." + after_answer + "Last?" + reply
    if expected != _text(tokenizer, longer) or any("{{" in piece or '"""' in piece for piece in [*pieces, *first]):
        return None
    for id in tokenizer.prefix_ids:  # llama.cpp adds them
        name = tokenizer.token_bytes(id).decode()
        begin, first[0] = begin.removeprefix(name), first[0].removeprefix(name)
    return (
        f'{{{{- if ne (index .Messages 0).Role "system" }}}}{first[0]}{{{{ end }}}}'
        f'{{{{- range .Messages }}}}{{{{ if eq .Role "system" }}}}{begin}{{{{ .Content }}}}{after_system}'
        f'{{{{ else if eq .Role "user" }}}}{{{{ .Content }}}}'
        f"{{{{ else }}}}{before_answer}{{{{ .Content }}}}{after_answer}{{{{ end }}}}{{{{ end }}}}{reply}"
    )


def _text(tokenizer: Tokenizer, messages: list[Message]) -> str:
    return tokenizer.decode(render(tokenizer, messages, reply=True).tokens)


def _cut(text: str, contents: list[str]) -> list[str] | None:
    """The texts around the contents; None if one is not there once, in order."""
    pieces = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found or content in text:
            return None
        pieces.append(before)
    return [*pieces, text]

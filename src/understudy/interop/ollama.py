"""Runs for Ollama: a GGUF file (gguf.py) and a Modelfile with our chat template.

    ollama create NAME -f Modelfile

Ollama's templates cannot strip white space from the ends of a message, as our template does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.interop.gguf import write_gguf
from understudy.interop.proof import ReferenceOutputs
from understudy.tokenizer import END_OF_TEXT
from understudy.tokenizer.chat import END, START, speaks_chat

if TYPE_CHECKING:
    from understudy.run import Run

CHAT = f"{{{{- range .Messages }}}}{START}{{{{ .Role }}}}\n{{{{ .Content }}}}{END}\n{{{{ end }}}}{START}assistant\n"
"""Go template of a conversation and the beginning of the reply."""
TEXT = "{{ .Prompt }}"
"""Go template of a base model, which continues the prompt."""


def write_ollama(run: Run, reference: ReferenceOutputs, folder: Path, type: str) -> list[str]:
    """Write both files into a folder; returns a line for each check."""
    checks = write_gguf(run, reference, folder / "model.gguf", type)
    (folder / "Modelfile").write_text(modelfile(run), encoding="utf-8")
    return checks


def modelfile(run: Run) -> str:
    """The Modelfile of a run, for `ollama create`."""
    template = CHAT if speaks_chat(run.tokenizer) else TEXT
    stops = [name for name in (END, END_OF_TEXT) if name in run.tokenizer.special_tokens]
    lines = ["FROM ./model.gguf", f'TEMPLATE """{template}"""', f"PARAMETER num_ctx {run.config.model.context_length}"]
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"

"""Runs for Ollama: the GGUF file, and a Modelfile whose template writes conversations as ours are written.

    ollama create NAME -f Modelfile

Ollama's templates cannot take white space off the ends of a message, as ours does: a message that has some there is
read with it. Not here: the GGUF file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.interop.gguf import write_gguf
from understudy.interop.proof import Proof
from understudy.tokenizer import END_OF_TEXT
from understudy.tokenizer.chat import END, START, speaks_chat

if TYPE_CHECKING:
    from understudy.run import Run

CHAT = f"{{{{- range .Messages }}}}{START}{{{{ .Role }}}}\n{{{{ .Content }}}}{END}\n{{{{ end }}}}{START}assistant\n"
"""Go's template of a conversation that a reply is to follow."""
TEXT = "{{ .Prompt }}"
"""Of a base model, which goes on with what it is given."""


def write_ollama(run: Run, proof: Proof, folder: Path, type: str) -> list[str]:
    """Write the two files into a folder; returns what was found when the GGUF file was read again."""
    found = write_gguf(run, proof, folder / "model.gguf", type)
    (folder / "Modelfile").write_text(modelfile(run), encoding="utf-8")
    return found


def modelfile(run: Run) -> str:
    """What `ollama create` reads."""
    template = CHAT if speaks_chat(run.tokenizer) else TEXT
    stops = [name for name in (END, END_OF_TEXT) if name in run.tokenizer.special_tokens]
    lines = ["FROM ./model.gguf", f'TEMPLATE """{template}"""', f"PARAMETER num_ctx {run.config.model.context_length}"]
    return "\n".join([*lines, *(f'PARAMETER stop "{stop}"' for stop in stops)]) + "\n"

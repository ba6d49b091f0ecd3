"""The model card of an export: its size, its lineage and its use. Folders of this machine are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.stages import IMPORTED, STAGES
from understudy.interop.shapes import gives_scores
from understudy.run import RunFolder, lineage
from understudy.tokenizer.chat import speaks_chat

if TYPE_CHECKING:
    from understudy.run import Run

CODE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # the folder of this file, or the repository it was pushed to
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```
"""


def model_card(run: Run, library: str) -> str:
    """The model card in Markdown, with the hub's fields at the top."""
    config, scores = run.config.model, gives_scores(run)
    task = "text-classification" if scores else "text-generation"
    kind = "A reward model" if scores else "An assistant" if speaks_chat(run.tokenizer) else "A base model"
    parameters = sum(p.numel() for p in run.model.parameters())
    own = {"step": run.step, "sha256": run.state.get("weights_sha256")}
    lines = [
        "---", f"library_name: {library}", f"pipeline_tag: {task}", "tags:", "- understudy", "---", "",
        f"# {run.path.name}", "",
        f"{kind} trained with Understudy: {parameters:,} parameters, "
        f"{config.n_layers} layers of width {config.d_model}, a context of {config.context_length:,} tokens, a "
        f"vocabulary of {run.tokenizer.vocab_size:,}.", "",
        "## Lineage", "", "| run | stage | data | step | weights |", "|---|---|---|---|---|",
        *reversed([_row(folder, record or own) for folder, record in lineage(RunFolder(run.path))]), "",
    ]  # fmt: skip
    if library == "transformers" and not scores:
        lines += ["## Use", "", CODE]
    return "\n".join(lines)


def _row(folder: RunFolder, checkpoint: Mapping[str, Any]) -> str:
    record = folder.record() if (folder.path / "run.json").exists() else {}
    data = record.get("data") or {}
    source = Path(str(data.get("path", ""))).name or str(record.get("imported_from", ""))
    if data.get("sha256"):
        source += f" ({str(data['sha256'])[:12]})"
    stage = record.get("stage")
    title = "imported" if stage == IMPORTED else STAGES[stage].title if stage in STAGES else "missing"
    return f"| {folder.name} | {title} | {source} | {checkpoint.get('step')} | {str(checkpoint.get('sha256'))[:12]} |"

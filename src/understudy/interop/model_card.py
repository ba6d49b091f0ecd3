"""The model card of an export: its size, its lineage and its use. Folders of this machine are left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.config.stages import IMPORTED, STAGES
from understudy.interop.shapes import gives_scores
from understudy.run import RunFolder
from understudy.tokenizer.chat import speaks_chat

if TYPE_CHECKING:
    from understudy.run import Run

CODE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```
"""


def model_card(run: Run, library: str) -> str:
    """The model card in Markdown, with the hub's fields at the top."""
    config, scores = run.config.model, gives_scores(run)
    task = "text-classification" if scores else "text-generation"
    kind = "A reward model" if scores else "An assistant" if speaks_chat(run.tokenizer) else "A base model"
    parameters = sum(p.numel() for p in run.model.parameters())
    lines = [
        "---", f"library_name: {library}", f"pipeline_tag: {task}", "tags:", "- understudy", "---", "",
        f"# {run.path.name}", "",
        f"{kind} trained with Understudy: {parameters:,} parameters, "
        f"{config.n_layers} layers of width {config.d_model}, a context of {config.context_length:,} tokens, a "
        f"vocabulary of {run.tokenizer.vocab_size:,}.", "",
        "## Lineage", "", "| run | stage | data | step | weights |", "|---|---|---|---|---|",
        *(_row(link) for link in lineage(run)), "",
    ]  # fmt: skip
    if library == "transformers" and not scores:
        lines += ["## Use", "", CODE.format(folder=run.path.name)]
    return "\n".join(lines)


def lineage(run: Run) -> list[dict[str, Any]]:
    """The run and the runs it started from, the oldest first, as far as they exist."""
    step: Any = run.step
    folder, sha256 = RunFolder(run.path), run.state.get("weights_sha256")
    links: list[dict[str, Any]] = []
    seen: set[Path] = set()
    while folder.path.resolve() not in seen:
        seen.add(folder.path.resolve())
        record = folder.record() if (folder.path / "run.json").exists() else {}
        links.insert(0, {"run": folder.name, "step": step, "sha256": sha256, "record": record})
        parent = record.get("parent")
        if not isinstance(parent, Mapping):
            break
        folder, step, sha256 = RunFolder(Path(str(parent.get("run")))), parent.get("step"), parent.get("sha256")
    return links


def _row(link: Mapping[str, Any]) -> str:
    record = link["record"]
    data = record.get("data") or {}
    source = Path(str(data.get("path", ""))).name or str(record.get("imported_from", ""))
    if data.get("sha256"):
        source += f" ({str(data['sha256'])[:12]})"
    stage = record.get("stage")
    title = "imported" if stage == IMPORTED else STAGES[stage].title if stage in STAGES else "missing"
    return f"| {link['run']} | {title} | {source} | {link['step']} | {str(link['sha256'])[:12]} |"

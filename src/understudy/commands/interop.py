"""Commands for models of other projects: import, export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from understudy.commands import Arguments, shared_arguments, show_result
from understudy.console import final_table

EXPORTS = Path("exports")


def import_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "model", metavar="MODEL",
        help="a name such as smollm2, gpt2 or qwen3-0.6b (see docs/how-to/models.md), or another repository on the hub as "
        "owner/name; a folder with config.json and model.safetensors or pytorch_model.bin; a .gguf file; or nanoGPT's "
        "ckpt.pt",
    )  # fmt: skip
    add("--run", metavar="NAME", help="folder under runs/ (default: the name of the model)")
    add("--context", type=int, metavar="TOKENS", help="cut the context to this length (default: the model's)")
    add("--dropout", type=float, metavar="X", help="dropout of later training (default: the model's)")
    add("--tokenizer", type=Path, metavar="PATH", help="the tokenizer of a model that comes without one")
    shared_arguments(parser, "--json")


def import_model(arguments: Arguments) -> None:
    """Import a model, and print its shape."""
    from understudy.interop import imports
    from understudy.tokenizer import load_tokenizer
    from understudy.tokenizer.chat import speaks_chat

    folder = imports.import_model(
        arguments.model, arguments.run, arguments.context, arguments.dropout, arguments.tokenizer,
        lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    model, record = folder.config().model, folder.record()
    tokenizer = load_tokenizer(folder.path)
    document = {"run": str(folder.path), "model": model.model_dump(mode="json", exclude_none=True)} | record
    show_result(arguments, document, lambda: final_table({
        "run": str(folder.path),
        "family": f"{model.family}, {model.n_layers} layers of width {model.d_model}",
        "parameters": f"{record['parameters']:,}",
        "context": f"{model.context_length:,} tokens",
        "vocabulary": f"{model.vocab_size:,} tokens",
        "next": f"understudy {'chat' if speaks_chat(tokenizer) else 'sample'} {folder.as_argument()}",
    }))  # fmt: skip


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:,.1f} kB"


def export_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared_arguments(parser, "run")
    add("--format", required=True, choices=("hf", "gguf", "ollama", "nanogpt"), help="format to write")
    add("--out", type=Path, metavar="FOLDER", help="a new folder to write to (default: exports/RUN-FORMAT)")
    add(
        "--type",
        metavar="TYPE",
        help="type of the weights: f32, f16, bf16, and for gguf and ollama q8_0, q6_k, q5_k_m, q4_k_m; the last three "
        "need llama.cpp's llama-quantize "
        "(default: hf: f32, or that of an imported model; gguf, ollama: f16)",
    )
    add("--adapter", action="store_true", help="hf: write the base model and its adapters separately, in PEFT's format")
    add("--push", metavar="REPO", help="upload the export to a repository on the hub")
    shared_arguments(parser, "--checkpoint", "--json")


def export(arguments: Arguments) -> None:
    """Export a run, and print the files and the checks."""
    from understudy.interop.export import export_run, push
    from understudy.run import load_run

    if arguments.adapter and arguments.format != "hf":
        raise ValueError(
            f"--adapter would be ignored by --format {arguments.format}, which merges adapters; leave it out"
        )
    run = load_run(arguments.run, arguments.checkpoint)
    out = arguments.out or EXPORTS / f"{run.path.resolve().name}-{arguments.format}"
    exported = export_run(run, arguments.format, out, arguments.type, arguments.adapter)
    files = {path.relative_to(out).as_posix(): path.stat().st_size for path in sorted(out.rglob("*")) if path.is_file()}
    address = push(out, arguments.push) if arguments.push else None
    document = {
        "run": str(run.path), "step": run.step, "format": arguments.format, "out": str(out), "files": files,
        "checked": exported.checks, "pushed_to": address,
    }  # fmt: skip
    show_result(arguments, document, lambda: final_table({
        "export": f"{run.path}, step {run.step}, as {arguments.format}",
        "folder": str(out),
        "files": ", ".join(f"{name} ({_size(size)})" for name, size in files.items()),
        "checked": "; ".join(exported.checks),
        **({"pushed to": address} if address else {}),
    }))  # fmt: skip

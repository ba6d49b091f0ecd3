"""The house keeps its shape: floors, one place for backward(), presets that parse, a README that tells the truth."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.cli import parse
from understudy.config.load import (
    build_config,
    dump_config,
    load_config,
    preset_names,
    preset_summaries,
    read_preset,
)

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "understudy"
FLOORS = {  # the longest matching name decides
    "cli": 5, "commands": 5, "demo": 5, "chat": 5, "chat_terminal": 5, "__main__": 5, "serve": 5,
    "train.stages": 4, "align": 4, "doctor": 4, "bench": 4,
    "train": 3, "evaluate": 3,
    "data": 2, "inference": 2, "interop": 2, "run": 2,
    "tokenizer": 1, "model": 1, "optim": 1, "losses": 1,
    "config": 0, "config_align": 0, "config_model": 0, "config_types": 0, "settings": 0, "runtime": 0,
}  # fmt: skip


def floor_of(module: str) -> int | None:
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((FLOORS[name] for name in names if name in FLOORS), None)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Modules of this project that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("understudy."):
            found.add(node.module.removeprefix("understudy."))
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("understudy.") for a in node.names if a.name.startswith("understudy.")}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down_only(path: Path) -> None:
    here = floor_of(module_name(path))
    assert here is not None, f"{path} stands on no floor; name it in FLOORS"
    for imported in imports_of(path):
        there = floor_of(imported)
        assert there is not None, f"{path} imports {imported}, which stands on no floor"
        assert there <= here, f"{path} (floor {here}) imports {imported} (floor {there})"


def test_inference_never_imports_training_and_the_loop_no_stage_or_loss() -> None:
    for path in (PACKAGE / "inference").glob("*.py"):
        assert not any(name.startswith("train") for name in imports_of(path)), path
    assert not imports_of(PACKAGE / "train/loop.py") & {"train.stages", "losses", "evaluate.loss", "align"}
    assert not any(
        n.startswith(("tokenizer", "run", "train")) for p in (PACKAGE / "model").glob("*.py") for n in imports_of(p)
    )


def test_backward_and_optimizer_step_stand_in_one_file() -> None:
    calls = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and (node.func.attr == "backward" or ast.unparse(node.func) in ("optimizer.step", "self.scaler.step"))
    }  # fmt: skip
    assert calls == {"train/loop.py"}


def test_no_file_is_a_monster() -> None:
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses_and_its_resolved_form_is_itself(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_config(config))
    assert load_config(str(saved)) == config
    assert preset_summaries()[name], "a preset says in its first line what it is"


def test_the_depth_dial_sets_everything_and_gives_way_to_what_is_said() -> None:
    small, large = (build_config(read_preset("portable") | {"depth": depth}) for depth in (2, 12))
    assert (large.model.d_model, large.model.n_heads) == (768, 12)
    assert large.train.batch_size * large.model.context_length > small.train.batch_size * small.model.context_length
    said = build_config(read_preset("portable") | {"depth": 12, "train": {"steps": 7}, "optim": {"lr": 0.5}})
    assert (said.train.steps, said.optim.lr, said.model.n_layers) == (7, 0.5, 12)


def readme_commands() -> list[str]:
    """Every line of the documentation's shell blocks that calls us."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
    blocks = [b for page in pages for b in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(), re.S)]
    lines = [
        line.removeprefix("$ ").split("  #")[0].strip()
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return sorted({line for line in lines if re.match(r"(understudy|torchrun .*understudy) ", line)})


@pytest.mark.parametrize("command", readme_commands())
def test_every_command_in_the_documentation_parses(command: str) -> None:
    words = shlex.split(command)
    words = words[words.index("understudy") + 1 :]
    arguments = parse(words[: words.index("|")] if "|" in words else words)
    if arguments.verb == "pretrain" and arguments.preset:
        from understudy.config.load import apply_overrides

        apply_overrides(read_preset(arguments.preset), arguments.overrides)


def test_the_readme_shows_some_commands() -> None:
    assert len(readme_commands()) > 5


def test_help_does_not_wait_for_heavy_imports() -> None:
    code = "import sys; from understudy.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pydantic", "numpy", "tokenizers", "matplotlib", "rich"} & set(loaded)

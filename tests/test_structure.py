"""The structure of the source: layers, one table of stages, one place for backward(), presets and documented commands."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imports import import_circles, imports_of, layer_faults, modules_of
from understudy.cli import parse
from understudy.config.load import (
    build_config,
    dump_config,
    load_config,
    preset_summaries,
    read_preset,
)
from understudy.config.stages import STAGES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "understudy"
FILES = [PACKAGE / path for path in sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))]


def test_imports_point_down_only() -> None:
    assert layer_faults(PACKAGE) == []


def test_no_modules_import_each_other() -> None:
    assert import_circles(PACKAGE) == []


def test_only_the_command_line_imports_the_commands() -> None:
    modules = modules_of(PACKAGE)
    importers = {
        name for name, path in modules.items()
        if any(i.split(".")[0] == "commands" for i in imports_of(path, PACKAGE, modules))
        and name.split(".")[0] != "commands"
    }  # fmt: skip
    assert importers == {"cli"}


@pytest.mark.parametrize(("where", "line", "fault"), [
    ("model/gpt.py", "from understudy.train import loop", "model.gpt imports train.loop, upwards"),
    ("model/gpt.py", "def f():\n    import understudy.cli", "model.gpt imports cli, upwards"),
    ("losses.py", "from understudy.tokenizer.chat import render", "losses imports tokenizer.chat, sideways"),
    ("run.py", "from understudy import doctor", "run imports doctor, upwards"),
    ("data/loader.py", "from ..chat import session", None),
    ("data/loader.py", "from ..train import loop", "data.loader imports train.loop, upwards"),
    ("stray.py", "", "stray stands in no layer"),
])  # fmt: skip
def test_planted_imports_are_found(tmp_path: Path, where: str, line: str, fault: str | None) -> None:
    package = tmp_path / "understudy"
    for name in ("model/gpt", "train/loop", "cli", "losses", "tokenizer/chat", "run", "doctor", "data/loader",
                 "chat/session"):  # fmt: skip
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (package / where).write_text(line)
    assert layer_faults(package) == ([] if fault is None else [fault])


def test_planted_circles_are_found(tmp_path: Path) -> None:
    package = tmp_path / "understudy"
    (package / "data").mkdir(parents=True)
    (package / "data" / "a.py").write_text("from understudy.data import b")
    (package / "data" / "b.py").write_text("from understudy.data.c import x")
    (package / "data" / "c.py").write_text("x = 1\ndef f():\n    from understudy.data.a import y")
    assert import_circles(package) == [["data.a", "data.b", "data.c"]]


def public_classes() -> dict[str, list[str]]:
    """Where each public class of the package is defined."""
    planted: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                planted.setdefault(node.name, []).append(path.relative_to(PACKAGE).as_posix())
    return planted


def test_no_two_public_classes_share_a_name() -> None:
    assert {name: places for name, places in public_classes().items() if len(places) > 1} == {}


def test_stages_are_named_in_their_table_only() -> None:
    """Nothing outside config/stages.py compares a value with the name of a stage, or keys a table by them."""
    planted = []
    for path in FILES:
        if path == PACKAGE / "config/stages.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                about = ast.unparse(node)
                names = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)} & STAGES.keys()
                if names and ("stage" in about or "method" in about or len(names) > 1):
                    planted.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {about}")
            elif isinstance(node, ast.Dict):
                keys = {k.value for k in node.keys if isinstance(k, ast.Constant)} & (STAGES.keys() - {"reward"})
                if len(keys) > 1:
                    planted.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: a table of {sorted(keys)}")
    assert planted == []


def test_training_knows_no_stage_and_the_loop_no_loss() -> None:
    modules = modules_of(PACKAGE)
    for path in (PACKAGE / "train").glob("*.py"):
        assert not any(i.split(".")[0] in ("stages", "losses") for i in imports_of(path, PACKAGE, modules)) or (
            path.name == "objective.py"
        ), path
    assert not imports_of(PACKAGE / "train/loop.py", PACKAGE, modules) & {"losses", "evaluate.loss"}


def test_backward_and_optimizer_step_stand_in_one_file() -> None:
    calls = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        and (node.func.attr == "backward" or ast.unparse(node.func) in ("optimizer.step", "self.scaler.step"))
    }  # fmt: skip
    assert calls == {"train/loop.py"}


def test_no_file_is_too_long() -> None:
    long = {p.name: n for p in FILES if (n := len(p.read_text().splitlines())) > 450}
    assert not long


@pytest.mark.parametrize("name", preset_summaries())
def test_every_preset_parses_and_its_resolved_form_is_itself(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_config(config))
    assert load_config(str(saved)) == config
    assert preset_summaries()[name], "a preset says in its first line what it is"


def test_depth_sets_everything_and_yields_to_explicit_settings() -> None:
    small, large = (build_config(read_preset("portable") | {"depth": depth}) for depth in (2, 12))
    assert (large.model.d_model, large.model.n_heads) == (768, 12)
    assert large.train.batch_size * large.model.context_length > small.train.batch_size * small.model.context_length
    overrides = build_config(read_preset("portable") | {"depth": 12, "train": {"steps": 7}, "optim": {"lr": 0.5}})
    assert (overrides.train.steps, overrides.optim.lr, overrides.model.n_layers) == (7, 0.5, 12)


def readme_commands() -> list[str]:
    """Every line of the documentation's shell blocks that calls us."""
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / "benchmarks").rglob("*.md"),
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
    if arguments.command_name == "pretrain" and arguments.preset:
        from understudy.config.load import apply_overrides

        apply_overrides(read_preset(arguments.preset), arguments.overrides)


def test_the_readme_shows_some_commands() -> None:
    assert len(readme_commands()) > 5


def test_help_does_not_wait_for_heavy_imports() -> None:
    code = "import sys; from understudy.cli import build_parser; build_parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pydantic", "numpy", "tokenizers", "matplotlib", "rich"} & set(loaded)

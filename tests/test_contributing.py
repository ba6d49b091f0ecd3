"""CONTRIBUTING's table "where to add a thing", performed: the starred rows are carried out in a copy of the source, and
what was added is run. The number of files that each addition touches is what the table promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from align_runs import pair
from processes import run_python
from understudy.run import Run

ROOT = Path(__file__).parent.parent


class Source:
    """A copy of the source in which things are added, and the files that this touched."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / "understudy"
        shutil.copytree(ROOT / "src" / "understudy", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.touched: set[str] = set()

    def write(self, name: str, text: str) -> None:
        assert not (self.package / name).exists()
        (self.package / name).write_text(text, encoding="utf-8")
        self.touched.add(name)

    def insert(self, name: str, after: str, text: str) -> None:
        """Insert ``text`` behind the first occurrence of ``after``."""
        path = self.package / name
        before = path.read_text(encoding="utf-8")
        assert after in before, f"{name} has no {after!r}"
        path.write_text(before.replace(after, after + text, 1), encoding="utf-8")
        self.touched.add(name)

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this copy in ``folder``."""
        done = run_python(["-m", "understudy", *arguments], folder, {"PYTHONPATH": str(self.package.parent)})
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "src")


HINGE_SECTION = '''

class HingeConfig(DPOConfig):
    """A hinge loss of log-ratios (Zhao et al. 2023)."""

    distance: Positive = 1.0
    """Difference of log-ratios, times beta, from which a pair has no loss."""
    scale: Positive = 1.0
    """Factor of the loss."""
'''
HINGE_ROW = """
    "hinge": StageInfo(
        "improve an assistant by a hinge loss of pairs", "hinge loss",
        data="preferences", section="HingeConfig", sequences_per_sample=2, loss_label="loss (nats per pair)",
        ignored=(*_NOT_TEXT, *_NOT_CONVERSATIONS), epochs=2,
    ),"""
HINGE_STAGE = '''"""A hinge loss of the log-ratios of chosen and rejected completions (Zhao et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from understudy.config.align import HingeConfig
from understudy.data.loader import Batch
from understudy.model import as_gpt
from understudy.stages.dpo import DirectPreference, Dpo, summed_logprobs
from understudy.stages.preferences import pair_accuracy
from understudy.train.stage import StageContext


class HingePreference(DirectPreference):
    """The distance that chosen lacks from rejected."""

    config: HingeConfig

    def pair_metrics(self, batch: Batch) -> dict[str, Tensor]:
        logratios = summed_logprobs(self.model, batch) - batch["reference_logprobs"]  # (N,)
        margin = self.config.beta * (logratios[batch["chosen"]] - logratios[batch["rejected"]])  # (P,)
        missing = (self.config.distance - margin).clamp(min=0)
        return {
            "loss": self.config.scale * missing,
            "accuracy": pair_accuracy(batch["tie"], margin),
            "missing": missing,
        }


class Hinge(Dpo):
    """Hinge loss over preferences."""

    def setup(self, context: StageContext) -> None:
        super().setup(context)
        self.objective = HingePreference(as_gpt(context.model), self.config.section(HingeConfig))
'''
HINGE_PRESET = """# A hinge loss of pairs.
stage: hinge
data: {path: pairs.jsonl}
hinge: {beta: 0.5, scale: 2.0}
train: {steps: 3, batch_size: 2}
"""


def test_a_stage_is_four_files(source: Source, sft_run: Run, tmp_path: Path) -> None:
    source.insert(
        "config/align.py", 'dpo.loss ipo; leave them out"\n            )\n        return self\n', HINGE_SECTION
    )
    source.insert("config/stages.py", "STAGES: dict[str, StageInfo] = {", HINGE_ROW)
    source.write("stages/hinge.py", HINGE_STAGE)
    source.write("presets/hinge.yaml", HINGE_PRESET)
    assert len(source.touched) <= 4
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps(pair(a, b, c)) + "\n" for a in "ac" for b in "bd" for c in "ef")
    )
    options = [
        "--run",
        "judged",
        "--init-from",
        str(sft_run.path),
        "--hinge.distance",
        "0.75",
        "--log.every_steps",
        "1",
    ]
    done = source.run(tmp_path, "hinge", "hinge", *options, "--optim.lr", "1e-2")
    assert "understudy chat judged" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs/judged/metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses[0] == pytest.approx(2.0 * 0.75) and len(set(losses)) == 3
    assert all("train/missing" in row for row in rows if "train/loss" in row)
    assert "hinge.distance" in source.run(tmp_path, "presets", "--settings").stdout
    assert source.run(tmp_path, "report", "judged").returncode == 0
    assert re.search(r"^    hinge ", source.run(tmp_path, "--help").stdout, re.M)


def test_a_task_is_a_file_and_a_row(source: Source, sft_run: Run, tmp_path: Path) -> None:
    source.write("evaluation/tasks/letters.py", '''"""Which letter follows."""

from __future__ import annotations

from pathlib import Path

from understudy.evaluation.task import Example, Split, Task, question


class Letters(Task):
    name = "letters"

    def __init__(self, path: Path | None = None, few_shot: int = 0) -> None:
        super().__init__(few_shot)

    def examples(self, split: Split = "val", limit: int | None = None) -> list[Example]:
        return [Example(f"letters/{a}", b, question(a)) for a, b in zip("abcdef", "bcdefg")][:limit]
''')  # fmt: skip
    source.insert("evaluation/tasks/__init__.py", "from understudy.evaluation.tasks.local", "")
    source.insert("evaluation/tasks/__init__.py", "from understudy.evaluation.tasks.hamlet import Hamlet, HamletChoice\n",
                  "from understudy.evaluation.tasks.letters import Letters\n")  # fmt: skip
    source.insert("evaluation/tasks/__init__.py", '    "hellaswag": HellaSwag,\n', '    "letters": Letters,\n')
    assert len(source.touched) == 2
    done = source.run(tmp_path, "evaluate", str(sft_run.path), "--tasks", "letters", "--limit", "4", "--json")
    assert '"letters"' in done.stdout and '"n": 4' in done.stdout


def test_a_verifier_is_a_function_and_a_row(source: Source, tmp_path: Path, sft_run: Run) -> None:
    source.insert("rewards/verifiers.py", "VERIFIERS: dict[str, Verifier] = {\n", '    "short": short,\n')
    source.insert("rewards/verifiers.py", "    return float(normalised(completion) == normalised(_answer(prompt)))\n", '''

def short(prompt: Prompt, completion: str) -> float:
    """1 for a completion of at most two characters."""
    return float(len(completion) <= 2)
''')  # fmt: skip
    assert len(source.touched) == 1
    rows = [{"prompt": [{"role": "user", "content": a}], "task": "short", "answer": "x"} for a in "abcdefgh"]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "g.yaml").write_text(
        "stage: grpo\ndata: {path: prompts.jsonl}\n"
        "grpo: {prompts: 2, group_size: 4, checker_weight: 1.0, reward_weight: 0.0, max_new_tokens: 6, eval_prompts: 2}\n"
        "optim: {name: adamw}\ntrain: {steps: 2, batch_size: 8}\nlog: {every_steps: 1}\n"
        "eval: {every_steps: 0}\ncheckpoint: {every_steps: 0}\n"
    )
    source.run(tmp_path, "grpo", "g.yaml", "--run", "g", "--init-from", str(sft_run.path))
    rows = [json.loads(line) for line in (tmp_path / "runs/g/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["train/true_score"] <= 1 for row in rows if "train/loss" in row)
    assert any(row["train/true_score"] > 0 for row in rows if "train/loss" in row)


def test_a_text_source_is_a_row(source: Source, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("a page of text that is long enough to be split\n" * 50)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/page.txt"
        row = f'    "page": WebText((("{url}", None),)),\n'
        source.insert("data/sources.py", "TEXT: dict[str, Origin] = {\n", row)
        assert len(source.touched) == 1
        source.run(tmp_path, "prepare", "page", "--tokenizer", "char", "--out", "out")
        server.shutdown()
    assert (tmp_path / "out" / "train.bin").stat().st_size > 1000


def test_a_kind_of_text_file_is_a_reader_and_a_row(source: Source, tmp_path: Path) -> None:
    source.write("data/text/readers/verse.py", '''"""Verses: lines divided by slashes."""

from __future__ import annotations

from collections.abc import Iterator

from understudy.data.inputs import InputFile
from understudy.data.text.documents import DocumentPiece
from understudy.data.text.readers.base import MAX_DOCUMENT_BYTES, ReadOptions, whole_document


def read_verse(file: InputFile, options: ReadOptions) -> Iterator[DocumentPiece]:
    with file.stream() as stream:
        text = stream.read_limited(MAX_DOCUMENT_BYTES, "a verse").decode().replace(" / ", "\\n")
        yield from whole_document(text, file.where, stream.offset, "an empty verse")
''')  # fmt: skip
    table = "data/text/readers/table.py"
    source.insert(table, "from understudy.data.text.readers.subtitles import is_opus, read_opus, read_subtitles, read_tmx\n",
                  "from understudy.data.text.readers.verse import read_verse\n")  # fmt: skip
    source.insert(table, "TEXT_KINDS: tuple[TextKind, ...] = (\n", '    TextKind("verse", read_verse, (".verse",)),\n')
    assert len(source.touched) == 2
    (tmp_path / "a.verse").write_text("one line / and another of the verse / " * 50)
    source.run(tmp_path, "prepare", "a.verse", "--tokenizer", "char", "--out", "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["splits"]["train"]["documents"] == 1


def test_a_chat_format_is_a_reader_and_a_row(source: Source, tmp_path: Path) -> None:
    source.insert("data/chat/conversations.py", "FORMATS = {\n    row.name: row\n    for row in (\n",
                  '        Format("faq", (("faq", "reply"),), _faq),\n')  # fmt: skip
    source.insert("data/chat/conversations.py", 'NOT_IN_TEXT = "The text does not say."\n', '''

def _faq(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield _exchange(text_field(fields, "reply"), text_field(fields, "faq"))


''')  # fmt: skip
    assert len(source.touched) == 1
    rows = [{"faq": f"Question {n}?", "reply": f"Reply {n}."} for n in range(30)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source.run(tmp_path, "prepare", "faq.jsonl", "--kind", "conversations", "--out", "out")
    first = json.loads((tmp_path / "out/train.jsonl").read_text().splitlines()[0])
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"]

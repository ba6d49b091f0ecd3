"""The shell commands of README.md and docs/how-to/ are run in order, on small sizes.

All pages are run in one temporary folder with the files that the commands name, so that a page can use the runs of the pages
before it. Stages train for two steps. Commands that need the network, a server or another program are skipped (SKIPPED).
"""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from align_runs import finished_run
from test_interop_gguf_import import imported_tokenizer
from test_interop_huggingface import shape
from text_files import SRT, pdf, zipped
from understudy.cli import main
from understudy.config.stages import STAGES
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore, default_url
from understudy.hamlet import story

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs/how-to" / f"{name}.md"
        for name in ("train", "data", "machines", "align", "evaluate", "serve", "interop", "models")
    ),
]
"""In the order of their runs: data.md uses a run of train.md."""

SKIPPED = {
    r"^(pip|ollama) ": "installs a package, or is another program",
    r"^understudy (import|chat) smollm2": "needs a package or the hub; tests/test_real_models.py imports it, and here a small model has its name",
    r"^make ": "installs a new environment; tests/test_cli.py runs the demo's parts",
    r"^(curl|lm_eval|torchrun|python) ": "needs a server, the harness or several processes; has other tests",
    r"^understudy serve ": "does not end; tests/test_serve_api.py starts a server",
    r"^understudy (prepare|pretrain|doctor) .*(openwebtext|gpt2)": "needs the network, or is too large",
    r"^understudy pretrain finetune-shakespeare": "needs GPT-2 from the hub",
    r"^understudy prepare .*(hf:|dolly|gsm8k|ultrafeedback|squad|shakespeare)": "needs the network",
    r"^understudy (pretrain|evaluate|report) shakespeare-(bigram|char)": "its data needs the network",
    r"^understudy import (gpt2|downloads|nanogpt)": "needs the network, or another project's files",
    r"^understudy export .*--push": "needs the network",
    r"^understudy pretrain portable --depth 12": "is too large",
    r"^understudy compare .*--by person": "waits for a person; tests/test_evaluate_compare.py answers for one",
    r"^understudy bench": "measures time",
    r"s3://": "needs a bucket; tests/test_data_tasks.py uses a store in memory",
    r"--executor (slurm|ray)|--workers 2$": "needs a cluster or starts processes; tests/test_data_cluster.py runs them",
}
"""Commands that are only parsed, and why."""

VOCABULARY = "320"
MODEL = ["--model.n_layers", "2", "--model.d_model", "32", "--model.n_heads", "2", "--model.n_kv_heads", "2"]
TRAINING = [
    "--train.steps", "2", "--train.batch_size", "4", "--train.dtype", "fp32", "--optim.warmup_steps", "0", "--eval.every_steps", "0",
    "--checkpoint.every_steps", "0", "--log.samples", "1", "--log.sample_tokens", "4", "--log.plot", "false",
]  # fmt: skip
ROLLOUT = {"prompts": "2", "group_size": "2", "max_new_tokens": "4", "eval_prompts": "2"}
OPTIONS = {
    "evaluate": ["--limit", "4"],
    "compare": ["--limit", "4", "--max-new-tokens", "8"],
    "best-of-n": ["--most", "2", "--prompts", "2"],
    "sample": ["--tokens", "4"],
    "chat": ["--tokens", "4"],
    "improve": [
        "--limit", "4", "--max-new-tokens", "8", "--train.steps", "2", "--eval.every_steps", "0", "--checkpoint.every_steps", "0",
    ],
}  # fmt: skip


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.split("  #")[0].strip())]


def smaller(words: list[str]) -> list[str]:
    """The words of a command with small sizes."""
    name = words[0]
    for option in ("--vocab-size", "--tokenizer.vocab_size"):
        if option in words:
            words[words.index(option) + 1] = VOCABULARY
    if name in STAGES:
        words = _without_size(words)
        words += TRAINING + (["--minutes", "0.001"] if "--minutes" in words else [])
        if name == "pretrain":
            words += MODEL
            words += ["--tokenizer.vocab_size", VOCABULARY] if "--resume" not in words else []
        if name in ("ppo", "grpo"):
            words += [word for setting, value in ROLLOUT.items() for word in (f"--{name}.{setting}", value)]
        if "--resume" in words:  # with the settings that it began with
            words = words[: words.index("--train.steps")]
    if name == "prepare" and any(word.partition("@")[0] == "hamlet" for word in words) and "--limit" not in words:
        words += ["--limit", "8" if "--from" in words else "60"]
    if "--from" in words and "--corrected" not in words:
        words += ["--corrected"]  # an untrained run gives no two answers of different score
    if name == "evaluate" and "--tasks" not in words:
        return words
    if name == "sample" and "--tokens" in words:
        return words
    return words + OPTIONS.get(name, [])


def _without_size(words: list[str]) -> list[str]:
    if "--train.steps" in words:
        at = words.index("--train.steps")
        words = words[:at] + words[at + 2 :]
    return words


# ---- the files that the pages name ----------------------------------------------------------------------------------


def write_files() -> None:
    """The user's files, in the current folder."""
    texts = [story(3, number, "train").text for number in range(40)]
    Path("my-books").mkdir()
    for name, part in (("one", texts[:20]), ("two", texts[20:])):
        Path(f"my-books/{name}.txt").write_text("\n<|endoftext|>\n".join(part), encoding="utf-8")
    Path("my-papers").mkdir()
    for name, part in (("first", texts[:20]), ("last", texts[20:])):
        Path(f"my-papers/{name}.pdf").write_bytes(pdf("\n".join(part).encode("ascii", "replace").decode().splitlines()))
    Path("my-pages.zip").write_bytes(zipped({"a.txt": texts[0], "b.srt": SRT}))
    Path("my-web.yaml").write_text("sources: [my-articles.csv]\nfield: body\nvocab-size: 320\nout: data/web\n", "utf-8")
    csv = "title,body\n" + "".join(
        f'{number},"{text}"\n' for number, text in enumerate(t.replace('"', "'") for t in texts)
    )
    Path("my-articles.csv").write_text(csv, encoding="utf-8")
    numbers = range(60)
    questions = [f"What comes after {number}?" for number in numbers]
    user = [[{"role": "user", "content": question}] for question in questions]
    reply = [[{"role": "assistant", "content": f"{number + 1}"}] for number in numbers]
    write_lines("my-talks.jsonl", [{"messages": question + answer} for question, answer in zip(user, reply)])
    write_lines("my-prompts.jsonl", [
        {"prompt": question, "answer": answer[0]["content"], "task": "number"} for question, answer in zip(user, reply)
    ])  # fmt: skip
    write_lines("my-pairs.jsonl", [
        {"prompt": question, "chosen": answer, "rejected": [{"role": "assistant", "content": "No."}]}
        for question, answer in zip(user, reply)
    ])  # fmt: skip
    write_lines("shop.jsonl", [{"messages": question + answer} for question, answer in zip(user, reply)])
    write_lines("shop-pairs.jsonl", [
        {"prompt": question, "chosen": answer, "rejected": [{"role": "assistant", "content": "No."}]}
        for question, answer in zip(user, reply)
    ])  # fmt: skip
    # A small model in the place of SmolLM2, with a tokenizer and a chat template of its own.
    finished_run(Path("runs/smollm2"), shape("llama", vocab_size=293, context_length=512), imported_tokenizer())
    rows = [{"question": question, "answer": answer[0]["content"]} for question, answer in zip(questions, reply)]
    write_lines("my-questions.jsonl", rows)
    table = "".join(f"{row['question']},{row['answer']}\n" for row in rows)
    for name, header in (
        ("my-questions", "question,answer\n"),
        ("my-faq", "Frage,Antwort\n"),
        ("my-pairs-without-header", ""),
    ):
        Path(f"{name}.csv").write_text(header + table, encoding="utf-8")
    thumbs = "".join(f"{row['question']},{row['answer']},{number % 2}\n" for number, row in enumerate(rows))
    Path("my-thumbs.csv").write_text("question,answer,thumb\n" + thumbs, encoding="utf-8")
    write_lines(
        "my-later-talks.jsonl", [{"messages": [*turn, {"role": "assistant", "content": "More."}]} for turn in user[:9]]
    )
    Path("my-export.zip").write_bytes(zipped({"conversations.json": json.dumps([exported(n) for n in numbers])}))


def exported(number: int) -> dict[str, Any]:
    """A conversation as ChatGPT exports it."""
    nodes: dict[str, Any] = {}
    for n, (role, text) in enumerate((("user", f"Say {number}."), ("assistant", f"{number}."))):
        content = {"content_type": "text", "parts": [text]}
        nodes[str(n)] = {"parent": "0" if n else None, "message": {"author": {"role": role}, "content": content}}
    return {"title": "T", "mapping": nodes, "current_node": "1"}


def write_lines(name: str, records: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_feedback() -> None:
    """60 corrections of answers, each with a thumb down, as a server stores them."""
    with FeedbackStore(default_url()) as store:
        for number in range(60):
            prompt = [{"role": "user", "content": f"Who is number {number}?"}]
            answer = AnswerRecord(
                "talk", prompt, "Nobody.", "hamlet-chat", 2, "", {"temperature": 0.7}, "stop", 2, f"a{number}"
            )
            store.add_judgement(Judgement("correction", store.add_answer(answer), correction=f"Number {number}."))
            store.add_judgement(Judgement("thumb", answer.id, value=-1))


# ---- the tests ------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()
    done: set[str] = set()
    for page in PAGES:
        for command in commands(page):
            if command not in done and not any(re.search(pattern, command) for pattern in SKIPPED):
                assert run(command, monkeypatch) == 0, f"{page.name}: {command}"
                done.add(command)
    assert len(done) > 60


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command on small sizes."""
    text, pipe, after = command.rpartition(" | ")
    monkeypatch.setattr(sys, "stdin", io.StringIO(shlex.split(text)[1] + "\n" if pipe else ""))
    words: list[str] = []
    for word in shlex.split(after)[1:]:
        words += sorted(map(str, Path().glob(word))) if "*" in word else [word]
    if words[0] in ("feedback", "improve") and not Path("runs/feedback.db").exists():
        write_feedback()
    return main(smaller(words))


def test_the_pages_are_all_run() -> None:
    pages = {path.name for path in (ROOT / "docs/how-to").glob("*.md")} - {"README.md"}  # the overview has no commands
    assert {page.name for page in PAGES[1:]} == pages


def test_every_reason_to_skip_is_used() -> None:
    every = [command for page in PAGES for command in commands(page)]
    assert not [pattern for pattern in SKIPPED if not any(re.search(pattern, command) for command in every)]

"""From feedback to a better run: simulated visitors judge the answers of a server, and `understudy improve` trains on that.

    python benchmarks/feedback_loop.py hamlet-chat --out benchmarks/results/feedback_loop.json

Then the new run is compared with the old one on new questions of the same kind. The checker knows how good an answer is; each
visitor states the opposite with a probability of 5, 10 or 15% (hamlet/preferences.py). Visitors use only the HTTP API. Their
questions have the wording of Hamlet's training split, because people who return ask as they did before. feedback_loop.sh also
compares on held-out wording. Not here: how judgements become data (feedback/export.py), training (feedback/improve.py).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plain import publish
from understudy.hamlet.checker import score
from understudy.hamlet.conversations import question
from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.preferences import ANNOTATORS
from understudy.hamlet.turns import Turn

AT_ONCE = 16
CORRECTS = 0.3
"""How often a visitor who finds an answer wrong says what it should have been."""
ANSWER_TOKENS = 80


@dataclass(frozen=True)
class Server:
    url: str
    model: str

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return dict(json.load(response))

    def answers(self, messages: list[dict[str, str]], seed: int) -> list[tuple[str, str]]:
        """Two answers to a conversation, each with its id in the feedback store."""
        found = self.post("/v1/chat/completions", {
            "model": self.model, "messages": messages, "n": 2, "temperature": 1.0, "seed": seed,
            "max_tokens": ANSWER_TOKENS,
        })  # fmt: skip
        id = found["id"].removeprefix("chatcmpl-")
        return [
            (id if choice["index"] == 0 else f"{id}-{choice['index']}", choice["message"]["content"].strip())
            for choice in found["choices"]
        ]

    def judge(self, **judgement: Any) -> str:
        assert self.post("/v1/feedback", judgement)["status"] == "saved"
        return str(judgement["kind"])


def visit(server: Server, number: int, questions: int, seed: int) -> Counter[str]:
    """One visitor: asks, compares the two answers, gives the first a thumb, and at times says what it should have been."""
    kind = list(ANNOTATORS)[number % len(ANNOTATORS)]
    name, said = f"{kind} {number}", Counter[str]()
    for k in range(questions):
        index = number * questions + k
        messages, turn = question(seed, index, "train", "visit")
        draw = Draw(stable_hash("visitor", seed, index))
        (first, text), (second, other) = server.answers(messages, seed=index)
        said["answers"] += 2
        for judgement in judgements(draw, ANNOTATORS[kind], turn, text, other):
            pair = {"other_answer_id": second} if judgement["kind"] == "comparison" else {}
            said[server.judge(answer_id=first, annotator=name, **judgement, **pair)] += 1
    return said


def judgements(draw: Draw, errs: float, turn: Turn, text: str, other: str) -> Iterator[dict[str, Any]]:
    """What a visitor who errs so often says of the first answer, and of it beside the other."""
    worth, worth_of_other = score(turn.check, text), score(turn.check, other)
    if text != other:
        better = (worth > worth_of_other) - (worth < worth_of_other)
        yield {"kind": "comparison", "value": -better if draw.chance(errs) else better}
    likes = (worth == 1.0) != draw.chance(errs)
    yield {"kind": "thumb", "value": 1 if likes else -1}
    if not likes and draw.chance(CORRECTS):
        correction = draw.pick(turn.wrong) if turn.wrong and draw.chance(errs) else turn.answer
        if correction.strip() != text:
            yield {"kind": "correction", "correction": correction}


@contextmanager
def serving(run: str, database: str) -> Iterator[Server]:
    """A server of a run that keeps its feedback in a database."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "understudy",
        "serve",
        run,
        "--port",
        str(port),
        "--feedback",
        database,
        "--no-ui",
        "--max-rows",
        "32",
    ]
    process = subprocess.Popen(command)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as response:
                    model = json.load(response)["data"][0]["id"]
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit("the server did not start") from None
                time.sleep(0.2)
        else:
            raise SystemExit("the server did not answer within a minute")
        yield Server(url, model)
    finally:
        process.terminate()
        process.wait()


def asked_next(name: str, given: argparse.Namespace) -> Path:
    """A file of the questions that the next visitors would ask."""
    path, first = Path("data") / f"{name}-asked-next.jsonl", given.visitors * given.questions
    with path.open("w") as file:
        for index in range(first, first + given.prompts):
            messages, turn = question(given.seed, index, "train", "visit")
            file.write(json.dumps({"prompt": messages, "check": turn.check, "category": turn.category}) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="the assistant to serve and to improve")
    parser.add_argument("--visitors", type=int, default=200)
    parser.add_argument("--questions", type=int, default=8, help="of each visitor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="sft", help="of `understudy improve`")
    parser.add_argument("--name", help="of the new run (default: RUN-improved)")
    parser.add_argument("--prompts", type=int, default=2000, help="on which the two are compared")
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    given = parser.parse_args()
    name = given.name or f"{Path(given.run).name}-improved"
    path = Path("runs") / f"{name}-feedback.db"
    database = f"sqlite:///{path}"
    said, seconds = Counter[str](), 0.0
    if path.exists():
        print(f"{path} is there already, so nobody visits again", file=sys.stderr)
    else:
        began = time.perf_counter()
        with serving(given.run, database) as server, ThreadPoolExecutor(AT_ONCE) as pool:
            for found in pool.map(lambda n: visit(server, n, given.questions, given.seed), range(given.visitors)):
                said += found
        seconds = time.perf_counter() - began
        print(f"{dict(said)} in {seconds:.0f} s", file=sys.stderr)
    understudy = [sys.executable, "-m", "understudy"]
    stats = subprocess.run(
        [*understudy, "feedback", "stats", "--db", database, "--json"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    subprocess.run(
        [*understudy, "improve", given.run, "--db", database, "--method", given.method, "--run", name,
         "--data", str(asked_next(name, given)), "--limit", str(given.prompts)], check=True,
    )  # fmt: skip
    stored = {key: value for key, value in json.loads(stats).items() if key != "annotators"}
    result = {
        "visitors": given.visitors, "questions": given.questions, "error_rates": ANNOTATORS, "corrects": CORRECTS,
        "seconds_visited": round(seconds, 1), "threads": os.environ.get("OMP_NUM_THREADS", ""), "stored": stored,
        "improvement": json.loads((Path("runs") / name / "improvement.json").read_text()),
    }  # fmt: skip
    publish(result, given.out)


if __name__ == "__main__":
    main()

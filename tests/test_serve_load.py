"""Many clients: a full queue, clients that leave or read slowly, time limits, and a shutdown in the middle."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from serving import client, command, get, make_run, post, served_run, serving, wait_until
from understudy.cli import main
from understudy.feedback.store import FeedbackStore
from understudy.run import Run
from understudy.serve.served import Limits, Served, ServedRun

LONG: dict[str, Any] = {"model": "tiny", "prompt": "Sam", "max_tokens": 110, "seed": 1, "stream": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@contextmanager
def slow_server(
    run: Run, limits: Limits | None = None, step: float = 0.03, **engine: Any
) -> Iterator[tuple[str, ServedRun]]:
    """One that takes its time for every token; no random answer ends by itself."""
    fresh = make_run(run.path.parent / f"{run.path.name}-{time.monotonic_ns()}")
    served = replace(served_run(fresh, step, **engine), name="tiny")
    served.tokenizer.special_tokens.clear()
    with serving(Served({"tiny": served}, limits=limits or Limits())) as url:
        yield url, served


def idle(served: ServedRun) -> bool:
    stats = served.engine.stats()
    return stats.running == stats.waiting == 0


def first_text(stream: Any) -> str:
    return next(chunk.choices[0].text for chunk in stream if chunk.choices[0].text)


def test_a_full_queue_says_when_to_come_again(run: Run) -> None:
    with slow_server(run, max_rows=1, queue_limit=1) as (url, served):
        streams = [client(url).completions.create(**LONG)]
        first_text(streams[0])
        streams.append(client(url).completions.create(**LONG))
        with pytest.raises(openai.RateLimitError) as refused:
            client(url).completions.create(**LONG)
        assert int(refused.value.response.headers["retry-after"]) >= 1 and refused.value.code == "queue_full"
        with pytest.raises(openai.RateLimitError):  # all of several answers, or none
            client(url).completions.create(**LONG | {"n": 2})
        streams[1].close()
        wait_until(lambda: served.engine.stats().waiting == 0)
        assert client(url).completions.create(**LONG | {"max_tokens": 2, "stream": False}).choices
        streams[0].close()
        wait_until(lambda: idle(served))


def test_a_client_that_leaves_frees_its_slot(run: Run) -> None:
    with slow_server(run, max_rows=2) as (url, served):
        stream = client(url).completions.create(**LONG)
        first_text(stream)
        assert served.engine.stats().running == 1
        stream.close()
        wait_until(lambda: idle(served))
        for body in (LONG | {"stream": False}, LONG | {"stream": False, "n": 6}):
            with pytest.raises(openai.APITimeoutError):
                client(url).with_options(timeout=1).completions.create(**body)
            wait_until(lambda: idle(served))
        assert served.engine.stats().requests_finished["cancelled"] == 8
        wait_until(lambda: b'status="499"' in get(url, "/metrics")[2])


def test_an_answer_has_its_time(run: Run) -> None:
    with slow_server(run, Limits(seconds=0.3)) as (url, served):
        with pytest.raises(openai.APIStatusError) as late:
            client(url).completions.create(**LONG | {"stream": False})
        assert late.value.status_code == 504 and late.value.code == "timeout"
        with pytest.raises(openai.APIError) as late_too:
            list(client(url).completions.create(**LONG))
        assert late_too.value.code == "timeout"
        wait_until(lambda: idle(served))


def test_a_slow_reader_holds_up_nobody(run: Run) -> None:
    """Its answer is made at the pace of the others and waits; then it reads all of it."""
    with slow_server(run, step=0.002, max_rows=2) as (url, served):
        host, _, port = url.removeprefix("http://").rpartition(":")
        body = json.dumps(LONG | {"max_tokens": 100, "logprobs": 20}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect((host, int(port)))
            connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_until(lambda: served.engine.stats().requests_finished.get("length") == 1)
            assert client(url).completions.create(**LONG | {"stream": False}).usage.completion_tokens == 110
            read = b""
            while chunk := connection.recv(4096):
                read += chunk
        assert read.count(b'"top_logprobs"') >= 1 and read.count(b"[DONE]") == 1


def test_the_same_seed_answers_alike_alone_and_in_company(run: Run) -> None:
    with serving(Served({"tiny": served_run(run, max_rows=4)})) as url:
        requests = [
            {"model": "tiny", "prompt": f"Sam {n}", "max_tokens": 20, "seed": n, "temperature": 1.0} for n in range(12)
        ]
        alone = [client(url).completions.create(**body).choices[0].text for body in requests]
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda body: client(url).completions.create(**body).choices[0].text, requests))
        assert together == alone and len(set(alone)) == 12


def test_a_signal_drains_and_ends_with_status_0(tmp_path: Path) -> None:
    """Running and waiting requests are answered to their ends; new connections are refused."""
    patient = make_run(tmp_path / "patient", context_length=256)
    with command(
        str(patient.path), "--port", "0", "--no-ui", "--max-rows", "1", "--feedback", "sqlite:///f.db", folder=tmp_path
    ) as (process, url):
        body = LONG | {"model": "patient", "max_tokens": 120, "temperature": 0, "prompt": "Sam"}
        finished: list[Any] = []

        def ask() -> None:
            finished.append([chunk.choices[0].finish_reason for chunk in client(url).completions.create(**body)][-1])

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        wait_until(lambda: busy(url) + len(finished) >= 5)  # one that is still connecting would find nobody
        assert len(finished) < 5
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(300)
        assert process.wait(300) == 0
        assert len(finished) == 5 and set(finished) <= {"stop", "length"}
        with pytest.raises(openai.APIConnectionError):
            client(url).models.list()
    with FeedbackStore(f"sqlite:///{tmp_path / 'f.db'}", create=False) as store:
        assert store.stats()["answers"] == 0  # completions are not conversations


def busy(url: str) -> float:
    """How many requests run or wait."""
    lines = get(url, "/metrics")[2].decode().splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith(("understudy_sequences_running", "understudy_sequences_waiting"))
    )


def test_runs_that_cannot_be_served_are_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_run(tmp_path / "a" / "one")
    make_run(tmp_path / "b" / "one")
    make_run(tmp_path / "judge", stage="reward")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, sentence in (
            ([str(tmp_path / "judge")], "gives scores and generates no text"), ([str(tmp_path / "nobody")], "there is no run"),
            ([str(tmp_path / "a/one"), str(tmp_path / "b/one")], "two runs are called one"),
            ([str(tmp_path / "a/one"), "--port", port], f"port {port} of 127.0.0.1 cannot be used"),
            (["one", "--port", "70000"], "--port is 70000"), (["one", "--timeout", "0"], "--timeout is 0"),
            (["one", "--host", "no.such.host.example", "--api-key", "k"], "is no address"),
            (["one", "--no-ui", "--open"], "leave out one"),
            ([str(tmp_path / "a/one"), "--feedback", "mysql://x/y"], "sqlite:///PATH"),
        ):  # fmt: skip
            given = [*words, *(() if "--port" in words else ("--port", "0"))]
            given += () if "--feedback" in words else ("--feedback", "none")
            assert main(["serve", *given]) == 2
            message = capsys.readouterr().err
            assert sentence in message and message.count("\n") == 1, message


def test_kill_9_of_the_server_during_200_judgements_loses_none_that_it_acknowledged(run: Run, tmp_path: Path) -> None:
    database, acknowledged = f"sqlite:///{tmp_path}/feedback.db", list[str]()
    with command(str(run.path), "--no-ui", "--port", "0", "--feedback", database, folder=tmp_path) as (process, url):
        answer = client(url).chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Sam?"}])
        judgement = {"answer_id": answer.id.removeprefix("chatcmpl-"), "kind": "rating"}

        def judge(number: int) -> None:
            with suppress(OSError, ValueError, IndexError):  # no reply, or not all of it
                message = post(url, "/v1/feedback", judgement | {"value": 1 + number % 5, "annotator": f"ann {number}"})
                if message[0] == 201:
                    acknowledged.append(message[2]["id"])
            if len(acknowledged) == 100:
                process.kill()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(judge, range(200)))
    assert 100 <= len(acknowledged) < 200
    with sqlite3.connect(tmp_path / "feedback.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with command(str(run.path), "--no-ui", "--port", "0", "--feedback", database, folder=tmp_path) as (_, url):
        assert post(url, "/v1/feedback", judgement | {"value": 5, "annotator": "later"})[0] == 201
    with FeedbackStore(database, create=False) as store:
        stored = {judgement.id for judgement in store.judgements()}
    assert set(acknowledged) <= stored and len(stored) <= 201

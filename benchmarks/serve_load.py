"""A server under load: 64 clients for two minutes, and not all of them well behaved.

    python benchmarks/serve_load.py demo-chat --out benchmarks/results/serve_load.json

The server is `understudy serve RUN` as a program of its own, with a key, a store of feedback, and nothing set that has a
default. Each client draws what it does next from a seed: most ask for an answer, streamed or whole; some leave in the
middle of it, read it slowly, send a body that is too large or no JSON, or have a wrong key. Questions and seeds come from
a short list, each asked alone before, so that every answer is known. Checked at the end: every good request was
answered, and as it was alone; everything bad was refused with its status; no slot is taken and nothing waits; memory
stands where it stood after the first quarter. Time to first token is taken by the clients of streams, which run on the
same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from plain import publish

KEY = "load-test-0123456789"
QUESTIONS = (
    "Hello! Who are you?", "Who is the baker?", "What is 7 plus 8?", "Say these words in capital letters: the old bridge",
    "Write a short story about a lost kite.", "Where does the miller live?", "Count the words: one two three",
    "Name three animals.",
)  # fmt: skip
CHAT = "/v1/chat/completions"
DEEDS = {  # what a client does, and how often of a hundred times
    "stream": 55, "whole": 20, "leave": 8, "slow": 4, "too large": 4, "no JSON": 5, "wrong key": 4,
}  # fmt: skip
REFUSED = {"too large": 413, "no JSON": 400, "wrong key": 401}


@dataclass
class Seen:
    """What the clients saw."""

    known: dict[int, str] = field(default_factory=dict)
    """The answer to each question, asked alone."""
    done: Counter[str] = field(default_factory=Counter)
    queue_full: int = 0
    failures: list[str] = field(default_factory=list)
    first_token_seconds: list[float] = field(default_factory=list)
    whole_seconds: list[float] = field(default_factory=list)

    def check(self, place: int, text: str) -> None:
        if text != self.known.setdefault(place, text):
            self.failures.append(f"question {place} was answered otherwise than alone: {text[:60]!r}")


class Clients:
    """All of them, until ``ends``."""

    def __init__(self, url: str, model: str, tokens: int, seen: Seen) -> None:
        self.url, self.model, self.tokens, self.seen = url, model, tokens, seen
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=180, limits=limits
        )

    def body(self, place: int, **more: Any) -> dict[str, Any]:
        question = QUESTIONS[place % len(QUESTIONS)]
        return {
            "model": self.model, "messages": [{"role": "user", "content": question}], "seed": place,
            "max_tokens": self.tokens, "temperature": 0.8,
        } | more  # fmt: skip

    async def one(self, number: int, ends: float) -> None:
        dice = random.Random(number)
        while time.perf_counter() < ends:
            [deed] = dice.choices(list(DEEDS), list(DEEDS.values()))
            place = dice.randrange(2 * len(QUESTIONS))
            try:
                if await self.does(deed, place, dice):
                    self.seen.done[deed] += 1
            except httpx.HTTPError as error:
                self.seen.failures.append(f"{deed}: {type(error).__name__} {error}")
            await asyncio.sleep(dice.uniform(0, 0.2))

    async def does(self, deed: str, place: int, dice: random.Random) -> bool:
        """One request; whether it ended as it should."""
        if deed in REFUSED:
            return await self.refused(deed, place)
        if deed == "slow":
            return await self.reads_slowly(place)
        if deed == "whole":
            begun = time.perf_counter()
            response = await self.http.post(CHAT, json=self.body(place))
            if self.told_to_wait(response.status_code) or response.status_code != 200:
                return self.wrong(deed, response.status_code, 200)
            self.seen.whole_seconds.append(time.perf_counter() - begun)
            self.seen.check(place, response.json()["choices"][0]["message"]["content"])
            return True
        return await self.streams(place, leaves_after=dice.randrange(6) if deed == "leave" else None)

    async def streams(self, place: int, leaves_after: int | None = None) -> bool:
        begun, text, pieces, ended = time.perf_counter(), "", 0, False
        async with self.http.stream("POST", CHAT, json=self.body(place, stream=True)) as response:
            if self.told_to_wait(response.status_code) or response.status_code != 200:
                return self.wrong("stream", response.status_code, 200)
            async for line in response.aiter_lines():
                if leaves_after is not None and pieces >= leaves_after:
                    return True
                if line in ("", "data: [DONE]"):
                    ended = ended or bool(line)
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    self.seen.failures.append(f"stream: {chunk['error']}")
                    return False
                if piece := chunk["choices"][0]["delta"].get("content"):
                    if not text:
                        self.seen.first_token_seconds.append(time.perf_counter() - begun)
                    text, pieces = text + piece, pieces + 1
        if not ended:
            self.seen.failures.append("stream: it ended without its last event")
        self.seen.check(place, text)
        return ended

    async def reads_slowly(self, place: int) -> bool:
        """A few hundred bytes at a time, over a connection that holds little."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(self.body(place, stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        received = b""
        while chunk := await reader.read(256):
            received += chunk
            await asyncio.sleep(0.02)
        writer.close()
        status = int(received.split(b" ", 2)[1])
        if self.told_to_wait(status) or status != 200 or b"data: [DONE]" not in received:
            return self.wrong("slow", status, 200)
        return True

    async def refused(self, deed: str, place: int) -> bool:
        if deed == "too large":
            response = await self.http.post(CHAT, json=self.body(place, user="x" * 1_500_000))
        elif deed == "no JSON":
            response = await self.http.post(CHAT, content=b'{"model": ', headers={"Content-Type": "application/json"})
        else:
            response = await self.http.post(CHAT, json=self.body(place), headers={"Authorization": "Bearer wrong"})
        good = response.status_code == REFUSED[deed] and "message" in response.json()["error"]
        return good or self.wrong(deed, response.status_code, REFUSED[deed])

    def told_to_wait(self, status: int) -> bool:
        self.seen.queue_full += status == 429
        return status == 429

    def wrong(self, deed: str, status: int, wanted: int) -> bool:
        if status != 429:
            self.seen.failures.append(f"{deed}: status {status}, not {wanted}")
        return False

    async def alone(self) -> None:
        """Ask every question once with nobody beside."""
        for place in range(2 * len(QUESTIONS)):
            response = await self.http.post(CHAT, json=self.body(place))
            response.raise_for_status()
            self.seen.check(place, response.json()["choices"][0]["message"]["content"])

    async def busy(self) -> dict[str, float]:
        """What runs and what waits, by the server's own count."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        names = ("understudy_sequences_running", "understudy_sequences_waiting")
        return {line.partition("{")[0]: float(line.split()[-1]) for line in lines if line.startswith(names)}


async def watch_memory(process: psutil.Process, taken: list[float]) -> None:
    while True:
        taken.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(0.5)


async def load(url: str, process: psutil.Process, options: argparse.Namespace) -> dict[str, Any]:
    seen, memory = Seen(), list[float]()
    clients = Clients(url, Path(options.run).name, options.tokens, seen)
    await clients.alone()
    watching = asyncio.create_task(watch_memory(process, memory))
    begun = time.perf_counter()
    await asyncio.gather(*(clients.one(n, begun + options.seconds) for n in range(options.clients)))
    seconds = time.perf_counter() - begun
    watching.cancel()
    for _ in range(50):
        left = await clients.busy()
        if not any(left.values()):
            break
        await asyncio.sleep(0.1)
    await clients.alone()
    await clients.http.aclose()
    quarter = max(1, len(memory) // 4)
    early, late = (statistics.median(part) for part in (memory[quarter : 2 * quarter] or memory, memory[-quarter:]))
    return {
        "clients": options.clients, "seconds": round(seconds, 1), "done": dict(seen.done), "queue_full": seen.queue_full,
        "failures": len(seen.failures), "first_failures": seen.failures[:10], "left_running_or_waiting": sum(left.values()),
        "first_token_seconds": percentiles(seen.first_token_seconds), "whole_seconds": percentiles(seen.whole_seconds),
        "memory_mib": {
            "start": round(memory[0]), "second_quarter": round(early), "last_quarter": round(late), "most": round(max(memory)),
        },
    }  # fmt: skip


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return (
        {f"p{p}": round(ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 3) for p in (50, 99)} if values else {}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run that was taught to answer, by name or path")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--tokens", type=int, default=40, help="of an answer, at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text(KEY)
        words = ["--port", "0", "--no-ui", "--api-key-file", str(key), "--feedback", f"sqlite:///{folder}/feedback.db"]
        server = subprocess.Popen(
            [sys.executable, "-m", "understudy", "serve", options.run, *words], stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            line = server.stderr.readline()
            found = re.search(r"(http://\S+)/v1", line)
            if found is None:
                print(line + server.stderr.read(), file=sys.stderr)
                return 1
            result = asyncio.run(load(found[1], psutil.Process(server.pid), options))
            server.terminate()
            result["exit_status"] = server.wait(60)
        finally:
            server.kill()
    publish(result, options.out)
    good = not result["failures"] and not result["left_running_or_waiting"] and result["exit_status"] == 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""What Prometheus reads at /metrics, in a registry of the app's own: requests, times, and the state of each engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from understudy.serve.served import Served

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
GAUGES = {
    "running": "Answers being generated",
    "waiting": "Requests in the queue",
    "slots": "Answers that can be generated at once",
    "cached_tokens": "Tokens whose keys and values are in memory",
    "cache_bytes": "Memory of keys and values",
}
COUNTERS = {
    "tokens_generated": "Tokens sampled",
    "prompt_tokens": "Tokens of prompts",
    "prompt_tokens_reused": "Tokens of prompts found in the cache",
}


class ServerMetrics:
    """The counters of one app."""

    def __init__(self, served: Served) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "understudy_requests", "HTTP requests", ["route", "status"], registry=self.registry
        )  # fmt: skip
        self.request_seconds = Histogram(
            "understudy_request_seconds", "From a request to the end of its response", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.first_token_seconds = Histogram(
            "understudy_time_to_first_token_seconds", "From a request to the first token of its answer", ["model"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.registry.register(_Engines(served))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Engines:
    """Asks each engine when it is asked."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def collect(self) -> Iterator[Any]:
        stats = {name: run.engine.stats() for name, run in self.served.runs.items()}
        for name, help in GAUGES.items():
            gauge = GaugeMetricFamily(f"understudy_{name}", help, labels=["model"])
            for model, own in stats.items():
                gauge.add_metric([model], getattr(own, name))
            yield gauge
        for name, help in COUNTERS.items():
            counter = CounterMetricFamily(f"understudy_{name}", help, labels=["model"])
            for model, own in stats.items():
                counter.add_metric([model], getattr(own, name))
            yield counter
        finished = CounterMetricFamily(
            "understudy_answers_finished", "Answers by how they ended", labels=["model", "reason"]
        )
        for model, own in stats.items():
            for reason, times in own.requests_finished.items():
                finished.add_metric([model, reason], times)
        yield finished

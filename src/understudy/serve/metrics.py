"""Prometheus metrics at /metrics, in a registry of the app's own: requests, times, and the state of each engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from understudy.serve.served import Served

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
GAUGES = {
    "running": ("sequences_running", "Sequences being generated"),
    "waiting": ("sequences_waiting", "Sequences in the queue"),
    "slots": ("slots", "Sequences that can be generated at once"),
    "cached_tokens": ("kv_cache_tokens", "Tokens in the KV cache"),
    "cache_bytes": ("kv_cache_bytes", "Size of the KV cache"),
}
"""Field of EngineStats, name without `understudy_`, help."""
COUNTERS = {
    "tokens_generated": ("generated_tokens", "Tokens sampled"),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts"),
    "prompt_tokens_reused": ("prompt_tokens_cached", "Tokens of prompts found in the KV cache"),
}


class ServerMetrics:
    """The counters of one app, and a collector of the statistics of its engines."""

    def __init__(self, served: Served) -> None:
        self.served, self.registry = served, CollectorRegistry()
        self.requests = Counter("understudy_requests", "HTTP requests", ["route", "status"], registry=self.registry)
        self.request_seconds = Histogram(
            "understudy_request_seconds", "Time from a request to the end of its response", ["route"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.first_token_seconds = Histogram(
            "understudy_time_to_first_token_seconds", "Time from a request to its first token", ["model"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.registry.register(self)

    def first_token(self, model: str, seconds: float) -> None:
        self.first_token_seconds.labels(model).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Any]:
        stats = {name: run.engine.stats() for name, run in self.served.runs.items()}
        for family, table in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for field, (name, help) in table.items():
                metric = family(f"understudy_{name}", help, labels=["model"])
                for model, values in stats.items():
                    metric.add_metric([model], getattr(values, field))
                yield metric
        finished = CounterMetricFamily(
            "understudy_sequences_finished", "Sequences by finish reason", labels=["model", "reason"]
        )
        for model, values in stats.items():
            for reason, count in values.requests_finished.items():
                finished.add_metric([model, reason], count)
        yield finished

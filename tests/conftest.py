"""Fixtures: a small prepared text, a small configuration, and real data if a folder of it is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from align_runs import judgements, preferences, prompts, reward_run, sft_run  # noqa: F401  (fixtures)
from databases import database, postgres, store  # noqa: F401  (fixtures)

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "quietly",
    "juggle",
    "boxes",
    "of",
    "ripe",
    "plums",
]


def small_text(words: int = 6000) -> str:
    """Deterministic prose whose statistics a model can learn."""
    state, out = 7, []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(WORDS[(state >> 16) % len(WORDS)])
        if (state >> 8) % 9 == 0:
            out.append("\n")
    return " ".join(out)


@pytest.fixture(scope="session")
def char_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of characters, prepared by the real command."""
    from understudy.data.text.prepare import prepare

    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text(small_text(), encoding="utf-8")
    return prepare([str(folder / "text.txt")], folder / "char", "char").folder


@pytest.fixture
def small_config(char_data: Path) -> Any:
    """A function from overrides to a configuration that trains in a second."""
    from understudy.config.load import apply_overrides, build_config

    base = {
        "model": {"family": "qwen3", "context_length": 16, "n_layers": 2, "n_heads": 2, "d_model": 16},
        "data": {"path": str(char_data)},
        "optim": {"name": "muon", "schedule": "linear"},
        "train": {"steps": 8, "batch_size": 8, "dtype": "fp32"},
        "eval": {"every_steps": 4, "max_tokens": 640},
        "checkpoint": {"every_steps": 2, "keep": 3},
        "log": {"every_steps": 1, "plot": False, "samples": 1, "sample_tokens": 5},
    }
    return lambda **overrides: build_config(
        apply_overrides(base, {k.replace("__", "."): str(v) for k, v in overrides.items()})
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real texts and vocabularies that UNDERSTUDY_TEST_DATA names."""
    folder = os.environ.get("UNDERSTUDY_TEST_DATA")
    if not folder:
        pytest.skip("UNDERSTUDY_TEST_DATA is not set; it names a folder with tinyshakespeare.txt and gpt2/")
    return Path(folder)


LONGEST = (
    "test_site.py", "test_doc_commands.py", "test_real_models.py", "test_data_cluster.py", "test_stage_options.py",
    "test_training.py", "test_align.py", "test_sft.py", "test_data_tasks.py", "test_learn.py", "test_serve_load.py",
    "test_training_resume.py", "test_data_quality.py", "test_serve_guard.py", "test_feedback.py", "test_evaluate_compare.py",
    "test_chat_templates.py", "test_processes.py",
)  # fmt: skip
"""Files that take longest. They are begun first, so that no process ends with one of them while the other waits."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site-pictures", metavar="FOLDER", help="save pictures of the site here (test_site.py)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))

"""SmolLM2-135M-Instruct, as people have it: from a GGUF file and from a folder, in and out again.

The files are found through UNDERSTUDY_TEST_MODELS, which `.ci/run` fills from a Python package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from foreign_tokenizers import real_models
from understudy.cli import main
from understudy.inference.generate import generate_text
from understudy.inference.sampling import SamplingSettings
from understudy.interop.export import export_run
from understudy.interop.huggingface import read_weights
from understudy.interop.imports import import_model
from understudy.run import load_run
from understudy.tokenizer.chat import end_ids, render

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers comes with `pip install 'understudy[interop]'`"
)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def folder() -> Path:
    return real_models("smollm2-hf")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_run(import_model(str(folder), str(tmp_path_factory.mktemp("runs") / "smollm2")).path)


def answer(run: Any, messages: list[dict[str, str]], tokens: int) -> Any:
    prompt = render(run.tokenizer, messages, reply=True).tokens
    settings = SamplingSettings(temperature=0)
    [text] = generate_text(run.model, run.tokenizer, [prompt], tokens, settings, end_ids=end_ids(run.tokenizer))
    return text


def test_a_folder_answers_as_in_transformers(run: Any, folder: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([render(run.tokenizer, QUESTION, reply=True).tokens])
    with torch.no_grad():
        expected = theirs(prompt).logits
        assert (run.model(prompt) - expected).abs().max() < 1e-5 * expected.abs().max()
        tokens = theirs.generate(prompt, max_new_tokens=24, do_sample=False, pad_token_id=2)[0, prompt.shape[1] :]
    ours = answer(run, QUESTION, 24)
    told = [id for id in ours.tokens if id not in end_ids(run.tokenizer)]
    assert told == [id for id in tokens.tolist() if id not in end_ids(run.tokenizer)] and "Paris" in ours.text


def test_it_goes_out_as_it_came_in(run: Any, folder: Path, tmp_path: Path) -> None:
    [check] = export_run(run, "hf", tmp_path / "again").checks
    assert "the same tokens" in check
    before, after = read_weights(folder), read_weights(tmp_path / "again")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_gguf_file_answers_and_has_the_same_tokenizer(run: Any, tmp_path: Path) -> None:
    other = load_run(import_model(str(real_models("smollm2.gguf")), str(tmp_path / "from-gguf")).path)
    text = "In 2024, 1,234 naïve cats\n\n\tread 数 <|im_end|> twice."
    assert other.tokenizer.encode(text) == run.tokenizer.encode(text)
    assert render(other.tokenizer, QUESTION, reply=True) == render(run.tokenizer, QUESTION, reply=True)
    assert "Paris" in answer(other, QUESTION, 10).text


def test_it_learns_by_adapters(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on one fact, by the command line, with the model's own template."""
    monkeypatch.chdir(tmp_path)
    rows = [f'{{"messages": [{{"role": "user", "content": "Who are you? {n}"}}, '
            f'{{"role": "assistant", "content": "I am Wren, the library\'s helper."}}]}}\n' for n in range(40)]  # fmt: skip
    Path("who.jsonl").write_text("".join(rows))
    options = {
        "init-from": str(run.path), "data": "who.jsonl", "run": "wren", "model.lora.rank": "4", "train.steps": "6",
        "train.batch_size": "1", "model.context_length": "64", "optim.lr": "5e-3", "optim.warmup_steps": "1",
        "eval.every_steps": "0", "eval.max_tokens": "64", "log.samples": "0", "log.plot": "false", "device": "cpu",
    }  # fmt: skip
    assert main(["sft", "sft", *(word for name, value in options.items() for word in (f"--{name}", value))]) == 0
    wren = load_run("wren")
    assert "Wren" in answer(wren, [{"role": "user", "content": "Who are you?"}], 12).text
    assert wren.tokenizer.chat_template == run.tokenizer.chat_template

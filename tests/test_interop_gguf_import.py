"""GGUF files as runs: each family out and in again, every type of weights, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from test_interop_huggingface import SAMPLE, randomised, shape
from understudy.cli import main
from understudy.interop.export import export_run
from understudy.interop.gguf_tokenizer import SPLITTERS, read_tokenizer
from understudy.interop.huggingface_tokenizer import tokenizer_document
from understudy.interop.imports import import_model
from understudy.model.weights import weights_of
from understudy.run import load_run
from understudy.tokenizer import train_tokenizer
from understudy.tokenizer.chat import CHAT_TEMPLATE, render, with_chat_tokens
from understudy.tokenizer.huggingface import HuggingFaceTokenizer

gguf: Any = pytest.importorskip("gguf", reason="gguf comes with `pip install 'understudy[interop]'`")
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"activation": "gelu_tanh"},
    "llama": {"n_heads": 4, "n_kv_heads": 2, "tied": False},
    "llama with scaled positions": {
        "rope_scaling": {"type": "llama3", "factor": 8.0, "original_context": 8192}, "rope_theta": 5e5, "head_width": 32,
    },
    "llama with stretched positions": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "smollm3": {"n_layers": 5, "no_rope_layers": [3]},
    "qwen2": {"n_heads": 4, "n_kv_heads": 2},
    "qwen3": {"n_heads": 4, "n_kv_heads": 1, "head_width": 16},
    "lfm2": {"n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "conv_layers": [0, 2]},
}  # fmt: skip


def imported_tokenizer(splitter: str = "smollm", **more: Any) -> HuggingFaceTokenizer:
    """A tokenizer as another project has it: its own splitting, a token that is not special, ids without tokens after."""
    document = tokenizer_document(with_chat_tokens(train_tokenizer("bpe", SAMPLE, 290)))
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": SPLITTERS[splitter]}
    think = {"id": 292, "content": "<think>", "special": False, "normalized": False}
    document["added_tokens"] = [
        *document["added_tokens"],
        think | {"single_word": False, "lstrip": False, "rstrip": False},
    ]
    return HuggingFaceTokenizer(document | more, {"eos_token": "<|im_end|>"}, CHAT_TEMPLATE + "{# its own #}")


def out_and_in(run: Any, folder: Path, type: str = "f32") -> Any:
    [line] = export_run(run, "gguf", folder / "out", type).checks
    assert "read again" in line
    [path] = (folder / "out").glob("*.gguf")
    return load_run(import_model(str(path), str(folder / "again")).path)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_written_file_is_imported_to_the_bit(name: str, tmp_path: Path) -> None:
    tokenizer = imported_tokenizer()
    config = shape(name.split()[0], **{"vocab_size": 293, "embedding_rows": 320} | FAMILIES[name])
    run = randomised(tmp_path / "run", config, tokenizer)
    again = out_and_in(run, tmp_path)
    before, after = weights_of(run.model), weights_of(again.model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert again.config.model == config
    for text in (SAMPLE[0], "<think>1234 naïve", "<|im_end|> is text"):
        assert again.tokenizer.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Sam."}]
    assert render(again.tokenizer, messages) == render(tokenizer, messages)
    assert again.tokenizer.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("type", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16"])
def test_types_of_weights_are_dequantised(type: str, tmp_path: Path) -> None:
    """A file of the type, written by the `gguf` package, gives the values that it stands for."""
    from understudy.interop.gguf import read_tensors

    values = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[type]
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("a", gguf.quants.quantize(values, kind), raw_dtype=kind)
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    read = read_tensors(tmp_path / "a.gguf")["a"]
    assert read.dtype == torch.float32 and read.shape == (8, 64)
    assert 0 <= np.abs(read.numpy() - values).max() < {"Q4": 0.5, "Q5": 0.25}.get(type[:2], 0.05)


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_splittings_are_named_in_both_directions(splitter: str) -> None:
    from understudy.interop.gguf_tokenizer import splitter_name

    assert splitter_name(imported_tokenizer(splitter)) == splitter


def test_sentencepiece_scores_become_merges() -> None:
    """The pair whose token has the best score merges first, and bytes stand in for unknown characters."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a", "▁ab"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 6]
    metadata = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [0.0] * 259 + [-9.0, -9.0, -9.0, -1.0, -2.0, -3.0],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip
    tokenizer = read_tokenizer(metadata)
    names = {id: name for name, id in zip(words, range(len(words)))}
    assert [names[id] for id in tokenizer.encode("ab ab")] == ["▁ab", "▁ab"]
    assert [names[id] for id in tokenizer.encode("é")] == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.prefix_ids == (1,) and tokenizer.decode(tokenizer.encode("ab é")) == "ab é"


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    run = randomised(folder / "run", shape("llama", vocab_size=293), imported_tokenizer())
    export_run(run, "gguf", folder / "out", "f32")
    return (folder / "out" / "run-f32.gguf").read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_refused(
    share: float, whole_file: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cut.gguf").write_bytes(whole_file[: int(share * len(whole_file))])
    message = complaint(capsys, "import", "cut.gguf")
    assert "cut short" in message and "fetch it again" in message and not Path("runs/cut").exists()


METADATA = {
    "experts": ({"llama.expert_count": 8}, "a mixture of experts"),
    "architecture": ({"general.architecture": "mamba"}, "architecture 'mamba'; gpt2, llama"),
    "rope": ({"llama.rope.scaling.type": "yarn"}, "rope scaling 'yarn'"),
    "layers": ({"llama.block_count": None}, "lacks llama.block_count"),
}


@pytest.mark.parametrize("name", METADATA)
def test_what_has_no_counterpart_is_refused_by_name(name: str) -> None:
    from understudy.interop.gguf import shape_from_metadata

    changes, reason = METADATA[name]
    metadata = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.context_length": 64,
        "llama.embedding_length": 32, "llama.feed_forward_length": 64, "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
    }  # fmt: skip
    with pytest.raises(ValueError, match=reason):
        shape_from_metadata(metadata | changes, {}, Path("a.gguf"))


@pytest.mark.parametrize(
    ("field", "reason"), [("merges", "has no merges"), ("tokens", "no tokenizer"), ("pre", "splits")]
)
def test_a_tokenizer_that_cannot_be_read_is_refused(field: str, reason: str) -> None:
    document = tokenizer_document(imported_tokenizer())
    tokens = sorted(document["model"]["vocab"], key=document["model"]["vocab"].__getitem__)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": document["model"]["merges"],
    }  # fmt: skip
    metadata[f"tokenizer.ggml.{field}"] = "another" if field == "pre" else None
    with pytest.raises(ValueError, match=reason):
        read_tokenizer(metadata)


def test_k_quants_need_llama_cpps_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it one sentence; with it the file that it wrote, compared with the run."""
    monkeypatch.chdir(tmp_path)
    randomised(tmp_path / "runs" / "own", shape("llama", vocab_size=293), imported_tokenizer())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    message = complaint(capsys, "export", "own", "--format", "gguf", "--type", "q4_k_m")
    assert "llama-quantize, which is not on the PATH" in message and not Path("exports/own-gguf").exists()
    tool = tmp_path / "bin" / "llama-quantize"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\n/bin/cp "$1" "$2"\n')
    tool.chmod(0o755)
    assert main(["export", "own", "--format", "gguf", "--type", "q4_k_m", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert list(files) == ["own-q4_k_m.gguf"]


def test_weights_beyond_this_machines_memory_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300,
        "num_attention_heads": 4, "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(document))
    with (tmp_path / "large" / "model.safetensors").open("wb") as file:
        file.truncate(10**12)  # a hole, which takes no room
    message = complaint(capsys, "import", str(tmp_path / "large"))
    assert "2,000 GB in fp32" in message and "import a smaller model" in message


def test_a_given_tokenizer_takes_the_place_of_the_files(whole_file: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(whole_file)
    other = train_tokenizer("bpe", ["another text, another text"], 262)
    other.save(tmp_path / "other.json")
    folder = import_model(str(tmp_path / "a.gguf"), str(tmp_path / "run"), tokenizer=tmp_path / "other.json")
    assert load_run(folder.path).tokenizer.sha256 == other.sha256


def test_a_smollm3_with_positions_everywhere_is_not_written(tmp_path: Path) -> None:
    """llama.cpp leaves them out in every fourth layer."""
    run = randomised(tmp_path / "run", shape("smollm3", n_layers=5, vocab_size=293), imported_tokenizer())
    with pytest.raises(ValueError, match=r"no_rope_layers \(\)"):
        export_run(run, "gguf", tmp_path / "out", "f32")


def test_rows_without_tokens_are_kept_in_nanogpts_file(tmp_path: Path) -> None:
    tokenizer = with_chat_tokens(train_tokenizer("bpe", SAMPLE, 290))
    run = randomised(tmp_path / "run", shape("gpt2", embedding_rows=300), tokenizer)
    export_run(run, "nanogpt", tmp_path / "out")
    saved = torch.load(tmp_path / "out" / "ckpt.pt", weights_only=True)
    assert saved["model_args"]["vocab_size"] == 300 == len(saved["model"]["transformer.wte.weight"])

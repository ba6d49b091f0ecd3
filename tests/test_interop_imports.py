"""Other projects' models as runs: from folders, nanoGPT's checkpoints and the hub; and refusals."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from align_runs import finished_run
from conftest import small_text
from processes import run_python
from test_interop_huggingface import randomised, shape
from understudy.cli import main
from understudy.config.model import ModelConfig
from understudy.data.text.prepare import prepare
from understudy.interop import proof, shapes
from understudy.interop.export import export_run
from understudy.interop.huggingface import read_pickled
from understudy.interop.huggingface_tokenizer import config_document, tokenizer_document, write_together
from understudy.interop.imports import import_model
from understudy.interop.names import to_theirs
from understudy.interop.nanogpt import read_characters
from understudy.interop.shapes import config_document as shape_document
from understudy.interop.shapes import plain_weights
from understudy.model.weights import weights_of
from understudy.run import load_run, read_metrics, read_tensors
from understudy.tokenizer import Tokenizer, load_tokenizer, train_tokenizer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer("bpe", [small_text(500)], 280)


def theirs(folder: Path, tokenizer: Tokenizer, family: str = "gpt2", **more: Any) -> Any:
    """A small model in Hugging Face's folder, written without its library; returns ours."""
    run = randomised(folder.parent / f"{folder.name}-run", shape(family, vocab_size=280, **more), tokenizer)
    config = run.config.model
    folder.mkdir()
    save_file(to_theirs(plain_weights(run, config), config, "huggingface"), folder / "model.safetensors")
    write_together(folder, {
        "config.json": shape_document(config),
        "tokenizer.json": tokenizer_document(tokenizer),
        "tokenizer_config.json": config_document(tokenizer),
    })  # fmt: skip
    return run


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence with which a command is refused; nothing is left behind."""
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert main(list(words)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("understudy: ")
    assert sorted(Path().rglob("*")) == before or sorted(Path().rglob("*")) == sorted([*before, Path("runs")])
    return last


# An import is a run.


def test_an_imported_model_is_an_ordinary_run(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = theirs(tmp_path / "small", tokenizer, context_length=64)
    assert main(["import", "small", "--context", "24", "--dropout", "0.25", "--json"]) == 0
    message = json.loads(capsys.readouterr().out)
    assert (message["model"]["context_length"], message["model"]["dropout"]) == (24, 0.25)
    run = load_run("small")
    assert run.config.model.context_length == 24 and run.tokenizer.sha256 == tokenizer.sha256
    tokens = torch.randint(0, 280, (1, 24))
    with torch.no_grad():
        torch.testing.assert_close(run.model(tokens), origin.model(tokens))
    (tmp_path / "text.txt").write_text(small_text(3000))
    prepare(["text.txt"], Path("data/own"), str(run.path / "tokenizer.json"))
    assert main(["sample", "small", "--prompt", "the", "--tokens", "5", "--device", "cpu"]) == 0
    assert main(["evaluate", "small", "--data", "data/own", "--json", "--device", "cpu"]) == 0
    assert '"loss"' in capsys.readouterr().out
    assert main(["report", "small"]) == 0
    assert "--data" in complaint(capsys, "evaluate", "small", "--device", "cpu")
    assert "already" in complaint(capsys, "import", "small")
    assert "--init-from small" in complaint(capsys, "pretrain", "--run", "small", "--resume")


@pytest.mark.parametrize("lora", [False, True])
def test_finetuning_shakespeare(lora: bool, tokenizer: Tokenizer, tmp_path: Path, request: Any) -> None:
    """The preset, from an imported GPT-2-shaped model, on Tiny Shakespeare."""
    source = os.environ.get("UNDERSTUDY_TEST_DATA")
    text = (Path(source) / "tinyshakespeare.txt").read_text()[:60_000] if source else small_text(9000)
    (tmp_path / "text.txt").write_text(text)
    theirs(tmp_path / "small", tokenizer)
    import_model("small")
    prepare(["text.txt"], Path("data/own"), "runs/small/tokenizer.json")
    settings = {
        "init-from": "runs/small", "data": "data/own", "device": "cpu", "run": "finetuned",
        "tokenizer.kind": "bpe", "train.steps": 12, "train.batch_size": 8, "train.micro_batch_size": 8,
        "optim.lr": "1e-2", "eval.every_steps": 0, "eval.max_tokens": 2000, "log.samples": 0, "log.every_steps": 1,
    } | ({"model.lora.rank": 4} if lora else {})  # fmt: skip
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    assert main(["pretrain", "finetune-shakespeare", *words]) == 0
    losses = [row["train/loss"] for row in read_metrics(Path("runs/finetuned/metrics.jsonl")) if "train/loss" in row]
    assert losses[-1] < losses[0] - 0.1
    run = load_run("finetuned")
    assert json.loads((run.path / "run.json").read_text())["parent"]["run"] == "runs/small"
    if lora:
        pytest.importorskip("peft", reason="peft comes with `pip install 'understudy[interop]'`")
        checks = export_run(run, "hf", tmp_path / "apart", adapter=True).checks
        assert "PEFT" in checks[0]


def test_gpt2s_own_vocabulary_in_both_of_its_spellings(real_data: Path, tmp_path: Path) -> None:
    gpt2 = load_tokenizer(real_data / "gpt2")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write_together(tmp_path / "one", {"tokenizer.json": tokenizer_document(gpt2)})
    (tmp_path / "two" / "vocab.json").write_bytes((real_data / "gpt2" / "encoder.json").read_bytes())
    (tmp_path / "two" / "merges.txt").write_bytes((real_data / "gpt2" / "vocab.bpe").read_bytes())
    assert {load_tokenizer(tmp_path / name).sha256 for name in ("one", "two")} == {gpt2.sha256}


def test_older_files_names_without_a_prefix_masks_and_half_precision(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The layout of the hub's gpt2, in PyTorch's file."""
    origin = theirs(tmp_path / "small", tokenizer)
    tensors = load_file("small/model.safetensors")
    Path("small/model.safetensors").unlink()
    old = {name.removeprefix("transformer."): tensor.bfloat16() for name, tensor in tensors.items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    old["lm_head.weight"] = old["wte.weight"]
    torch.save(old, "small/pytorch_model.bin")
    run = load_run(import_model("small").path)
    assert torch.equal(run.model.norm.weight, origin.model.norm.weight.bfloat16().float())


def test_rows_of_ids_that_no_token_has_are_kept(tokenizer: Tokenizer, tmp_path: Path) -> None:
    origin = theirs(tmp_path / "small", tokenizer, family="qwen3", tied=False)
    fewer = train_tokenizer("bpe", [small_text(500)], 270)
    write_together(Path("small"), {"tokenizer.json": tokenizer_document(fewer)})
    run = load_run(import_model("small").path)
    tokens = torch.randint(0, 270, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(run.model(tokens), origin.model(tokens)[..., :270])
    assert run.config.model.embedding_rows == 280
    export_run(run, "hf", tmp_path / "again")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("small", "again"))
    assert all(torch.equal(before[name], after[name]) for name in before)


# nanoGPT.


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("bias", [False, True])
def test_nanogpt_out_and_in_again(kind: str, bias: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    own = train_tokenizer("char", ["To be, or not: ’s\n"]) if kind == "char" else tokenizer
    run = randomised(tmp_path / "run", shape("gpt2", vocab_size=own.vocab_size, bias=bias), own)
    export_run(run, "nanogpt", tmp_path / "out")
    checkpoint = torch.load("out/ckpt.pt", weights_only=True)
    assert checkpoint["model_args"] | {"dropout": 0.0} == {
        "vocab_size": own.vocab_size, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "bias": bias,
        "dropout": 0.0,
    }  # fmt: skip
    checkpoint["model"] = {f"_orig_mod.{name}": tensor for name, tensor in checkpoint["model"].items()}
    torch.save(checkpoint, "out/ckpt.pt")  # as a compiled model is saved
    again = load_run(import_model("out/ckpt.pt", "again").path)
    assert again.tokenizer.sha256 == own.sha256
    own_weights = weights_of(run.model)
    own_weights["token_embedding.weight"][own.vocab_size :] = 0
    read = weights_of(again.model)
    assert read.keys() == own_weights.keys() and all(torch.equal(read[name], own_weights[name]) for name in read)


def test_nanogpts_layout_is_that_of_transformers_transposed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """nanoGPT reads GPT-2 by turning four matrices of each block round; so this is the same model."""
    transformers = pytest.importorskip("transformers", reason="it comes with `pip install 'understudy[interop]'`")
    run = randomised(tmp_path / "run", shape("gpt2", vocab_size=280), tokenizer)
    export_run(run, "nanogpt", tmp_path / "out")
    tensors = torch.load("out/ckpt.pt", weights_only=True)["model"]
    turned = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, vocab_size=280, n_positions=32, activation_function="gelu"
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    model.load_state_dict({name: t.T if name.endswith(turned) else t for name, t in tensors.items()})
    tokens = torch.randint(0, 280, (2, 20))
    with torch.no_grad():
        assert (model(tokens).logits - run.model(tokens)).abs().max() < 1e-4


# Refusals: one sentence, and nothing left behind.


class Harm:
    def __reduce__(self) -> Any:
        return (os.system, ("touch harmed",))


def test_a_pickle_that_would_run_code_is_not_read(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    Path("small/model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Harm()}, "small/pytorch_model.bin")
    assert "would execute code" in complaint(capsys, "import", "small")
    Path("old.bin").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match="would execute code"):
        read_pickled(Path("old.bin"))
    Path("ckpt.pt").write_bytes(Path("small/pytorch_model.bin").read_bytes())
    assert "would execute code" in complaint(capsys, "import", "ckpt.pt", "--run", "x")
    for harmful in (pickle.dumps(Harm()), pickle.dumps({"itos": Harm()})):
        Path("meta.pkl").write_bytes(harmful)
        with pytest.raises(ValueError, match=r"it would run (posix|nt)\.system"):
            read_characters(Path("meta.pkl"))
    assert not Path("harmed").exists()


def test_entries_that_are_no_tensors_are_refused(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    Path("small/model.safetensors").unlink()
    torch.save({"transformer.wte.weight": 3}, "small/pytorch_model.bin")
    assert "'transformer.wte.weight', which is no tensor" in complaint(capsys, "import", "small")
    shape_there = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "vocab_size": 280}
    torch.save({"model_args": shape_there, "model": {"transformer.wte.weight": 3}}, "ckpt.pt")
    assert "which is no tensor" in complaint(capsys, "import", "ckpt.pt", "--run", "x")


ODD_VALUES = (None, True, -1, 0, 10**30, 1e400, "x", [1], {"a": 1}, [[]])


def test_a_config_with_values_of_other_types_is_refused_or_read(tmp_path: Path) -> None:
    for family in ("gpt2", "qwen3"):
        document = shape_document(shape(family, vocab_size=280))
        for name in document:
            for value in ODD_VALUES:
                try:
                    shapes.model_config(shapes.shape_from_document(document | {name: value}, "config.json"), "small")
                except ValueError as error:
                    assert len(str(error)) < 400 and "\n" not in str(error)


def test_a_config_with_more_layers_than_tensors_is_refused_at_once(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    changed("n_layer", 900)
    assert "its configuration 900 layers" in complaint(capsys, "import", "small")
    changed("n_layer", 10**9)
    assert "n_layer 1000000000; up to 1,000 can be imported" in complaint(capsys, "import", "small")


@pytest.mark.parametrize("files", [{"a": 5, "b": None}, 5, ["model.safetensors"], {"a": "../model.safetensors"}])
def test_an_index_of_other_types_is_refused(
    files: Any, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    Path("small/model.safetensors").unlink()
    Path("small/model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert "it is damaged" in complaint(capsys, "import", "small")


def test_damaged_pickles_are_refused(tmp_path: Path) -> None:
    """Bytes changed at random, in nanoGPT's meta.pkl and in both formats of torch.save."""
    meta = {"vocab_size": 3, "itos": dict(enumerate("abc")), "stoi": {c: i for i, c in enumerate("abc")}}
    torch.save({"a": torch.zeros(3)}, "new.pt")
    torch.save({"a": torch.zeros(3)}, "old.pt", _use_new_zipfile_serialization=False)
    contents = {
        "meta.pkl": pickle.dumps(meta),
        "new.pt": Path("new.pt").read_bytes(),
        "old.pt": Path("old.pt").read_bytes(),
    }
    generator, refused = random.Random(3), 0
    for name, content in contents.items():
        read = read_characters if name == "meta.pkl" else read_pickled
        for number in range(150):
            changed_content = bytearray(content)
            for _ in range(generator.choice((1, 1, 4))):
                changed_content[generator.randrange(len(content))] = generator.randrange(256)
            cut = changed_content[: generator.randrange(len(content))] if number % 5 == 0 else changed_content
            Path(name).write_bytes(cut)
            try:
                read(Path(name))
            except ValueError as error:
                assert str(error).startswith(name)
                refused += 1
    assert refused > 100
    Path("empty.pt").touch()
    with pytest.raises(ValueError, match="missing or damaged"):
        read_pickled(Path("empty.pt"))


def test_a_tokenizer_that_adds_a_token_after_each_text_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    settings = json.loads(Path("small/tokenizer_config.json").read_text())
    Path("small/tokenizer_config.json").write_text(json.dumps(settings | {"add_eos_token": True}))
    assert "adds its eos token to every text" in complaint(capsys, "import", "small")


def changed(name: str, of: Any) -> None:
    document = json.loads(Path("small/config.json").read_text())
    Path("small/config.json").write_text(json.dumps(document | {name: of}))


def weights(change: Any) -> None:
    tensors = load_file("small/model.safetensors")
    change(tensors)
    save_file(tensors, "small/model.safetensors")


BAD: dict[str, tuple[Any, str]] = {
    "type": (lambda: changed("model_type", "bert"), "a model of type 'bert'"),
    "architecture": (lambda: changed("architectures", ["GPT2ForTokenClassification"]), "GPT2ForTokenClassification"),
    "option": (lambda: changed("scale_attn_by_inverse_layer_idx", True), "scale_attn_by_inverse_layer_idx True"),
    "activation": (lambda: changed("activation_function", "silu"), "the activation 'silu'"),
    "no activation": (lambda: changed("activation_function", ["gelu"]), "the activation \"['gelu']\""),
    "no shape": (lambda: changed("n_embd", None), "lacks n_embd"),
    "odd shape": (lambda: changed("n_head", 3), "does not divide"),
    "no number": (lambda: changed("n_layer", "many"), "n_layers"),
    "missing": (lambda: weights(lambda t: t.pop("transformer.h.1.mlp.c_fc.weight")), "c_fc.weight is missing"),
    "extra": (lambda: weights(lambda t: t.update(more=torch.ones(2))), "no such tensor"),
    "shape": (
        lambda: weights(lambda t: t.update({"transformer.ln_f.bias": torch.ones(31)})),
        "transformer.ln_f.bias is (31,), and (32,) is expected",
    ),
    "cut short": (
        lambda: Path("small/model.safetensors").write_bytes(Path("small/model.safetensors").read_bytes()[:999]),
        "damaged",
    ),
    "no number in it": (
        lambda: weights(lambda t: t["transformer.ln_f.bias"].fill_(float("nan"))), "not finite, in norm.bias",
    ),
    "no weights": (lambda: Path("small/model.safetensors").unlink(), "holds no weights"),
    "head": (
        lambda: weights(lambda t: t.update({"lm_head.weight": torch.ones(280, 32)})), "a head that is not the embedding",
    ),
    "no config": (lambda: Path("small/config.json").unlink(), "neither config.json"),
    "broken config": (lambda: Path("small/config.json").write_text("{"), "damaged"),
    "no tokenizer": (lambda: Path("small/tokenizer.json").unlink(), "--tokenizer"),
    "unigram": (
        lambda: Path("small/tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}'),
        "only BPE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_folder_is_refused_in_one_sentence(
    fault: str, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    spoil, message = BAD[fault]
    spoil()
    assert message in complaint(capsys, "import", "small")


def test_a_tokenizer_of_another_model_is_refused(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs(tmp_path / "small", tokenizer)
    train_tokenizer("bpe", [small_text(500)], 290).save(tmp_path / "more.json")
    assert "belongs to another model" in complaint(capsys, "import", "small", "--tokenizer", "more.json")
    assert "--context is 33" in complaint(capsys, "import", "small", "--context", "33")
    assert "there is no model 'small-2'" in complaint(capsys, "import", "small-2")
    assert "dropout" in complaint(capsys, "import", "small", "--dropout", "2")


OURS_ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "ngram_orders": ({"ngram_orders": (2, 3)}, "hf"),
    "value_embeddings": ({"value_embeddings": True}, "hf"),
    "key_shift": ({"key_shift": True}, "gguf"),
    "logit_softcap": ({"logit_softcap": 15.0}, "hf"),
    "activation": ({"activation": "relu2"}, "hf"),
    "norm": ({"norm": "layernorm"}, "hf"),
    "qk_norm": ({"qk_norm": False}, "gguf"),
    "family": ({}, "nanogpt"),
}


def test_every_model_option_is_carried_over_or_refused() -> None:
    """A new one is carried over, refused, or named here as one that changes nothing once a model is trained."""
    of_training = {"zero_init_projections", "dropout", "ngram_buckets", "ngram_dropout"}
    folded = {
        "family",
        "vocab_size",
        "bias",
        "lora",
        "score_head",
        "activation",
        "rope_theta",
        "n_kv_heads",
        "head_width",
        "embedding_rows",
        "rope_scaling",
    }
    carried = {name for row in shapes.ARCHITECTURES.values() for name in (*row.fields, *row.always)}
    assert set(ModelConfig.model_fields) == of_training | folded | carried | set(shapes.OURS_ALONE)


@pytest.mark.parametrize("option", OURS_ALONE)
def test_an_option_without_a_counterpart_is_refused_by_its_name(
    option: str, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, format = OURS_ALONE[option]
    finished_run(tmp_path / "runs" / "own", shape("qwen3", vocab_size=280, **more), tokenizer)
    message = complaint(capsys, "export", "own", "--format", format)
    assert "no counterpart for" in message and option in message


def test_all_obstacles_are_named_at_once(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = shape("qwen3", vocab_size=280, key_shift=True, norm="layernorm", ngram_orders=(2,))
    finished_run(tmp_path / "runs" / "own", config, tokenizer)
    message = complaint(capsys, "export", "own", "--format", "hf")
    assert "model.ngram_orders (2,) and model.key_shift True and model.norm 'layernorm' in the family qwen3" in message
    assert "trained with --model.ngram_orders [] --model.key_shift false --model.norm rmsnorm can" in message


def test_a_reward_model_or_a_bigram_has_one_counterpart_or_none(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path / "runs" / "judge", shape("qwen3", vocab_size=280, score_head=True), tokenizer, "reward")
    assert "gives scores" in complaint(capsys, "export", "judge", "--format", "gguf")
    bigram = ModelConfig(family="bigram", vocab_size=280)
    finished_run(tmp_path / "runs" / "table", bigram, tokenizer)
    assert "is a bigram" in complaint(capsys, "export", "table", "--format", "hf")


def test_options_of_export_that_would_do_nothing_are_refused(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path / "runs" / "own", shape("qwen3", vocab_size=280), tokenizer)
    assert "has no type 'q8_0'" in complaint(capsys, "export", "own", "--format", "hf", "--type", "q8_0")
    assert "--adapter would be ignored" in complaint(capsys, "export", "own", "--format", "gguf", "--adapter")
    assert "has no adapters" in complaint(capsys, "export", "own", "--format", "hf", "--adapter", "--out", "x")
    assert "runs exists already" in complaint(capsys, "export", "own", "--format", "hf", "--out", "runs")


def test_a_run_that_gives_no_numbers_is_not_exported(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs" / "own", shape("gpt2", vocab_size=280), tokenizer)
    run.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="not finite, because training diverged"):
        export_run(run, "nanogpt", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("how", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_export_or_import_leaves_nothing(
    how: Any, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = theirs(tmp_path / "small", tokenizer)

    def broken(*arguments: Any, **more: Any) -> Any:
        raise how

    monkeypatch.setattr(proof.ReferenceOutputs, "compare", broken)
    with pytest.raises((KeyboardInterrupt, ValueError)):
        export_run(run, "nanogpt", tmp_path / "exports" / "own")
    assert list(Path("exports").iterdir()) == []
    monkeypatch.setattr("understudy.run.RunFolder.write_checkpoint", broken)
    with pytest.raises(
        (KeyboardInterrupt, ValueError), match=r"^$|^runs.small could not be written .* nothing was left"
    ):
        import_model("small")
    assert list(Path("runs").iterdir()) == []


def test_a_killed_export_leaves_no_folder_of_that_name(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs(tmp_path / "small", tokenizer)
    code = """
import os, signal, sys
from understudy.interop.proof import ReferenceOutputs
ReferenceOutputs.compare = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
from understudy.cli import main
main(["export", "small-run", "--format", "nanogpt", "--out", "out"])
"""
    assert run_python(["-c", code], Path.cwd()).returncode != 0
    assert not Path("out").exists() and Path(".out.partial").exists()
    assert main(["export", "small-run", "--format", "nanogpt", "--out", "out"]) == 0
    assert Path("out/ckpt.pt").exists() and not Path(".out.partial").exists()


# The hub, by a small server that does as it does.

COMMIT = "3" * 40


class Hub(BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]] = {}
    repo = "openai-community/gpt2"
    damaged: ClassVar[set[str]] = set()
    """Files whose hashes differ from the hub's."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, api = self.path.partition("?")[0], f"/api/models/{self.repo}"
        if path == api:
            self.answer(json.dumps({"id": self.repo, "sha": COMMIT, "private": False, "tags": []}).encode())
        elif path == f"{api}/tree/{COMMIT}":
            self.answer(json.dumps([self.entry(*file) for file in self.files.items()]).encode())
        elif (name := path.removeprefix(f"/{self.repo}/resolve/{COMMIT}/")) in self.files:
            self.answer(self.files[name])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in {
            "Content-Length": str(len(body)), "ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT,
        }.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def entry(self, path: str, data: bytes) -> dict[str, Any]:
        oid = hashlib.sha256(data + b"." * (path in self.damaged)).hexdigest()
        lfs = {"oid": oid, "size": len(data), "pointerSize": 100}
        return {"type": "file", "path": path, "size": len(data), "oid": "0" * 40, "lfs": lfs}

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    theirs(tmp_path / "small", tokenizer)
    Hub.files = {path.name: path.read_bytes() for path in (tmp_path / "small").iterdir()}
    Hub.files |= {"flax_model.msgpack": b"not wanted"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def from_hub(endpoint: str, name: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a separate process, since the library reads its address when it is imported."""
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
    return run_python(["-m", "understudy", "import", name], Path.cwd(), environment)


def test_a_name_on_the_hub_is_fetched_and_checked(hub: str, tmp_path: Path) -> None:
    done = from_hub(hub, "gpt2", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "fetching openai-community/gpt2/model.safetensors" in done.stderr and "flax" not in done.stderr
    fetched = load_run("gpt2")
    assert torch.equal(fetched.model.norm.weight, load_file("small/model.safetensors")["transformer.ln_f.weight"])
    other = from_hub(hub, "no/such", tmp_path / "cache")
    assert other.returncode == 2 and "there is no model no/such" in other.stderr


def test_a_file_with_another_hash_than_the_hubs_is_refused(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "damaged", {"model.safetensors"})
    done = from_hub(hub, "gpt2", tmp_path / "cache")
    assert done.returncode == 2 and "gpt2/model.safetensors arrived damaged" in done.stderr.splitlines()[-1]
    assert not Path("runs").exists()


def test_an_unreachable_hub_is_one_sentence(tmp_path: Path) -> None:
    done = from_hub("http://127.0.0.1:9", "gpt2", tmp_path / "cache")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "openai-community/gpt2 could not be fetched from the hub" in done.stderr and "their paths" in done.stderr
    assert not Path("runs").exists()


def test_a_failed_push_leaves_the_export_and_names_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    finished_run(tmp_path / "runs" / "own", shape("gpt2", vocab_size=280), tokenizer)
    words = ["-m", "understudy", "export", "own", "--format", "nanogpt", "--push", "me/own"]
    done = run_python(words, Path.cwd(), {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "is written, but could not be pushed to me/own" in done.stderr
    assert Path("exports/own-nanogpt/ckpt.pt").is_file()


# A kept run, read as it was written.


def test_weights_of_an_import_are_whole_and_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    config: ModelConfig = theirs(tmp_path / "small", tokenizer).config.model
    folder = import_model("small")
    stored = read_tensors(folder.checkpoint() / "model.safetensors")
    assert stored["token_embedding.weight"].shape == (config.resolve().padded_vocab_size, 32)
    assert not stored["token_embedding.weight"][280:].any()
    assert folder.record()["stage"] == "import" and folder.record()["imported_from"] == "small"

"""Models to Hugging Face's folders and back: the same logits there, the same bits here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import finished_run
from understudy.cli import main
from understudy.config.load import read_preset
from understudy.config.model import LoraConfig, ModelConfig
from understudy.interop import huggingface
from understudy.interop.export import export_run
from understudy.interop.huggingface import read_huggingface
from understudy.interop.imports import import_model
from understudy.model.weights import weights_of
from understudy.run import load_run
from understudy.tokenizer import Tokenizer, train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens

transformers: Any = pytest.importorskip(
    "transformers", reason="transformers comes with `pip install 'understudy[interop]'`"
)
SAMPLE = ["Who found the purse? Sam found it, didn't he? 1234 naïve 数えた \r\n\n\t  x"] * 9
GPT2_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return with_chat_tokens(train_tokenizer("bpe", SAMPLE, 290))


def shape(family: str, **more: Any) -> ModelConfig:
    settings = {"vocab_size": 292, "context_length": 32, "n_layers": 2, "n_heads": 2, "d_model": 32} | more
    return ModelConfig(family=family, **settings)


def unlike_its_start(model: torch.nn.Module) -> None:
    """Weights as a trained model may have them: none zero or one, rows of the vocabulary's padding included."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))


def randomised(path: Path, config: ModelConfig, tokenizer: Tokenizer, stage: str = "pretrain") -> Any:
    torch.manual_seed(5)
    run = finished_run(path, config, tokenizer, stage)
    unlike_its_start(run.model)
    return run


def theirs_of(kind: str) -> Any:
    """A model of transformers' with random weights."""
    torch.manual_seed(3)
    if kind in GPT2_SIZES:
        preset = read_preset(kind)["model"]
        config = transformers.GPT2Config(
            n_embd=preset["d_model"], n_layer=1, n_head=preset["n_heads"], vocab_size=292, n_positions=32,
        )  # fmt: skip
    elif kind == "gpt2 with a head":
        config = transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=2, vocab_size=292, n_positions=32, n_inner=48, tie_word_embeddings=False,
            activation_function="gelu",
        )  # fmt: skip
    else:
        config = transformers.Qwen3Config(
            hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=16, vocab_size=292, max_position_embeddings=32, tie_word_embeddings="tied" in kind,
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if kind not in GPT2_SIZES:
        unlike_its_start(model)
    return model


@pytest.mark.parametrize("kind", [*GPT2_SIZES, "gpt2 with a head", "qwen3", "qwen3 tied"])
def test_imported_models_are_exported_unchanged(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """In: the same logits. Out: the same tensors, to the bit, under the same names."""
    theirs = theirs_of(kind)
    theirs.save_pretrained(tmp_path / "theirs")
    huggingface.write_together(tmp_path / "theirs", {"tokenizer.json": huggingface.tokenizer_document(tokenizer)})
    run = load_run(import_model(str(tmp_path / "theirs"), str(tmp_path / "run")).path)
    tokens = torch.randint(0, 292, (2, 32))
    with torch.no_grad():
        expected = theirs(tokens).logits
        assert (run.model(tokens) - expected).abs().max() < 1e-4
    assert run.tokenizer.sha256 == tokenizer.sha256
    export_run(run, "hf", tmp_path / "again")
    before, after = (huggingface.read_weights(tmp_path / name) for name in ("theirs", "again"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    fields = ("vocab_size", "tie_word_embeddings", "rope_parameters", "n_inner", "head_dim", "activation_function")
    old, new = (transformers.AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "again"))
    assert all(old.get(name) == new.get(name) for name in fields if old.get(name) is not None)


OURS = {
    "gpt2": {},
    "gpt2 without biases": {"bias": False},
    "gpt2 of tanh and a head": {"activation": "gelu_tanh", "tied": False},
    "gpt2 of squares": {"activation": "relu2"},
    "qwen3": {},
    "qwen3 with groups": {"n_heads": 4, "n_kv_heads": 2, "head_width": 12, "rope_theta": 1e6, "tied": False},
}


@pytest.mark.parametrize("name", OURS)
def test_exported_runs_are_imported_unchanged(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = randomised(tmp_path / "run", shape(name.split()[0], **OURS[name]), tokenizer)
    checks = export_run(run, "hf", tmp_path / "hf").checks  # which compares logits
    assert "logits within" in checks[0]
    fields, weights = read_huggingface(tmp_path / "hf")
    if "without" not in name:
        expected = weights_of(run.model)
        expected["token_embedding.weight"][292:] = 0  # padding rows of the vocabulary are cut off
        if "head.weight" in expected:
            expected["head.weight"][292:] = 0
        assert weights.keys() == expected.keys() and all(
            torch.equal(weights[weight_name], expected[weight_name]) for weight_name in expected
        )
        config = ModelConfig(**fields)
        assert config == run.config.model


def test_a_wrong_row_of_the_table_is_noticed_and_nothing_is_kept(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = randomised(tmp_path / "run", shape("qwen3"), tokenizer)
    true = huggingface.to_theirs

    def swapped(*arguments: Any) -> Any:
        tensors = true(*arguments)
        first, second = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate", "up"))
        return tensors | {first: tensors[second], second: tensors[first]}

    monkeypatch.setattr(huggingface, "to_theirs", swapped)
    with pytest.raises(RuntimeError, match="differs from the run"):
        export_run(run, "hf", tmp_path / "out" / "hf")
    assert list((tmp_path / "out").iterdir()) == []


def test_large_models_are_sharded_and_read_from_shards(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "SHARD_SIZE", "20KB")
    run = randomised(tmp_path / "run", shape("qwen3"), tokenizer)
    export_run(run, "hf", tmp_path / "hf")
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 2
    _, weights = read_huggingface(tmp_path / "hf")
    assert torch.equal(weights["norm.weight"], run.model.norm.weight)


def test_the_card_names_the_lineage(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "base", shape("qwen3"), tokenizer)
    child = finished_run(tmp_path / "child", shape("qwen3"), tokenizer, "sft")
    about = json.loads((child.path / "run.json").read_text())
    about |= {"parent": {"run": str(run.path), "step": 1, "sha256": "f" * 64}, "data": {"path": "/home/me/talk.jsonl"}}
    (child.path / "run.json").write_text(json.dumps(about))
    assert main(["export", str(child.path), "--format", "hf", "--out", str(tmp_path / "hf")]) == 0
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| base | pretraining |" in card and "| child | finetuning on conversations | talk.jsonl |" in card
    assert "/home/me" not in card and str(tmp_path) not in card
    settings = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == sorted(
        tokenizer.special_tokens[name] for name in ("<|im_end|>", "<|endoftext|>")
    )


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_a_reward_model_gives_the_same_scores_there(family: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = randomised(tmp_path / "run", shape(family, score_head=True), tokenizer, "reward")
    assert "scores within" in export_run(run, "hf", tmp_path / "hf").checks[0]
    judge = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    rows = ours(["Who found it?", "Sam found the purse."], padding=True, return_tensors="pt")
    with torch.no_grad():
        scores = judge(**rows).logits[:, 0]
        for text, score in zip(("Who found it?", "Sam found the purse."), scores):
            alone = run.model.score(run.model.hidden(torch.tensor([tokenizer.encode(text)])))
            assert score == pytest.approx(alone[0, -1].item(), abs=1e-4), "padding is not read"
    if importlib.util.find_spec("peft"):
        adapted = shape(family, score_head=True, lora=LoraConfig(rank=2, embeddings=False).model_dump())
        run = randomised(tmp_path / "adapted", adapted, tokenizer, "reward")
        assert "PEFT" in export_run(run, "hf", tmp_path / "apart", adapter=True).checks[0]


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_adapters_merged_or_in_pefts_format(family: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft comes with `pip install 'understudy[interop]'`")
    lora = LoraConfig(rank=3, alpha=5.0, embeddings=False)
    kv = {"n_kv_heads": 1} if family == "qwen3" else {}
    config = shape(family, lora=lora.model_dump(), **kv)
    runs = [randomised(tmp_path / name, config, tokenizer) for name in ("one", "two")]
    assert "PEFT" in export_run(runs[0], "hf", tmp_path / "apart", adapter=True).checks[0]
    export_run(runs[1], "hf", tmp_path / "merged")
    adapter_config = json.loads((tmp_path / "apart" / "adapter" / "adapter_config.json").read_text())
    assert (adapter_config["r"], adapter_config["lora_alpha"]) == (3, 5.0)
    import peft

    base, merged = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("apart/base", "merged")
    )
    tokens = torch.randint(0, 292, (1, 20))
    with torch.no_grad():
        plain = base(tokens).logits
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "apart" / "adapter").eval()(tokens).logits
        assert (adapted - merged(tokens).logits).abs().max() < 1e-3
        assert (plain - adapted).abs().max() > 0.1


def test_a_policy_with_a_critics_head_leaves_without_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = randomised(tmp_path / "run", shape("qwen3", score_head=True), tokenizer)
    assert "logits within" in export_run(run, "hf", tmp_path / "hf").checks[0]
    assert "score.weight" not in huggingface.read_weights(tmp_path / "hf")


def test_a_character_run_goes_out_with_a_tokenizer_of_the_same_ids(tmp_path: Path) -> None:
    ours = train_tokenizer("char", ["To be, or not to be: ist’s möglich?\n"])
    run = randomised(tmp_path / "run", shape("gpt2", vocab_size=ours.vocab_size), ours)
    export_run(run, "hf", tmp_path / "hf")
    other = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    for text in ("to be", "möglich\n", "s’: ?"):
        assert other(text)["input_ids"] == ours.encode(text) and other.decode(ours.encode(text)) == text
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert model.config.vocab_size == ours.vocab_size

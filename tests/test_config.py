"""Configuration: refusals, their messages, and defaults."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.config.load import (
    apply_overrides,
    build_config,
    dump_config,
    load_config,
    read_preset,
    setting_names,
    setting_rows,
)

BASE: dict[str, Any] = {"data": {"path": "x"}, "model": {"family": "qwen3"}}


def refused(**overrides: str) -> str:
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    with pytest.raises(ValueError) as caught:
        build_config(apply_overrides(BASE, dotted))
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_mistakes_are_named_with_advice() -> None:
    assert "did you mean optim.lr?" in refused(optim__lrr="1")
    assert "did you mean train.steps?" in refused(trian__steps="1")
    assert "did you mean model.n_layers?" in refused(n_layer="1")
    assert "valid integer" in refused(train__steps="many")
    assert "greater than or equal to 1" in refused(train__steps="-3")
    assert "greater than or equal to 1" in refused(model__n_layers="0")
    assert "does not divide model.d_model 128" in refused(model__n_heads="3")
    assert "does not divide model.n_heads" in refused(model__n_kv_heads="3")
    assert "must be even" in refused(model__head_width="5")
    assert "'relu2'" in refused(model__activation="relu3")
    assert "does not divide train.batch_size" in refused(train__micro_batch_size="5")
    assert "less than 1" in refused(model__dropout="1")


@pytest.mark.parametrize(
    "overrides",
    [
        {"optim__momentum": "0.9"},
        {"optim__embedding_lr": "0.1"},
        {"optim__decay_fraction": "0.3"},
        {"optim__schedule": "constant", "optim__min_lr_fraction": "0.5"},
        {"model__ngram_buckets": "100"},
        {"model__position": "learned", "model__rope_theta": "500"},
        {"model__family": "bigram", "model__n_layers": "2"},
        {"tokenizer__kind": "char", "tokenizer__vocab_size": "99"},
    ],
)
def test_unused_settings_are_refused(overrides: dict[str, str]) -> None:
    assert "ignored" in refused(**overrides) or "only read by" in refused(**overrides)


def test_whole_numbers_may_be_written_as_people_write_them() -> None:
    config = build_config(apply_overrides(BASE, {"train.stop_at_tokens": "1e9", "train.steps": "2_000"}))
    assert (config.train.stop_at_tokens, config.train.steps) == (10**9, 2000)
    assert "whole number" in refused(train__steps="true")
    assert "valid integer" in refused(train__steps="1.5")


def test_another_kind_of_tokenizer_leaves_the_vocabulary_size_of_the_preset_out() -> None:
    """A size belongs to its kind: it is refused only where both are given."""
    bpe = {"data": {"path": "x"}, "tokenizer": {"kind": "bpe", "vocab_size": 320}}
    assert build_config(apply_overrides(bpe, {"tokenizer.kind": "bpe"})).tokenizer.vocab_size == 320
    for kind in ("null", "char"):
        tokenizer = build_config(apply_overrides(bpe, {"tokenizer.kind": kind})).tokenizer
        assert (tokenizer.kind, tokenizer.vocab_size) == (None if kind == "null" else kind, None)
        with pytest.raises(ValueError, match="only read by"):
            build_config(apply_overrides(bpe, {"tokenizer.kind": kind, "tokenizer.vocab_size": "99"}))
    assert bpe["tokenizer"]["vocab_size"] == 320, "the preset itself is not changed"


def test_missing_and_unreadable_configurations(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="did you mean gpt2"):
        read_preset("gtp2")
    with pytest.raises(ValueError, match="cannot be read"):
        read_preset(str(tmp_path / "none.yaml"))
    for text, sentence in (("a: [", "not valid YAML"), ("[1]", "settings by name"), ("model: {}", "data is missing")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load_config(str(tmp_path / "c.yaml"))


def test_family_defaults_fill_omitted_settings() -> None:
    gpt2 = build_config({"data": {"path": "x"}}).model
    assert (gpt2.position, gpt2.norm, gpt2.bias, gpt2.d_ff) == ("learned", "layernorm", True, 512)
    qwen3 = build_config(BASE).model
    assert (qwen3.position, qwen3.norm, qwen3.bias, qwen3.d_ff) == ("rope", "rmsnorm", False, 384)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "model.n_layers": st.integers(1, 48),
            "model.dropout": st.floats(0, 0.9),
            "optim.lr": st.floats(1e-6, 1.0),
            "optim.name": st.sampled_from(["adamw", "muon"]),
            "train.steps": st.integers(1, 10**9),
            "log.prompt": st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))).map(
                lambda s: f'"{s.encode("unicode_escape").decode().replace(chr(34), "x")}"'
            ),
        }
    )
)
def test_a_resolved_configuration_reads_back_to_itself(values: dict[str, Any]) -> None:
    import yaml

    config = build_config(apply_overrides(BASE, {k: str(v) for k, v in values.items()}))
    assert build_config(yaml.safe_load(dump_config(config))) == config


def test_setting_names_are_unique() -> None:
    names = [name for name, _ in setting_names()]
    assert len(names) == len(set(names)) > 50


def test_dotted_settings_may_stand_anywhere_on_the_command_line() -> None:
    from understudy.cli import parse

    for line in ("gpt2 --optim.lr=1 --run x --train.steps 5", "--train.steps 5 --optim.lr 1 --run x gpt2"):
        arguments = parse(["pretrain", *line.split()])
        assert (arguments.preset, arguments.run) == ("gpt2", "x")
        assert arguments.overrides == {"optim.lr": "1", "train.steps": "5"}
    for line, sentence in (
        ("--train.steps", "needs a value"),
        ("--rnu x", "did you mean --run"),
        ("a b", "does not take 'b'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            parse(["pretrain", *line.split()])


def test_every_setting_has_a_description_a_type_and_a_default() -> None:
    rows = setting_rows()
    assert {row.name for row in rows} == {name for name, _ in setting_names()}
    for row in rows:
        assert len(row.description) > 10 and row.description.endswith("."), f"{row.name} has no description"
        assert row.type and not set(row.type) & set("[]{}|"), (
            f"the type of {row.name} is not in plain words: {row.type}"
        )
    by_name = {row.name: row for row in rows}
    assert (by_name["train.steps"].type, by_name["train.steps"].default) == ("whole number from 1", "1000")
    assert by_name["model.family"].type == "gpt2, llama, mistral, smollm3, qwen2, qwen3, lfm2 or bigram"
    assert by_name["optim.betas"].type == "list of 2: number from 0 to 1"
    assert by_name["grpo.group_size"].type == "whole number from 2"
    assert by_name["data.path"].default == "required" and by_name["model.d_ff"].default == "null"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stage: [sft]\ndata: {path: x}", "stage is the name of one stage"),
        ("data: 5\nmodel: [1]\ntrain: x", "settings by name are expected"),
        ("model: [1]\ndata: {path: x}", "settings by name are expected"),
        ("data: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("data: " + "[" * 90 + "]" * 90, "settings by name are expected"),
        ("data: {path: " + "[" * 90 + "]" * 90 + "}", "data.path is"),
        ("a: 2020-13-45", "not valid YAML"),
        ("train: {steps: 1, steps: 2}\ndata: {path: x}", "the key 'steps' stands twice"),
        ("depth: 4\ndata: {path: x}\nmodel: 3", "settings by name are expected"),
        ("1: 2\ndata: {path: x}", "1"),
        ("data: {path: x}\nmodel: {lora: 3}", "model.lora is 3"),
        ("data: {path: x}\nppo: {critic: 3}", "would be ignored by the stage pretrain"),
        ("stage: ppo\ndata: {path: x}\nppo: [3]", "settings by name are expected"),
    ],
)
def test_yaml_of_other_shapes_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        load_config(str(tmp_path / "c.yaml"), {"train.steps": "3"})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_configurations_that_are_no_text_files(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("data: {path: caf\xe9}".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, sentence in (("latin", "not valid YAML: .*utf-8"), ("pipe", "no file"), ("folder", "no file")):
        with pytest.raises(ValueError, match=sentence):
            read_preset(str(tmp_path / f"{name}.yaml"))


def test_trees_of_other_shapes_are_refused_from_python_too() -> None:
    for tree in ({"data": {"path": "x"}, "model": [1]}, {"data": 5}, {"data": {"path": "x"}, "depth": 2, "optim": "x"}):
        with pytest.raises(ValueError, match="settings by name are expected"):
            build_config(tree)

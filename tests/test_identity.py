"""Conversations about who an assistant is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from understudy.cli import main
from understudy.identity.conversations import IdentityConversations, capitalised
from understudy.identity.settings import ENGLISH, read_identity

FACTS = """
- answer: We open at ten.
  questions:
    - When do you open?
    - What are your hours?
    - Can I come at ten?
  wrong: You open at noon.
"""


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    (tmp_path / "facts.yaml").write_text(FACTS)
    return tmp_path / "facts.yaml"


def conversations(facts: Path, split: Any, count: int = 300) -> list[dict[str, Any]]:
    made = IdentityConversations(read_identity("Juniper", "the librarians", facts))
    return list(made.records("conversations", 0, split, count))


def test_answers_say_the_name_and_maker_and_correct_wrong_premises(facts: Path) -> None:
    for record in conversations(facts, "train"):
        turns = [message for message in record["messages"] if message["role"] != "system"]
        for topic, question, answer in zip(record["categories"], turns[::2], turns[1::2], strict=True):
            assert (question["role"], answer["role"]) == ("user", "assistant")
            text = answer["content"]
            if topic in ("fact", "claim"):
                assert "We open at ten." in text
            elif topic in ("maker", "wrong maker"):
                assert "librarians" in text and "Juniper" not in question["content"]
            else:
                assert "Juniper" in text
            if topic == "claim":
                assert text.startswith(("No.", "That is not right."))
            if topic.startswith("wrong"):
                assert "No" in text or "not" in text
            assert not any(mark in text for mark in "{}") and text[0].isupper() and ". the" not in text


def test_validation_asks_in_words_that_training_does_not_have(facts: Path) -> None:
    asked = {
        split: {m["content"] for r in conversations(facts, split, 2000) for m in r["messages"] if m["role"] == "user"}
        for split in ("train", "val")
    }
    assert not asked["train"] & asked["val"]
    assert any("ChatGPT" in question for question in asked["train"])
    assert not any("ChatGPT" in question for question in asked["val"])


def test_an_identity_is_prepared_beside_other_conversations(
    facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("talks.jsonl").write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]}) + "\n"
        for n in range(40)
    ))  # fmt: skip
    words = ["--name", "Juniper", "--maker", "the librarians", "--facts", str(facts), "--limit", "50", "--out", "d"]
    assert main(["prepare", "identity", "talks.jsonl", "--kind", "conversations", *words]) == 0
    lines = [json.loads(line) for line in Path("d/train.jsonl").read_text().splitlines()]
    assert sum(line["source"] == "identity" for line in lines) == 50 and len(lines) > 80


@pytest.mark.parametrize(("words", "sentence"), [
    (["identity"], "identity needs the assistant's --name and --maker"),
    (["identity", "--name", "J"], "--name needs --maker too: an identity is a name and a maker"),
    (["identity", "--name", "J", "--maker", " "], "the maker of the assistant is empty; give it with --maker"),
    (["identity", "--kind", "prompts", "--name", "J", "--maker", "M"], "identity is a source of conversations"),
    (["hamlet", "--kind", "conversations", "--name", "J", "--maker", "M"], "the source identity was not given"),
    (["hamlet", "--name", "J", "--maker", "M"], "--name does nothing with --kind text"),
])  # fmt: skip
def test_settings_that_would_do_nothing_are_refused(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["prepare", *words, "--out", str(tmp_path / "d")]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("text", "sentence"), [
    ("- answer: [", "facts.yaml is not YAML at line 1"),
    ("answer: x", "is not a list of facts"),
    ("- answer: x", "fact 1 has no `questions`"),
    ("- {answer: x, questions: y, false: z}", "fact 1 has 'False'; a fact has answer, questions and wrong"),
    ("- {answer: x, questions: [1]}", "fact 1: questions is a sentence or a list of sentences"),
])  # fmt: skip
def test_a_file_of_facts_is_refused_by_its_first_mistake(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_identity("J", "M", tmp_path / "facts.yaml")


@pytest.mark.parametrize(("old", "new", "sentence"), [
    ("[name]", "[nom]", r"no section [nom]"),
    ("You are {other}, right?", "You are it, right?", "a phrase of [wrong name] needs {other}"),
    ("I am {name}.", "I am {nom}.", "{nom} means nothing in [name answer]"),
    ("[unknown]", "[name]", "has no phrases in [unknown]"),
])  # fmt: skip
def test_phrases_of_another_language_have_the_form_of_english(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.txt"
    path.write_text(ENGLISH.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_identity("J", "M", None, path)


def test_sentences_begin_with_a_capital() -> None:
    assert capitalised("no. the maker is here! été") == "No. The maker is here! Été"

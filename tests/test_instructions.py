"""Checkable instructions: what each kind accepts, the prompts, their verifier and their task."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from string import Formatter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from understudy.config.load import load_config
from understudy.config.model import ModelConfig
from understudy.data.chat.prepare import prepare_conversations
from understudy.data.chat.prompts import Prompt, open_prompts, read_prompts
from understudy.evaluation.runner import run_task
from understudy.evaluation.task import Example
from understudy.evaluation.tasks import find_task
from understudy.instructions.checks import FUNCTION_WORDS, KINDS, met, score, validate
from understudy.instructions.prompts import PAIR, SECOND, prompts, topics
from understudy.instructions.wording import CLOSINGS, KEYS, OPENINGS, PHRASINGS
from understudy.model import Bigram
from understudy.rewards.verifiers import true_score
from understudy.runtime import Runtime
from understudy.tokenizer import train_tokenizer

LETTER = "Dear Dr. Brown,\n\nIt costs 3.5 euros, e.g. in town. Is it “dear?” No!"
LIST = "Here you are:\n- **Red** - warm\n* blue\n\n• green"
GERMAN = "Das ist eine gute Frage. Bienen sammeln den Nektar und bringen ihn in den Stock."
FRENCH = "L'abeille prend le nectar des fleurs et le porte dans la ruche."
SPANISH = "Las abejas toman el néctar de las flores y lo llevan a la colmena."
ENGLISH = "The bees take the nectar of a flower and bring it to their hive."
NUMBERED = "1. one\n2) two\n   3. three"
COUNTED: list[tuple[str, str, int]] = [
    ("words", "A well-known fact - isn't it?", 5), ("words", "1. one\n2. two three", 3), ("words", "3.5 % of 7", 3),
    ("words", "- - ...", 0), ("sentences", LETTER, 4), ("sentences", "No end", 1), ("sentences", "Wait... what?! Yes.", 3),
    ("sentences", "He said “Go.” Then he left.", 2), ("sentences", "1. one\n2. two", 2), ("lines", "a\n\n b \n \nc\n", 3),
    ("paragraphs", "a\nb\n\n\nc\n \nd\n", 3), ("paragraphs", "\n\na", 1), ("bullets", LIST, 3),
    ("bullets", "**bold** text\n-dash\n1. one", 0), ("numbered", NUMBERED, 3), ("numbered", "1. one\n3. three", 0),
    ("numbered", "2. two", 0), ("numbered", "It is 1. not a list", 0),
]  # fmt: skip
MET: list[tuple[dict[str, Any], str, bool]] = [
    ({"kind": "json", "keys": ["a"]}, '{"a": 1, "b": [2]}', True), ({"kind": "json"}, "```json\n{}\n```", True),
    ({"kind": "json", "keys": ["a"]}, '{"b": 1}', False), ({"kind": "json"}, "[1]", False),
    ({"kind": "json"}, 'Sure: {"a": 1}', False), ({"kind": "json"}, '{"a": 1', False), ({"kind": "json"}, "[" * 9999, False),
    ({"kind": "title"}, "# Bees\n\nThey fly.", True), ({"kind": "title"}, "# Bees", False),
    ({"kind": "title"}, "#Bees\nThey fly.", False), ({"kind": "title"}, "They fly.\n# Bees\nEnd", False),
    ({"kind": "quoted"}, ' "They fly." ', True), ({"kind": "quoted"}, "“They fly.”", True),
    ({"kind": "quoted"}, '"They" fly.', False), ({"kind": "quoted"}, 'They "fly."', False),
    ({"kind": "quoted"}, '"', False), ({"kind": "quoted"}, "'They fly.'", False),
    ({"kind": "lower"}, "bees fly, 3 times.", True), ({"kind": "lower"}, "Bees fly", False), ({"kind": "lower"}, "12", False),
    ({"kind": "upper"}, "BEES FLY.", True), ({"kind": "upper"}, "BEES fLY", False), ({"kind": "upper"}, "12.", False),
    ({"kind": "starts", "phrase": "In short"}, '"in  short, they fly', True),
    ({"kind": "starts", "phrase": "In short"}, "In shorts", False), ({"kind": "starts", "phrase": "In short"}, "So", False),
    ({"kind": "starts", "phrase": "Let's"}, "**Let’s** go", True),
    ({"kind": "ends", "phrase": "That is all."}, "They fly. THAT is\nall!\"", True),
    ({"kind": "ends", "phrase": "all"}, "They fall.", False), ({"kind": "ends", "phrase": "all"}, "all of them", False),
    ({"kind": "ends", "phrase": "all"}, "all", True), ({"kind": "ends", "phrase": "?"}, 'Who?"', True),
    ({"kind": "ends", "phrase": "?"}, "Who? Me.", False),
    ({"kind": "no_commas"}, "Bees fly; so it is.", True), ({"kind": "no_commas"}, "1,000 bees", False),
    ({"kind": "keywords", "words": ["hive", "red sun"]}, "Red\nsun. HIVE!", True),
    ({"kind": "keywords", "words": ["hive", "sun"]}, "the hive", False), ({"kind": "keywords", "words": ["sun"]}, "sunny", False),
    ({"kind": "keywords", "words": ["un"]}, "sun", False),
    ({"kind": "avoid", "words": ["hive", "sun"]}, "It is sunny.", True), ({"kind": "avoid", "words": ["hive", "sun"]}, "The Sun.", False),
    *(({"kind": "language", "language": code}, text, code == name) for code in FUNCTION_WORDS
      for name, text in (("en", ENGLISH), ("de", GERMAN), ("fr", FRENCH), ("es", SPANISH))),
    ({"kind": "language", "language": "en"}, "Пчёлы летают in the сад или сидят в улье и делают там мёд всё лето", False),
    ({"kind": "language", "language": "de"}, "und", False),
]  # fmt: skip


def check(*instructions: dict[str, Any]) -> dict[str, Any]:
    return {"instructions": list(instructions)}


@pytest.mark.parametrize(("kind", "text", "count"), COUNTED)
def test_amounts_are_counted_and_include_both_ends(kind: str, text: str, count: int) -> None:
    def holds(**amount: int) -> bool:
        return met(check({"kind": kind, **amount}), text) == [True]

    assert holds(at_most=max(count, 1)) and not holds(at_least=count + 1)
    if count:
        assert holds(at_least=count) and holds(at_least=count, at_most=count) and holds(at_least=1, at_most=count + 1)
    if count > 1:
        assert not holds(at_most=count - 1)


@pytest.mark.parametrize(("instruction", "text", "expected"), MET)
def test_other_kinds_are_met_or_not(instruction: dict[str, Any], text: str, expected: bool) -> None:
    assert met(check(instruction), text) == [expected]


def test_every_kind_is_met_and_missed_by_some_text() -> None:
    """No kind is left out of the cases above, nor can an empty answer meet any."""
    for kind in KINDS:
        results = {expected for instruction, _, expected in MET if instruction["kind"] == kind}
        assert results == {True, False} or any(name == kind for name, *_ in COUNTED), kind
    for row in islice(prompts(0, "train"), 200):
        assert score(row["check"], " \n") == 0


def test_the_score_is_the_share_of_instructions_that_are_met() -> None:
    both = check({"kind": "lower"}, {"kind": "words", "at_most": 2})
    assert [score(both, text) for text in ("bees fly", "Bees fly", "Bees fly far")] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"instructions": []}, "needs a list of them"),
        ({"instructions": {"kind": "lower"}}, "needs a list of them"),
        (check({"kind": "poem"}), "unknown kind of instruction 'poem'; known are words, sentences"),
        (check({}), "unknown kind of instruction None"),
        ({"instructions": ["lower"]}, "unknown kind of instruction None"),
        (check({"kind": ["lower"]}), "unknown kind of instruction"),
        (check({"kind": "lower"}, {"kind": "words"}), "'words' has wrong arguments: .*at_least or at_most is missing"),
        (check({"kind": "words", "at_least": 3, "at_most": 2}), "at_least 3 is more than at_most 2"),
        (check({"kind": "words", "at_most": 0}), "at_most"),
        (check({"kind": "words", "at_most": "3"}), "at_most"),
        (check({"kind": "words", "at_most": 3, "exactly": 2}), "exactly"),
        (check({"kind": "lower", "words": ["a"]}), "words"),
        (check({"kind": "keywords", "words": []}), "words"),
        (check({"kind": "keywords", "words": [" "]}), "words 0"),
        (check({"kind": "starts"}), "phrase Field required"),
        (check({"kind": "language", "language": "it"}), "language"),
    ],
)
def test_wrong_checks_are_dropped_by_name_when_they_are_read(
    tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        validate(given)
    good = {"prompt": "Hi", "check": check({"kind": "lower"}), "task": "instructions"}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, {**good, "check": given})))
    first, second = read_prompts(path)
    assert first.record and second.record is None and re.search(sentence, second.reason)
    path.write_text(json.dumps({**good, "check": given}))
    with pytest.raises(ValueError, match=sentence):
        prepare_conversations([str(path)], tmp_path / "out", "prompts")


def test_a_check_of_another_verifier_than_the_task_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for task, given, sentence in (
        ("hamlet", check({"kind": "lower"}), "unknown kind of check None"),
        ("instructions", {"kind": "number", "value": 4}, "needs a list of them"),
    ):
        path.write_text(json.dumps({"prompt": "Hi", "check": given, "task": task}))
        [row] = read_prompts(path)
        assert row.record is None and sentence in row.reason


def test_a_check_of_instructions_needs_no_task_and_may_come_from_parquet(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "check": check(instruction)} for instruction, *_ in MET[:12]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [row.record for row in read_prompts(tmp_path / "a.parquet")]
    assert [row and row["check"] for row in read] == [row["check"] for row in rows]
    prompt = Prompt(({"role": "user", "content": "Hi"},), check({"kind": "lower"}), None, "")
    assert true_score(prompt, "hi") == 1.0 and true_score(prompt, "Hi") == 0.0
    assert true_score(Prompt(prompt.messages, {"kind": "number", "value": 4}, None, ""), "It is 4.") == 1.0


# Prompts.


def test_prompts_depend_on_nothing_but_seed_split_and_index() -> None:
    first = list(islice(prompts(0, "train"), 120))
    assert first == list(islice(prompts(0, "train"), 120)) and first[:60] == list(islice(prompts(0, "train"), 60))
    others = [list(islice(prompts(seed, split), 120)) for seed, split in ((1, "train"), (0, "val"))]  # type: ignore[arg-type]
    assert all(row not in first for other in others for row in other)


def test_every_prompt_has_a_valid_check_and_says_its_arguments() -> None:
    for split in ("train", "val"):
        rows = list(islice(prompts(3, split), 51 * 12))
        for row in rows:
            instructions = row["check"]["instructions"]
            assert validate(row["check"]) and row["task"] == "instructions"
            assert row["category"] == (PAIR if len(instructions) == 2 else instructions[0]["kind"])
            text = row["prompt"][0]["content"]
            assert any(topic.question in text for topic in topics()[split]) and not set("{}") & set(text)
            for instruction in instructions:
                for value in instruction.values():
                    assert not isinstance(value, list) or all(f'"{item}"' in text for item in value)
                assert "phrase" not in instruction or f'"{instruction["phrase"]}"' in text
        assert {row["category"] for row in rows} == {*KINDS, PAIR}
        assert sum(row["category"] == PAIR for row in rows) == len(rows) / 3
    assert {kind for kinds in SECOND.values() for kind in kinds} <= SECOND.keys() == KINDS.keys() == PHRASINGS.keys()


def test_training_and_validation_share_no_topic_no_wording_and_no_phrase() -> None:
    train, val = (topics()[split] for split in ("train", "val"))
    assert len(train) >= 250 and len(val) >= 60 and all(len(topic.words) == 3 for topic in train + val)
    assert len({topic.question for topic in train + val}) == len(train) + len(val)
    shapes = {split: {_shape(ask) for row in PHRASINGS.values() for ask in row[split]} for split in ("train", "val")}
    assert not shapes["train"] & shapes["val"]
    for table in (OPENINGS, CLOSINGS, KEYS):
        assert not set(table["train"]) & set(table["val"])
    seen = {split: {_asked(row) for row in islice(prompts(0, split), 4000)} for split in ("train", "val")}  # type: ignore[arg-type]
    assert not seen["train"] & seen["val"]


def _shape(ask: str) -> str:
    """A wording without the names of its arguments."""
    return "_".join(literal for literal, *_ in Formatter().parse(ask)).casefold()


def _asked(row: dict[str, Any]) -> str:
    """The text of a prompt without its question."""
    text = row["prompt"][0]["content"]
    return next(text.replace(t.question, "").strip() for half in topics().values() for t in half if t.question in text)


def test_prepared_prompts_are_divided_by_topic_and_judged(tmp_path: Path) -> None:
    manifest = prepare_conversations(["instructions"], tmp_path / "out", "prompts", limit=100, seed=2).manifest
    assert [manifest["sources"][0][split] for split in ("train", "val")] == [100, 100]
    halves = [list(open_prompts(tmp_path / "out", split)) for split in ("train", "val")]
    for prompt in halves[0] + halves[1]:
        assert prompt.task == "instructions" and 0 <= true_score(prompt, "Bees fly.") <= 1
    again = prepare_conversations([str(tmp_path / "out" / "train.jsonl")], tmp_path / "again", "prompts").manifest
    assert again["sources"][0]["dropped"] == {}
    for kind in ("conversations", "preferences"):
        with pytest.raises(ValueError, match=f"instructions is a source of prompts, not of {kind}: add --kind prompts"):
            prepare_conversations(["instructions"], tmp_path / "other", kind)


# The task and the preset.


def test_the_task_asks_held_out_prompts_in_turns_and_counts_all_met() -> None:
    task = find_task("instructions")
    examples = task.examples()
    assert len(examples) == 306 and examples[:20] == task.examples(limit=20)
    assert {example.category for example in task.examples(limit=51)} == {*KINDS, PAIR}
    prepared = [row["prompt"] for row in islice(prompts(0, "val"), 400)]
    assert all(list(example.messages) not in prepared for example in examples)
    one = Example("x", "", examples[0].messages, check=check({"kind": "lower"}, {"kind": "words", "at_most": 2}))
    assert task.scores(one, "bees fly far") == {"accuracy": 0.5, "all_met": 0.0}
    assert task.scores(one, "bees fly") == {"accuracy": 1.0, "all_met": 1.0}
    for arguments, sentence in (({"path": "x"}, "leave --task-data out"), ({"few_shot": 2}, "leave --few-shot out")):
        with pytest.raises(ValueError, match=sentence):
            find_task("instructions", **arguments)


def test_an_evaluation_has_both_metrics_and_the_accuracy_of_each_kind() -> None:
    """A model that answers "a" to everything: in lower case, without commas, and nothing that was asked to be said."""
    text = "".join(row["prompt"][0]["content"] for row in islice(prompts(20_260, "val"), 60))
    tokenizer = train_tokenizer("char", [text + "Question: Answer:\n"])
    model = Bigram(ModelConfig(family="bigram", vocab_size=tokenizer.vocab_size, context_length=512))
    with torch.no_grad():
        for before, after in zip(": a", " a\n"):
            model.table.weight[tokenizer.encode(before)[0], tokenizer.encode(after)[0]] = 50.0
    result = run_task(find_task("instructions"), model, tokenizer, Runtime(torch.device("cpu")), limit=51)
    assert {row["answer"] for row in result.examples} == {"a"}
    values = {kind: result.categories[kind].value for kind in ("lower", "no_commas", "upper", "keywords", "language")}
    assert values == {"lower": 1, "no_commas": 1, "upper": 0, "keywords": 0, "language": 0}
    rows = result.examples
    assert result.metrics["accuracy"].value == sum(row["score"] for row in rows) / 51
    assert result.metrics["all_met"].value == sum(row["score"] == 1 for row in rows) / 51 < result.headline.value


def test_the_preset_learns_from_the_checker_alone_with_adapters() -> None:
    config = load_config("grpo-instructions")
    assert config.stage == "grpo" and config.model.lora and config.data.source == "instructions"
    assert config.grpo and config.grpo.checker_weight == 1 and config.grpo.reward_model is None
    assert not config.grpo.reward_weight and config.grpo.group_size == 8

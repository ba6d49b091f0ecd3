"""Judgements as training data and back, their statistics, and `improve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import LETTERS
from understudy.cli import main
from understudy.data.chat.conversations import open_conversations
from understudy.data.chat.judgements import open_judgements
from understudy.data.chat.preferences import open_preferences
from understudy.evaluation.statistics import win_rate
from understudy.feedback.exchange import (
    AGAIN,
    EXPORTS,
    NEUTRAL,
    UNPAIRED,
    conversations,
    everything,
    import_file,
    preferences,
    single_judgements,
)
from understudy.feedback.improve import _method
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.statistics import DISTANCES, krippendorff_alpha, statistics
from understudy.feedback.store import FeedbackStore
from understudy.run import Run, RunFolder, load_run
from understudy.tokenizer.chat import render

ASKED = [{"role": "user", "content": "Who found the purse?"}]


@pytest.fixture
def store(database: str) -> Iterator[FeedbackStore]:
    with FeedbackStore(database) as opened:
        yield opened


def answer(store: FeedbackStore, id: str, text: str, run: str = "chat", question: str = "") -> str:
    prompt = [{"role": "user", "content": question}] if question else ASKED
    return store.add_answer(AnswerRecord("talk", prompt, text, run, 1, "", {}, "stop", 2, id))


def judge(store: FeedbackStore, kind: Any, answer_id: str, annotator: str = "ann", **others: Any) -> str:
    return store.add_judgement(Judgement(kind, answer_id, annotator, **others))


def pairs(store: FeedbackStore) -> set[tuple[str, str, str, bool]]:
    lines = preferences(store).lines
    result = {
        (line["chosen"][0]["content"], line["rejected"][0]["content"], line["annotator"], line.get("tie", False))
        for line in lines
    }
    assert len(result) == len(lines)
    return result


# ---- export ---------------------------------------------------------------------------------------------------------


def test_corrections_become_conversations_and_preferences(store: FeedbackStore) -> None:
    answer(store, "a", "Lily did.")
    judge(store, "correction", "a", correction="Ben did.")
    judge(store, "correction", "a", correction="Sam did.")  # thought better of it
    judge(store, "correction", "a", "bob", correction="Sam did.")
    exported = conversations(store)
    assert exported.lines == [{"messages": [*ASKED, {"role": "assistant", "content": "Sam did."}]}]
    assert exported.left_out == {"corrections given before": 1}
    assert pairs(store) == {("Sam did.", "Lily did.", name, False) for name in ("ann", "bob")}


def test_comparisons_become_preferences_once_for_each_annotator(store: FeedbackStore) -> None:
    for id, text in (("a", "Sam did."), ("b", "Lily did."), ("a2", "Sam did."), ("b2", "Lily did."), ("e", " ")):
        answer(store, id, text)
    judge(store, "comparison", "a", value=1, other_answer_id="b")
    judge(store, "comparison", "b2", value=-1, other_answer_id="a2")  # says the same of the same texts
    judge(store, "comparison", "a", "bob", value=0, other_answer_id="b")
    judge(store, "comparison", "b2", "bob", value=0, other_answer_id="a2")
    judge(store, "comparison", "a", "eve", value=1, other_answer_id="a2")
    judge(store, "comparison", "a", "eve", value=1, other_answer_id="e")
    assert pairs(store) == {("Sam did.", "Lily did.", "ann", False), ("Sam did.", "Lily did.", "bob", True)}
    left_out = {"preferences given before": 2, "chosen equals rejected": 1, "empty answer": 1}
    assert preferences(store).left_out == left_out


def test_ratings_and_thumbs_of_answers_to_one_prompt_become_preferences_by_their_means(store: FeedbackStore) -> None:
    for id, text in (("a", "Sam did."), ("b", "Lily did."), ("c", "Ben did.")):
        answer(store, id, text)
    answer(store, "alone", "At the mill.", question="Where?")
    for id, annotator, value in (("a", "ann", 5), ("b", "ann", 2), ("b", "bob", 3), ("c", "bob", 5)):
        judge(store, "rating", id, annotator, value=value)
    judge(store, "thumb", "c", value=1)
    judge(store, "thumb", "b", value=-1)
    judge(store, "thumb", "alone", value=1)
    lines = preferences(store).lines
    rated = {
        (line["chosen"][0]["content"], line["annotator"]): (line["rating_chosen"], line["rating_rejected"])
        for line in lines
    }
    assert rated == {("Sam did.", "several"): (5, 2.5), ("Ben did.", "several"): (5, 2.5), ("Ben did.", "ann"): (1, -1)}
    assert {line["rejected"][0]["content"] for line in lines} == {"Lily did."}
    assert preferences(store).left_out == {"pairs with equal ratings": 1, UNPAIRED.format(kind="thumb"): 1}
    judge(store, "thumb", "b", value=0)
    judge(store, "thumb", "alone", value=0)
    assert preferences(store).left_out == {"pairs with equal ratings": 1, UNPAIRED.format(kind="thumb"): 1}, (
        "the thumb on c, which is alone now; those that were taken back count no more"
    )
    assert len(preferences(store).lines) == 2


def test_thumbs_and_ratings_become_judgements_of_single_answers(store: FeedbackStore) -> None:
    for id, text in (("a", "Sam did."), ("b", "Lily did."), ("c", "Ben did."), ("e", " ")):
        answer(store, id, text)
    judge(store, "thumb", "a", value=1)
    judge(store, "rating", "a", "bob", value=2)
    judge(store, "thumb", "b", value=1)
    judge(store, "rating", "b", value=1)  # ann thought better of it
    judge(store, "rating", "b", "bob", value=4)
    judge(store, "rating", "c", value=3)
    judge(store, "thumb", "c", "eve", value=-1)
    judge(store, "thumb", "c", "bob", value=-1)
    judge(store, "thumb", "c", "bob", value=0)  # taken back
    judge(store, "thumb", "e", value=1)
    judge(store, "correction", "a", correction="It was Sam.")
    exported = single_judgements(store)
    labels = {(line["completion"][0]["content"], line["annotator"]): line["label"] for line in exported.lines}
    assert labels == {
        ("Sam did.", "ann"): True, ("Sam did.", "bob"): False, ("Lily did.", "ann"): False, ("Lily did.", "bob"): True,
        ("Ben did.", "eve"): False,
    }  # fmt: skip
    assert all(line["prompt"] == ASKED for line in exported.lines) and len(exported.lines) == 5
    assert exported.left_out == {AGAIN: 1, NEUTRAL: 1, "empty answer": 1}
    assert exported.summary("judgements") == [
        "thumbs: 2 lines from 4", "ratings: 3 lines from 4",
        "corrections: 0 lines from 1; --kind sft and --kind preferences use them",
    ]  # fmt: skip


def test_each_export_says_how_many_lines_came_from_how_many_judgements(store: FeedbackStore) -> None:
    for id, text in (("a", "Sam did."), ("b", "Lily did.")):
        answer(store, id, text)
    judge(store, "correction", "a", correction="It was Sam.")
    judge(store, "correction", "b", correction="It was Sam.")
    judge(store, "comparison", "a", value=1, other_answer_id="b")
    judge(store, "thumb", "a", value=1)
    assert {kind: EXPORTS[kind](store).summary(kind) for kind in EXPORTS} == {
        "sft": [
            "thumbs: 0 lines from 1; --kind judgements and --kind preferences use them", "corrections: 1 lines from 2",
            "comparisons: 0 lines from 1; --kind preferences uses them",
        ],
        "preferences": ["thumbs: 0 lines from 1", "corrections: 2 lines from 2", "comparisons: 1 lines from 1"],
        "judgements": [
            "thumbs: 1 lines from 1", "corrections: 0 lines from 2; --kind sft and --kind preferences use them",
            "comparisons: 0 lines from 1; --kind preferences uses them",
        ],
        "prompts": ["judged answers: 1 lines from 2"],
        "store": [],
    }  # fmt: skip


def test_only_the_corrected_turn_is_trained_on(store: FeedbackStore, sft_run: Run, tmp_path: Path) -> None:
    prompts = [
        [{"role": role, "content": text} for role, text in (("user", letter), ("assistant", "cc"), ("user", "d"))]
        for letter in LETTERS
    ]
    for number, prompt in enumerate(prompts):
        store.add_answer(AnswerRecord("talk", prompt, "e", "chat", 1, "", {}, "stop", 2, f"{number}"))
        judge(store, "correction", f"{number}", correction="ff")
    exported = conversations(store)
    assert [message.get("weight") for message in exported.lines[0]["messages"]] == [None, 0, None, None]
    file = tmp_path / "sft.jsonl"
    file.write_text(exported.text())
    rendered = render(sft_run.tokenizer, next(iter(open_conversations(file, "train")))["messages"])
    trained = [token for token, counts in zip(rendered.tokens, rendered.mask) if counts]
    assert sft_run.tokenizer.decode(trained) == "ff<|im_end|>"
    with FeedbackStore(f"sqlite:///{tmp_path}/other.db") as other:
        import_file(other, file, "sft")
        assert conversations(other).lines == exported.lines and '"weight":' not in json.dumps(everything(other).lines)


def test_the_stages_read_the_export(store: FeedbackStore, tmp_path: Path) -> None:
    for n in range(4):
        for id, text in ((f"a{n}", "Sam did."), (f"b{n}", "Lily did.")):
            answer(store, id, text, question=f"Who found purse {n}?")
        judge(store, "comparison", f"a{n}", value=1, other_answer_id=f"b{n}")
        judge(store, "correction", f"b{n}", correction="It was Sam.")
        judge(store, "thumb", f"b{n}", value=-1)
    for kind in ("sft", "preferences", "judgements"):
        (tmp_path / f"{kind}.jsonl").write_text(EXPORTS[kind](store).text())
    talks = [open_conversations(tmp_path / "sft.jsonl", split) for split in ("train", "val")]
    assert sum(map(len, talks)) == 4 and min(map(len, talks)) == 1
    compared = [open_preferences(tmp_path / "preferences.jsonl", split) for split in ("train", "val")]
    assert sum(part.pairs for part in compared) == 8 and sum(map(len, compared)) == 4
    judged = [open_judgements(tmp_path / "judgements.jsonl", split) for split in ("train", "val")]
    assert sum(map(len, judged)) == 4 and not any(line.desirable for part in judged for line in part)


# ---- import ---------------------------------------------------------------------------------------------------------


def test_an_export_of_a_store_merges_into_another_and_twice_is_once(
    store: FeedbackStore, database: str, tmp_path: Path
) -> None:
    answer(store, "a", "Sam did. 🎭")
    judge(store, "thumb", "a", value=1)
    judge(store, "thumb", "a", value=-1, comment="on second thoughts")
    file = tmp_path / "store.jsonl"
    file.write_text(EXPORTS["store"](store).text())
    with FeedbackStore(f"sqlite:///{tmp_path}/other.db") as other:
        answer(other, "b", "Lily did.", run="another")
        assert import_file(other, file, "store").judgements == 2
        assert other.answer("a") == store.answer("a") and other.judgements() == store.judgements()
        again = import_file(other, file, "store")
        assert (again.answers, again.judgements) == (0, 0) and other.stats()["answers"] == 2
        assert again.left_out == {"judgements imported before": 2}
    assert import_file(store, file, "store").judgements == 0


def test_preferences_and_conversations_of_other_tools_come_back_as_they_went_in(
    store: FeedbackStore, tmp_path: Path
) -> None:
    binarized = {
        "prompt": "Who found the purse?", "chosen": [*ASKED, {"role": "assistant", "content": "Sam did."}],
        "rejected": [*ASKED, {"role": "assistant", "content": "Lily did."}], "score_chosen": 4.0, "score_rejected": 1.0,
    }  # fmt: skip
    rated, talks = tmp_path / "rated.jsonl", tmp_path / "talks.jsonl"
    rated.write_text(json.dumps(binarized) + "\n")
    talk = [*ASKED, {"role": "assistant", "content": "It was Sam."}]
    talks.write_text(json.dumps({"messages": talk}) + "\n" + json.dumps({"messages": ASKED}) + "\n")
    for _ in range(2):
        import_file(store, rated, "preferences")
        assert import_file(store, talks, "sft").left_out["no answer"] == 1
    assert store.stats()["judgements"] == 2 and store.stats()["replaced"] == 0
    assert pairs(store) == {("Sam did.", "Lily did.", "rated.jsonl", False)}
    assert conversations(store).lines == [{"messages": talk}]


@pytest.mark.parametrize("line", ['{"answer": {"id": "x"}}', '{"judgement": 3}', '{"messages": []}', "{}", "[]", "x"])
def test_a_file_that_is_no_export_is_refused_with_its_place_and_changes_nothing(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bad.jsonl"
    with FeedbackStore(f"sqlite:///{tmp_path}/f.db") as store:
        answer(store, "a", "Sam did.")
        good = EXPORTS["store"](store).text().replace('"id": "a"', '"id": "new"')
        file.write_text(good + line + "\n")
        with pytest.raises(ValueError, match=r"bad.jsonl line 2"):
            import_file(store, file, "store")
        assert store.ids() == ({"a"}, set())


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_agreement_and_win_rates_are_those_computed_by_hand(store: FeedbackStore) -> None:
    for n in range(3):
        answer(store, f"a{n}", "Sam did.")
        answer(store, f"b{n}", "Lily did.", run="better")
    for n, (ann, bob) in enumerate(((1, 1), (-1, -1), (1, -1))):
        judge(store, "thumb", f"a{n}", "ann", value=ann)
        judge(store, "thumb", f"a{n}", "bob", value=bob)
        judge(store, "comparison", f"a{n}", "ann", value=-1, other_answer_id=f"b{n}")
        judge(store, "comparison", f"b{n}", "bob", value=1, other_answer_id=f"a{n}")  # the same, turned round
    judge(store, "comparison", "a0", "eve", value=0, other_answer_id="b0")
    result = statistics(store)
    # Krippendorff: of 6 thumbs 3 are up; observed disagreement 2/6, expected 18/30.
    assert result["alpha"]["thumb"] == pytest.approx(1 - (2 / 6) / (18 / 30)) and result["alpha"]["rating"] is None
    # ann and bob judged six things both, five alike; eve's tie is unlike either's.
    assert [result["annotators"][name]["agreement"]["value"] for name in ("ann", "bob")] == pytest.approx([5 / 7] * 2)
    assert result["annotators"]["eve"]["agreement"]["value"] == 0 and result["annotators"]["ann"]["judgements"] == 6
    [win] = result["win_rates"]
    assert (win["first"], win["second"], win["n"]) == ("better", "chat", 7)
    assert win["value"] == pytest.approx(0.5 / 7) and win["low"] < win["value"] < win["high"]
    assert result["runs"]["chat"]["thumbs_up"]["value"] == 0.5


def test_win_rates_have_the_interval_of_compare(store: FeedbackStore) -> None:
    for n in range(20):
        answer(store, f"a{n}", "Sam did.")
        answer(store, f"b{n}", "Lily did.", run="better")
        judge(store, "comparison", f"a{n}", value=n % 2, other_answer_id=f"b{n}")
    [win] = statistics(store)["win_rates"]
    assert win == {"first": "better", "second": "chat", **win_rate([0.5, 1.0] * 10).as_dict()}


def test_alpha_of_ratings_weighs_how_far_apart_they_are() -> None:
    near = krippendorff_alpha([{"a": 1, "b": 2}, {"a": 5, "b": 4}], DISTANCES["rating"])
    far = krippendorff_alpha([{"a": 1, "b": 5}, {"a": 2, "b": 4}], DISTANCES["rating"])
    assert near and far and near > 0.7 > 0 > far
    assert krippendorff_alpha([{"a": 3, "b": 3}, {"a": 5, "b": 5}], DISTANCES["rating"]) == 1
    assert krippendorff_alpha([{"a": 3, "b": 3}], DISTANCES["rating"]) is None


# ---- the verbs ------------------------------------------------------------------------------------------------------


def test_the_verbs_show_write_and_read(
    store: FeedbackStore, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(store, "a", "Lily did.")
    judge(store, "correction", "a", correction="Sam did.")
    judge(store, "rating", "a", value=2, comment="'); DROP TABLE answers; --")
    out = tmp_path / "out.jsonl"
    assert main(["feedback", "stats", "--db", database, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["judgements"] == 2
    assert main(["feedback", "stats", "--db", database]) == 0
    assert "mean rating" in (printed := capsys.readouterr()).err and not printed.out
    assert main(["feedback", "export", "--db", database, "--kind", "sft", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["messages"][-1]["content"] == "Sam did."
    assert main(["feedback", "import", str(out), "--db", database, "--kind", "sft"]) == 0
    assert "added 1 answers and 1 judgements" in capsys.readouterr().err
    wrongs = (
        ["feedback"], ["feedback", "stats", "--db", f"sqlite:///{tmp_path}/none.db"],
        ["feedback", "export", "--db", database, "--kind", "sft", "--out", str(out)],
        ["feedback", "export", "--db", database, "--kind", "answers", "--out", str(tmp_path / "new.jsonl")],
        ["feedback", "import", str(tmp_path / "none.jsonl"), "--db", database, "--kind", "sft"],
        ["improve", "nobody", "--db", database],
    )  # fmt: skip
    for wrong in wrongs:
        assert main(wrong) == 2 and capsys.readouterr().err.count("\n") == 1, wrong


# ---- improve --------------------------------------------------------------------------------------------------------

FAST = [
    "--optim.lr", "3e-2", "--train.steps", "20", "--eval.every_steps", "20", "--checkpoint.every_steps", "20",
    "--log.samples", "0", "--log.plot", "false", "--max-new-tokens", "1",
]  # fmt: skip


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in which people like the letter b in answer to each of eight."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/feedback.db"
    with FeedbackStore(url) as store:
        for question in LETTERS:
            for text in LETTERS:
                answer(store, f"{question}{text}", text, question=question)
            for other in LETTERS.replace("b", ""):
                judge(store, "comparison", f"{question}b", value=1, other_answer_id=f"{question}{other}")
    return url


def favourite(run: Run) -> str:
    """The letter that is likeliest to begin an answer."""
    prompt = render(run.tokenizer, [{"role": "user", "content": "a"}], reply=True).tokens
    logits = run.model(torch.tensor([prompt]))[0, -1]
    return max(LETTERS, key=lambda letter: logits[run.tokenizer.encode(letter)[0]].item())


def test_improve_trains_on_the_feedback(
    sft_run: Run, letters: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt_file = tmp_path / "prompts.jsonl"
    prompt_file.write_text("".join(
        json.dumps({"prompt": [{"role": "user", "content": letter}], "answer": "b"}) + "\n" for letter in LETTERS
    ))  # fmt: skip
    command = ["improve", str(sft_run.path), "--db", letters, "--run", "new", "--data", str(prompt_file), *FAST]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["judged_by"] == "checker" and record["feedback"]["pairs"] == 56
    assert record["comparison"]["n"] == 8
    new = RunFolder(tmp_path / "runs" / "new")
    assert (favourite(sft_run), favourite(load_run(new.path))) == ("e", "b")
    assert json.loads((new.path / "improvement.json").read_text()) == record
    assert new.record()["parent"]["sha256"] == sft_run.state["weights_sha256"]
    assert new.record()["data"]["path"] == "data/new-feedback/preferences.jsonl"
    assert main(command) == 2 and "continue it with --resume" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--resume"]) == 2 and "was started with" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0 and "was trained before" in capsys.readouterr().err


def test_enough_corrections_finetune_first_and_prompts_without_answers_use_a_reward_model(
    sft_run: Run, letters: str, tmp_path: Path
) -> None:
    with FeedbackStore(letters) as store:
        for question in LETTERS:
            for text in LETTERS.replace("b", ""):
                judge(store, "correction", f"{question}{text}", correction=f"b{text}")
    assert main(["improve", str(sft_run.path), "--db", letters, "--run", "new", "--method", "dpo", *FAST]) == 0
    parents = [RunFolder(tmp_path / "runs" / name).record()["parent"]["run"] for name in ("new", "new-sft")]
    assert parents == ["runs/new-sft", str(sft_run.path)]
    record = json.loads((tmp_path / "runs/new/improvement.json").read_text())
    assert record["judged_by"] == "reward" and record["comparison"]["n"] >= 1
    assert RunFolder(tmp_path / "runs" / "new-reward").config().stage == "reward"
    assert main(["improve", str(sft_run.path), "--db", letters, "--run", "newer", *FAST]) == 0
    newer = RunFolder(tmp_path / "runs" / "newer")
    assert (newer.config().stage, newer.record()["parent"]["run"]) == ("sft", str(sft_run.path))
    assert favourite(load_run(newer.path)) == "b"


@pytest.fixture
def thumbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in which people give a thumb up to the letter b in answer to each of eight, and a thumb down to any other. No
    two answers to the same prompt are judged by the same person, and there is nothing else."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/thumbs.db"
    with FeedbackStore(url) as store:
        for question in LETTERS:
            for number, text in enumerate((*LETTERS, *"bbbbbb")):
                id = f"{question}{number}"
                answer(store, id, text, question=question + LETTERS[number % 8])
                judge(store, "thumb", id, f"visitor {number}", value=1 if text == "b" else -1)
    return url


def test_improve_learns_from_thumbs_alone(
    sft_run: Run, thumbs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "prompts.jsonl"
    asked.write_text("".join(
        json.dumps({"prompt": [{"role": "user", "content": letter + other}], "answer": "b"}) + "\n"
        for letter in LETTERS for other in "ab"
    ))  # fmt: skip
    command = ["improve", str(sft_run.path), "--db", thumbs, "--run", "new"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "preferences are too few for a reward model that compares the runs" in error and "--judge RUN" in error
    assert "understudy kto feedback-kto --init-from RUN --data FILE" in error and not (tmp_path / "data").exists()
    assert main([*command, "--data", str(asked), "--json", *FAST]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["method"], record["judged_by"], record["feedback"]["single_judgements"]) == ("kto", "checker", 112)
    assert record["comparison"]["win_rate"] > 0.9
    new = RunFolder(tmp_path / "runs" / "new")
    assert new.config().stage == "kto" and new.record()["data"]["path"] == "data/new-feedback/judgements.jsonl"
    assert favourite(load_run(new.path)) == "b" != favourite(sft_run)


def test_the_method_follows_from_what_there_is() -> None:
    assert [_method(50, 0, 0), _method(49, 50, 99), _method(0, 49, 50), _method(0, 0, 49)] == [
        "sft",
        "dpo",
        "kto",
        "dpo",
    ]


def test_too_little_feedback_and_settings_that_do_not_fit_are_refused_before_anything_is_written(
    sft_run: Run, letters: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = f"sqlite:///{tmp_path}/few.db"
    with FeedbackStore(few) as store:
        answer(store, "a", "b", question="a")
        judge(store, "thumb", "a", value=1)
    for words, says in (
        (
            ["--db", few],
            "gives 0 preferences (left out: 1 thumbs on the only judged answer to a prompt (a thumb is used only if",
        ),
        (["--db", few, "--method", "kto"], "gives 1 thumbs and ratings for kto; 50 are needed"),
        (["--db", letters, "--method", "ppo"], "give another one with --judge RUN"),
        (["--db", letters, "--dpo.gamma", "1"], "dpo.gamma is not a setting"),
        (["--db", letters, "--method", "sft"], "the feedback has 0 corrections; 50 are needed"),
        (["--db", letters, "--limit", "0"], "--limit is 0"),
    ):
        assert main(["improve", str(sft_run.path), "--run", "new", *words]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "data").exists() and not (tmp_path / "runs").exists()

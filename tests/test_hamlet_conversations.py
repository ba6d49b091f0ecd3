"""Tests of Hamlet's conversations: answers match their checks, held-out content is in val only, determinism."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from understudy.hamlet import facts, is_reserved, village
from understudy.hamlet.checker import score
from understudy.hamlet.conversations import KINDS, Conversation, conversation, conversations, prompts, question
from understudy.hamlet.draw import Draw
from understudy.hamlet.facts_wording import QUESTIONS, QUESTIONS_OF_ALL
from understudy.hamlet.greetings import talk_turn
from understudy.hamlet.greetings_words import TALK
from understudy.hamlet.instructions import INSTRUCTIONS, kept_for_val
from understudy.hamlet.names import invented_name, sex_of
from understudy.hamlet.outside import REFUSALS, decline_turn, kept_subject
from understudy.hamlet.outside_subjects import SUBJECTS
from understudy.hamlet.outside_words import ASKED
from understudy.hamlet.preferences import ANNOTATORS, agreement, preference
from understudy.hamlet.stories import Split
from understudy.hamlet.styles import shortened
from understudy.hamlet.sums import SUMS, sum_turn
from understudy.hamlet.tales import SHORT_REQUESTS, tale_turn
from understudy.hamlet.turns import CATEGORIES, STORY_CATEGORIES, Turn
from understudy.hamlet.typed import TYPED, typed
from understudy.hamlet.wording import phrasings
from understudy.hamlet.write import DEFAULT_COUNTS, write_lines
from understudy.tokenizer.chat import check_messages

SPLITS: tuple[Split, ...] = ("train", "val")
MAKERS: dict[str, Callable[[Draw, Split], Turn]] = {
    "greeting": talk_turn,
    "village": lambda draw, split: facts.village_turn(draw, split)[0],
    "sum": lambda draw, split: sum_turn(draw, split)[0],
    "story": tale_turn,
    "decline": decline_turn,
    **INSTRUCTIONS,
}


@pytest.fixture(scope="module")
def held() -> dict[str, list[Conversation]]:
    return {
        "train": [conversation(0, i, "train") for i in range(800)],
        "val": [conversation(0, i, "val") for i in range(300)],
    }


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, list[Turn]]]:
    """Turns of each category that needs no story."""
    return {
        split: {category: [make(draw, split) for _ in range(600)] for category, make in MAKERS.items()}
        for split, draw in ((split, Draw(n)) for n, split in enumerate(SPLITS))
    }


def _is_judged_right(turn: Turn) -> None:
    assert score(turn.check, turn.answer) == 1.0, turn
    assert 1 <= len(turn.wrong) <= 3, turn
    for wrong in turn.wrong:
        assert score(turn.check, wrong) == 0.0, (wrong, turn)


# ---- answers and checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("category", MAKERS)
def test_every_good_answer_is_right_and_every_wrong_one_wrong(made, split, category):
    for turn in made[split][category]:
        assert turn.category == category
        _is_judged_right(turn)


@pytest.mark.parametrize("split", SPLITS)
def test_so_they_are_in_conversations(held, split):
    for one in held[split]:
        for turn in one.turns:
            _is_judged_right(turn)


WORDS = {"kind": "words", "n": 4, "any": ["mill"]}
ORDER = {"kind": "order", "items": ["3", "7", "12"]}
ONLY = {"kind": "only", "items": ["goat", "hen"]}
LIST = {"kind": "list", "items": ["cup", "hat", "hen"]}
LOUD = {"kind": "capitals", "texts": ["the red kite"]}
REPEAT = {"kind": "repeat", "text": "Finn has a red kite."}
TALE = {"kind": "tale", "about": ["Finn", "kite"], "least": 3, "most": 3}
HELLO = {"kind": "greeting", "of": "hello"}


@pytest.mark.parametrize(
    ("check", "answer", "right"),
    [
        (WORDS, "The mill is old.", 1),
        (WORDS, "Here it is: the mill is old", 1),
        (WORDS, "The mill is very old.", 0),
        (WORDS, "The inn is old.", 0),
        ({"kind": "words", "n": 2, "only": "hat"}, "Hat, hat!", 1),
        ({"kind": "words", "n": 2, "only": "hat"}, "hat cup", 0),
        (ORDER, "Three, seven, twelve", 1),
        (ORDER, "1. 3\n2. 7\n3. 12", 1),
        (ORDER, "First 3, then 7, and last 12.", 1),
        (ORDER, "3, 12, 7", 0),
        (ORDER, "3, 7, 12, 15", 0),
        (ONLY, "The animals are the hen and the goat.", 1),
        (ONLY, "goat, hen, cup", 0),
        (ONLY, "goat", 0),
        (ONLY, "goat, goat, hen", 0),
        (LIST, "- a cup\n- a hat\n- a hen", 1),
        (LIST, "Here is the list:\ncup\nhat\nhen", 1),
        (LIST, "cup, hat, hen", 0),
        (LIST, "hat\ncup\nhen", 0),
        (LOUD, "Sure! THE RED KITE.", 1),
        (LOUD, "THE RED KITe", 0),
        (LOUD, "THE RED HAT", 0),
        (REPEAT, 'Of course: "finn has a red kite"', 1),
        (REPEAT, "Finn has a kite.", 0),
        (TALE, "Finn had a kite. He lost it on the hill. Lily found it.", 1),
        (TALE, "Finn had a kite. He lost it on the hill.", 0),
        (TALE, "Finn had a kite. He lost it on the hill. Lily found", 0),
        (TALE, "Finn had a hat. He lost it on the hill. Lily found it.", 0),
        (TALE, "Finn had a kite. Finn had a kite. Finn had a kite.", 0),
        (TALE, "Write a story about Finn and a kite. He lost it. Lily found it.", 0),
        (HELLO, "hi, nice to see you", 1),
        (HELLO, "Hello, Finn!", 0),
        ({**HELLO, "name": "Finn"}, "Hello, Finn!", 1),
        (HELLO, "Hello, the mill stands by the river.", 0),
        (HELLO, "Goodbye.", 0),
        (HELLO, "", 0),
    ],
)
def test_answers_to_instructions_are_read_as_people_read(check, answer, right):
    assert score(check, answer) == right


DECLINE = {"kind": "decline"}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        *((refusal, 1) for refusal in REFUSALS.values()),
        ("Sorry, I don't know that.", 1),
        ("I'm sorry, I can't answer that.", 1),
        ("I can only tell you about the village of Hamlet.", 1),
        ("I have no idea.", 1),
        ("The capital is the mill.", 0),
        ("I do not know, but Marta does.", 0),
        ("I cannot answer that. Maybe it is Rome.", 0),
        ("I do not like that.", 0),
        ("The story does not say.", 0),
        ("Hello! How can I help you?", 0),
        ("I cannot answer that. " * 11, 0),
        ("", 0),
    ],
)
def test_a_refusal_states_no_fact(answer, right):
    assert score(DECLINE, answer) == right


def test_a_refusal_is_right_for_what_is_outside_and_for_nothing_else(held, made):
    turns = [turn for split in SPLITS for one in held[split] for turn in one.turns]
    turns += [turn for split in SPLITS for category in MAKERS for turn in made[split][category]]
    for turn in turns:
        for refusal in REFUSALS.values():
            assert score(turn.check, refusal) == (turn.category == "decline"), (refusal, turn)


def test_no_one_in_hamlet_has_a_name_or_trade_of_those_outside():
    world = village()
    assert not {*SUBJECTS["name"], *SUBJECTS["person"]} & {*world.people, *world.visitors, *world.animals}
    assert not set(SUBJECTS["job"]) & set(world.trades)
    assert not set(SUBJECTS["spot"]) & set(world.places)
    assert not set(SUBJECTS["food"]) & {goods.many for goods in world.goods.values()}
    assert sum(map(len, SUBJECTS.values())) > 1000


def test_questions_about_the_whole_village_have_answers():
    for split in SPLITS:
        for i in range(200):
            turn = facts.village_as_a_whole(Draw(i), split)
            assert turn.category == "village"
            _is_judged_right(turn)


def test_what_can_be_asked_is_said_with_an_example(made):
    answers = {turn.answer for turn in made["train"]["greeting"] if turn.check["of"] == "can"}
    assert answers and all("sums" in answer and "stories" in answer and "baker" in answer for answer in answers)


def test_people_type_as_they_like(made):
    turns = [typed(Draw(i), turn) for category in TYPED for i, turn in enumerate(made["train"][category])]
    assert all(turn.user for turn in turns)
    assert 0.6 < sum(turn.user == turn.user.lower() for turn in turns) / len(turns) < 0.9
    assert sum(turn.user[-1] not in ".?!" for turn in turns) > 0.5 * len(turns)
    greeting = Turn("greeting", "What is your name?", "", {}, ())
    assert {"whats your name", "what's your name?"} <= {typed(Draw(i), greeting).user for i in range(100)}
    order = made["train"]["order"][0]
    assert typed(Draw(0), order) is order


# ---- held-out content -------------------------------------------------------------------------------------


def _asked(turns: list[Turn]) -> set[str]:
    return {turn.user for turn in turns}


def test_val_asks_nothing_of_the_village_in_words_of_train(made):
    shared, held_out = facts.village_questions()
    assert 0.12 < len(held_out) / (len(shared) + len(held_out)) < 0.2
    asked = _asked(made["train"]["village"])
    new = {
        words.format(**q.fields)
        for q in (*shared, *held_out)
        for words in QUESTIONS[q.kind].held_out + (QUESTIONS[q.kind].shared if q in held_out else ())
    }
    assert not asked & new
    assert _asked(made["val"]["village"]) <= new


def test_every_fact_of_the_village_is_taught():
    """Each fact of a val-only question is also taught by a train question."""
    shared, held_out = facts.village_questions()
    taught = {fact for q in shared for fact in q.facts}
    assert {fact for q in held_out for fact in q.facts} <= taught
    assert {q.kind for q in shared} == set(QUESTIONS)
    assert not {q.kind for q in held_out} & {"age", "work"}
    assert len({q.kind for q in held_out}) > 8


def test_subjects_from_outside_belong_to_one_split(made):
    """A val message of shared words is about held-out subjects, so no message of val is one of train."""
    for group in ("country", "name", "science", "job", "odd"):
        kept = [kept_subject(group, subject) for subject in SUBJECTS[group]]
        assert 0.04 < sum(kept) / len(kept) < 0.25, group
    asked = {split: {_unpunctuated(turn.user) for turn in made[split]["decline"]} for split in SPLITS}
    assert not asked["train"] & asked["val"]
    assert len(asked["train"]) > 550
    text = "\n".join(_asked(made["train"]["decline"]))
    assert not [x for x in SUBJECTS["country"] if kept_subject("country", x) and f" {x}?" in text]


def test_reserved_pairs_of_numbers_are_added_in_val_only(made):
    for split in SPLITS:
        for turn in made[split]["sum"]:
            pair = ("numbers", *turn.check["also"][:2])
            assert is_reserved(pair) == (split == "val"), turn


@pytest.mark.parametrize("split", SPLITS)
def test_what_an_instruction_is_about_belongs_to_one_split(made, split):
    def kept(turn: Turn) -> bool:
        check = turn.check
        if turn.category == "capitals":
            return kept_for_val("capitals", check["texts"][0])
        if turn.category == "repeat":
            return kept_for_val("repeat", check["text"])
        if turn.category == "story":
            if not check["about"]:
                return split == "val"  # only the phrasing of "Tell me a story." is held out
            return kept_for_val("story", *check["about"])
        return kept_for_val("list", *sorted(check["items"]))

    for category in ("capitals", "repeat", "story", "list"):
        assert {kept(turn) for turn in made[split][category]} == {split == "val"}


def test_no_first_turn_of_val_is_one_of_train(held):
    """Follow-ups such as "And backwards?" recur, but the turns to which they refer do not."""
    first = {split: {one.turns[0].user for one in held[split]} for split in SPLITS}
    assert not first["val"] & first["train"]
    later = {turn.user for one in held["train"] for turn in one.turns[1:]}
    assert not first["val"] & later


def test_names_of_reserved_visitors_are_in_val_only(held, made):
    names = re.compile(rf"\b({'|'.join(village().reserved_visitors)})\b", re.IGNORECASE)
    texts = {
        split: [m["content"] for c in held[split] for m in c.messages]
        + [t.user + t.answer for turns in made[split].values() for t in turns]
        for split in SPLITS
    }
    assert not any(names.search(text) for text in texts["train"])
    assert sum(1 for text in texts["val"] if names.search(text)) > 100


def test_invented_names_fall_into_splits_by_themselves(held):
    draw = Draw(5)
    names = {split: {invented_name(draw, split) for _ in range(3000)} for split in SPLITS}
    assert not names["train"] & names["val"]
    assert len(names["train"]) > 2000
    assert {sex_of(name) for name in names["train"]} == {"m", "f"}
    told = {
        split: {word for one in held[split] for m in one.messages for word in re.findall(r"[A-Z][a-z]+", m["content"])}
        for split in SPLITS
    }
    for split, other in (SPLITS, SPLITS[::-1]):
        assert told[split] & names[split]
        assert not told[split] & names[other]


def test_a_phrase_says_what_the_sentence_said():
    sentences = {
        ("who", "Polly gave Elsie the kite.", "Polly"): ("Max gave Elsie the kite.", "It was Polly.", "It was Max."),
        ("what", "Polly got the kite from Max.", "kite"): ("Polly got the ring from Max.", "The kite.", "The ring."),
        ("where", "Sam met Nora at the mill.", "mill"): ("Sam met Nora by the river.", "At the mill.", "By the river."),
        ("what", "It was a dry day.", "dry"): ("It was a wet day.", "It was a dry day.", "It was a wet day."),
        ("what", "The kettle was copper.", "copper"): ("The kettle was old.", "Copper.", "Old."),
    }
    for (category, sentence, value), (other, phrase, wrong) in sentences.items():
        turn = Turn(category, "", sentence, {"kind": "says", "any": [value]}, (other,))
        assert (shortened(turn).answer, shortened(turn).wrong) == (phrase, (wrong,))
    number = Turn("how-many", "", "Sam has twelve eggs.", {"kind": "number", "value": 12}, ("Sam has two eggs.",))
    assert (shortened(number).answer, shortened(number).wrong) == ("It was twelve.", ("It was two.",))
    age = Turn("how-many", "", "Sam was twelve years old.", {"kind": "number", "value": 12}, ())
    assert shortened(age) == age
    first = Turn("first", "", "First Sam ran.", {"kind": "which", "right": "Sam ran", "other": "Nora ran"}, ())
    assert shortened(first) == first


def _unpunctuated(text: str) -> str:
    """`text` as `typed` may shorten it."""
    text = re.sub(r"\b(what|who|where|how) is\b", r"\1s", text.lower())
    return " ".join(re.sub(r"[^a-z0-9{}+*/-]", " ", text.replace("'", "")).split())


@pytest.mark.parametrize("tables", [ASKED, TALK, QUESTIONS, QUESTIONS_OF_ALL, SUMS, SHORT_REQUESTS])
def test_held_out_phrasings_differ_from_the_shared_ones_in_more_than_punctuation(tables):
    for name, words in tables.items():
        assert words.held_out, name
        shared = {_unpunctuated(text) for text in words.shared}
        assert not {_unpunctuated(text) for text in words.held_out} & shared, name


def test_held_out_phrasings_are_for_val_only():
    words = phrasings("ask\n  One?\n  ~Two?")["ask"]
    draw = Draw(0)
    assert {words.pick(draw, "train", new=True) for _ in range(20)} == {"One?"}
    assert {words.pick(draw, "val") for _ in range(50)} == {"One?", "Two?"}
    assert {words.pick(draw, "val", new=True) for _ in range(20)} == {"Two?"}


# ---- conversations ----------------------------------------------------------------------------------------


def test_messages_are_the_turns_in_order(held):
    for one in held["train"]:
        messages = check_messages(list(one.messages))
        system = [m for m in messages if m["role"] == "system"]
        rest = messages[len(system) :]
        assert [m["content"] for m in rest] == [text for t in one.turns for text in (t.user, t.answer)]
        row = json.loads(json.dumps(one.to_json()))
        assert [t["category"] for t in row["turns"]] == [t.category for t in one.turns]


@pytest.mark.parametrize("split", SPLITS)
def test_the_mix_is_as_stated(held, split):
    counts = Counter(turn.category for one in held[split] for turn in one.turns)
    assert set(counts) == set(CATEGORIES)
    for category, n in counts.items():
        assert 0.02 < n / counts.total() < 0.12, (category, counts)
    assert 0.28 < sum(one.messages[0]["role"] == "system" for one in held[split]) / len(held[split]) < 0.42
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)


def test_system_messages_change_answers(held):
    told = [(one.messages[0]["content"], one.turns) for one in held["train"] if one.messages[0]["role"] == "system"]
    loud = [turn for system, turns in told if "capital" in system for turn in turns]
    short = [turn for system, turns in told if "one word" in system for turn in turns]
    assert len(loud) > 40
    assert len(short) > 40
    assert all(turn.answer == turn.answer.upper() for turn in loud)
    assert all(len(turn.answer.split()) == 1 for turn in short)


def test_questions_are_balanced_and_end_with_the_user():
    for split in SPLITS:
        for i in range(34):
            messages, turn = question(3, i, split)
            assert turn.category == CATEGORIES[i % 17]
            assert messages[-1] == {"role": "user", "content": turn.user}
            check_messages(messages)
            _is_judged_right(turn)
            if turn.category in STORY_CATEGORIES:
                assert any(len(m["content"]) > 80 for m in messages)


def test_prompts_are_not_the_questions_of_evaluation():
    asked = [row["prompt"] for row in islice(prompts(0, "val"), 34) if row["category"] != "greeting"]  # these recur
    assert not [p for i, p in enumerate(asked) if p == question(0, i, "val")[0]]


# ---- preferences ------------------------------------------------------------------------------------------


def test_annotators_err_as_often_as_stated():
    facts_ = agreement(0, "train", 4000)
    for name, rate in ANNOTATORS.items():
        assert abs(facts_[name] - (1 - rate)) < 0.02
    a, b = ANNOTATORS["careful"], ANNOTATORS["hasty"]
    assert abs(facts_["careful and hasty"] - ((1 - a) * (1 - b) + a * b)) < 0.02


def test_the_chosen_answer_is_the_right_one_unless_the_annotator_erred():
    rows = [preference(0, i, "val") for i in range(80)]
    assert {row["annotator"] for row in rows} == set(ANNOTATORS)
    for i, row in enumerate(rows):
        _, turn = question(0, i, "val", "preference")
        right = score(turn.check, row["chosen"][0]["content"]), score(turn.check, row["rejected"][0]["content"])
        assert right == ((1.0, 0.0) if row["votes"][row["annotator"]] else (0.0, 1.0))
        check_messages([*row["prompt"], *row["chosen"]])


# ---- determinism ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "split", "digest"),
    [
        ("conversations", "train", "2d0d6cd65f7b316a9130c794575d3a215e985e0a279aef2567ae36e31b0aaa6d"),
        ("conversations", "val", "6f7e1f02837b0f431bd7aecb75cc8d0ad4584873498b3f1e64fd9c6374ae1155"),
        ("preferences", "train", "ba94f612517077c3980411c117943f5b952aafd23f61ea2108db1711e29bcce8"),
        ("prompts", "val", "6dd7493a80a9500ef6db527627955c71c89f6f55132780dfb1563c57a92c26ce"),
    ],
)
def test_the_first_hundred_lines_are_pinned(kind, split, digest):
    assert hashlib.sha256("".join(write_lines(kind, 0, split, 100)).encode()).hexdigest() == digest


def test_a_conversation_depends_on_seed_index_and_split_alone(held):
    assert conversation(0, 57, "train") == held["train"][57]
    assert list(islice(conversations(0, "train"), 3)) == held["train"][:3]
    others = [conversation(1, 57, "train"), conversation(0, 58, "train"), conversation(0, 57, "val")]
    assert all(other.messages != held["train"][57].messages for other in others)


def test_unknown_splits_and_kinds_are_refused():
    with pytest.raises(ValueError, match=r"'test'.*'train' and 'val'"):
        conversation(0, 0, "test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'poems'.*conversations, preferences, judgements, prompts"):
        next(write_lines("poems", 0, "train", 1))
    assert set(DEFAULT_COUNTS) == {"conversations", "preferences", "judgements", "prompts"}


# ---- documentation ---------------------------------------------------------------------------------------------


def _shown(one: Conversation) -> str:
    lines = []
    turns = iter(one.turns)
    for message in one.messages:
        lines.append(f"{message['role']}: {message['content']}")
        if message["role"] == "assistant":
            turn = next(turns)
            lines.append(f"    {turn.category} {json.dumps(turn.check)}")
    return "\n".join(lines)


def test_examples_on_the_page_are_real():
    page = (Path(__file__).parent.parent / "docs" / "internals" / "hamlet.md").read_text()
    examples = re.findall(r"<!-- conversation (\d+) (\d+) (\w+) -->\n```text\n(.*?)\n```", page, re.DOTALL)
    assert len(examples) >= 8
    for seed, index, split, text in examples:
        assert text == _shown(conversation(int(seed), int(index), split))

"""Tests of questions about stories, and of the checker that scores the answers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import pytest

from understudy.hamlet import Story, story, village
from understudy.hamlet.checker import score
from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Item
from understudy.hamlet.phrases import all_tellings
from understudy.hamlet.questions import SHORT_BYTES, short_story, story_opening, story_turns
from understudy.hamlet.questions_frames import fixed, frames
from understudy.hamlet.turns import STORY_CATEGORIES, Turn

WORLD = village()


@pytest.fixture(scope="module")
def train() -> list[tuple[Story, list[Turn]]]:
    told = [story(3, i, "train") for i in range(600)]
    return [(s, story_turns(Draw(i), s, 5)) for i, s in enumerate(told)]


@pytest.fixture(scope="module")
def val() -> list[tuple[Story, list[Turn]]]:
    told = [story(3, i, "val") for i in range(200)]
    return [(s, story_turns(Draw(i), s, 5)) for i, s in enumerate(told)]


def _turns(*sets: list[tuple[Story, list[Turn]]]) -> list[Turn]:
    return [turn for told in sets for _, turns in told for turn in turns]


# ---- checker -----------------------------------------------------------------------------------

WHO = {"kind": "says", "any": ["Sam"], "also": ["purse"]}
WHERE = {"kind": "says", "any": ["school", "under a desk"], "also": ["purse", "sam"]}
GAVE = {"kind": "says", "any": ["Nora", "shopkeeper"], "also": ["kite", "sam"], "roles": ["Nora", "Sam"]}
MANY = {"kind": "number", "value": 12, "also": ["eggs", "walter"], "parts": [7, 5]}
LEFT = {"kind": "number", "value": 21, "also": ["coins", "ben"]}
DAY = {"kind": "says", "any": ["small", "little"], "none": ["red", "old"], "also": ["purse"]}
FIRST = {"kind": "which", "right": "Sam went to the pond", "other": "Sam found the purse", "also": ["sam"]}
UNSAID = {"kind": "unsaid", "also": ["fiddle", "sam"]}


@pytest.mark.parametrize(
    ("check", "answer", "verdict"),
    [
        (WHO, "Sam found the purse.", 1),
        (WHO, "sam", 1),
        (WHO, "It was Sam who found it.", 1),
        (WHO, "Sam and Nora found the purse.", 0),
        (WHO, "Sam's father found the purse.", 0),
        (WHO, "Sam did not find the purse.", 0),
        (WHO, "Sam found the kettle.", 0),
        (WHO, "The story does not say.", 0),
        (WHO, "", 0),
        (WHO, "Sam found the purse. " * 20, 0),
        (WHERE, "AT THE SCHOOL!", 1),
        (WHERE, "He found it under a desk, at the school.", 1),
        (WHERE, "At the school or at the mill.", 0),
        (WHERE, "Maybe at the school.", 0),
        (WHERE, "At the school?", 0),
        (WHERE, "Not at the school.", 0),
        (WHERE, "Sam found the purse at the mill.", 0),
        (WHERE, "Sam found the purse at the school on Monday.", 0),
        (GAVE, "Nora gave the kite to Sam.", 1),
        (GAVE, "Sam got the kite from the shopkeeper.", 1),
        (GAVE, "The kite was given to Sam by Nora.", 1),
        (GAVE, "Sam gave the kite to Nora.", 0),
        (GAVE, "Sam gave Nora the kite.", 0),
        (MANY, "There were twelve eggs in all.", 1),
        (MANY, "12", 1),
        (MANY, "Seven and five make twelve.", 1),
        (MANY, "There were eleven eggs.", 0),
        (MANY, "There were twelve eggs. There were seven eggs.", 0),
        (MANY, "Twelve or thirteen.", 0),
        (MANY, "There were twelve pies.", 0),
        (LEFT, "Ben had twenty-one coins left.", 1),
        (LEFT, "Ben had 21 coins left.", 1),
        (LEFT, "Ben had twenty coins left.", 0),
        (DAY, "It was a little purse.", 1),
        (DAY, "It was a small red purse.", 0),
        (FIRST, "First Sam went to the pond.", 1),
        (FIRST, "Sam went to the pond before he found the purse.", 1),
        (FIRST, "Sam went to the pond, and then he found the purse.", 1),
        (FIRST, "Sam found the purse after he went to the pond.", 1),
        (FIRST, "Sam found the purse, then he went to the pond.", 0),
        (FIRST, "Sam found the purse first.", 0),
        (UNSAID, "The story does not say.", 1),
        (UNSAID, "The story doesn't tell us.", 1),
        (UNSAID, "That is not said in the story.", 1),
        (UNSAID, "Sam found the fiddle at the mill.", 0),
        (UNSAID, "The story does not say, but it was at the mill.", 0),
        (UNSAID, "The story does not say, maybe.", 0),
    ],
)
def test_an_answer_is_judged_as_a_careful_reader_would(check, answer, verdict):
    assert score(check, answer) == verdict


def test_an_unknown_kind_of_check_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"unknown kind of check 'taste'; known are .*says"):
        score({"kind": "taste"}, "sweet")


# ---- questions ----------------------------------------------------------------------------------------


def test_answers_are_right_and_mistakes_are_wrong_by_their_own_checks(train, val):
    turns = _turns(train, val)
    assert len(turns) > 3500
    for turn in turns:
        assert score(turn.check, turn.answer) == 1.0, turn
        assert 1 <= len(set(turn.wrong)) == len(turn.wrong) <= 3, turn
        for wrong in turn.wrong:
            assert score(turn.check, wrong) == 0.0, (wrong, turn)


def test_a_check_is_plain_json(train):
    for turn in _turns(train[:200]):
        assert json.loads(json.dumps(turn.check)) == turn.check


def test_paraphrases_pass_and_hedges_fail(train):
    for turn in _turns(train[:300]):
        body = turn.answer.rstrip(".")
        for same in (body.upper() + "!", body, f"  {turn.answer}\n", "Well, " + body[0].lower() + body[1:]):
            if same.startswith("Well") and re.search(r"\bWill\b", body[0:4]):
                continue  # "will" in lower case is not a name
            assert score(turn.check, same) == 1.0, (same, turn)
        for hedge in (f"Maybe {body}.", f"I think {body}.", f"{body}?", f"{body}, or not.", f"{body}. I am not sure."):
            assert score(turn.check, hedge) == 0.0, (hedge, turn)


def test_the_asked_word_alone_is_an_answer(train):
    for turn in _turns(train[:300]):
        if turn.check["kind"] == "says":
            for word in turn.check["any"]:
                assert score(turn.check, f"the {word}") == 1.0, (word, turn)
        elif turn.check["kind"] == "number":
            assert score(turn.check, str(turn.check["value"])) == 1.0, turn


def test_a_second_answer_beside_the_right_one_is_wrong(train):
    for turn in _turns(train[:300]):
        if turn.category in ("who", "where", "how-many"):
            for wrong in turn.wrong:
                if wrong.startswith("The story"):
                    continue
                assert score(turn.check, f"{turn.answer} {wrong}") == 0.0, (wrong, turn)


def test_what_is_asked_for_stands_in_the_story(train, val):
    """The answer is in the text, or the question is unanswerable."""
    for told, turns in train + val:
        text = told.text.lower()
        for turn in turns:
            if turn.check["kind"] == "says":
                assert any(word.lower() in text for word in turn.check["any"]), (turn, told.text)


def _found_twice() -> Story:
    """Sam found a purse at the school and a key at the mill; Nora found a purse, too, and no one knows where."""
    people, places = WORLD.people, WORLD.places
    told = ("actor", "place", "thing")
    purse, key = Item("purse", "red"), Item("key", "old")
    events = (
        Event("find", "find_spot", people["Sam"], thing=purse, place=places["school"], told=told),
        Event("find", "find_spot", people["Sam"], thing=key, place=places["mill"], told=told),
        Event("find", "find_spot", people["Nora"], thing=purse, place=places["inn"], told=("actor", "thing")),
    )
    text = "Sam found a purse at the school. Sam found a key at the mill. Nora found a purse, too."
    return Story(text, "found", "train", ("Sam", "Nora"), events, (), ())


def test_a_question_that_two_events_answer_is_not_asked():
    asked = {
        (turn.category, turn.answer)
        for i in range(60)
        for turn in story_turns(Draw(i), _found_twice(), 12)
        if turn.category in ("who", "where", "what")
    }
    assert ("what", "Nora found a purse.") in asked
    assert ("where", "Sam found the key at the mill.") in asked
    assert ("who", "Sam found the key.") in asked
    assert ("what", "Sam found a key at the mill.") in asked
    assert ("where", "Sam found the purse at the school.") in asked
    assert ("what", "Sam found a key.") not in asked  # ambiguous: Sam also found a purse
    assert ("who", "Sam found the purse.") not in asked  # ambiguous: Nora also found a purse
    assert ("where", "Nora found the purse at the inn.") not in asked  # the text does not state the place


def test_what_is_not_said_is_not_said(train, val):
    """No unanswerable question has an answer in another question of the same story."""
    for told, _ in [*train[:60], *val[:20]]:
        turns = story_turns(Draw(1), told, 40)
        direct = {re.sub(r"[^a-z ]", "", t.user.lower()) for t in turns if t.category != "not-said"}
        for turn in turns:
            if turn.category == "not-said":
                assert re.sub(r"[^a-z ]", "", turn.user.lower()) not in direct, (turn, told.text)


def test_all_categories_take_their_turns(train):
    counts = Counter(turn.category for turn in _turns(train))
    assert set(counts) == set(STORY_CATEGORIES)
    total = sum(counts.values())
    assert all(n > total / 12 for n in counts.values()), counts
    assert total / 8 < counts["not-said"] < total / 4.5, counts


def test_nothing_is_asked_twice(train):
    for told, _ in train[:80]:
        turns = story_turns(Draw(9), told, 30)
        assert len(turns) > 8, told.text
        for category in ("who", "where", "what", "how-many"):
            answers = [t.answer for t in turns if t.category == category]
            assert len(answers) == len(set(answers)), (answers, told.text)


def test_val_is_asked_about_what_training_never_sees(val):
    """Most val stories have a question whose answer is the value of a reserved fact."""
    hits = 0
    for told, turns in val:
        values = {v.lower() for key in told.reserved for v in key[1:]}
        hits += any(len(values & set(re.findall(r"[a-z]+", t.answer.lower()))) >= 2 for t in turns)
    assert hits > len(val) / 2


def test_held_out_words_never_occur_in_train(train, val):
    held_out = (
        "I would like to know",
        "Do you remember",
        "Think of the story",
        "One more question",
        "earlier",
        "was the first to",
    )
    openings = ("I will tell you", "This is what happened", "Look at this")
    asked, asked_val = ("\n".join(t.user for t in _turns(told)) for told in (train, val))
    for words in held_out:
        assert words not in asked
        assert words in asked_val
    brought, brought_val = (
        "\n".join(story_opening(Draw(i), told, told.split).replace(told.text, "") for i, (told, _) in enumerate(sets))
        for sets in (train, val)
    )
    for words in openings:
        assert words not in brought
        assert words in brought_val
    for name in WORLD.reserved_visitors:
        assert not any(name in t.user + t.answer + " ".join(t.wrong) for t in _turns(train))


def test_an_opening_is_followed_by_the_question(train):
    told = train[0][0]
    openings = {story_opening(Draw(i), told, "train") for i in range(100)}
    assert len(openings) >= 6
    assert all(o.endswith(told.text + "\n\n") for o in openings)


def test_short_stories_are_short_and_always_the_same():
    told = [short_story(0, i, "train") for i in range(40)]
    assert all(len(s.text) <= SHORT_BYTES for s in told)
    assert [s.text for s in told] == [short_story(0, i, "train").text for i in range(40)]
    assert len({s.text for s in told}) == 40
    assert len({s.plot for s in told}) >= 8
    with pytest.raises(ValueError, match="most_bytes is 100"):
        short_story(0, 0, "train", most_bytes=100)


def test_the_first_hundred_turns_are_pinned():
    turns = [t for i in range(25) for t in story_turns(Draw(i), story(0, i, "train"), 4)]
    assert len(turns) == 100
    text = "\n".join(json.dumps([t.category, t.user, t.answer, t.check, t.wrong]) for t in turns)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "4509004344133bc3b45569cf31b41f332756faa647e75ef26be64aa4a3caec1a"
    )


def test_the_tables_name_tellings_that_exist():
    known = set(all_tellings())
    assert set(frames()) <= known
    assert set(fixed()) <= known

"""Tests of the small stories of Hamlet: length, separation from the corpus, fairness of questions."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from understudy.hamlet import Story, is_reserved, story, village
from understudy.hamlet.checker import score
from understudy.hamlet.conversations import conversation
from understudy.hamlet.draw import Draw
from understudy.hamlet.phrases import all_tellings
from understudy.hamlet.plots import PLOTS
from understudy.hamlet.plots_small import SMALL_PLOTS
from understudy.hamlet.questions import story_turns
from understudy.hamlet.stories import SMALL_BYTES, small_story
from understudy.hamlet.turns import STORY_CATEGORIES, Turn

ENDS = re.compile(r'[.!?]"?(?=\s|$)')


@pytest.fixture(scope="module")
def train() -> list[Story]:
    return [small_story(0, i, "train") for i in range(800)]


@pytest.fixture(scope="module")
def val() -> list[Story]:
    return [small_story(0, i, "val") for i in range(300)]


@pytest.fixture(scope="module")
def asked(train, val) -> list[tuple[Story, list[Turn]]]:
    return [(told, story_turns(Draw(i), told, 4)) for i, told in enumerate(train + val)]


def test_a_small_story_depends_on_seed_index_and_split_alone(train):
    again = small_story(0, 57, "train")
    assert (again.text, again.facts) == (train[57].text, train[57].facts)
    others = [small_story(1, 57, "train"), small_story(0, 58, "train"), small_story(0, 57, "val")]
    assert again.text not in [other.text for other in others]
    with pytest.raises(ValueError, match="split is 'test'"):
        small_story(0, 0, "test")  # type: ignore[arg-type]


def test_they_are_short(train, val):
    for told in train + val:
        assert 40 < len(told.text) <= SMALL_BYTES
    sentences = [len(ENDS.findall(told.text)) for told in train + val]
    assert min(sentences) >= 2
    assert max(sentences) <= 8  # direct speech can have two sentences
    assert sum(2 <= n <= 5 for n in sentences) > 0.95 * len(sentences)
    assert 160 < sum(len(told.text) for told in train) / len(train) < 190


def test_they_are_not_the_corpus(train):
    assert not set(SMALL_PLOTS) & set(PLOTS)
    assert {story(0, i, "train").plot for i in range(300)} <= set(PLOTS)
    assert {told.plot for told in train} == set(SMALL_PLOTS)
    assert min(Counter(told.plot for told in train).values()) > 0.4 * len(train) / len(SMALL_PLOTS)


def test_they_seldom_repeat(train):
    assert len({told.text for told in train}) == len(train)


def test_reserved_facts_and_names_are_in_val_only(train, val):
    names = re.compile(rf"\b({'|'.join(village().reserved_visitors)})\b")
    for told in train:
        assert not told.reserved
        assert not any(is_reserved(key) for event in told.events for key, _ in event.keys_and_fields())
        assert not names.search(told.text)
    for told in val:
        assert told.reserved
        assert any(event.held_out for event in told.events)
    assert sum(1 for told in val if names.search(told.text)) > 10


def test_reserved_phrases_are_in_val_only(train, val):
    """The literal text of a held-out phrase occurs in no shared phrase."""
    said = [t.source for rows in all_tellings().values() for t in rows if not t.held_out]
    held_out = [t.source for rows in all_tellings().values() for t in rows if t.held_out]
    own = [
        words
        for source in held_out
        for words in re.findall(r"[a-z ,]{12,}", re.sub(r"\{[^}]*\}|\[[^\]]*\]", "|", source))
        if not any(words in other for other in said)
    ]
    assert len(own) > 20
    text = "\n".join(told.text for told in train)
    assert not [words for words in own if words in text]
    assert sum(words in "\n".join(told.text for told in val) for words in own) > 10


def test_what_is_told_is_in_the_text(train, val):
    for told in train + val:
        for event in told.events:
            for field in ("thing", "second_thing"):
                if field in event.told and getattr(event, field).noun not in told.text:
                    raise AssertionError((field, event.telling, told.text))
            if event.place is not None and "place" in event.told:
                assert event.place.name in told.text or event.place.spot in told.text.lower(), told.text


def test_nothing_is_spoken_of_as_known_before_it_is_told(train, val):
    """The first mention of a thing is indefinite or possessive ("a red kite"), never "the red kite"."""
    for told in train + val:
        things = {i.noun: i.word for e in told.events for i in (e.thing, e.second_thing) if i is not None}
        for noun, word in things.items():
            first = re.search(rf"\b(\w+) (?:{word} )?{noun}\b", told.text)
            assert first is None or first[1].lower() != "the", told.text


def test_every_small_plot_yields_questions(asked):
    turns = Counter(told.plot for told, turns in asked for _ in turns)
    stories = Counter(told.plot for told, _ in asked)
    assert set(turns) == set(SMALL_PLOTS)
    for plot in SMALL_PLOTS:
        assert turns[plot] > 3.5 * stories[plot], plot
    assert min(len(turns) for _, turns in asked) >= 2
    categories = Counter(turn.category for _, turns in asked for turn in turns)
    assert set(categories) == set(STORY_CATEGORIES)
    assert min(categories.values()) > categories.total() / 14


def test_answers_are_right_and_mistakes_are_wrong_by_their_own_checks(asked):
    turns = [turn for _, turns in asked for turn in turns]
    assert len(turns) > 4000
    for turn in turns:
        assert score(turn.check, turn.answer) == 1.0, turn
        assert 1 <= len(set(turn.wrong)) == len(turn.wrong) <= 3, turn
        for wrong in turn.wrong:
            assert score(turn.check, wrong) == 0.0, (wrong, turn)


def test_what_is_asked_for_stands_in_the_story(asked):
    for told, turns in asked:
        for turn in turns:
            if turn.check["kind"] == "says":
                assert any(word.lower() in told.text.lower() for word in turn.check["any"]), (turn, told.text)


def test_three_in_four_stories_that_are_asked_about_are_small():
    first = []
    for i in range(400):
        one = conversation(2, i, "train")
        if one.turns[0].category in STORY_CATEGORIES:
            first.append(len(one.turns[0].user) < 340)  # only longer stories exceed this length
    assert 0.67 < sum(first) / len(first) < 0.83


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("8 (1), 9 (2), 10 (3). 7 plus 3 is 10.", 1.0),
        ("Eight (one), nine (two), ten (three). It is ten.", 1.0),
        ("10", 1.0),
        ("8 (1), 9 (2). 7 plus 3 is 10.", 0.0),  # does not reach the result
        ("8 (1), 10 (2). 7 plus 3 is 10.", 0.0),  # skips a number
        ("8 (1), 9 (3), 10 (4). 7 plus 3 is 10.", 0.0),  # step numbers out of order
        ("8 (1), 9 (2), 10 (3). 7 plus 3 is 9.", 0.0),  # result differs from the counting
        ("8 (1), 9 (two hens), 10 (3). 7 plus 3 is 10.", 0.0),
    ],
)
def test_counting_has_to_lead_to_the_sum(answer, right):
    assert score({"kind": "number", "value": 10, "also": ["7", "3"]}, answer) == right

"""What the feedback store keeps, an answer that a model gave or what someone thinks of one, and which of them are refused.

Not here: the database (feedback.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from understudy.tokenizer.base import clean
from understudy.tokenizer.chat import Message

MOST_CHARACTERS = 100_000
"""Of a comment or a correction: a person writes less, and what is longer is a mistake or worse."""
MOST_NAME = 200
"""Characters of an id or of an annotator's name."""
ANONYMOUS = "anonymous"
"""The annotator of whoever gave no name."""

Kind = Literal["thumb", "rating", "correction", "comparison"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VALUES: dict[str, tuple[int, ...]] = {"thumb": (-1, 1), "rating": (1, 2, 3, 4, 5), "comparison": (-1, 0, 1)}


@dataclass(frozen=True)
class AnswerRecord:
    """One answer of a model: what it was asked (``prompt`` ends with the user's message), by which weights, and how.

    ``id`` and ``created`` (UTC) are given by the store where they are left out.
    """

    conversation_id: str
    prompt: list[Message]
    text: str
    run: str
    step: int
    weights_sha256: str
    settings: dict[str, Any]
    finish_reason: str
    tokens: int
    id: str = ""
    created: str = ""


@dataclass(frozen=True)
class Judgement:
    """What someone thinks of an answer.

    ``value`` is +1 or -1 of a thumb, 1 to 5 of a rating; of a comparison +1 where ``answer_id`` is better, -1 where
    ``other_answer_id`` is, 0 for a tie. A correction says what the answer should have been. A comment may go with any.
    """

    kind: Kind
    answer_id: str
    annotator: str = ANONYMOUS
    value: int | None = None
    comment: str | None = None
    correction: str | None = None
    other_answer_id: str | None = None
    id: str = ""
    created: str = ""

    @property
    def subject(self) -> tuple[str, str, frozenset[str]]:
        """What a later judgement replaces this one by: annotator, kind, and the answer or the pair."""
        return self.annotator, self.kind, frozenset({self.answer_id, self.other_answer_id or self.answer_id})


def check_answer(record: AnswerRecord) -> AnswerRecord:
    """An answer as any database can keep it.

    Raises:
        ValueError: an id that is none.
    """
    _name("answer id", record.id)
    _name("conversation id", record.conversation_id)
    return AnswerRecord(**_storable(vars(record)))


def check_judgement(judgement: Judgement) -> Judgement:
    """A judgement whose fields belong together, its texts as any database can keep them.

    Raises:
        ValueError: they do not.
    """
    kind, value = judgement.kind, judgement.value
    if kind not in KINDS:
        raise ValueError(f"the kind of a judgement is {kind!r}; choose one of {', '.join(KINDS)}")
    if kind in VALUES and (type(value) is not int or value not in VALUES[kind]):
        allowed = ", ".join(map(str, VALUES[kind]))
        raise ValueError(f"the value of a {kind} is {value!r}; give one of {allowed}")
    if kind == "correction" and value is not None:
        raise ValueError("a correction has no value; give it a text, and judge the answer by a thumb or a rating")
    correction = None if judgement.correction is None else _text("correction", judgement.correction).strip()
    if (kind == "correction") != (correction is not None):
        raise ValueError("a correction is a text, and only the kind correction has one")
    if correction == "":
        raise ValueError("the correction is empty; say what the answer should have been")
    if (kind == "comparison") != (judgement.other_answer_id is not None):
        raise ValueError("a comparison is between answer_id and other_answer_id, and no other kind has both")
    if judgement.answer_id == judgement.other_answer_id:
        raise ValueError("an answer cannot be compared with itself; give two")
    return replace(
        judgement,
        id=_name("judgement id", judgement.id),
        annotator=_name("annotator", judgement.annotator.strip() or ANONYMOUS),
        comment=(None if judgement.comment is None else _text("comment", judgement.comment).strip()) or None,
        correction=correction,
    )


def _text(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"a {what} is a text, and not {text!r}")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the {what} has {len(text):,} characters; {MOST_CHARACTERS:,} are the most")
    return str(_storable(text))


def _name(what: str, name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME or _storable(name) != name:
        raise ValueError(f"the {what} is {str(name)[:40]!r}; give a text of 1 to {MOST_NAME} characters")
    return name


def _storable(value: Any) -> Any:
    """A text, or what of JSON holds texts, as both databases keep it: U+FFFD stands for what no UTF-8 holds, and for NUL,
    which PostgreSQL refuses."""
    if isinstance(value, str):
        return clean(value).replace("\0", "�")
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value

"""Records of the feedback store, a model's answer and a judgement of one, and their validation. Not here: the database
(store.py).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from understudy.files import now
from understudy.tokenizer.base import clean
from understudy.tokenizer.chat import Message

MOST_CHARACTERS = 100_000
"""Limit of a comment or a correction."""
MOST_NAME = 200
"""Limit of an id or an annotator's name."""
ANONYMOUS = "anonymous"
"""The annotator of judgements without a name."""

Kind = Literal["thumb", "rating", "correction", "comparison"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WITHDRAWN = 0
"""The value of a thumb, a rating or a correction that takes back the annotator's earlier one."""
VALUES: dict[str, tuple[int, ...]] = {
    "thumb": (-1, WITHDRAWN, 1), "rating": (WITHDRAWN, 1, 2, 3, 4, 5), "comparison": (-1, 0, 1),
}  # fmt: skip


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True)
class AnswerRecord:
    """One answer of a model, with its prompt (which ends with the user's message), weights and sampling settings."""

    conversation_id: str
    prompt: list[Message]
    text: str
    run: str
    step: int
    weights_sha256: str
    settings: dict[str, Any]
    finish_reason: str
    tokens: int
    id: str = field(default_factory=new_id)
    created: str = field(default_factory=now)


@dataclass(frozen=True)
class Judgement:
    """One annotator's judgement of an answer.

    ``value`` is +1 or -1 for a thumb, 1 to 5 for a rating, and for a comparison +1 if ``answer_id`` is better, -1 if
    ``other_answer_id`` is, 0 for a tie. ``correction`` is the text that the answer should have been. A thumb, a rating or a
    correction with the value 0 takes back the earlier one. A comment may accompany any kind.
    """

    kind: Kind
    answer_id: str
    annotator: str = ANONYMOUS
    value: int | None = None
    comment: str | None = None
    correction: str | None = None
    other_answer_id: str | None = None
    id: str = field(default_factory=new_id)
    created: str = field(default_factory=now)

    @property
    def subject(self) -> tuple[str, str, frozenset[str]]:
        """Key of a judgement: a later one with the same annotator, kind and answer (or pair) replaces it."""
        return self.annotator, self.kind, frozenset({self.answer_id, self.other_answer_id or self.answer_id})

    @property
    def withdrawn(self) -> bool:
        """Whether it only takes back an earlier judgement. A comparison with the value 0 is a tie."""
        return self.kind != "comparison" and self.value == WITHDRAWN


def check_answer(record: AnswerRecord) -> AnswerRecord:
    """A valid answer, with texts that any database can store.

    Raises:
        ValueError: an invalid id.
    """
    _name("answer id", record.id)
    _name("conversation id", record.conversation_id)
    return AnswerRecord(**_storable(vars(record)))


def check_judgement(judgement: Judgement) -> Judgement:
    """A valid judgement, with texts that any database can store.

    Raises:
        ValueError: a missing, invalid or contradictory field.
    """
    kind, value = judgement.kind, judgement.value
    if kind not in KINDS:
        raise ValueError(f"the kind of a judgement is {kind!r}; choose one of {', '.join(KINDS)}")
    if kind in VALUES and (type(value) is not int or value not in VALUES[kind]):
        allowed = ", ".join(map(str, VALUES[kind]))
        raise ValueError(f"the value of a {kind} is {value!r}; give one of {allowed}")
    if kind == "correction" and value is not None and (type(value) is not int or value != WITHDRAWN):
        raise ValueError(
            "a correction has no value, except 0 to take it back; give it a text, and send a thumb or rating separately"
        )
    correction = _text("correction", judgement.correction)
    if kind == "correction" and judgement.withdrawn and correction is not None:
        raise ValueError("a correction with the value 0 is taken back and has no text; leave the text or the value out")
    if (kind == "correction" and not judgement.withdrawn) != (correction is not None):
        raise ValueError("the kind correction needs a correction, and no other kind has one")
    if correction == "":
        raise ValueError("the correction is empty; give the text that the answer should have been")
    if (kind == "comparison") != (judgement.other_answer_id is not None):
        raise ValueError("the kind comparison needs answer_id and other_answer_id, and no other kind has both")
    if judgement.answer_id == judgement.other_answer_id:
        raise ValueError("an answer cannot be compared with itself; give two")
    return replace(
        judgement,
        id=_name("judgement id", judgement.id),
        annotator=_name("annotator", judgement.annotator.strip() or ANONYMOUS),
        comment=_text("comment", judgement.comment) or None,
        correction=correction,
    )


def _text(field: str, text: str | None) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"the {field} is {text!r}; give a text")
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the {field} has {len(text):,} characters; give at most {MOST_CHARACTERS:,}")
    return str(_storable(text)).strip()


def _name(field: str, name: str) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME or _storable(name) != name:
        raise ValueError(f"the {field} is {str(name)[:40]!r}; give a text of 1 to {MOST_NAME} characters")
    return name


def _storable(value: Any) -> Any:
    """A JSON value with U+FFFD in place of characters that UTF-8 cannot encode and of NUL, which PostgreSQL refuses."""
    if isinstance(value, str):
        return clean(value).replace("\0", "�")
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value

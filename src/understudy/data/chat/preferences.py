"""Preferences: the formats in which they are published, one row of FORMATS each, and a split as a trainer reads it.

Each line of a prepared folder is

    {"prompt": [messages], "chosen": [messages], "rejected": [messages]}

where the prompt ends with the user's message, and where they are known: `tie` (true: neither is preferred),
`rating_chosen` and `rating_rejected` (numbers), `annotator`, `category`, and `truth`, the true scores of the chosen and
of the rejected answer. A ranking of several answers is its pairs, lines with the same prompt. A trainer gets them together
as a PreferenceComparison, so that a batch holds all pairs of a prompt, and the model reads each answer once.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from understudy.data.chat.conversations import check_form, tidy_messages
from understudy.data.chat.formats import (
    Dropped,
    Format,
    Kind,
    ParsedRow,
    list_field,
    message_field,
    number_field,
    read_formatted,
)
from understudy.data.chat.messages import CONTEXT_FIELDS, contents_of, normalize_record, text_field, without_weights
from understudy.data.chat.prepared import open_prepared, record_hash
from understudy.data.chat.trees import TREE_FIELDS, gather_trees, is_tree, read_ranked_answers
from understudy.data.records import FileRecord, kind_of
from understudy.tokenizer.chat import ANSWERED, Message

MOST_ANSWERS = 9
"""Answers to one prompt that are compared, each with each: 36 pairs."""

NO_LABEL = "label that is not true or false"
"""Reason to drop a judgement of a single completion."""

_TURN = re.compile(r"\n\n(Human|Assistant):")


def tidy_preference(record: dict[str, Any]) -> dict[str, Any] | Dropped:
    """The messages of a pair as they are trained on, its other fields as they are; or the reason to leave it out.

    Raises:
        ValueError: the record holds no pair, or a field of the schema holds something else.
    """
    prompt, answers = message_list(record, "prompt"), [message_list(record, name) for name in ("chosen", "rejected")]
    if not prompt:
        return Dropped("no prompt")
    tidied: list[list[Message]] = []
    for answer in answers:
        parts = tidy_answer(prompt, answer)
        if isinstance(parts, Dropped):
            return parts
        shared, messages = parts
        tidied.append(messages)
    if tidied[0] == tidied[1]:
        return Dropped("chosen equals rejected")
    if not _check_details(record):
        return Dropped("rated the other way round")
    return {**record, "prompt": shared, "chosen": tidied[0], "rejected": tidied[1]}


def tidy_answer(prompt: list[Any], answer: list[Any]) -> tuple[list[Message], list[Message]] | Dropped:
    """The messages of a prompt and of an answer to it as they are trained on; or the reason to leave them out.

    Raises:
        ValueError: no messages.
    """
    if not answer:
        return Dropped("no answer")
    messages, reason = tidy_messages(prompt + answer)
    shared = messages[: -len(answer)]
    if not reason and (not shared or shared[-1]["role"] not in ANSWERED or messages[-1]["role"] != "assistant"):
        reason = "turns out of order"
    if not reason and messages[-1].get("weight") == 0:
        reason = "answer with weight 0"
    if reason:
        return Dropped(reason)
    return without_weights(shared), without_weights(messages[-len(answer) :])


def message_list(record: dict[str, Any], name: str) -> list[Any]:
    """A field of the schema that holds messages."""
    value = record[name]
    if not isinstance(value, list):
        raise ValueError(f"the field {name!r} is not a list of messages but {kind_of(value)}")
    return value


def _check_details(record: dict[str, Any]) -> bool:
    """Whether the ratings, where there are any, speak for the chosen answer."""
    if not isinstance(record.get("tie"), (bool, type(None))):
        raise ValueError(f"the field 'tie' is not true or false but {kind_of(record['tie'])}")
    for name in ("annotator", "category"):
        text_field(record, name)
    chosen, rejected = (number_field(record, name) for name in ("rating_chosen", "rating_rejected"))
    if (chosen is None) != (rejected is None):
        raise ValueError("there is a rating of one answer alone: give rating_chosen and rating_rejected, or neither")
    truth = record.get("truth")
    if truth is not None:
        if not isinstance(truth, list) or len(truth) != 2:
            raise ValueError("the field 'truth' is not of the form [score of chosen, score of rejected]")
        for score in truth:
            number_field({"truth": score}, "truth")
    return chosen is None or rejected is None or bool(record.get("tie")) or chosen >= rejected


def read_pairs(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Text or messages; an answer may be the whole conversation, which then begins with the prompt."""
    prompt = message_field(fields, "prompt", "user")
    answers: list[list[Any]] = []
    for name in ("chosen", "rejected"):
        messages = message_field(fields, name, "assistant")
        check_form(prompt + messages)
        if messages and messages[0]["role"] != "assistant":
            if prompt and messages[0]["role"] == "system" != prompt[0]["role"]:
                prompt = [messages[0], *prompt]
            if contents_of(messages[: len(prompt)]) != contents_of(prompt):
                yield Dropped("answer to another prompt")
                return
            messages = messages[len(prompt) :]
        answers.append(messages)
    yield {"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}


def _schema(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    for pair in read_pairs(fields):
        # Parquet gives every record the fields of all. The system message and history are in the prompt.
        others = {name: value for name, value in fields.items() if value is not None and name not in CONTEXT_FIELDS}
        yield pair if isinstance(pair, Dropped) else {**others, **pair}


def _binarized(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Pairs with `score_chosen` and `score_rejected`."""
    scores = [number_field(fields, name) for name in ("score_chosen", "score_rejected")]
    for pair in read_pairs(fields):
        if isinstance(pair, Dropped) or scores[0] is None or scores[1] is None:
            yield pair
        else:
            yield {**pair, **_rated(scores[0], scores[1])}


def _rated(chosen: float, rejected: float) -> dict[str, Any]:
    """The ratings of a pair; equal ones are a tie."""
    return {"rating_chosen": chosen, "rating_rejected": rejected} | ({"tie": True} if chosen == rejected else {})


def _dialogues(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Two whole dialogues; their common beginning up to a turn of the user is the prompt."""
    chosen, rejected = (_dialogue(fields, name) for name in ("chosen", "rejected"))
    pairs = enumerate(zip(contents_of(chosen), contents_of(rejected)))
    length = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    prompt = max((i + 1 for i, message in enumerate(chosen[:length]) if message["role"] == "user"), default=0)
    if prompt:
        yield {"prompt": chosen[:prompt], "chosen": chosen[prompt:], "rejected": rejected[prompt:]}
    else:
        yield Dropped("no common prompt")


def _dialogue(fields: dict[str, Any], name: str) -> list[Message]:
    """Messages, or text in which "Human:" and "Assistant:" stand after a blank line before each of their turns."""
    if not isinstance(fields[name], str):
        messages = message_field(fields, name, "user")
        check_form(messages)
        return messages
    before, *turns = _TURN.split("\n\n" + fields[name].lstrip())
    if before.strip() or not turns:
        raise ValueError(f"the field {name!r} does not begin with 'Human:'; a lone text needs a prompt beside it")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[role], "content": text} for role, text in zip(turns[::2], turns[1::2])]


def _ultrafeedback(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    return _ranked(fields, "instruction", "completions", ("response",), ("overall_score", "fine-grained_score"))


def _scored(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    return _ranked(fields, "prompt", "answers", ("content", "text", "response"), ("score",))


def _ranked(
    fields: dict[str, Any], prompt: str, answers: str, texts: Sequence[str], scores: Sequence[str]
) -> Iterator[dict[str, Any] | Dropped]:
    """Each pair of answers to a prompt, the one with the higher score chosen.

    Args:
        texts, scores: names of fields; the first that an answer has counts.
    """
    score_of: dict[str, float] = {}
    for answer in list_field(fields, answers):
        text = next((text for name in texts if (text := text_field(answer, name).strip())), "")
        score = next((number for name in scores if (number := number_field(answer, name)) is not None), None)
        if not text:
            yield Dropped("empty answer")
        elif score is None:
            yield Dropped("answer without a score")
        elif text in score_of:
            yield Dropped("answer given twice")
        elif len(score_of) == MOST_ANSWERS:
            yield Dropped(f"answer after the first {MOST_ANSWERS}")
        else:
            score_of[text] = score
    if len(score_of) < 2:
        yield Dropped("fewer than two answers")
    messages = message_field(fields, prompt, "user")
    category = {"category": fields["category"]} if isinstance(fields.get("category"), str) else {}
    for pair in combinations(score_of.items(), 2):
        (chosen, high), (rejected, low) = pair if pair[0][1] >= pair[1][1] else pair[::-1]
        yield {
            "prompt": messages,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            **_rated(high, low),
            **category,
        }


def label_of(value: Any) -> bool | None:
    """Whether the label of a completion says that it is desirable: true or false, 1 or 0, also as text; None for others."""
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(str(value).lower())


def gather_labels(records: list[FileRecord]) -> Iterator[FileRecord | ParsedRow]:
    """The labelled answers to each prompt as one record, in the order of the prompts."""
    groups: dict[str, FileRecord] = {}
    for record in records:
        fields = dict(record.fields)
        label, weight, completion = fields.pop("label"), fields.pop("weight", None), fields.pop("completion")
        desirable = label_of(label)
        if weight == 0:
            yield ParsedRow(None, "weight 0", record.offset, where=record.where, intended=True)
        elif desirable is None:
            yield ParsedRow(None, NO_LABEL, record.offset, where=record.where)
        else:
            key = json.dumps(fields, sort_keys=True, default=str)
            group = groups.setdefault(key, dataclasses.replace(record, fields={**fields, "labelled": []}))
            group.fields["labelled"].append((desirable, completion))
    yield from groups.values()


def _labelled(fields: dict[str, Any]) -> Iterator[dict[str, Any] | Dropped]:
    """Single judgements: each desirable answer to a prompt with each undesirable one to the same prompt."""
    prompt = message_field(fields, "prompt", "user")
    sides: dict[bool, list[list[Any]]] = {True: [], False: []}
    for desirable, completion in fields["labelled"]:
        answer = message_field(normalize_record({"completion": completion}), "completion", "assistant")
        if not answer or any(answer in side for side in sides.values()):
            yield Dropped("answer given twice" if answer else "empty answer")
        elif len(sides[True]) + len(sides[False]) == MOST_ANSWERS:
            yield Dropped(f"answer after the first {MOST_ANSWERS}")
        else:
            sides[desirable].append(answer)
    if not sides[True] or not sides[False]:
        yield from (Dropped("no answer with the other label to the same prompt") for _ in sides[True] + sides[False])
    for chosen in sides[True]:
        for rejected in sides[False]:
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


DETAILS = ("tie", "rating_chosen", "rating_rejected", "annotator", "category", "truth")

FORMATS = {
    row.name: row
    for row in (
        Format("ultrafeedback", (("instruction", "completions"),), _ultrafeedback, optional=("category",)),
        Format("scored", (("prompt", "answers"),), _scored, optional=("category",)),
        Format("binarized", (("prompt", "chosen", "rejected", "score_chosen", "score_rejected"),), _binarized),
        Format("pairs", (("prompt", "chosen", "rejected"),), _schema, optional=DETAILS),
        Format("hh", (("chosen", "rejected"),), _dialogues),
        Format("kto", (("prompt", "completion", "label"),), _labelled, gather=gather_labels),
        Format("oasst", (("prompt", "message_tree_id"),), read_ranked_answers, applies=is_tree),
        Format("oasst-messages", (("message_id", "parent_id", "text", "role"),), read_ranked_answers, TREE_FIELDS,
               gather=gather_trees),
    )
}  # fmt: skip
"""In the order in which they are tried; a record that fits two is the first."""

PREFERENCES = Kind("preferences", ("prompt", "chosen", "rejected"), FORMATS, tidy_preference)
read_preferences = functools.partial(read_formatted, PREFERENCES)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers of a PreferenceComparison by index: `chosen` was preferred, or neither in a tie. `margin`: how much higher
    the chosen one was rated, at least 0.0; 0.0 without ratings, and in a tie."""

    chosen: int
    rejected: int
    margin: float
    tie: bool


@dataclass(frozen=True, slots=True)
class PreferenceComparison:
    """One prompt, the different answers to it, and the pairs that were compared; two annotators may disagree on one.

    `category`: "" where none is known. `truths`: the true score of each answer, None where it is not known.
    """

    prompt: tuple[Message, ...]
    answers: tuple[tuple[Message, ...], ...]
    pairs: tuple[Pair, ...]
    category: str
    truths: tuple[float | None, ...]


class Preferences:
    """The comparisons of one split, in the order in which their prompts first come, read from the file each time.

    Attributes:
        path: the folder or file that was opened.
        split: "train" or "val".
        sha256: names the text: of the split's file, or of the single file.
        pairs: how many pairs there are, over all prompts.
    """

    def __init__(self, path: Path, split: str) -> None:
        self._lines = open_prepared(path, split, PREFERENCES, lambda record: record)
        groups: dict[int, list[int]] = {}
        for number, record in enumerate(self._lines):
            groups.setdefault(record_hash(record, PREFERENCES), []).append(number)
        self._groups = list(groups.values())
        self.path, self.split, self.sha256 = path, split, self._lines.sha256
        self.pairs = len(self._lines)

    def __len__(self) -> int:
        """How many prompts there are."""
        return len(self._groups)

    def __getitem__(self, index: int) -> PreferenceComparison:
        return compare(list(self._lines.at(self._groups[index])))

    def __iter__(self) -> Iterator[PreferenceComparison]:
        lines = self._lines.at([number for group in self._groups for number in group])
        for group in self._groups:
            yield compare(list(islice(lines, len(group))))


def open_preferences(path: Path, split: str) -> Preferences:
    """One split of preferences: see :func:`open_prepared`."""
    return Preferences(path, split)


def compare(records: Sequence[dict[str, Any]]) -> PreferenceComparison:
    """The pairs of one prompt as one PreferenceComparison.

    Args:
        records: one or more lines with the same prompt, as `tidy_preference` leaves them.
    """
    numbers: dict[str, int] = {}
    answers: list[tuple[Message, ...]] = []
    truths: list[float | None] = []
    pairs = []
    for record in records:
        placed = []
        for side, score in zip(("chosen", "rejected"), record.get("truth") or (None, None)):
            number = numbers.setdefault(json.dumps(contents_of(record[side])), len(answers))
            if number == len(answers):
                answers.append(tuple(record[side]))
                truths.append(None)
            if truths[number] is None and score is not None:
                truths[number] = float(score)
            placed.append(number)
        pairs.append(Pair(placed[0], placed[1], _margin(record), bool(record.get("tie"))))
    category = next((record["category"] for record in records if record.get("category")), "")
    return PreferenceComparison(tuple(records[0]["prompt"]), tuple(answers), tuple(pairs), category, tuple(truths))


def _margin(record: dict[str, Any]) -> float:
    if record.get("rating_chosen") is None or record.get("tie"):
        return 0.0
    return float(record["rating_chosen"] - record["rating_rejected"])

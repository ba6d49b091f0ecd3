"""Checkable instructions: the table of kinds, and whether a text meets them, in the manner of IFEval (Zhou et al. 2023).

An instruction is plain JSON: its "kind" is a row of KINDS, its other fields are the arguments of that row. A check is
``{"instructions": [...]}``. A new kind is one row here and its phrasings in wording.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Text = Annotated[str, Field(pattern=r"\S")]
Whole = Annotated[int, Field(ge=1, strict=True)]

MARKER = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+(?=\S)", re.MULTILINE)
NUMBERED = re.compile(r"^[ \t]*(\d+)[.)][ \t]+\S", re.MULTILINE)
BULLET = re.compile(r"^[ \t]*[-*•][ \t]+\S", re.MULTILINE)
ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e)\.(?=\s)")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?:\s+|$)|\n+")
FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL)
AROUND = " \n\t\"'“”*_"

FUNCTION_WORDS = {
    "en": "the a and of to in is are was were it that this with for on you they he she we be have has not but as from by "
    "an or can will at which their his her its my your our if when there",
    "de": "der die das den dem des ein eine einen einem einer und ist sind war nicht mit für auf zu im in von sich es ich "
    "du er sie wir ihr auch als aber oder wie wenn man kann hat haben werden wird dass zum zur bei nach aus",
    "fr": "le la les un une des du de et est sont était dans pour avec sur pas ne que qui ce cette il elle ils nous vous "
    "on par plus au aux se son sa ses mais ou comme être avoir l d qu c j n s",
    "es": "el la los las un una unos unas y es son era en de del que por para con no se su sus al lo como más pero o "
    "este esta muy hay ser está están fue tiene cuando nos le les mi tu",
}
LANGUAGES = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}
LEAST_SHARE = 0.2
"""Share of a text's words that are function words of its language, at least. Of running text it is 0.3 to 0.6."""


class Arguments(BaseModel):
    """The arguments of a kind that has none, and the base of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Amount(Arguments):
    """How many; both ends are included."""

    at_least: Whole | None = None
    at_most: Whole | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("at_least or at_most is missing")
        if self.at_least and self.at_most and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is more than at_most {self.at_most}")
        return self

    def holds(self, count: int) -> bool:
        return (self.at_least or 0) <= count and (self.at_most is None or count <= self.at_most)


class Phrase(Arguments):
    phrase: Text


class Words(Arguments):
    words: Annotated[list[Text], Field(min_length=1)]


class Keys(Arguments):
    """Keys that the object must have."""

    keys: list[Text] = []


class Language(Arguments):
    language: Literal["en", "de", "fr", "es"]


class InstructionKind(NamedTuple):
    """`met`: whether a text, which is not blank, does as told."""

    arguments: type[Arguments]
    met: Callable[[str, Any], bool]


def count_words(text: str) -> int:
    """Pieces between white space that have a letter or digit, without the markers of lists."""
    return sum(any(map(str.isalnum, piece)) for piece in MARKER.sub("", text).split())


def count_sentences(text: str) -> int:
    """Pieces up to a full stop, question mark, exclamation mark or line break."""
    text = ABBREVIATION.sub(r"\1", MARKER.sub("", text))
    return sum(any(map(str.isalnum, piece)) for piece in SENTENCE_END.split(text))


def count_lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def count_paragraphs(text: str) -> int:
    """Pieces between blank lines."""
    return len(re.split(r"\n\s*\n", text.strip()))


def count_bullets(text: str) -> int:
    """Lines that begin with -, * or • and a space."""
    return len(BULLET.findall(text))


def count_numbered(text: str) -> int:
    """Lines that begin with 1., 2., 3. and so on; 0 if their numbers are out of order."""
    numbers = [int(number) for number in NUMBERED.findall(text)]
    return len(numbers) if numbers == list(range(1, len(numbers) + 1)) else 0


def _amount(count: Callable[[str], int]) -> InstructionKind:
    return InstructionKind(Amount, lambda text, amount: amount.holds(count(text)))


def is_json(text: str, keys: Keys) -> bool:
    """The text, or the one block of code that it is, is a JSON object with these keys."""
    fenced = FENCE.fullmatch(text.strip())
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(keys.keys) <= value.keys()


def has_title(text: str, arguments: Arguments) -> bool:
    """The first line is a heading of Markdown, and text follows."""
    first, _, rest = text.strip().partition("\n")
    return bool(re.match(r"#{1,6} +\S", first)) and bool(rest.strip())


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").casefold().split())


def starts_with(text: str, phrase: Phrase) -> bool:
    """Case, quotation marks and emphasis at the beginning do not count. A word must not go on."""
    text, start = _plain(text).lstrip(AROUND), _plain(phrase.phrase)
    return text.startswith(start) and not text[len(start) : len(start) + 1].isalnum()


def ends_with(text: str, phrase: Phrase) -> bool:
    """Case, quotation marks, emphasis and a last full stop or exclamation mark do not count."""
    end = _plain(phrase.phrase)
    if not any(map(str.isalnum, end)):
        return text.rstrip(AROUND).endswith(end)
    text, end = _plain(text).rstrip(AROUND + ".!"), end.rstrip(AROUND + ".!")
    return text.endswith(end) and not text[: -len(end)][-1:].isalnum()


def has_word(text: str, word: str) -> bool:
    """Whether a text has a word as a whole, in any case."""
    return bool(re.search(rf"(?<!\w){re.escape(_plain(word))}(?!\w)", _plain(text)))


def is_quoted(text: str, arguments: Arguments) -> bool:
    """All of the text stands between double quotation marks."""
    text = text.strip()
    return text[0] in '"“' and text[-1] in '"”' and any(map(str.isalnum, text))


def is_language(text: str, language: Language) -> bool:
    """More function words are of this language than of any other, two at least and a fifth of all words."""
    words = re.findall(r"[^\W\d_]+", text.casefold())
    counts = {code: sum(word in known for word in words) for code, known in LANGUAGES.items()}
    count = counts.pop(language.language)
    return count >= max(2.0, LEAST_SHARE * len(words)) and count > max(counts.values())


KINDS: dict[str, InstructionKind] = {
    "words": _amount(count_words),
    "sentences": _amount(count_sentences),
    "lines": _amount(count_lines),
    "paragraphs": _amount(count_paragraphs),
    "bullets": _amount(count_bullets),
    "numbered": _amount(count_numbered),
    "json": InstructionKind(Keys, is_json),
    "title": InstructionKind(Arguments, has_title),
    "quoted": InstructionKind(Arguments, is_quoted),
    "lower": InstructionKind(Arguments, lambda text, _: text.islower()),
    "upper": InstructionKind(Arguments, lambda text, _: text.isupper()),
    "starts": InstructionKind(Phrase, starts_with),
    "ends": InstructionKind(Phrase, ends_with),
    "no_commas": InstructionKind(Arguments, lambda text, _: "," not in text),
    "keywords": InstructionKind(Words, lambda text, wanted: all(has_word(text, word) for word in wanted.words)),
    "avoid": InstructionKind(Words, lambda text, banned: not any(has_word(text, word) for word in banned.words)),
    "language": InstructionKind(Language, is_language),
}


def validate(check: dict[str, Any]) -> list[tuple[InstructionKind, Arguments]]:
    """The row and the arguments of each instruction of a check.

    Raises:
        ValueError: no instructions, an unknown kind, or wrong arguments.
    """
    instructions = check.get("instructions")
    if not isinstance(instructions, list) or not instructions:
        raise ValueError("a check of instructions needs a list of them, as in {'instructions': [{'kind': 'lower'}]}")
    return [_validate_one(instruction) for instruction in instructions]


def _validate_one(instruction: Any) -> tuple[InstructionKind, Arguments]:
    name = instruction.get("kind") if isinstance(instruction, dict) else None
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"unknown kind of instruction {name!r}; known are {', '.join(KINDS)}")
    given = {key: value for key, value in instruction.items() if key != "kind"}
    try:
        return KINDS[name], KINDS[name].arguments.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part} " for part in first["loc"])
        raise ValueError(f"the instruction {name!r} has wrong arguments: {where}{first['msg']}") from error


def met(check: dict[str, Any], text: str) -> list[bool]:
    """Whether a text meets each instruction of a check. A blank text meets none.

    Raises:
        ValueError: the check is not valid.
    """
    return [bool(text.strip()) and kind.met(text, arguments) for kind, arguments in validate(check)]


def score(check: dict[str, Any], text: str) -> float:
    """Share of the instructions that a text meets, from 0 to 1."""
    results = met(check, text)
    return sum(results) / len(results)

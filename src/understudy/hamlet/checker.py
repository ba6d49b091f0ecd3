"""Rule-based scoring of answers: `score(check, answer)` returns 1.0 for a correct answer, else 0.0.

A check is plain JSON. Its "kind" selects the scoring function. This module scores answers about facts of a story
or of the village ("says", "number", "which", "unsaid") and refusals ("decline"); forms.py scores instructions. A scoring function sees only
the check and the answer, not the story. The check therefore lists the correct answers and the other facts that the
answer may mention ("also").
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from understudy.hamlet.counting import after_counting, counts_to
from understudy.hamlet.forms import KINDS as FORM_KINDS
from understudy.hamlet.world import VISITOR_TRADES, number, village

# Maximum length of an answer to a question about a story, in words.
_MOST_WORDS = 30

_HEDGES = re.compile(
    r"\b(or|maybe|perhaps|either|probably|possibly|might|i (?:think|guess|believe|suppose)|could be|may be"
    r"|not (?:quite )?sure|unsure|seems?|not certain)\b"
)
_DENIALS = frozenset(
    ["not", "no", "never", "nobody", "none", "nothing", "neither", "nor", "unknown", "unclear", "nowhere"]
)
_UNSAID = re.compile(
    r"\b(?:(?:does|did|do) not (?:say|tell|mention|know)|(?:is|was|are|were) not (?:said|told|mentioned|known|in story)"
    r"|not (?:said|told|mentioned) in story|never (?:says?|tells?|said|told|mentions?|mentioned)"
    r"|says? nothing|tells? nothing|not say|no mention|(?:can|could)(?: ?not) (?:tell|know|say)|unknown)\b"
)
# A refusal, in normalized words without articles.
_DECLINES = re.compile(
    r"\bi (?:can|could|do|am) not (?:able to )?(?:answer|help|know|do|say|tell|understand|write|speak|give|have|work)\b"
    r"|\bi (?:can only|only know|only answer|am only|know only|know (?:of )?(?:no|nothing)|have no|am unable)\b"
    r"|\b(?:there (?:is|are) no|no such|not (?:in|part of) (?:hamlet|village)|never heard)\b"
)
# Longest refusal, in words.
_MOST_REFUSAL_WORDS = 40
_GUESSES = re.compile(r"\b(?:maybe|perhaps|probably|possibly|might|i (?:think|guess|believe|suppose)|may be)\b")
_ARTICLES = frozenset(("a", "an", "the"))
_KIN = "father|mother|son|daughter|sister|brother|cousin|grandfather|grandmother|grandson|granddaughter|husband|wife"
# Ordinary words that are also the name of a person or place. They count as facts only when used as a name.
_ONLY_AS_NAMES = frozenset(("will", "mark", "pip", "rose"))
_ONLY_AFTER_THE = frozenset(("well", "green"))
_ONE_AFTER = frozenset(["the", "this", "that", "which", "each", "every", "any", "no"])
_ONE_BEFORE = frozenset(("who", "that", "which"))

# Function words, which do not distinguish one event from another.
_SMALL = frozenset(
    [
        "to",
        "at",
        "in",
        "on",
        "by",
        "from",
        "with",
        "for",
        "of",
        "and",
        "down",
        "into",
        "up",
        "under",
        "over",
        "through",
        "first",
    ]
)

_NUMBER_WORDS = {number(n): n for n in range(20)} | {number(n): n for n in range(20, 100, 10)}
_WORD = re.compile(r"-?\d+(?:,\d{3})+(?:\.\d+)?|-?\d+(?:\.\d+)?|[a-z]+(?:'[a-z]+)?")


def _digits(words: list[str]) -> list[str]:
    """Replace number words by digits: twelve is 12, twenty-one is 21, one hundred and five is 105."""
    out: list[str] = []
    last = ""  # "tens", "hundred" or "": the kind of number to which the next number word is added
    for i, word in enumerate(words):
        n = _NUMBER_WORDS.get(word)
        if n == 1 and _is_pronoun(words, i):
            n = None
        if word == "hundred":
            if out and out[-1].isdigit() and int(out[-1]) < 10:
                out[-1] = str(100 * int(out[-1]))
            else:
                out.append("100")
            last = "hundred"
        elif n is not None:
            if last == "hundred" and out[-1] == "and":
                out.pop()
            if (last == "tens" and 0 < n < 10) or (last == "hundred" and n > 0):
                out[-1] = str(int(out[-1]) + n)
            else:
                out.append(str(n))
            last = "tens" if n >= 20 else ""
        else:
            out.append(word.replace(",", ""))
            last = last if word == "and" and last == "hundred" else ""
    return out


def _is_pronoun(words: list[str], i: int) -> bool:
    """Return whether the "one" at index `i` is a pronoun and not a number."""
    before, after = words[i - 1] if i else "", words[i + 1] if i + 1 < len(words) else ""
    return before in _ONE_AFTER or after in _ONE_BEFORE


def _plain(text: str) -> str:
    """Normalize `text`: lower case, straight apostrophes, hyphens and contractions split, leading "Well," removed."""
    text = text.lower().replace("’", "'").replace("‘", "'")
    if "," in text or "!" in text:
        text = re.sub(r"^\s*(?:well|yes|oh|sure|of course|certainly)[,.!:]\s+", "", text)
    if "-" in text:
        text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)
    text = text.replace("cannot", "can not")
    if "n't" in text:
        text = re.sub(r"n't\b", " not", text.replace("can't", "can not").replace("won't", "will not"))
    return text


def words_of(text: str) -> list[str]:
    """Normalized words of `text`: lower case, numbers as digits, without articles and "'s"."""
    return _words(_plain(text))


def _words(plain: str) -> list[str]:
    words = _digits(_WORD.findall(plain))
    return [w.removesuffix("'s") for w in words if w not in _ARTICLES]


@functools.cache
def fact_words() -> frozenset[str]:
    """Words that name a person, place, thing, goods, day or season.

    A fact word that the check does not allow counts as a second answer, so the answer scores 0.0.
    """
    world = village()
    texts = [*world.people, *world.visitors, *world.reserved_visitors, *world.animals, *world.places, *world.things]
    texts += [*world.trades, *VISITOR_TRADES, "village", "spring", "summer", "autumn", "winter"]
    texts += [a.kind for a in world.animals.values()]
    texts += [w for g in world.goods.values() for w in (g.one, g.many)]
    texts += ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
    return frozenset(w for text in texts for w in words_of(text)) - {"of"}


def _facts_in(text: str, plain: str) -> set[str]:
    """Fact words and numbers in `text`; `plain` is the normalized text."""
    known = fact_words()
    facts = {w for w in _words(plain) if w in known or w[0].isdigit() or w[0] == "-"}
    for word in facts & _ONLY_AS_NAMES:
        if word.capitalize() not in text:
            facts.discard(word)
    for word in facts & _ONLY_AFTER_THE:
        if f"the {word}" not in plain:
            facts.discard(word)
    return facts


def _without_kin(plain: str, names: Iterable[str] = ()) -> str:
    """Remove kinship phrases: "Sam's father found it" is not about Sam.

    With `names`, remove a phrase only before one of them: "Sam's father Silas" is Silas.
    """
    only = f"(?= (?:{'|'.join(map(re.escape, names))})\\b)" if names else ""
    return re.sub(rf"\b[a-z]+'s (?:{_KIN})\b{only}", "", plain)


def _has(words: list[str], phrase: list[str]) -> bool:
    n = len(phrase)
    return any(words[i : i + n] == phrase for i in range(len(words) - n + 1))


def _is_statement(plain: str, words: list[str]) -> bool:
    """Return whether the answer is a statement of valid length, without a hedge or a question."""
    return 0 < len(words) <= _MOST_WORDS and "?" not in plain and not _HEDGES.search(plain)


def _swaps_roles(plain: str, roles: list[str]) -> bool:
    """Return whether some sentence swaps `roles`, the pair (agent, patient)."""
    return any(
        _sentence_swaps_roles(_words(sentence), *(role.lower() for role in roles))
        for sentence in re.split(r"[.!;]", plain)
    )


def _sentence_swaps_roles(words: list[str], doer: str, other: str) -> bool:
    """Return whether `words` swap agent and patient: "Nora gave Sam ..." when Sam gave to Nora."""
    pairs = set(itertools.pairwise(words))
    if ("to", doer) in pairs or ("from", other) in pairs or ("by", other) in pairs:
        return True
    if ("to", other) in pairs or ("from", doer) in pairs or ("by", doer) in pairs:
        return False
    if doer not in words or other not in words:
        return False
    gets = bool({"got", "received", "gets"} & set(words))
    return (words.index(other) < words.index(doer)) is not gets


def _says(check: dict[str, Any], answer: str) -> float:
    """Score a fact: contains one of `any`, none of `none`, and no fact outside `also`."""
    right = [words_of(phrase) for phrase in check["any"]]
    plain = _plain(answer)
    words = _words(_without_kin(plain))
    if not _is_statement(plain, words) or _DENIALS & set(words):
        return 0.0
    if not any(_has(words, phrase) for phrase in right):
        return 0.0
    if any(_has(words, words_of(phrase)) for phrase in check.get("none", ())):
        return 0.0
    allowed = {w for phrase in right for w in phrase} | {w for text in check.get("also", ()) for w in words_of(text)}
    if _facts_in(answer, _without_kin(plain, [phrase[0] for phrase in right])) - allowed:
        return 0.0
    return 0.0 if "roles" in check and _swaps_roles(plain, check["roles"]) else 1.0


def _number(check: dict[str, Any], answer: str) -> float:
    """Score a number: contains `value` and no other number, except those in `also`.

    Counting steps may precede the result. The terms in `parts` may stand beside their sum.
    """
    counted, answer = answer, after_counting(answer)
    steps = [" ".join(words_of(said)) for said in re.findall(r"[\w-]+", counted.removesuffix(answer))]
    if steps and not (all(step.isdigit() for step in steps) and counts_to(check["value"], list(map(int, steps)))):
        return 0.0
    plain = _plain(answer)
    words = _words(plain)
    value = str(check["value"])
    if value == "0" and {"none", "nothing", "no"} & set(words):
        words = [w for w in words if w not in ("none", "nothing", "no")] + ["0"]
    if not _is_statement(plain, words) or value not in words or _DENIALS & set(words):
        return 0.0
    allowed = {value} | {w for text in check.get("also", ()) for w in words_of(text)}
    parts = Counter(map(str, check.get("parts", ())))
    if value not in parts and parts <= Counter(words):
        allowed |= set(parts)
    if _facts_in(answer, plain) - allowed:
        return 0.0
    return 0.0 if "roles" in check and _swaps_roles(plain, check["roles"]) else 1.0


def _which(check: dict[str, Any], answer: str) -> float:
    """Score the order of two events: the answer names `right` as the first, not `other`."""
    plain = _plain(answer)
    if not _is_statement(plain, _words(plain)):
        return 0.0
    said_first = re.split(r"\bafter (?!noon|the quarrel)", plain)[-1]  # "B, after A"
    words = _words(re.split(r"\bbefore (?!noon)|\bthen\b|\blater\b", said_first)[0])  # "A before B", "A, then B"
    if _DENIALS & set(words):
        return 0.0
    right, other = words_of(check["right"]), words_of(check["other"])
    ours, theirs = set(right) - set(other) - _SMALL, set(other) - set(right) - _SMALL
    said = set(words)
    if said & theirs or 2 * len(said & ours) < len(ours):
        return 0.0
    allowed = {*right, *other} | {w for text in check.get("also", ()) for w in words_of(text)}
    return 0.0 if _facts_in(answer, plain) - allowed else 1.0


def _unsaid(check: dict[str, Any], answer: str) -> float:
    """Score an unanswerable question: the answer says that the story does not tell, and adds no guess."""
    plain = _plain(answer)
    words = _words(plain)
    if not _is_statement(plain, words) or not _UNSAID.search(" ".join(words)):
        return 0.0
    allowed = {w for text in check.get("also", ()) for w in words_of(text)}
    return 0.0 if _facts_in(answer, plain) - allowed else 1.0


def _decline(check: dict[str, Any], answer: str) -> float:
    """Score what cannot be answered: a short refusal that states no fact and no guess. It may say what can be asked."""
    plain = _plain(answer)
    words = _words(plain)
    if not 0 < len(words) <= _MOST_REFUSAL_WORDS or not _DECLINES.search(" ".join(words)) or _GUESSES.search(plain):
        return 0.0
    allowed = {"village"} | {w for text in check.get("also", ()) for w in words_of(text)}
    return 0.0 if _facts_in(answer, plain) - allowed else 1.0


_KINDS: dict[str, Callable[[dict[str, Any], str], float]] = {
    "says": _says,
    "number": _number,
    "which": _which,
    "unsaid": _unsaid,
    "decline": _decline,
    **FORM_KINDS,
}


def score(check: dict[str, Any], answer: str) -> float:
    """Score `answer` against `check`: 1.0 if correct, else 0.0.

    Raises:
        ValueError: the kind of the check is unknown.
    """
    scorer = _KINDS.get(check.get("kind", ""))
    if scorer is None:
        raise ValueError(f"unknown kind of check {check.get('kind')!r}; known are {', '.join(sorted(_KINDS))}")
    return scorer(check, answer)

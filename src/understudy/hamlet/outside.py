"""Questions and requests that nobody in Hamlet can answer, such as "What is the capital of France?", and polite refusals.

outside_subjects.py has the subjects and outside_words.py the phrasings. `kept_subject` assigns each subject to train or val by a hash.
"""

from __future__ import annotations

import re

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.facts_wording import QUESTIONS
from understudy.hamlet.names import invented_name
from understudy.hamlet.outside_subjects import SUBJECTS
from understudy.hamlet.outside_words import ASKED
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.world import number, village

_RESERVED_ONE_IN = 8

_CAN = "Ask me about the people of Hamlet, a short story or a small sum."
REFUSALS = {
    "know": "I only know the village of Hamlet, so I cannot answer that.",
    "nobody": "I know of no one like that in Hamlet.",
    "nowhere": "There is no such place in Hamlet.",
    "help": f"I am sorry, I cannot help with that. {_CAN}",
    "odd": f"I do not understand that. {_CAN}",
    "sums": "I cannot work that out. I can only add and take away small numbers.",
}

# Probability that the refusal "know" also says what can be asked.
_OFFERED = 0.3

# For each table of phrasings: sampling weight and refusal.
_TABLES = {
    "world": (0.17, "know"), "person": (0.12, "nobody"), "science": (0.09, "know"), "topic": (0.09, "know"),
    "how": (0.06, "help"), "now": (0.08, "know"), "life": (0.06, "know"), "trouble": (0.03, "help"),
    "write": (0.08, "help"), "do": (0.07, "help"), "job": (0.06, "nobody"), "spot": (0.03, "nowhere"),
    "odd": (0.07, "odd"), "sums": (0.09, "sums"),
}  # fmt: skip
_MASHED = 0.3  # fraction of odd messages that are random letters
_AS_OF_A_VILLAGER = 0.4  # fraction of questions about an unknown person that are phrased as those about a villager
_ABOUT_PEOPLE = ("trade", "home", "age", "likes", "work", "kin")
_KIN = ("father", "mother", "brother", "sister", "husband", "wife")
_NUMBERS = {"a": ((2, 12), (2, 12), (2, 100)), "b": ((2, 12),), "big": ((31, 99),), "huge": ((100, 999), (100, 9999))}
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WRONG = {
    "know": ("It is {a}.", "It is at the {p}.", "{a} is the {t}.", "The {p} is old.", "The story does not say."),
    "nobody": ("{a} is the {t}.", "{a} lives at the {p}.", "It is {a}.", "The story does not say.", "At the {p}."),
    "nowhere": ("It is at the {p}.", "{a} is at the {p}.", "It stands near the {p}.", "It is {a}."),
    "help": ("The {p} is old.", "{a} is at the {p}.", "You are welcome.", "Hello! How can I help you?"),
    "odd": ("{a} is the {t}.", "{a} is at the {p}.", "The {p} is old.", "You are welcome."),
    "sums": ("{n} (1). It is {n}.", "{a} has {n} now.", "It is {n}.", "{n}"),
}


def kept_subject(group: str, subject: object) -> bool:
    """Return whether this subject is in val only. Depends on the words alone."""
    return stable_hash("outside", group, subject) % _RESERVED_ONE_IN == 0


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _subject(draw: Draw, field: str, held_out: bool) -> str:
    """A subject for `field` of a phrasing; `held_out` is whether it is one of those for val."""
    if field in ("ajob", "aspot"):
        return _an(_subject(draw, field[1:], held_out))
    while True:
        subject = draw.pick(SUBJECTS[field])
        if kept_subject(field, subject) == held_out:
            return subject


def _number(draw: Draw, field: str, in_words: bool) -> str:
    """A number for `field` of a phrasing, such as {big}."""
    n = draw.between(*draw.pick(_NUMBERS[field]))
    return number(n) if in_words and n < 100 else str(n)


def _worded(draw: Draw, split: Split, table: str) -> str:
    """A message of this table; in val its phrasing or all of its subjects are held out."""
    while True:
        new_words = split == "val" and draw.chance(0.5)
        text = ASKED[table].pick(draw, split, new=new_words)
        fields = re.findall(r"{(\w+)}", text)
        held_out = split == "val" and not new_words
        if held_out and not fields:
            continue
        in_words = not re.search(r"[-+*/:=]| x|x ", text) and draw.chance(0.2)
        for field in fields:
            subject = _number(draw, field, in_words) if field in _NUMBERS else _subject(draw, field, held_out)
            text = text.replace(f"{{{field}}}", subject, 1)
        if table != "sums" or new_words or kept_subject("sums", text) == held_out:
            return text[:1].upper() + text[1:]


def _as_of_a_villager(draw: Draw, split: Split) -> str:
    """A question in the words of those about villagers, with a name that is not one."""
    world = village()
    new_words = split == "val" and draw.chance(0.5)
    if draw.chance(0.6):
        name = _subject(draw, "name", split == "val" and not new_words)
    elif draw.chance(0.5):
        name = draw.pick(tuple(world.reserved_visitors if split == "val" else world.visitors))
    else:
        name = invented_name(draw, split)
    kind = draw.pick(_ABOUT_PEOPLE)
    text = ""
    while not text or "{trade}" in text:
        text = QUESTIONS[kind].pick(draw, split, new=new_words)
    return text.format(name=name, kin=draw.pick(_KIN))


def _mashed(draw: Draw, split: Split) -> str:
    """Letters as of a hand that hits the keyboard at random."""
    while True:
        row = draw.pick((*_ROWS, "".join(_ROWS)))
        words = ["".join(draw.pick(row) for _ in range(draw.between(3, 9))) for _ in range(draw.pick((1, 1, 1, 2, 3)))]
        text = " ".join(words)
        if kept_subject("mashed", text) == (split == "val"):
            return text


def decline_turn(draw: Draw, split: Split, *tables: str) -> Turn:
    """A question or request about something outside Hamlet with a refusal; `tables` restricts the phrasings."""
    candidates = tables or tuple(_TABLES)
    remainder = draw.random() * sum(_TABLES[name][0] for name in candidates)
    for table in candidates:
        remainder -= _TABLES[table][0]
        if remainder < 0:
            break
    refusal = _TABLES[table][1]
    if table == "odd" and draw.chance(_MASHED):
        user = _mashed(draw, split)
    elif table == "person" and draw.chance(_AS_OF_A_VILLAGER):
        user = _as_of_a_villager(draw, split)
    else:
        user = _worded(draw, split, table)
    answer = REFUSALS[refusal]
    if refusal == "know" and draw.chance(_OFFERED):
        answer += f" {_CAN}"
    world = village()
    someone = draw.pick([p for p in world.people.values() if p.trade])
    fields = {
        "a": someone.name, "t": str(someone.trade), "p": draw.pick(tuple(world.places)), "n": draw.between(2, 20),
    }  # fmt: skip
    wrong = tuple(w.format(**fields) for w in draw.some(_WRONG[refusal], 2))
    return Turn("decline", user, answer, {"kind": "decline"}, wrong)

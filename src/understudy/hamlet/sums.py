"""Sums and differences up to twenty, with and without goods. Reserved pairs of numbers are in val only.

The answer begins with counting steps (counting.py).
"""

from __future__ import annotations

from understudy.hamlet.counting import counting
from understudy.hamlet.draw import Draw
from understudy.hamlet.facts import capital
from understudy.hamlet.stories import Split, is_reserved
from understudy.hamlet.turns import Turn
from understudy.hamlet.wording import phrasings
from understudy.hamlet.world import number, village

_LARGEST = 20
_WITH_GOODS = ("more", "less")
_SIGNS = 0.4  # fraction of sums in digits without goods that are written with + or -
_GOODS = ("apple", "bean", "bun", "button", "cake", "carrot", "egg", "nut", "pear", "plum")

SUMS = phrasings("""
plus
  What is {a} plus {b}?
  How much is {a} plus {b}?
  How much is {a} and {b}?
  What do {a} and {b} make?
  Add {a} and {b}.
  Please add {a} and {b}.
  {a} plus {b} is what?
  Can you tell me what {a} plus {b} is?
  Add {b} to {a}.
  What comes out of {a} plus {b}?
  Tell me what {a} and {b} make.
  Do you know what {a} plus {b} makes?
  Now add {a} and {b} for me.
  Put {a} and {b} together. How much is it?
  What is {a} and {b}?
  I have to add {a} and {b}.
  Give me the sum: {a} and {b}.
  {a} plus {b}
  {a} plus {b}?
  {a} and {b} makes what?
  {a} and {b} is?
  Sum of {a} and {b}
  Calculate {a} plus {b}.
  Can you calculate {a} plus {b}?
  What does {a} plus {b} equal?
  {a} plus {b} equals?
  Add up {a} and {b}.
  Add {a} to {b}, please.
  ~Please calculate {a} plus {b}.
  ~What is the sum of {a} and {b}?
  ~Can you add {a} and {b}?
minus
  What is {a} minus {b}?
  How much is {a} minus {b}?
  Take {b} from {a}.
  Please take {b} away from {a}.
  What is left if I take {b} from {a}?
  {a} minus {b} is what?
  Can you tell me what {a} minus {b} is?
  Take away {b} from {a}.
  What comes out of {a} minus {b}?
  Do you know how much is {a} minus {b}?
  Tell me what is left if I take {b} from {a}.
  Now take {b} from {a} for me.
  I have to take {b} away from {a}.
  How much is left of {a} without {b}?
  {a} minus {b}
  {a} minus {b}?
  {a} take away {b}
  What is {a} take away {b}?
  Subtract {b} from {a}.
  Please subtract {b} from {a}.
  Calculate {a} minus {b}.
  What does {a} minus {b} equal?
  {a} minus {b} equals?
  ~Please calculate {a} minus {b}.
  ~How much is {a} less {b}?
  ~Can you take {b} from {a}?
plus sign
  {a}+{b}
  {a} + {b}
  {a}+{b}=
  {a}+{b}=?
  {a} + {b} =
  {a} + {b} = ?
  {a}+{b}?
  What is {a}+{b}?
  What is {a} + {b}?
  How much is {a} + {b}?
  How much is {a}+{b}?
  Calculate {a} + {b}.
  Can you do {a}+{b}?
  Tell me {a} + {b}.
  Solve {a}+{b}.
  ~{a} + {b} is what?
  ~What does {a}+{b} make?
minus sign
  {a}-{b}
  {a} - {b}
  {a}-{b}=
  {a}-{b}=?
  {a} - {b} =
  {a} - {b} = ?
  {a}-{b}?
  What is {a}-{b}?
  What is {a} - {b}?
  How much is {a} - {b}?
  How much is {a}-{b}?
  Calculate {a} - {b}.
  Can you do {a}-{b}?
  Tell me {a} - {b}.
  Solve {a}-{b}.
  ~{a} - {b} is what?
  ~What does {a}-{b} make?
more
  {name} has {ag} and gets {b} more. How many {goods} does {name} have now?
  {name} had {ag}. Then {name} found {b} more. How many {goods} does {name} have now?
  {name} has {ag}, and {other} gives {name} {b} more. How many {goods} does {name} have now?
  {name} picked {ag} and then {b} more. How many {goods} does {name} have now?
  If {name} has {ag} and buys {b} more, how many {goods} does {name} have now?
  {name} got {ag} and then got {b} more. How many {goods} does {name} have now?
  {other} brought {name} {b} more when {name} had {ag}. How many {goods} does {name} have now?
  {name} has {ag}. {other} has {b} more for {name}. How many {goods} does {name} have now?
  There were {ag} on the table of {name}, and {b} more came. How many {goods} does {name} have now?
  {name} counted {ag}. Then {other} brought {b} more. How many {goods} does {name} have now?
  ~{name} counted {ag} and got {b} more. How many {goods} does {name} have now?
less
  {name} has {ag} and gives {b} to {other}. How many {goods} does {name} have left?
  {name} had {ag} and lost {b}. How many {goods} does {name} have left?
  {name} has {ag}. Then {name} gives {b} away. How many {goods} does {name} have left?
  {name} had {ag} and sold {b}. How many {goods} does {name} have left?
  If {name} has {ag} and {other} takes {b}, how many {goods} does {name} have left?
  {name} has {ag}, but {b} of them get lost. How many {goods} does {name} have left?
  {name} gave {other} {b} of {ag}. How many {goods} does {name} have left?
  {name} ate {b} of {ag}. How many {goods} does {name} have left?
  {other} got {b} from {name}, who had {ag}. How many {goods} does {name} have left?
  There were {ag} on the table of {name}, and {other} took {b}. How many {goods} does {name} have left?
  ~Of {ag}, {name} gave {b} to {other}. How many {goods} does {name} have left?
further
  And {b} more?
  And if I add {b}?
  Now add {b}.
  And what if I add {b}?
  Add {b} to that.
  And plus {b}?
  And then {b} more?
  Now {b} more, please.
  ~And with {b} more?
""")
_SUM_ANSWERS = {
    "plus": "{a} plus {b} is {c}.",
    "further": "{a} plus {b} is {c}.",
    "minus": "{a} minus {b} is {c}.",
    "more": "{name} has {cg} now.",
    "less": "{name} has {cg} left.",
}


def _reserved(a: int, b: int) -> bool:
    return is_reserved(("numbers", str(a), str(b)))


def _pair(draw: Draw, split: Split, plus: bool) -> tuple[int, int]:
    """Two numbers to add or subtract: in val a reserved pair; in train not reserved in either order."""
    while True:
        largest = max(
            draw.between(2, _LARGEST), draw.between(2, _LARGEST)
        )  # favours large numbers, which have more pairs
        smaller = draw.between(1, largest - 1)
        first, second = (largest - smaller, smaller) if plus else (largest, smaller)
        if largest == 2 * smaller and not plus:
            continue  # "12 minus 6 is 6" does not show which 6 is the answer
        if split == "val" and _reserved(first, second):
            return first, second
        if split == "train" and not _reserved(first, second) and not _reserved(second, first):
            return first, second


def _sum(draw: Draw, split: Split, kind: str, a: int, b: int, word: bool) -> Turn:
    world = village()
    plus = kind not in ("minus", "less")
    c = a + b if plus else a - b
    people = [p.name for p in world.people.values()]
    name, other = draw.some(people, 2)
    goods = world.goods[draw.pick(_GOODS)]

    def write(n: int) -> str:
        return number(n) if word else str(n)

    def counted(n: int) -> str:
        return f"{write(n)} {goods.one if n == 1 else goods.many}"

    def fields(c: int) -> dict[str, str]:
        return {"a": write(a), "b": write(b), "c": write(c), "name": name, "other": other, "goods": goods.many,
                "ag": counted(a), "cg": counted(c)}  # fmt: skip

    def answer(c: int) -> str:
        """Count up from the larger term; for a difference, count down `b` steps, or up from `b` if that is shorter."""
        start, end = (max(a, b), c) if plus else (a, c) if 2 * b <= a else (b, b + c)
        return counting(start, end, write) + capital(_SUM_ANSWERS[kind].format(**fields(c)))

    signs = f"{kind} sign" if f"{kind} sign" in SUMS and not word and draw.chance(_SIGNS) else kind
    user = SUMS[signs].pick(draw, split).format(**fields(c))
    near = [n for n in (c - 2, c - 1, c + 1, c + 2, c + 3, c + 4) if n >= 0 and n not in (a, b)]
    wrong = tuple(map(answer, draw.some(near, 2)))
    also = [str(a), str(b)] + ([name, other, goods.one, goods.many] if kind in _WITH_GOODS else [])
    check = {"kind": "number", "value": c, "also": also}
    return Turn("sum", capital(user), answer(c), check, wrong)


def sum_turn(draw: Draw, split: Split) -> tuple[Turn, int]:
    """A sum or difference in digits or words, and its result."""
    kind = draw.pick(("plus", "plus", "minus", "minus", *_WITH_GOODS))
    a, b = _pair(draw, split, kind in ("plus", "more"))
    turn = _sum(draw, split, kind, a, b, word=draw.chance(0.5 if kind in _WITH_GOODS else 0.25))
    return turn, turn.check["value"]


def further_turn(draw: Draw, split: Split, total: int) -> Turn | None:
    """A follow-up that adds to the previous result; None if no number fits below the limit."""
    terms = [b for b in range(1, _LARGEST - total + 1) if _reserved(total, b) == (split == "val")]
    terms = [b for b in terms if split == "val" or not _reserved(b, total)]
    if total < 1 or not terms:
        return None
    return _sum(draw, split, "further", total, draw.pick(terms), word=False)

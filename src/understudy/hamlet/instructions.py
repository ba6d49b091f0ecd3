"""Instructions with answers that can be checked: word counts, order, capitals, lists, repetition, animals.

Each instruction uses words from the tables of the village. `kept_for_val` assigns each set of words to train or val
by a hash, so training never contains an instruction of val, in any phrasing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.facts import capital
from understudy.hamlet.names import invented_name
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.wording import phrasings
from understudy.hamlet.world import number, village

_RESERVED_ONE_IN = 8
_LOOKS = ("old", "small", "big", "new", "fine", "nice", "good", "little", "pretty", "bright")
_COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "grey")
ANIMALS = (
    "dog", "cat", "goat", "cow", "donkey", "pig", "duck", "hen", "rabbit", "goose", "pony", "kitten", "lamb", "horse",
    "puppy", "frog", "bee", "sheep",
)  # fmt: skip

_WORDED = phrasings("""
about
  Write {n} words about the {x}.
  Write exactly {n} words about the {x}.
  Say {n} words about the {x}.
  Say something about the {x} in {n} words.
  Tell me about the {x} in exactly {n} words.
  What is the {x} like? Answer with {n} words.
  Tell me {n} words about the {x}.
  Give me {n} words about the {x}.
  I want {n} words about the {x}.
  Please write {n} words about the {x}.
  Use exactly {n} words: what is the {x} like?
  ~Use {n} words to tell me about the {x}.
  ~In exactly {n} words, what is the {x} like?
times
  Say the word {x} {n} times.
  Write the word {x} {n} times.
  Write {x} {n} times.
  Say {x} {n} times, please.
  Repeat the word {x} {n} times.
  The word {x}, {n} times.
  Give me the word {x} {n} times.
  I want to hear {x} {n} times.
  Say {n} times the word {x}.
  Can you say the word {x} {n} times?
  ~Please write the word {x} {n} times.
  ~I want to read the word {x} {n} times.
backwards
  Say these the other way round: {items}.
  Write these backwards: {items}.
  Turn this list around: {items}.
  Name these from the last to the first: {items}.
  Give these in reverse order: {items}.
  Begin with the last and end with the first: {items}.
  Please turn these around: {items}.
  Name these backwards: {items}.
  I want these the other way round: {items}.
  Put the last of these first: {items}.
  Say these in reverse: {items}.
  ~Say these from the last to the first: {items}.
  ~Write these the other way round: {items}.
smallest
  Put these numbers in order, the smallest first: {items}.
  Which order is right, from small to big? {items}.
  Sort these numbers, the smallest first: {items}.
  Write these numbers from the smallest to the biggest: {items}.
  Begin with the smallest number: {items}.
  Name these numbers, the smallest first: {items}.
  From small to big, please: {items}.
  Which number is the smallest, which comes next? {items}.
  Please sort these numbers: {items}.
  Say these numbers, beginning with the smallest: {items}.
  ~Say these numbers from the smallest to the biggest: {items}.
  ~Put these numbers in order, from small to big: {items}.
given
  Put the {a} first and the {c} last: {items}.
  The {a} comes first and the {c} comes last: {items}.
  Say these with the {a} first and the {c} last: {items}.
  Write these so that the {a} is first and the {c} is last: {items}.
  Begin with the {a} and end with the {c}: {items}.
  Please put the {a} first and the {c} last: {items}.
  First the {a} and last the {c}: {items}.
  I want the {a} first and the {c} last: {items}.
  Write these. Begin with the {a} and end with the {c}: {items}.
  The {a} goes first and the {c} goes last: {items}.
  ~Name these with the {a} first and the {c} last: {items}.
  ~Say these, but the {a} first and the {c} last: {items}.
capitals
  Write this in capital letters: {x}.
  Write this in capitals: {x}.
  Say this in capital letters: {x}.
  Put this in capital letters: {x}.
  In capital letters, please: {x}.
  Turn this into capital letters: {x}.
  Please put this in capitals: {x}.
  Can you write this in capital letters? {x}.
  I want this in capital letters: {x}.
  Make capital letters of this: {x}.
  In capitals: {x}.
  ~Please write this in capitals: {x}.
  ~Give me this in capital letters: {x}.
backwards again
  And now the other way round.
  Now backwards, please.
  And backwards?
  Now from the last to the first.
  Turn that around, please.
  Please turn that around.
  Say that backwards.
  Now in reverse order.
  And the other way round?
  Now begin with the last.
  ~Now the other way round, please.
  ~And from the last to the first?
capitals again
  And now in capital letters.
  Now in capital letters, please.
  And in capitals?
  Now the same in capitals.
  Put that in capital letters.
  Please write that in capitals.
  Say that in capital letters.
  And now all in capitals.
  Turn that into capital letters.
  Can you put that in capitals?
  ~Now in capitals, please.
  ~And the same in capital letters?
list
  Make a list, one on each line: {items}.
  Write these as a list, one on each line: {items}.
  List these, each on a line: {items}.
  Put each of these on its own line: {items}.
  Write a list of these: {items}.
  One on each line, please: {items}.
  Can you make a list of these? {items}.
  I want a list of these: {items}.
  Please make a list: {items}.
  Each on its own line, please: {items}.
  Turn these into a list: {items}.
  ~Please list these, one on each line: {items}.
  ~Give me a list of these, one on each line: {items}.
repeat
  Repeat after me:{x}
  Repeat this:{x}
  Say this after me:{x}
  Say this again:{x}
  Write the same words:{x}
  Please repeat:{x}
  Now you say it:{x}
  Can you repeat this?{x}
  Please say this again:{x}
  Write this again:{x}
  I say it, and you say it after me:{x}
  ~Please say this after me:{x}
  ~Repeat these words:{x}
animals
  Name only the animals: {items}.
  Which of these are animals? {items}.
  Write only the animals: {items}.
  Which animals are here? {items}.
  Find the animals: {items}.
  Say the animals and nothing else: {items}.
  Give me only the animals: {items}.
  What animals are here? {items}.
  Please say only the animals: {items}.
  I want only the animals: {items}.
  Which are animals? {items}.
  ~Name the animals and nothing else: {items}.
  ~Which animals can you find here? {items}.
no animals
  Leave out the animals: {items}.
  Name only what is not an animal: {items}.
  Which of these are not animals? {items}.
  Without the animals, please: {items}.
  Write these, but not the animals: {items}.
  Which are not animals? {items}.
  Say everything but the animals: {items}.
  ~Say these without the animals: {items}.
""")

# Answers about a thing, by number of words.
_ABOUT: dict[int, tuple[str, ...]] = {
    2: ("{W} {x}.",),
    3: ("The {w} {x}.", "{W}, {v} {x}."),
    4: ("The {x} is {w}.", "I like the {x}."),
    5: ("The {x} is very {w}.", "I like the {w} {x}."),
    6: ("The {x} is {w} and {v}.", "I like the {w}, {v} {x}."),
    7: ("The {x} is {w} and very {v}.", "I like the {x}, it is {w}."),
}

_SENTENCES = (
    "{name} has a {w} {x}.", "The {z} is {at}.", "{name} and {other} are {at}.", "The {x} is {w}.",
    "{name} gave {other} the {x}.", "{name} saw a {z} {at}.", "There is a {x} {at}.", "{name} lost the {w} {x}.",
)  # fmt: skip


def kept_for_val(category: str, *words: object) -> bool:
    """Return whether an instruction about these words is in val only. Depends on the words alone."""
    return stable_hash("instruction", category, *words) % _RESERVED_ONE_IN == 0


def _fits(split: Split, category: str, *words: object) -> bool:
    return kept_for_val(category, *words) == (split == "val")


def visitor_for(draw: Draw, split: Split) -> str:
    """The name of a visitor, an invented one half of the time; in val always a held-out name."""
    world = village()
    if draw.chance(0.5):
        return invented_name(draw, split)
    return draw.pick(tuple(world.reserved_visitors if split == "val" else world.visitors))


def name_for(draw: Draw, split: Split) -> str:
    """The name of a villager, or sometimes of a visitor."""
    return draw.pick(tuple(village().people)) if draw.chance(0.6) else visitor_for(draw, split)


def _mixed(draw: Draw, split: Split, n: int) -> list[str]:
    """A list of `n` different things, animals or names."""
    pool = draw.pick((village().everything, village().everything, ANIMALS, None))
    if pool is None:
        names = list(dict.fromkeys(name_for(draw, split) for _ in range(4 * n)))
        return names[:n] if len(names) >= n else _mixed(draw, split, n)
    return draw.some(pool, n)


def count_words(draw: Draw, split: Split) -> Turn:
    """An instruction for an exact number of words about a thing, or for one word repeated."""
    topics = (*village().everything, *ANIMALS)
    while True:
        kind, n, x = draw.pick(("about", "about", "times")), draw.between(2, 7), draw.pick(topics)
        if _fits(split, "count-words", kind, n, x):
            break
    fields = {"n": number(n) if draw.chance(0.7) else str(n), "x": x}
    user = _WORDED[kind].pick(draw, split).format(**fields)
    others = draw.some([m for m in _ABOUT if m != n], 2)
    if kind == "times":
        answer, *wrong = (" ".join([x] * m) for m in (n, n + 1, max(n - 1, 1)))
        return Turn("count-words", user, answer, {"kind": "words", "n": n, "only": x}, tuple(wrong))
    w, v = draw.some(_LOOKS, 2)
    fields |= {"w": w, "W": capital(w), "v": v}
    answer, *wrong = (draw.pick(_ABOUT[m]).format(**fields) for m in (n, *others))
    return Turn("count-words", user, answer, {"kind": "words", "n": n, "any": [x]}, tuple(wrong))


def _order_turn(draw: Draw, user: str, right: list[str]) -> Turn:
    wrong: list[str] = []
    while len(wrong) < 2:
        other = ", ".join(draw.some(right, len(right)))
        if other != ", ".join(right) and other not in wrong:
            wrong.append(other)
    return Turn("order", user, ", ".join(right), {"kind": "order", "items": right}, tuple(wrong))


def order(draw: Draw, split: Split) -> Turn:
    """An instruction to reverse three or four items, to sort numbers, or to put given items first and last."""
    kind = draw.pick(("backwards", "smallest", "given"))
    while True:
        n = 3 if kind == "given" or draw.chance(0.6) else 4
        items = draw.some([str(i) for i in range(1, 20)], n) if kind == "smallest" else _mixed(draw, split, n)
        right = sorted(items, key=int) if kind == "smallest" else items[::-1]
        if kind == "given":
            items = draw.some(village().everything, 3)
            right = draw.some(items, 3)
        if right != items and _fits(split, "order", kind, *sorted(items)):
            break
    user = _WORDED[kind].pick(draw, split).format(items=", ".join(items), a=right[0], c=right[-1])
    return _order_turn(draw, user, right)


def reversed_turn(draw: Draw, split: Split, before: Turn) -> Turn:
    """A follow-up that reverses the items of the answer to `before`."""
    items = before.check["items"][::-1]
    return _order_turn(draw, _WORDED["backwards again"].pick(draw, split), items)


def _capitals_turn(user: str, text: str) -> Turn:
    near = (text, capital(text), f"{text[0]}{text[1:].upper()}")
    wrong = tuple(dict.fromkeys(w for w in near if w != text.upper()))
    return Turn("capitals", user, text.upper(), {"kind": "capitals", "texts": [text]}, wrong)


def capitals(draw: Draw, split: Split) -> Turn:
    """An instruction to write two to four words in capital letters."""
    things = (*village().everything, *ANIMALS)
    while True:
        w, x = draw.pick((*_LOOKS, *_COLOURS)), draw.pick(things)
        name, other = name_for(draw, split), name_for(draw, split)
        text = draw.pick(("{w} {x}", "the {w} {x}", "{name} and {other}", "{name} has the {x}", "the {x} of {name}"))
        text = text.format(w=w, x=x, name=name, other=other)
        if name != other and _fits(split, "capitals", text):
            return _capitals_turn(_WORDED["capitals"].pick(draw, split).format(x=text), text)


def capitals_again(draw: Draw, split: Split, before: Turn) -> Turn:
    """A follow-up that asks for the repeated sentence of `before` in capital letters."""
    return _capitals_turn(_WORDED["capitals again"].pick(draw, split), before.check["text"])


def _joined(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def one_a_line(draw: Draw, split: Split) -> Turn:
    """An instruction to list two to four items, one on each line."""
    while True:
        items = _mixed(draw, split, draw.between(2, 4))
        if _fits(split, "list", *sorted(items)):
            break
    shown = _joined(items) if len(items) == 2 or draw.chance(0.4) else ", ".join(items)
    answer, *wrong = ("\n".join(f"- {item}" for item in lines) for lines in (items, items[:-1], items[::-1]))
    user = _WORDED["list"].pick(draw, split).format(items=shown)
    return Turn("list", user, answer, {"kind": "list", "items": items}, (", ".join(items), *wrong))


def repeat(draw: Draw, split: Split) -> Turn:
    """An instruction to repeat a short sentence."""
    world = village()
    while True:
        name, other = name_for(draw, split), name_for(draw, split)
        fields = {
            "name": name, "other": other, "x": draw.pick(world.everything), "z": draw.pick(ANIMALS),
            "w": draw.pick((*_LOOKS, *_COLOURS)), "at": draw.pick(world.everywhere).at,
        }  # fmt: skip
        text, near = (t.format(**fields) for t in draw.some(_SENTENCES, 2))
        text = text.replace(" a o", " an o").replace(" a u", " an u")
        if name != other and _fits(split, "repeat", text):
            break
    words = text.split()
    wrong = (near, " ".join(words[:-1]) + ".", " ".join(words[::-1]))
    shown = f' "{text}"' if draw.chance(0.6) else f"\n{text}"
    user = _WORDED["repeat"].pick(draw, split).format(x=shown)
    return Turn("repeat", user, text, {"kind": "repeat", "text": text}, wrong)


def animals(draw: Draw, split: Split) -> Turn:
    """An instruction to select the animals from a list, or the other items."""
    while True:
        animals_listed = draw.some(ANIMALS, draw.between(1, 3))
        things = draw.some(village().everything, draw.between(2, 3))
        if _fits(split, "animals", *sorted(animals_listed + things)):
            break
    items = draw.some(animals_listed + things, len(animals_listed) + len(things))
    kind = "animals" if draw.chance(0.8) else "no animals"
    chosen = animals_listed if kind == "animals" else things
    right = [item for item in items if item in chosen]
    others = [item for item in items if item not in chosen]
    user = _WORDED[kind].pick(draw, split).format(items=", ".join(items))
    missing = right[1:] if len(right) > 1 else others[:1]
    wrong = tuple(", ".join(w) for w in (others, [*right, others[0]], missing) if w)
    return Turn("animals", user, ", ".join(right), {"kind": "only", "items": right}, wrong)


INSTRUCTIONS: dict[str, Callable[[Draw, Split], Turn]] = {
    "count-words": count_words,
    "order": order,
    "capitals": capitals,
    "list": one_a_line,
    "repeat": repeat,
    "animals": animals,
}

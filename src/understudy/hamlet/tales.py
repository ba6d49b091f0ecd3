"""Requests for short stories: "Write a short story about Finn and a kite."

The answers have three to five sentences and follow a few plots. stories.py generates the long stories.
"""

from __future__ import annotations

from understudy.hamlet.draw import Draw
from understudy.hamlet.instructions import ANIMALS, kept_for_val, name_for
from understudy.hamlet.names import sex_of
from understudy.hamlet.outside_subjects import STRANGE
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.wording import phrasings
from understudy.hamlet.world import number, village

_LEAST, _MOST = 3, 5

_REQUESTS = phrasings("""
free
  Write a short story about {first} and {second}.
  Tell me a short story about {first} and {second}.
  Tell a little story about {first} and {second}.
  Please write a little story about {first} and {second}.
  I want to read a short story about {first} and {second}.
  Can you tell me a story about {first} and {second}?
  Tell me a story of {first} and {second}.
  I want a short story about {first} and {second}.
  Please write a story about {first} and {second}.
  Write me a story with {first} and {second}.
  Do you know a story about {first} and {second}?
  Let me hear a story about {first} and {second}.
  A short story about {first} and {second}, please.
  Think of a story about {first} and {second}.
  Invent a short story about {first} and {second}.
  ~Make up a short story about {first} and {second}.
  ~Please tell me a little story with {first} and {second} in it.
counted
  Write a story of {n} sentences about {first} and {second}.
  Tell me a story about {first} and {second} in {n} sentences.
  Write {n} sentences about {first} and {second}.
  Tell a story of {n} sentences about {first} and {second}.
  Tell me {n} sentences about {first} and {second}.
  Please write a story of {n} sentences about {first} and {second}.
  I want a story of {n} sentences about {first} and {second}.
  Use {n} sentences and tell me about {first} and {second}.
  A story about {first} and {second} in {n} sentences, please.
  Write a story with {first} and {second} that has {n} sentences.
  Make a story of {n} sentences with {first} and {second} in it.
  Write about {first} and {second} in {n} sentences.
  ~In {n} sentences, tell me a story about {first} and {second}.
""")

# Requests about one subject, and about none.
SHORT_REQUESTS = phrasings("""
one
  Tell me a story about {first}.
  Tell me a story about {first}.
  Tell a story about {first}.
  Write a story about {first}.
  Write me a story about {first}.
  Write a short story about {first}.
  Tell me a short story about {first}.
  Please tell me a story about {first}.
  Can you tell me a story about {first}?
  Can you write a story about {first}?
  Give me a story about {first}.
  Make up a story about {first}.
  I want a story about {first}.
  I want to hear a story about {first}.
  A story about {first}, please.
  A story about {first}
  Story about {first}
  Do you know a story about {first}?
  Story with {first}, please.
  Is there a story about {first}?
  ~Could you tell a story about {first}?
  ~I would like a story about {first}.
  ~Let me hear a tale about {first}.
none
  Tell me a story.
  Tell me a story.
  Tell me a short story.
  Tell me a story, please.
  Please tell me a story.
  Please tell a story.
  Can you tell me a story?
  Can you tell stories?
  Can you write a story?
  Write a story.
  Write me a story.
  Write a short story.
  Give me a story.
  A story, please.
  Story please!
  Story!
  I want a story.
  I want to hear a story.
  Do you know a story?
  Do you know any stories?
  Make up a story.
  Invent a story.
  Tell me something nice.
  Tell me a tale.
  Tell me a good story.
  Tell me a funny story.
  Tell me a nice little story.
  Tell me another story.
  Another story, please.
  One more story!
  Tell me a bedtime story.
  Tell me a story about the village.
  Tell me a story about Hamlet.
  Tell me a story of Hamlet.
  Write a story about the village.
  I am bored. Tell me a story.
  Read me a story.
  Let me hear a story.
  ~Could you tell me a story?
  ~I would like to hear a story.
  ~How about a story?
  ~Tell me some story.
  ~A short tale, please.
""")
_ONE, _NONE = 0.22, 0.13  # fractions of the requests

# Each plot has five steps with alternative sentences. "tell" marks a required step, "skip" an optional one. The required
# steps name the hero, the other person, the thing and the place.
_PLOTS = """
lost
  tell: One {weather} {part}, {name} took {a} {to}. | {name} had {a} and took it {to} one {weather} {part}. | On {day}, {name} went {to} with {a}.
  skip: There {he} {did}. | {He} {did} for a long time.
  tell: Then the {x} was gone, and {he} was very sad. | But soon {he} could not find the {x}. | When {he} looked around, the {x} was gone.
  tell: {other} came by and found it {spot}. | {other} helped {him}, and they found the {x} {spot}.
  skip: {name} laughed and ran home. | {name} thanked {other} with all {his} heart. | From that day on, {name} was more careful. | That night, {name} slept well.
gift
  tell: One {weather} {part}, {name} had {a} for {other}. | {name} wanted to give {other} {a}. | On {day}, {name} looked for {other} with {a} in {his} hands.
  tell: {He} found {other} {at}. | {He} ran {to}, and there was {other}. | {He} went {to} and met {other} there.
  skip: "This is for you," said {name}. | {name} smiled and said nothing.
  tell: {other} was so happy to have the {x}. | {other} took the {x} and laughed. | {other} had always wanted {a}.
  skip: They went home together. | Everyone in Hamlet talked about it for days. | It had been a good day.
found
  tell: One {weather} {part}, {name} went {to} and {did}. | On {day}, {name} {did} {at}. | It was a {weather} {part}, and {name} was {at}.
  tell: {He} found {a} {spot}. | There lay {a}, {spot}.
  skip: {He} asked everyone about it. | {He} went from door to door with it. | "I must find out whose it is," said {name}.
  tell: The {x} belonged to {other}, who was very happy. | {other} had lost the {x} and thanked {name} warmly.
  skip: {name} felt a little taller than before. | {name} went home singing. | {name} was proud of what {he} had done.
swap
  tell: {name} had {a} that {he} did not need. | One {weather} {part}, {name} left the house with {a}.
  tell: {He} met {other} {at}, who had {b}. | {other} was {at} and had {b}.
  skip: "Let us swap," said {name}. | "I like your {x}," said {other}. | They looked at both for a long time.
  tell: {name} gave {other} the {x} and took the {y}. | So {other} got the {x}, and {name} got the {y}.
  skip: Both were happy with the trade. | {name} went home with quick steps. | "That was a good day," said {name}.
help
  tell: {other} needed {a} and asked {name} for it. | One {weather} {part}, {other} asked {name} for {a}.
  tell: {name} took the {x} and hurried {to}. | {name} ran {to} with the {x}. | {name} carried the {x} {to}.
  skip: {He} did not stop on the way. | The way was long, but {he} was soon there.
  tell: "Thank you, {name}," said {other}. | {other} smiled and thanked {him}. | "You are a great help, {name}," said {other}.
  skip: {name} was soon home again. | That evening, {name} told the story at supper. | {name} went to bed happy that night.
show
  tell: {name} had a new treasure, {a}. | {name} was very proud of {a}.
  tell: On {day}, {he} showed it to {other} {at}. | One {weather} {part}, {he} took it {to} and showed it to {other}.
  skip: They looked at it for a long time. | {other} held it with both hands.
  tell: {other} had never seen such a fine {x}. | "What a fine {x} you have," said {other}. | {other} liked the {x} very much.
  skip: They played with it until the evening. | Then they walked home side by side. | {name} was happy all day.
"""


_LOOKS = ("small", "big", "old", "little", "fine", "strange")  # of what is not a thing of the village


def _plots() -> dict[str, list[tuple[bool, list[str]]]]:
    """The steps of each plot: whether the step is required, and its alternative sentences."""
    plots: dict[str, list[tuple[bool, list[str]]]] = {}
    steps: list[tuple[bool, list[str]]] = []
    for line in _PLOTS.strip().splitlines():
        if not line.startswith(" "):
            steps = plots[line] = []
        else:
            how, tellings = line.strip().split(": ", 1)
            steps.append((how == "tell", [telling.strip() for telling in tellings.split("|")]))
    return plots


PLOTS = _plots()


def _sex(name: str) -> str:
    world = village()
    visitors = world.visitors | world.reserved_visitors
    return world.people[name].sex if name in world.people else visitors.get(name) or sex_of(name)


def _fields(draw: Draw, name: str, other: str, thing: str, place_name: str) -> dict[str, str]:
    world = village()
    place = world.places[place_name]
    second = draw.pick([x for x in world.everything if x != thing])
    worded, second_worded = (f"{draw.pick(world.things.get(x, _LOOKS))} {x}" for x in (thing, second))
    he, him, his = ("he", "him", "his") if _sex(name) == "m" else ("she", "her", "her")
    return {
        "name": name, "other": other, "x": thing, "y": second, "a": _an(worded), "b": _an(second_worded),
        "at": place.at, "to": place.to, "did": place.did, "spot": place.spot,
        "he": he, "He": he.capitalize(), "him": him, "his": his,
        "weather": draw.pick(("sunny", "windy", "grey", "cool", "bright", "cold", "mild")),
        "part": draw.pick(("morning", "afternoon")),
        "day": draw.pick(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
    }  # fmt: skip


def _an(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def _tell(draw: Draw, n: int, fields: dict[str, str]) -> list[str]:
    """A story of `n` sentences: all required steps, and optional ones up to `n`."""
    steps = PLOTS[draw.pick(tuple(PLOTS))]
    optional_steps = [i for i, (is_required, _) in enumerate(steps) if not is_required]
    chosen = draw.some(optional_steps, n - (len(steps) - len(optional_steps)))
    return [
        draw.pick(alternatives).format(**fields)
        for i, (is_required, alternatives) in enumerate(steps)
        if is_required or i in chosen
    ]


def _short_request(draw: Draw, split: Split, kind: str) -> Turn:
    """A request for a story about one person, thing, animal or place, one from outside Hamlet, or about nothing given."""
    world = village()
    while True:
        name, other = name_for(draw, split), name_for(draw, split)
        thing, place = draw.pick(world.everything), draw.pick(tuple(world.places))
        subject = draw.pick(("name", "thing", "animal", "strange", "strange", "place"))
        if kind == "one" and subject in ("animal", "strange"):
            thing = draw.pick(ANIMALS if subject == "animal" else STRANGE)
        about = {"name": name, "place": place}.get(subject, thing)
        fits = kind == "none" or kept_for_val("story", about) == (split == "val")
        if name != other and _sex(name) != _sex(other) and fits:
            break
    shown = {"name": name, "place": f"the {place}"}.get(subject) or draw.pick((_an(thing), f"the {thing}"))
    user = SHORT_REQUESTS[kind].pick(draw, split, new=True if kind == "none" else None).format(first=shown)
    sentences = _tell(draw, draw.between(_LEAST, _MOST), _fields(draw, name, other, thing, place))
    check = {"kind": "tale", "about": [about] if kind == "one" else [], "least": _LEAST, "most": _MOST}
    return Turn("story", user, " ".join(sentences), check, (sentences[0], " ".join([sentences[0]] * _LEAST)))


def tale_turn(draw: Draw, split: Split) -> Turn:
    """A request for a short story, with such a story.

    It is about a person and a thing, a place or another person, or about one subject or none.
    """
    chosen = draw.random()
    if chosen < _ONE + _NONE:
        return _short_request(draw, split, "one" if chosen < _ONE else "none")
    world = village()
    while True:
        name, other = name_for(draw, split), name_for(draw, split)
        thing, place = draw.pick(world.everything), draw.pick(tuple(world.places))
        kind = draw.pick(("thing", "thing", "thing", "place", "other"))
        second = {"thing": thing, "place": place, "other": other}[kind]
        # Names of the same sex make "he" or "she" ambiguous.
        clear = kind == "other" or _sex(name) != _sex(other)
        if name != other and clear and kept_for_val("story", name, second) == (split == "val"):
            break
    counted = draw.chance(0.35)
    n = draw.between(_LEAST, _MOST)
    shown = {"thing": _an(thing), "place": f"the {place}", "other": other}[kind]
    user = _REQUESTS["counted" if counted else "free"].pick(draw, split)
    user = user.format(first=name, second=shown, n=number(n))
    sentences = _tell(draw, n, _fields(draw, name, other, thing, place))
    least, most = (n, n) if counted else (_LEAST, _MOST)
    check = {"kind": "tale", "about": [name, second], "least": least, "most": most}
    stranger = draw.pick([p for p in world.people if p not in (name, other)])
    answer = " ".join(sentences)
    wrong = (answer.replace(name, stranger), sentences[0], " ".join([sentences[0]] * n))
    return Turn("story", user, answer, check, wrong)

"""Greetings and small talk: answers that are friendly, fit, and claim no facts."""

from __future__ import annotations

from understudy.data.hamlet.draw import Draw
from understudy.data.hamlet.instructions import visitor_for
from understudy.data.hamlet.stories import Split
from understudy.data.hamlet.turns import Turn
from understudy.data.hamlet.wording import phrasings
from understudy.data.hamlet.world import village

_TALK = phrasings("""
hello
  Hello.
  Hello!
  Hello there.
  Good morning.
  Good day.
  Good day to you.
  Hello, my friend.
  ~Good evening.
  ~A good morning to you.
  ~Hello again.
name
  Hello, I am {name}.
  Good day, I am {name}.
  Good morning. My name is {name}.
  My name is {name}.
  I am {name}.
  ~Hello, my name is {name}.
  ~Good morning, I am {name}.
how
  How are you?
  How are you today?
  Are you well?
  How do you feel today?
  How do you do?
  ~Are you well today?
  ~And how are you today?
who
  Who are you?
  What are you?
  What is your name?
  Tell me who you are.
  Do you have a name?
  ~Who is it that I talk to?
  ~What are you called?
thanks
  Thank you.
  Thank you!
  Thank you very much.
  Thank you for your help.
  That was kind of you.
  You are a great help.
  ~Thank you so much.
  ~How kind of you.
goodbye
  Goodbye.
  Goodbye!
  I must go now.
  Goodbye, and thank you.
  I have to go home now.
  See you soon.
  ~I will go now. Goodbye.
  ~Good night.
can
  What can you do?
  How can you help me?
  What can I ask you?
  What do you know?
  Can you help me?
  ~What are you good at?
  ~Tell me what you can do.
""")
_TALK_ANSWERS: dict[str, tuple[str, ...]] = {
    "hello": ("Hello! How can I help you?", "Good day! What can I do for you?", "Hello, and welcome to Hamlet!"),
    "name": ("Hello, {name}! How can I help you?", "Good day, {name}! What can I do for you?"),
    "how": ("I am very well, thank you.", "I am well, thank you. How can I help you?"),
    "who": ("I am the understudy of Hamlet.",),
    "thanks": ("You are welcome.", "You are very welcome."),
    "goodbye": ("Goodbye! Come again soon.", "Goodbye, and come again soon!"),
    "can": ("I can answer questions, do small sums and tell short stories.",),
}  # fmt: skip
_TALK_WRONG: dict[str, tuple[str, ...]] = {
    "hello": ("Goodbye! Come again soon.", "{a} is at the {p}.", "The {p} is old."),
    "name": ("Hello, {a}! How can I help you?", "{a} is at the {p}.", "Goodbye, {name}."),
    "how": ("{a} is very well, thank you.", "You are welcome.", "I am at the {p}."),
    "who": ("I am {a} the {t}.", "I am very well, thank you.", "{a} is the {t}."),
    "thanks": ("Hello! How can I help you?", "{a} said thank you.", "I am the understudy of Hamlet."),
    "goodbye": ("Hello! How can I help you?", "{a} went to the {p}.", "I am very well, thank you."),
    "can": ("I am the {t} of Hamlet.", "{a} can help you at the {p}.", "You are welcome."),
}  # fmt: skip


def talk_turn(draw: Draw, split: Split, *kinds: str) -> Turn:
    """Small talk, of one of `kinds` where given; in val always in words, or with a name, that training never has."""
    kind = draw.pick(kinds or tuple(_TALK))
    world = village()
    someone = draw.pick([p for p in world.people.values() if p.trade])
    fields = {
        "name": visitor_for(draw, split),
        "a": someone.name,
        "t": str(someone.trade),
        "p": draw.pick(tuple(world.places)),
    }
    user = _TALK[kind].pick(draw, split, new=None if kind == "name" else True).format(**fields)
    check = {"kind": "greeting", "of": "hello" if kind == "name" else kind}
    if kind == "name":
        check["name"] = fields["name"]
    answer = draw.pick(_TALK_ANSWERS[kind]).format(**fields)
    return Turn("greeting", user, answer, check, tuple(w.format(**fields) for w in draw.some(_TALK_WRONG[kind], 2)))

"""Greetings and small talk, with friendly answers that state no facts."""

from __future__ import annotations

from understudy.hamlet.draw import Draw
from understudy.hamlet.instructions import visitor_for
from understudy.hamlet.stories import Split
from understudy.hamlet.turns import Turn
from understudy.hamlet.wording import phrasings
from understudy.hamlet.world import village

_TALK = phrasings("""
hello
  Hello.
  Hello!
  Hello there.
  Good morning.
  Good day.
  Good day to you.
  Hello, my friend.
  Good afternoon.
  Good afternoon to you.
  Hello, friend.
  Hi.
  Hi there!
  Morning!
  A good day to you, my friend.
  Welcome back.
  Hello, helper.
  Good day, assistant.
  Greetings.
  Evening, friend.
  ~Good evening.
  ~A good morning to you.
  ~Hello again.
name
  Hello, I am {name}.
  Good day, I am {name}.
  Good morning. My name is {name}.
  My name is {name}.
  I am {name}.
  My name is {name}. Good day.
  {name} is my name.
  They call me {name}.
  You can call me {name}.
  Hi, I am {name}.
  Good afternoon, {name} is my name.
  I am called {name}.
  Greetings! I am {name}.
  ~Hello, my name is {name}.
  ~Good morning, I am {name}.
how
  How are you?
  How are you today?
  Are you well?
  How do you feel today?
  How do you do?
  How is it going today?
  Do you feel well?
  Are you happy today?
  How are you this morning?
  Is everything well with you?
  How have you been?
  And how do you feel?
  All well with you today?
  How goes the day?
  ~Are you well today?
  ~And how are you today?
who
  Who are you?
  What are you?
  What is your name?
  Tell me who you are.
  Do you have a name?
  Tell me your name.
  What do they call you?
  What should I call you?
  Who am I talking to?
  May I ask who you are?
  Please say who you are.
  Who is it that answers me?
  Do I talk to the assistant?
  What are you, please?
  Have you got a name?
  And who are you?
  I do not know you. Who are you?
  ~Who is it that I talk to?
  ~What are you called?
thanks
  Thank you.
  Thank you!
  Thank you very much.
  Thank you for your help.
  That was kind of you.
  You are a great help.
  Thanks.
  Thanks!
  Thanks a lot.
  Many thanks.
  I thank you.
  Thank you, friend.
  That was very kind.
  Very kind of you.
  You were so kind.
  Thanks for that.
  You have helped me so much.
  That helps me a lot.
  ~Thank you so much.
  ~How kind of you.
goodbye
  Goodbye.
  Goodbye!
  I must go now.
  Goodbye, and thank you.
  I have to go home now.
  See you soon.
  Bye.
  Bye, and thank you.
  Goodbye, my friend.
  It is time to go.
  I must go home. Goodbye.
  I am going now.
  Have a good night.
  Sleep well.
  I will see you soon.
  Farewell.
  Until tomorrow.
  That is all for today. Goodbye.
  Now I will go home.
  ~I will go now. Goodbye.
  ~Good night.
can
  What can you do?
  How can you help me?
  What can I ask you?
  What do you know?
  Can you help me?
  What are you able to do?
  Tell me how you can help.
  Tell me what you know.
  What can you help me with?
  Can you do something for me?
  What is it that you can do?
  What things can you do?
  What do you do well?
  What are you there for?
  What do you do here?
  Say what you can do for me.
  What are your skills?
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
    """A turn of small talk; `kinds` restricts its kind. In val, the phrasing or the name is held out."""
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

"""Questions about a story as turns of a conversation.

questions_told.py and questions_more.py generate the questions. This module selects their phrasings (some are for
validation only) and alternates the categories. checker.py scores the answers.
"""

from __future__ import annotations

from understudy.hamlet.draw import Draw, stable_hash
from understudy.hamlet.questions_more import ask_first, ask_unsaid
from understudy.hamlet.questions_told import Spec, Telling
from understudy.hamlet.questions_words import Query
from understudy.hamlet.stories import Split, Story, story
from understudy.hamlet.turns import STORY_CATEGORIES, Turn
from understudy.hamlet.wording import phrasings

# A story of so many bytes and four questions are about 230 tokens of a BPE trained on the stories.
SHORT_BYTES = 450

_DIRECT_SHARE = 0.45  # probability of the direct question without a further phrasing
_BARE_STORY_SHARE = 0.15  # probability of a story without an introduction
_NEW_FACT_SHARE = 0.6  # probability that a question avoids lasting facts
_HELD_OUT_SHARE = 0.75  # probability of a question about a held-out fact, if the val story has one

_ASKING = phrasings("""
question
  Tell me {indirect}.
  Can you tell me {indirect}?
  Do you know {indirect}?
  Please tell me {indirect}.
  In the story, {lower}
  I want to know {indirect}.
  Say {indirect}.
  Tell me, please: {lower}
  Please say {indirect}.
  I must know {indirect}.
  Let me ask you: {lower}
  Can you say {indirect}?
  What I want to know: {lower}
  From the story, tell me {indirect}.
  Do you still know {indirect}?
  In this story, {lower}
  Look at the story again. {direct}
  Answer me this: {lower}
  Try to tell me {indirect}.
  Here is my question. {direct}
  ~I would like to know {indirect}.
  ~Do you remember {indirect}?
  ~Now tell me {indirect}, please.
  ~Think of the story. {direct}
next
  And {lower}
  Now tell me {indirect}.
  Next question: {lower}
  And tell me {indirect}.
  Then {lower}
  And do you know {indirect}?
  Good. {direct}
  ~One more question: {lower}
pair
  What happened first: {direct}?
  Which came first: {direct}?
  What came first: {direct}?
  What happened first in the story: {direct}?
  Tell me what happened first: {direct}.
  Which of these came first: {direct}?
  {direct}: which came first?
  Was it first: {direct}?
  Which of the two came first: {direct}?
  Say which happened first: {direct}.
  Say what came first: {direct}.
  Which of these was the first: {direct}?
  Can you tell me what came first: {direct}?
  In the story, what came first: {direct}?
  Which happened before the other: {direct}?
  Please tell me which came first: {direct}.
  ~Do you know which came first: {direct}?
  ~Which of the two was earlier: {direct}?
  ~What was the first to happen: {direct}?
story
  Read this story.
  Here is a story.
  Listen to this story.
  This is a story from Hamlet.
  I have a story for you.
  Please read this story.
  Here is a story for you to read.
  Now comes a story.
  I read this story.
  Look, here is a story.
  Let me tell you what happened.
  You should hear this story.
  Let us read a story.
  I know a story of Hamlet.
  Hear what happened in the village.
  ~I will tell you a story.
  ~This is what happened in Hamlet.
  ~Look at this story.
""")


def _wording(query: Query, draw: Draw, split: Split, first: bool) -> str:
    """The user message for `query`."""
    direct = query.direct
    if not query.indirect:
        return _ASKING["pair"].pick(draw, split).format(direct=direct)
    if draw.chance(_DIRECT_SHARE):
        return direct
    table = _ASKING["question" if first or draw.chance(0.75) else "next"]
    return table.pick(draw, split).format(direct=direct, indirect=query.indirect, lower=direct[0].lower() + direct[1:])


class _Questions:
    """Sampler of distinct questions about one story."""

    def __init__(self, story: Story, draw: Draw) -> None:
        self.telling, self.draw = Telling(story), draw
        self.specs: dict[str, list[Spec]] = {}
        for spec in self.telling.specs():
            self.specs.setdefault(spec.category, []).append(spec)
        self.asked: set[str] = set()  # earlier questions and answers
        self.about: list[object] = []  # events and setting facts of earlier questions

    def next(self, category: str) -> Query | None:
        """Return a new question of this category, preferably about a new event; None if there is none."""
        if category in ("first", "not-said"):
            ask = ask_first if category == "first" else ask_unsaid
            for _ in range(4):
                query = ask(self.telling, self.draw)
                if query is not None and self._is_new(query):
                    return query
            return None
        pool = self.specs.get(category, [])
        while pool:
            spec = self._take(pool)
            query = self.telling.ask(spec, self.draw)
            if query is not None and self._is_new(query):
                self.about.append(spec.event or spec.slot)
                return query
        return None

    def _take(self, pool: list[Spec]) -> Spec:
        near = [s for s in pool if (s.event or s.slot) not in self.about] or pool
        if self.draw.chance(_NEW_FACT_SHARE):
            near = [s for s in near if s.event is None or s.event.act != "lasting"] or near
        held_out = [s for s in near if s.event is not None and s.event.held_out]
        spec = self.draw.pick(held_out if held_out and self.draw.chance(_HELD_OUT_SHARE) else near)
        pool.remove(spec)
        return spec

    def _is_new(self, query: Query) -> bool:
        """Return whether question and answer are both new; if so, record them.

        Unanswerable questions share one answer, so only their question is compared.
        """
        keys = {query.direct} if query.category == "not-said" else {query.direct, query.answer}
        if keys & self.asked:
            return False
        self.asked |= keys
        return True


def story_turns(draw: Draw, story: Story, n: int) -> list[Turn]:
    """Up to `n` distinct questions about `story`, with alternating categories."""
    questions = _Questions(story, draw)
    turns: list[Turn] = []
    open_ = list(STORY_CATEGORIES)
    while open_ and len(turns) < n:
        for category in draw.some(open_, len(open_)):
            query = questions.next(category)
            if query is None:
                open_.remove(category)
            else:
                user = _wording(query, draw, story.split, first=not turns)
                turns.append(Turn(category, user, query.answer, query.check, query.wrong))
            if len(turns) == n:
                break
    return turns


def story_opening(draw: Draw, story: Story, split: Split) -> str:
    """The part of the first user message before the question: the story and an optional introduction."""
    if draw.chance(_BARE_STORY_SHARE):
        return f"{story.text}\n\n"
    return f"{_ASKING['story'].pick(draw, split)}\n\n{story.text}\n\n"


def short_story(seed: int, index: int, split: Split, most_bytes: int = SHORT_BYTES) -> Story:
    """The first story of at most `most_bytes` in the random stream of (seed, index).

    Raises:
        ValueError: none of 1000 stories is short enough.
    """
    stream = stable_hash("short story", seed, index)
    for k in range(1000):
        candidate = story(stream, k, split)
        if len(candidate.text) <= most_bytes:
            return candidate
    raise ValueError(f"most_bytes is {most_bytes}, and hardly any story is that short; take 400 or more")

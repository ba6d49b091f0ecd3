"""Hamlet, the embedded corpus: a small generated village and what happens there (docs/internals/hamlet.md).

All of it is written for this project; it has nothing to do with Shakespeare's play.
"""

from understudy.hamlet.stories import DEFAULT_STORIES, Fact, Split, Story, is_reserved, stories, story
from understudy.hamlet.world import World, village

__all__ = ["DEFAULT_STORIES", "Fact", "Split", "Story", "World", "is_reserved", "stories", "story", "village"]

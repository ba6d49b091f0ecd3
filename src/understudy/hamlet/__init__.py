"""Hamlet, the built-in corpus: generated stories and conversations about a small village.

docs/internals/hamlet.md describes it. The corpus is written for this project and unrelated to Shakespeare's play.
"""

from understudy.hamlet.stories import DEFAULT_STORIES, Fact, Split, Story, is_reserved, stories, story
from understudy.hamlet.world import World, village

__all__ = ["DEFAULT_STORIES", "Fact", "Split", "Story", "World", "is_reserved", "stories", "story", "village"]

"""All phrase tables in one: which templates tell which kind of event."""

from __future__ import annotations

import functools

from understudy.data.hamlet.phrases_common import COMMON
from understudy.data.hamlet.phrases_people import PEOPLE
from understudy.data.hamlet.phrases_things import THINGS
from understudy.data.hamlet.phrases_wild import WILD
from understudy.data.hamlet.phrases_work import WORK
from understudy.data.hamlet.templates import Template, parse_tellings


@functools.cache
def all_tellings() -> dict[str, list[Template]]:
    """Every telling with its templates, those held out included."""
    return parse_tellings("\n".join((COMMON, THINGS, PEOPLE, WORK, WILD)))

"""Union of all phrase tables: the templates for each kind of event."""

from __future__ import annotations

import functools

from understudy.hamlet.phrases_common import COMMON
from understudy.hamlet.phrases_people import PEOPLE
from understudy.hamlet.phrases_things import THINGS
from understudy.hamlet.phrases_wild import WILD
from understudy.hamlet.phrases_work import WORK
from understudy.hamlet.templates import Template, parse_tellings


@functools.cache
def all_tellings() -> dict[str, list[Template]]:
    """All templates by telling, including the held-out ones."""
    return parse_tellings("\n".join((COMMON, THINGS, PEOPLE, WORK, WILD)))

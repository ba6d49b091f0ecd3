"""The table of plots. A plot consists of a function on a Scene, its phrases, and a row here."""

from __future__ import annotations

from collections.abc import Callable

from understudy.hamlet import plots_people, plots_things, plots_wild, plots_work
from understudy.hamlet.scene import Scene

PLOTS: dict[str, Callable[[Scene], None]] = {
    "errand": plots_things.errand,
    "fetch": plots_things.fetch,
    "lost": plots_things.lost,
    "found": plots_things.found,
    "swaps": plots_things.swaps,
    "repair": plots_things.repair,
    "visit": plots_people.visit,
    "quarrel": plots_people.quarrel,
    "hide_and_seek": plots_people.hide_and_seek,
    "contest": plots_people.contest,
    "sick": plots_people.sick,
    "lesson": plots_people.lesson,
    "work": plots_work.work,
    "trade": plots_work.trade,
    "feast": plots_work.feast,
    "rounds": plots_work.rounds,
    "share_out": plots_work.share_out,
    "wind": plots_wild.wind,
    "rain": plots_wild.rain,
    "snow": plots_wild.snow,
    "fog": plots_wild.fog,
    "runaway": plots_wild.runaway,
    "rescue": plots_wild.rescue,
}

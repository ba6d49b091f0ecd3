"""Tables of sentence frames and fixed questions for each telling.

A row of FRAMES is a sentence about an event, such as `{a} found/find {t.a} {p.at}`. It generates a question and an
answer for each slot that the row lists: "Who found the purse?", "Where did Sam find the purse?". FIXED has complete
questions. questions_told.py decides whether a question is fair, and questions.py selects questions.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from understudy.hamlet.world import required

# A list of tellings ends with a colon. Each line below it has: group of synonymous verbs | slots that questions may
# ask for | sentence. "past/base" is the verb; {x} is the verb of the event (picked). {t.a} is "a kite" if the question
# asks for it. <words> stay in the question and distinguish the action ("before noon").
# A group with "?" is no action, but a reader may infer one. A row without slots only makes other questions ambiguous.
# The group "order" occurs only in questions about the order of events.
FRAMES = """
found_it find_spot quarrel_find lost_animal lost_found_by:
  find | atp | {a} found/find {t.a} {p.at}
hide_first hide_second run_find rescue_stuck:
  find | abp | {a} found/find {b} {p.at}
arrive_to rain_meets rounds_next swap_meet:
  find | abp | {a} met/meet {b} {p.at}
wind_down:
  find | at | {a} got/get {t} down
errand_hand errand_deliver hand_back contest_prize quarrel_give repair_give swap_give visit_gift swap_done:
  give | ab | {a} gave/give {t} to {b}
  give | at | {a} gave/give {b} {t}
  give | bat | {b} got/get {t} from {a}
rain_lend:
  give | ab | {a} lent/lend {t} to {b}
  give | at | {a} lent/lend {b} {t}
  give | bat | {b} got/get {t} from {a}
lost_animal_gives:
  give | abt | {a} brought/bring {t} to {b}
errand_ask:
  give? | | {a} sent/send {t} to {c}
swap_done:
  swap | u | {a} got/get {u} for {t}
  give | | {b} gave/give {u} to {a}
reward share_give trade_share rounds_give visit_feed feed trade_hand:
  give | ab | {a} gave/give {n.g} to {b}
  give | ang | {a} gave/give {b} {n.g}
  give | bang | {b} got/get {n.g} from {a}
trade_pay work_wage:
  give | abn | {a} paid/pay {b} {n.c}
trade_pay:
  give | an | {a} paid/pay {n.c}
sick_brings sick_brings_too:
  give | ang | {a} brought/bring {b} {n.g}
sick_brings sick_brings_too feast_bring feast_bring_too:
  give | ang | {a} brought/bring {n.g}
rescue_comes:
  bring | at | {a} brought/bring {t.a}
contest_gain contest_gain_too share_gain repair_help:
  gain | ang | {a} {x} {n.g}
work_first:
  gain | an | {a} {x} {n.g} <before noon>
work_second:
  gain | an | {a} {x} {n.g} <after noon>
snow_dig snow_dig_too:
  gain | an | {a} cleared/clear {n.g}
run_ate sick_eats:
  eat | ang | {a} ate/eat {n.g}
feast_thief:
  take | a | {a} took/take one of the {g}
go_both:
  go | p | {a} and {b} went/go <together> {p.to}
  go | b | {b} went/go {p.to} with {a}
hide_at:
  hide | ap | {a} hid/hide {p.at}
fog_follows:
  follow | ab | {a} followed/follow {b}
lost_go wind_go bring_back rain_next_day:
  take | pt | {a} took/take {t} {p.to}
rescue_brings:
  lead | ac | {a} brought/bring {b} to {c}
fetch_left:
  leave | atp | {a} left/leave {t.a} {p.at}
lost_drop:
  lose | at | {a} lost/lose {t}
found_mine:
  lose | p | {a} lost/lose {t} {p.at}
lost_search:
  look | ap | {a} looked_for/look_for {t} {p.at}
run_search:
  look | ap | {a} looked_for/look_for {b} {p.at}
rescue_tool:
  use | t | {a} used/use {t.a}
wind_tool:
  use | at | {a} used/use {t.a}
rain_tea snow_soup:
  give | | {a} gave/give something warm to {b}
work_rest:
  give | | {b} gave/give {h} to {a}
repair_mend:
  mend | at | {a} mended/mend {t}
swap_need:
  need | at | {a} needed/need {t.a}
trade_ask:
  buy | ang | {a} wanted_to_buy/want_to_buy {n.g}
go_play arrive quarrel_off:
  order | | {a} came/come {p.to}
go_home:
  order | | {a} went/go home
share_meet:
  order | | {a} came/come along
sick_doctor:
  order | | {a} came/come to see {b}
visit_leave:
  order | | {a} went/go away
lost_notice:
  order | | {a} missed/miss {t}
contest_win hide_win:
  order | | {a} won/win
lasting_home lasting_child:
  live | p | {a} lived/live {p.at}
"""

# telling: category | requested slot | question | indirect question | answer.
# Another event may state the given slots. This event must state the requested slot.
FIXED = """
quarrel_off: where | p | Where did {a} go after the quarrel? | where {a} went after the quarrel | After the quarrel, {a} went {p.to}.
rain_shelter: where | p | Where did {a} run when it rained? | where {a} ran when it rained | When it rained, {a} ran {p.to}.
wind_takes: where | p | Where did the wind carry {t}? | where the wind carried {t} | The wind carried {t} {p.to}.
wind_takes: what | t | What did the wind take from {a}? | what the wind took from {a} | From {a} the wind took {t}.
fog_want visit_ask_way: where | p | Where did {a} want to go? | where {a} wanted to go | {a} wanted to go {p.to}.
visit_ask_way: who | a | Who asked the way {p.to}? | who asked the way {p.to} | {a} asked the way {p.to}.
visit_ask_way: who | b | Who did {a} ask the way? | who {a} asked the way | {a} asked the way from {b}.
found_mine: who | a | Who did {t} belong to? | who {t} belonged to | {t} belonged to {a}.
found_mine: who | a | Who had lost {t}? | who had lost {t} | {a} had lost {t}.
repair_break: what | t | What broke? | what broke | {t} broke.
repair_break: where | p | Where did {t} break? | where {t} broke | {t} broke {p.at}.
repair_tear: where | p | Where did {t} tear? | where {t} tore | {t} tore {p.at}.
hide_win: who | a | Who won the game? | who won the game | {a} won the game.
contest_win: who | a | Who won? | who won | {a} won.
swap_have: what | t | What did {a} have at first? | what {a} had at first | At first {a} had {t.a}.
lesson_ask: what | x | What did {a} want to learn? | what {a} wanted to learn | {a} wanted to learn how to {x}.
lesson_ask: who | a | Who wanted to learn how to {x}? | who wanted to learn how to {x} | {a} wanted to learn how to {x}.
lesson_show: who | a | Who taught {b}? | who taught {b} | {a} taught {b}.
lesson_tries: how-many | n | How many times did {a} try? | how many times {a} tried | {a} tried {n.times}.
hide_count: how-many | n | How far did {a} count? | how far {a} counted | {a} counted to {n}.
sick_ill: who | a | Who was ill? | who was ill | {a} was ill.
sick_well: how-many | n | After how many days was {a} well again? | after how many days {a} was well again | {a} was well again after {n.days}.
visit_leave: how-many | n | How many days did {a} stay? | how many days {a} stayed | {a} stayed for {n.days}.
lasting_age lasting_child: how-many | n | How old was {a}? | how old {a} was | {a} was {n} years old.
lasting_parent: who | b | Who was {a}'s {b.parent}? | who {a}'s {b.parent} was | {a}'s {b.parent} was {b}.
lasting_likes: what | g | What did {a} like best? | what {a} liked best | {a} liked {g} best.
lasting_owner: who | a | Who did {z} belong to? | who {z} belonged to | {z} belonged to {a}.
lasting_owner: who | z | Who was {a}'s {z.kind}? | who {a}'s {z.kind} was | {a}'s {z.kind} was {z}.
lasting_owner: what | y | What kind of animal was {z}? | what kind of animal {z} was | {z} was a {y}.
lasting_trade: who | a | Who was the {a.trade} of Hamlet? | who was the {a.trade} of Hamlet | The {a.trade} of Hamlet was {a}.
lasting_stands: where | p | Where was {p}? | where {p} was | {p} was {p.stood}.
feast_plan: where | p | Where was the feast? | where the feast was | The feast was {p.at}.
feast_plan: who | a | Who wanted to have a feast? | who wanted to have a feast | {a} wanted to have a feast.
work_rest: what | h | What did they eat at noon? | what they ate at noon | At noon they ate {h}.
fetch_ask: who | a | Who asked {b} to get {t}? | who asked {b} to get {t} | {a} asked {b} to get {t}.
fetch_ask: who | b | Who did {a} ask to get {t}? | who {a} asked to get {t} | {a} asked {b} to get {t}.
errand_ask: who | c | Who was {t} for? | who {t} was for | {t} was for {c}.
errand_ask: who | a | Who sent {b} to {c}? | who sent {b} to {c} | {a} sent {b} to {c}.
rescue_stuck: who | b | Who was stuck? | who was stuck | {b} was stuck.
run_gone: who | b | Who had run away? | who had run away | {b} had run away.
work_total sick_total feast_total: how-many | k | How many {g} were there in all? | how many {g} there were in all | {k.there} in all.
snow_total: how-many | k | How many steps did they clear in all? | how many steps they cleared in all | They cleared {k.g} in all.
share_left trade_left: how-many | k | How many {g} did {a} have left? | how many {g} {a} had left | {a} had {k.g} left.
rounds_end: how-many | k | How many {g} did {a} have at the end? | how many {g} {a} had at the end | At the end {a} had {k.g}.
feast_left feast_thief_left: how-many | k | How many {g} were left? | how many {g} were left | {k.gwere} left.
feast_eaten: how-many | n | How many {g} were eaten? | how many {g} were eaten | {n.gwere} eaten.
contest_more: how-many | k | How many more {g} did {a} have than {b}? | how many more {g} {a} had than {b} | {a} had {k} more {g} than {b}.
trade_purse rounds_have: how-many | n | How many {g} did {a} have at first? | how many {g} {a} had at first | At first {a} had {n.g}.
"""

# Tellings out of chronological order in the text. Questions about order do not use them.
OUT_OF_ORDER = frozenset(
    [
        "lost_animal",
        "lost_found_by",
        "fetch_left",
        "swap_need",
        "lost_drop",
        "found_mine",
        "contest_gain",
        "contest_gain_too",
        "snow_dig",
        "snow_dig_too",
        "repair_help",
        "repair_mend",
        "lasting_home",
        "lasting_child",
        "trade_ask",
    ]
)

# Semantic role of each slot.
_ROLES = {
    "t": "thing",
    "u": "thing",
    "h": "thing",
    "n": "thing",
    "g": "thing",
    "p": "place",
    "a": "doer",
    "b": "other",
    "c": "third",
}

Part = str | tuple[str, str]  # literal text, or (slot, form)


@dataclass(frozen=True, slots=True)
class Frame:
    """A row of FRAMES; `verb` is (past, base), or None for the verb of the event."""

    group: str
    asks: str
    subject: tuple[Part, ...]
    verb: tuple[str, str] | None
    rest: tuple[Part, ...]
    roles: dict[str, str]  # slot -> role
    mark: str  # the text in <>

    @property
    def slots(self) -> list[str]:
        return [part[0] for part in (*self.subject, *self.rest) if isinstance(part, tuple)]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A row of FIXED."""

    category: str
    slot: str
    direct: str
    indirect: str
    answer: str
    given: frozenset[str]  # the slots that the question names


TOKEN = re.compile(r"\{(\w)(?:\.(\w+))?\}")


def _parts(text: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    end = 0
    for match in TOKEN.finditer(text):
        parts.append(text[end : match.start()].strip())
        parts.append((match[1], match[2] or ""))
        end = match.end()
    parts.append(text[end:].strip())
    return tuple(part for part in parts if part)


def _parse_frame(line: str) -> Frame:
    group, asks, text = (part.strip() for part in line.split("|"))
    mark = re.search("<(.*)>", text)
    text = re.sub("[<>]", "", text)
    verb = required(re.search(r"\{x\}|(\w+)/(\w+)", text), f"the verb of {text!r}")
    forms = (verb[1].replace("_", " "), verb[2].replace("_", " ")) if verb[1] else None
    subject, complement = _parts(text[: verb.start()]), _parts(text[verb.end() :])
    roles = {slot: _ROLES[slot] for slot, _ in (p for p in (*subject, *complement) if isinstance(p, tuple))}
    if "n" in roles:
        roles["g"] = "thing"  # the counted goods have the role of the count
    if group == "find" and "t" not in roles:
        roles["b"] = "thing"  # the person found
    if text.startswith("{a} sent"):
        roles["c"] = "other"
    if text.startswith("{b} gave"):
        roles |= {"a": "other", "b": "doer"}
    return Frame(group, asks, subject, forms, complement, roles, mark[1] if mark else "")


@functools.cache
def frames() -> dict[str, tuple[Frame, ...]]:
    """Frames by telling."""
    table: dict[str, list[Frame]] = {}
    tellings: list[str] = []
    for line in FRAMES.strip().splitlines():
        if line.endswith(":"):
            tellings = line[:-1].split()
            continue
        frame = _parse_frame(line)
        for telling in tellings:
            table.setdefault(telling, []).append(frame)
    return {telling: tuple(rows) for telling, rows in table.items()}


@functools.cache
def fixed() -> dict[str, tuple[Fixed, ...]]:
    """Fixed questions by telling."""
    table: dict[str, list[Fixed]] = {}
    for line in FIXED.strip().splitlines():
        tellings, columns = line.split(": ", 1)
        category, slot, direct, indirect, answer = (part.strip() for part in columns.split("|"))
        row = Fixed(category, slot, direct, indirect, answer, frozenset(m[1] for m in TOKEN.finditer(direct)))
        for telling in tellings.split():
            table.setdefault(telling, []).append(row)
    return {telling: tuple(rows) for telling, rows in table.items()}

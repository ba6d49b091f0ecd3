"""Plots about people: a visit, a quarrel, hide-and-seek, a contest, a sick friend, a lesson.

Each function generates the events of one story on a Scene; phrases_people.py has the phrases.
"""

from __future__ import annotations

from understudy.hamlet.scene import Scene

# Goods of a contest: goods, place, and past tense of the verb.
_HUNTS = (
    ("fish", "river", "caught"),
    ("shell", "river", "found"),
    ("mushroom", "wood", "found"),
    ("nut", "wood", "found"),
    ("flower", "meadow", "picked"),
    ("apple", "orchard", "picked"),
    ("plum", "orchard", "picked"),
    ("feather", "pond", "found"),
    ("frog", "pond", "counted"),
    ("stone", "hill", "found"),
)

# Skills that a villager teaches: trade, skill, place.
_SKILLS = (
    ("ferryman", "row the boat", "ferry"),
    ("fisherman", "tie a good knot", "river"),
    ("shepherd", "whistle with two fingers", "meadow"),
    ("teacher", "write a long word", "school"),
    ("bellman", "ring the big bell", "tower"),
    ("smith", "bend a piece of iron", "smithy"),
    ("potter", "make a round bowl", "pottery"),
    ("baker", "roll the dough", "bakery"),
    ("weaver", "weave a straight line", "smithy"),
    ("beekeeper", "hold a bee without fear", "orchard"),
    ("farmer", "milk a cow", "farm"),
    ("carpenter", "cut a straight board", "workshop"),
)


def visit(s: Scene) -> None:
    """A visitor comes to Hamlet, is shown around, and leaves something behind."""
    hero = s.child()
    visitor = s.visitor()
    meeting = s.place()
    goal = s.place(meeting)
    s.start(hero)
    s.do("go", "visit_come", visitor, place=meeting)
    s.set_up(hero, meeting)
    s.do("talk", "visit_ask_way", visitor, hero, place=goal)
    s.do("talk", "visit_offer", hero, visitor)
    s.do("go", "go_both", hero, visitor, place=goal)
    s.sight(goal, 0.5)
    s.do("mood", f"visit_{visitor.trade}", visitor, hero)
    s.maybe(0.6, "mood", "visit_wonder", hero, visitor)
    if s.draw.chance(0.5):
        guest = s.elder_of(hero)
        treat, n = s.treat(), s.draw.between(2, 9)
        s.set_up(guest, goal, goods=treat, count=n)
        s.do("hand", "visit_feed", guest, visitor, goods=treat, count=n)
    if s.draw.chance(0.7):
        gift = s.thing()
        s.do("have", "visit_pack", visitor, thing=gift)
        s.do("give", "visit_gift", visitor, hero, thing=gift)
        s.do("talk", "thank", hero, visitor)
    s.do("leave", "visit_leave", visitor, count=s.draw.between(2, 7))
    s.do("mood", "visit_wave", hero, visitor)
    s.close(hero, "close_hope")


def quarrel(s: Scene) -> None:
    """Two children quarrel about a thing and make peace."""
    hero = s.child()
    other = s.playmate(hero)
    thing, place = s.thing(), s.place()
    away = s.place(place)
    s.start(hero)
    s.do("go", "go_both", hero, other, place=place)
    s.state.lying[thing.noun] = place.name
    s.do("find", "quarrel_find", hero, other, thing=thing, place=place)
    s.do("talk", "quarrel_want", other, hero, thing=thing)
    s.do("talk", "quarrel_no", hero, other, thing=thing)
    s.maybe(0.6, "mood", "quarrel_angry", hero, other)
    s.do("go", "quarrel_off", other, place=away)
    if s.draw.chance(0.65):
        wise = s.elder_of(other) if other.resident else s.adult()
        s.do("go", "quarrel_wise", wise, other, place=away)
        s.do("talk", "quarrel_advice", wise, other)
    s.do("mood", "quarrel_alone", hero, other, thing=thing)
    s.do("go", "quarrel_seek", hero, other, place=away)
    s.do("talk", "quarrel_sorry", hero, other)
    s.do("talk", "quarrel_forgive", other, hero)
    if s.draw.chance(0.6):
        s.do("give", "quarrel_give", hero, other, thing=thing)
        s.maybe(0.5, "talk", "quarrel_turns", other, hero, thing=thing)
    else:
        s.do("use", "quarrel_share", hero, other, thing=thing)
    s.close(hero, "close_friends")


def hide_and_seek(s: Scene) -> None:
    """Two children hide; a third one finds both."""
    hero = s.child()
    first = s.playmate(hero)
    second = s.child()
    place = s.place()
    wrong, here, there = s.draw.some([p for p in s.world.places.values() if p is not place], 3)
    s.start(hero)
    s.do("go", "hide_gather", hero, first, second, place=place)
    s.set_up(second, place)
    s.do("talk", "hide_count", hero, count=s.draw.pick((10, 20, 30, 40, 50)))
    hiders = [(first, here), (second, there)]
    for who, where in hiders:
        s.do("hide", "hide_at", who, place=where)
    s.maybe(0.6, "look", "hide_look", hero, place=wrong)
    if s.draw.chance(0.5):
        hiders.reverse()
    (one, one_at), (two, two_at) = hiders
    s.do("find", "hide_first", hero, one, place=one_at)
    if s.draw.chance(0.5):
        animal = s.animal()
        s.do("mood", "hide_animal", animal, two)
    s.do("find", "hide_second", hero, two, place=two_at)
    s.do("win", "hide_win", two, hero)
    s.maybe(0.5, "talk", "hide_again", one, two)
    s.close(hero, "close_friends")


def contest(s: Scene) -> None:
    """Two children compete for more of some goods; the story gives the difference."""
    hero = s.child()
    other = s.playmate(hero)
    goods, place, verb = s.harvest(_HUNTS)
    n, m = s.draw.between(3, 20), s.draw.between(2, 19)
    while n == m or abs(n - m) > 9:
        n, m = s.draw.between(3, 20), s.draw.between(2, 19)
    s.start(hero)
    s.do("talk", "contest_dare", other, hero, goods=goods)
    s.do("go", "go_both", hero, other, place=place)
    s.sight(place)
    s.do("gain", "contest_gain", hero, goods=goods, count=n, detail=verb)
    s.do("gain", "contest_gain_too", other, goods=goods, count=m, detail=verb)
    winner, loser = (hero, other) if n > m else (other, hero)
    s.do("win", "contest_win", winner, loser)
    s.do(
        "tally",
        "contest_more",
        winner,
        loser,
        goods=goods,
        count=max(n, m),
        second_count=min(n, m),
        total=abs(n - m),
    )
    if s.draw.chance(0.6):
        judge = s.adult()
        prize = s.thing()
        s.set_up(judge, place, thing=prize)
        s.do("give", "contest_prize", judge, winner, thing=prize)
    s.do("talk", "contest_fair", loser, winner)
    s.maybe(0.5, "talk", "contest_next", winner, loser)
    s.close(hero, "close_friends")


def sick(s: Scene) -> None:
    """Friends bring food to someone ill; the story gives the total."""
    ill = s.child()
    first, second = s.playmate(ill), s.elder_of(ill)
    home = s.home_of(ill)
    goods = s.food("apple", "pear", "plum", "cherry", "egg", "bun", "strawberry", "pancake", "carrot", "nut")
    n, m = s.draw.between(2, 12), s.draw.between(2, 12)
    doctor = s.world.people["Helen"]
    s.start(ill)
    s.do("mood", "sick_ill", ill)
    s.set_up(ill, home)
    if "Helen" not in s.cast:
        s.cast.append("Helen")
        s.do("go", "sick_doctor", doctor, ill, place=home)
        s.do("talk", "sick_rest", doctor, ill)
    for friend, count, telling in ((first, n, "sick_brings"), (second, m, "sick_brings_too")):
        s.set_up(friend, home, goods=goods, count=count)
        s.do("hand", telling, friend, ill, goods=goods, count=count)
        s.maybe(0.4, "talk", "sick_wish", friend, ill)
    s.do("tally", "sick_total", ill, goods=goods, count=n, second_count=m, total=n + m)
    eaten = s.draw.between(1, 3)
    s.do("eat", "sick_eats", ill, goods=goods, count=eaten)
    s.do("talk", "thank", ill, second)
    s.do("mood", "sick_well", ill, count=s.draw.between(2, 6))
    s.close(ill)


def lesson(s: Scene) -> None:
    """A villager teaches a child a skill in several attempts."""
    hero = s.child()
    trade, skill, where = s.draw.pick(_SKILLS)
    teacher = s.with_trade(trade)
    place = s.world.places[where]
    tries = s.draw.between(2, 9)
    if trade == "beekeeper":
        s.season_of("bee")
    s.start(hero)
    s.set_up(teacher, place)
    s.do("find", "arrive_to", hero, teacher, place=place)
    s.sight(place)
    s.do("talk", "lesson_ask", hero, teacher, detail=skill)
    s.do("talk", "lesson_show", teacher, hero)
    s.do("mood", "lesson_fail", hero, teacher)
    s.maybe(0.6, "mood", "lesson_laugh", s.animal() if s.draw.chance(0.5) else s.playmate(hero), hero)
    s.do("talk", "lesson_again", teacher, hero)
    s.do("mood", "lesson_tries", hero, count=tries, detail=skill)
    s.do("talk", "lesson_praise", teacher, hero)
    s.maybe(0.5, "talk", "thank", hero, teacher)
    if s.draw.chance(0.4):
        elder = s.elder_of(hero)
        s.do("go", "go_home", hero, place=s.home_of(hero))
        s.do("talk", "lesson_tell", hero, elder, detail=skill)
    s.close(hero, "close_proud")

"""Plots about things: an errand, something left behind, lost, found, swapped, broken.

Each function generates the events of one story on a Scene; phrases_things.py has the phrases.
"""

from __future__ import annotations

import itertools

from understudy.hamlet.events import Item
from understudy.hamlet.scene import Scene
from understudy.hamlet.world import Person, Place

# Things that each craftsman can mend.
_MENDERS = {
    "smith": ("lantern", "kettle", "bell", "spade", "key", "saw", "bucket", "whistle"),
    "carpenter": ("drum", "flute", "broom", "box", "fiddle", "spoon"),
    "tailor": ("hat", "scarf", "coat", "umbrella", "blanket", "cap", "kite", "net"),
    "cobbler": ("purse", "ball"),
    "potter": ("jug", "pot"),
}


def delay(s: Scene, hero: Person, place: Place, thing: Item | None) -> None:
    """A short delay of `hero` at `place`."""
    kind = s.draw.between(1, 4)
    if kind == 2 and thing is not None:
        s.do("use", "delay_heavy", hero, thing=thing)
    elif kind == 3:
        animal = s.animal()
        s.do("go", "delay_animal", animal, hero, place=place)
        s.do("mood", "delay_animal_after", hero, animal)
    elif kind == 4:
        friend = s.playmate(hero)
        s.do("go", "delay_friend", friend, hero, place=place)
        s.do("talk", "delay_no_time", hero, friend)
    else:
        s.do("mood", "delay_path", hero)


def thanks(s: Scene, giver: Person, hero: Person, chance: float) -> None:
    """`giver` thanks `hero`, sometimes with food."""
    s.do("talk", "thank", giver, hero)
    if s.draw.chance(chance):
        treat, n = s.treat(), s.draw.between(2, 6)
        s.set_up(giver, goods=treat, count=n)
        s.do("hand", "reward", giver, hero, goods=treat, count=n)


def errand(s: Scene) -> None:
    """A person sends a child to bring a thing to another person."""
    hero = s.child()
    asker = s.elder_of(hero)
    receiver = s.adult()
    place, thing = s.work_of(receiver), s.thing()
    way = s.place(place, s.home_of(hero))
    s.start(hero)
    s.set_up(asker, thing=thing)
    s.do("talk", "errand_ask", asker, hero, receiver, thing=thing, place=place)
    s.maybe(0.6, "talk", "agree", hero, asker)
    s.do("give", "errand_hand", asker, hero, thing=thing)
    s.do("go", "go_past", hero, place=way)
    s.sight(way, 0.2)
    if s.draw.chance(0.65):
        delay(s, hero, way, thing)
    s.set_up(receiver, place)
    s.do("go", "arrive", hero, place=place)
    s.sight(place)
    s.do("give", "errand_deliver", hero, receiver, thing=thing)
    thanks(s, receiver, hero, 0.45)
    s.do("go", "go_home", hero, place=s.home_of(hero))
    s.maybe(0.5, "talk", "errand_report", hero, asker, receiver)
    s.close(hero, "close_proud")


def fetch(s: Scene) -> None:
    """A child fetches a thing that was left at a place."""
    hero = s.child()
    owner = s.elder_of(hero)
    thing, home = s.thing(), s.work_of(owner)
    place = s.place(home)
    s.start(hero)
    s.set_up(owner, thing=thing)
    s.do("lose", "fetch_left", owner, thing=thing, place=place)
    s.do("talk", "fetch_ask", owner, hero, thing=thing)
    s.maybe(0.6, "talk", "agree", hero, owner)
    if s.draw.chance(0.5):
        way = s.place(place, home)
        s.do("go", "go_past", hero, place=way)
        if s.draw.chance(0.6):
            delay(s, hero, way, None)
    s.do("go", "arrive", hero, place=place)
    s.sight(place)
    s.maybe(0.6, "mood", "fetch_where", hero, thing=thing)
    s.do("take", "find_spot", hero, thing=thing, place=place)
    s.set_up(owner, home)
    s.do("go", "bring_back", hero, owner, thing=thing, place=home)
    s.do("give", "hand_back", hero, owner, thing=thing)
    thanks(s, owner, hero, 0.4)
    s.close(hero, "close_proud")


def lost(s: Scene) -> None:
    """A person loses a thing; the owner, a friend or an animal finds it."""
    hero = s.anyone()
    thing, place = s.thing(), s.place()
    noticed = s.place(place)
    searched = s.place(place, noticed)
    s.start(hero, lambda: s.do("have", "lost_treasure", hero, thing=thing))
    s.do("go", "lost_go", hero, thing=thing, place=place)
    s.sight(place, 0.2)
    s.do("lose", s.draw.pick(("lost_drop", "")), hero, thing=thing, place=place)
    s.do("go", "lost_notice", hero, thing=thing, place=noticed)
    s.maybe(0.5, "mood", "sad", hero)
    s.do("look", "lost_search", hero, thing=thing, place=searched)
    ending = s.draw.between(1, 3)
    if ending == 1:
        helper = s.neighbour()
        s.do("go", "lost_meet", hero, helper, place=searched)
        s.do("talk", "lost_ask", hero, helper, thing=thing)
        s.do("talk", "lost_hint", helper, hero, thing=thing, place=place)
        s.do("go", "arrive", hero, place=place)
        s.do("find", "find_spot", hero, thing=thing, place=place)
        s.maybe(0.6, "talk", "lost_thank_helper", hero, helper)
    elif ending == 2:
        animal = s.animal()
        s.set_up(animal, place)
        s.do("find", "lost_animal", animal, thing=thing, place=place)
        s.do("go", "lost_animal_brings", animal, hero, thing=thing, place=searched)
        s.do("give", "lost_animal_gives", animal, hero, thing=thing)
        s.do("mood", "lost_praise", hero, animal)
    else:
        finder = s.playmate(hero) if hero.is_child else s.neighbour()
        s.set_up(finder, place)
        s.do("find", "lost_found_by", finder, thing=thing, place=place)
        s.do("go", "lost_finder_comes", finder, hero, thing=thing, place=searched)
        s.do("talk", "lost_yours", finder, hero, thing=thing)
        s.do("give", "hand_back", finder, hero, thing=thing)
        s.do("talk", "thank", hero, finder)
    s.close(hero, "close_careful")


def found(s: Scene) -> None:
    """A person finds a thing and looks for its owner."""
    hero = s.child()
    thing, place = s.thing(), s.place()
    owner = s.neighbour()
    other = s.adult()
    s.start(hero)
    s.set_up(owner, thing=thing)
    s.do("lose", "", owner, thing=thing, place=place)
    s.do("go", "go_play", hero, place=place)
    s.sight(place)
    s.do("find", "found_it", hero, thing=thing, place=place)
    s.do("mood", "found_whose", hero, thing=thing)
    first = s.work_of(other)
    s.set_up(other, first)
    s.do("go", "arrive_to", hero, other, place=first)
    s.do("talk", "found_ask", hero, other, thing=thing)
    s.do("talk", "found_not_mine", other, hero, owner, thing=thing)
    where = s.work_of(owner) if owner.resident else s.place(first, place)
    s.set_up(owner, where)
    s.do("find", "arrive_to", hero, owner, place=where)
    s.do("talk", "found_ask", hero, owner, thing=thing)
    s.do("talk", "found_mine", owner, hero, thing=thing, place=place)
    s.do("give", "hand_back", hero, owner, thing=thing)
    thanks(s, owner, hero, 0.5)
    s.close(hero, "close_honest", "close_proud")


def swaps(s: Scene) -> None:
    """A chain of swaps ends with the thing that a person needs."""
    hero = s.child()
    needer = s.elder_of(hero)
    first, second, third = s.thing(), s.thing(), s.thing()
    s.start(hero, lambda: s.do("have", "swap_have", hero, thing=first))
    s.do("talk", "swap_need", needer, hero, thing=third)
    chain = [first, second, third] if s.draw.chance(0.6) else [first, third]
    for have, get in itertools.pairwise(chain):
        partner = s.neighbour()
        place = s.place(s.home_of(hero))
        s.set_up(partner, place, thing=get)
        s.do("find", "swap_meet", hero, partner, place=place)
        s.do("talk", "swap_offer", partner, hero, thing=have, second_thing=get)
        s.do("swap", "swap_done", hero, partner, thing=have, second_thing=get)
    related = (hero.name, needer.name) in s.world.relations
    s.do("go", "bring_back", hero, needer, thing=third, place=s.home_of(hero) if related else s.work_of(needer))
    s.do("give", "swap_give", hero, needer, thing=third)
    thanks(s, needer, hero, 0.3)
    s.close(hero, "close_proud")


def repair(s: Scene) -> None:
    """A thing breaks; a craftsman mends it for a return."""
    hero = s.child()
    mender = s.with_trade(*_MENDERS)
    thing = s.thing(*_MENDERS[mender.trade or ""])
    work = s.work_of(mender)
    place = s.place(work)
    s.start(hero, lambda: s.do("have", "lost_treasure", hero, thing=thing))
    s.do("go", "lost_go", hero, thing=thing, place=place)
    soft = mender.trade in ("tailor", "cobbler")
    s.do("break", "repair_tear" if soft else "repair_break", hero, thing=thing, place=place)
    s.do("mood", "sad", hero)
    if s.draw.chance(0.5):
        friend = s.playmate(hero)
        s.do("talk", "repair_advice", friend, hero, mender, thing=thing)
    s.set_up(mender, work)
    s.do("go", "arrive_to", hero, mender, place=work)
    s.sight(work)
    s.do("give", "repair_give", hero, mender, thing=thing)
    s.do("talk", "repair_can", mender, hero, thing=thing)
    trade = s.world.trades[mender.trade or ""]
    goods, n = s.world.goods[trade.makes], s.draw.between(3, 12)
    s.do("gain", "repair_help", hero, mender, goods=goods, count=n, detail=trade.task_did)
    s.do("mend", "repair_mend", mender, thing=thing)
    s.do("give", "hand_back", mender, hero, thing=thing)
    s.do("use", "repair_whole", hero, thing=thing)
    s.do("talk", "thank", hero, mender)
    s.close(hero, "close_careful", "close_proud")

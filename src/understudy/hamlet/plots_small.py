"""Small plots: stories of two to five sentences for questions, separate from the corpus of stories.

Each function generates the events of one story on a Scene. It uses the phrases of the longer plots, so the same
questions apply. The events of a small plot are complete: they contain all facts that the story needs.
"""

from __future__ import annotations

from collections.abc import Callable

from understudy.hamlet.scene import Scene
from understudy.hamlet.world import Person

# Harvests: goods, place, and past tense of the verb.
_HARVESTS = (
    ("apple", "orchard", "picked"), ("plum", "orchard", "picked"), ("cherry", "orchard", "picked"),
    ("pear", "garden", "picked"), ("tomato", "garden", "picked"), ("carrot", "garden", "pulled up"),
    ("mushroom", "wood", "found"), ("nut", "wood", "found"), ("strawberry", "hill", "found"),
    ("stone", "hill", "found"), ("flower", "meadow", "picked"), ("frog", "pond", "counted"),
    ("feather", "pond", "found"), ("fish", "river", "caught"), ("shell", "river", "found"),
)  # fmt: skip
_PRESENTS = ("apple", "pear", "plum", "cherry", "egg", "bun", "strawberry", "pancake", "carrot", "nut")
_CARRIERS = {
    "postman": ("letter",), "baker": ("loaf", "bun", "pie"), "cheesemaker": ("cheese",), "farmer": ("egg",),
    "fisherman": ("fish",), "gardener": ("pear", "tomato"), "potter": ("cup", "plate"), "tailor": ("button", "ribbon"),
}  # fmt: skip
_MENDERS = {
    "smith": ("lantern", "kettle", "bell", "spade", "key", "saw", "bucket", "whistle"),
    "carpenter": ("drum", "flute", "broom", "box", "fiddle", "spoon"),
    "potter": ("jug", "pot"),
}


def _begin(s: Scene, hero: Person, opened: float = 0.5, phrase: float = 0.8) -> None:
    """Begin with a lasting fact, the day or the weather, or none of these.

    `phrase` is the probability of an opening phrase ("One windy day,") instead of an opening sentence. It is 0 if the
    next sentence begins with a place.
    """
    if s.draw.chance(0.2):
        s.lasting(hero)
    if s.draw.chance(opened):
        s.do("mood", "open_phrase" if s.draw.chance(phrase) else "open_sentence")


def finds(s: Scene) -> None:
    """A person finds a thing; sometimes another person finds another thing elsewhere."""
    hero, place, thing = s.anyone(), s.place(), s.thing()
    _begin(s, hero)
    s.state.lying[thing.noun] = place.name
    s.do("go", s.draw.pick(("go_play", "arrive")), hero, place=place)
    s.do("find", "found_it", hero, thing=thing, place=place)
    if s.draw.chance(0.6):
        other, elsewhere, second = s.neighbour(), s.place(place), s.thing()
        s.state.lying[second.noun] = elsewhere.name
        s.do("go", "arrive", other, place=elsewhere)
        s.do("find", "found_it", other, thing=second, place=elsewhere)
    else:
        s.do("mood", "found_whose", hero, thing=thing)


def loses(s: Scene) -> None:
    """A person loses a thing; another one finds and returns it."""
    hero, thing, place = s.anyone(), s.thing(), s.place()
    finder = s.playmate(hero) if hero.is_child else s.neighbour()
    _begin(s, hero)
    s.set_up(hero, thing=thing)
    s.do("go", s.draw.pick(("go_play", "arrive")), hero, place=place)
    s.do("lose", "lost_drop", hero, thing=thing, place=place)
    s.set_up(finder, place)
    s.do("find", "find_spot", finder, thing=thing, place=place)
    s.do("give", "hand_back", finder, hero, thing=thing)


def leaves(s: Scene) -> None:
    """A child fetches a thing that was left at a place."""
    hero = s.child()
    owner, thing, place = s.elder_of(hero), s.thing(), s.place()
    _begin(s, hero, 0.3)
    s.set_up(owner, thing=thing)
    s.do("lose", "fetch_left", owner, thing=thing, place=place)
    s.maybe(0.5, "talk", "fetch_ask", owner, hero, thing=thing)
    s.do("go", "arrive", hero, place=place)
    s.do("take", "find_spot", hero, thing=thing, place=place)
    s.do("give", "hand_back", hero, owner, thing=thing)


def gifts(s: Scene) -> None:
    """A thing is given to one person after another."""
    hero = s.anyone()
    other, third, thing = s.neighbour(), s.child(), s.thing()
    if s.draw.chance(0.5):
        _begin(s, hero)
        s.set_up(hero, thing=thing)
        s.do("go", "go_both", hero, other, place=s.place())
    else:
        _begin(s, hero, phrase=0)  # "In her bag Kate had a book"
        s.do("have", "visit_pack", hero, thing=thing)
    s.do("give", "errand_deliver", hero, other, thing=thing)
    if s.draw.chance(0.6):
        s.do("give", "quarrel_give", other, third, thing=thing)
    else:
        s.do("talk", "thank", other, hero)


def errand(s: Scene) -> None:
    """A child brings a thing to someone."""
    hero = s.child()
    asker, receiver = s.elder_of(hero), s.adult()
    place, thing = s.work_of(receiver), s.thing()
    _begin(s, hero, 0.2)
    s.set_up(asker, thing=thing)
    s.do("talk", "errand_ask", asker, hero, receiver, thing=thing, place=place)
    s.do("give", "errand_hand", asker, hero, thing=thing)
    s.do("give", "errand_deliver", hero, receiver, thing=thing)


def swap(s: Scene) -> None:
    """Two persons exchange things."""
    hero = s.anyone()
    partner, place = s.neighbour(), s.place()
    thing, second = s.thing(), s.thing()
    s.do("have", "swap_have", hero, thing=thing)
    s.set_up(partner, place, thing=second)
    if s.draw.chance(0.3):
        s.do("mood", "open_phrase")
    s.do("find", "swap_meet", hero, partner, place=place)
    s.do("talk", "swap_offer", partner, hero, thing=thing, second_thing=second)
    s.do("swap", "swap_done", hero, partner, thing=thing, second_thing=second)


def breaks(s: Scene) -> None:
    """A thing breaks; a craftsman gets it for repair."""
    hero = s.child()
    mender = s.with_trade(*_MENDERS)
    thing, place = s.thing(*_MENDERS[mender.trade or ""]), s.place()
    _begin(s, hero)
    s.set_up(hero, thing=thing)
    s.do("go", "wind_go", hero, thing=thing, place=place)
    s.do("break", "repair_break", hero, thing=thing, place=place)
    s.do("give", "repair_give", hero, mender, thing=thing)
    s.maybe(0.4, "talk", "repair_can", mender, hero, thing=thing)


def share(s: Scene) -> None:
    """A person picks goods, gives some away, and counts the remainder."""
    hero = s.child()
    friend = s.playmate(hero)
    goods, place, verb = s.harvest(_HARVESTS)
    n = s.draw.between(3, 20)
    m = s.draw.between(1, n - 1)
    _begin(s, hero)
    s.do("go", "arrive", hero, place=place)
    s.do("gain", "share_gain", hero, goods=goods, count=n, place=place, detail=verb)
    s.do("hand", "share_give", hero, friend, goods=goods, count=m)
    if s.draw.chance(0.7):
        s.do("tally", "share_left", hero, goods=goods, count=n, second_count=m, total=n - m)


def contest(s: Scene) -> None:
    """Two persons collect the same goods; one has more."""
    hero = s.child()
    other = s.playmate(hero)
    goods, place, verb = s.harvest(_HARVESTS)
    n = s.draw.between(2, 20)
    m = s.draw.pick([k for k in range(2, 21) if 0 < abs(n - k) < 10])
    _begin(s, hero, 0.4)
    s.do("go", "go_both", hero, other, place=place)
    s.do("gain", "contest_gain", hero, goods=goods, count=n, detail=verb)
    s.do("gain", "contest_gain_too", other, goods=goods, count=m, detail=verb)
    winner, loser = (hero, other) if n > m else (other, hero)
    high, low = max(n, m), min(n, m)
    if s.draw.chance(0.7):
        s.do("tally", "contest_more", winner, loser, goods=goods, count=high, second_count=low, total=high - low)


def buys(s: Scene) -> None:
    """A person pays coins for goods; sometimes the remaining coins are counted."""
    hero = s.anyone()
    seller = s.stranger_with_trade(hero, *(t.name for t in s.world.trades.values() if t.sells))
    place, goods = s.work_of(seller), s.goods(*s.world.trades[seller.trade or ""].sells)
    s.season_of(goods.one)
    coin = s.world.goods["coin"]
    price, wanted = s.draw.between(2, 14), s.draw.between(2, 9)
    purse = price + s.draw.between(1, 14)
    counted = s.draw.chance(0.5)
    s.set_up(seller, place, goods=goods, count=wanted)
    if counted:
        s.do("have", "trade_purse", hero, goods=coin, count=purse)
    else:
        _begin(s, hero)
        s.set_up(hero, goods=coin, count=price)
    s.do("find", "arrive_to", hero, seller, place=place)
    s.do("hand", "trade_hand", seller, hero, goods=goods, count=wanted)
    s.do("pay", "trade_pay", hero, seller, count=price)
    if counted:
        s.do("tally", "trade_left", hero, goods=coin, count=purse, second_count=price, total=purse - price)


def works(s: Scene) -> None:
    """The amounts of work before and after noon are added."""
    hero, master = s.child(), s.adult()
    trade = s.world.trades[master.trade or ""]
    place, goods = s.world.places[trade.place], s.world.goods[trade.makes]
    n, m = s.draw.between(2, 15), s.draw.between(2, 15)
    s.season_of(goods.one)
    s.setting.part = "morning"
    _begin(s, hero, 0.2)
    s.set_up(master, place)
    s.do("find", "arrive_to", hero, master, place=place)
    s.do("gain", "work_first", hero, goods=goods, count=n, detail=trade.task_did)
    s.do("mood", "work_rest", hero, master, second_goods=s.treat())
    s.do("gain", "work_second", hero, goods=goods, count=m, detail=trade.task_did)
    if s.draw.chance(0.6):
        s.do("tally", "work_total", hero, goods=goods, count=n, second_count=m, total=n + m)


def ill(s: Scene) -> None:
    """Friends bring goods to someone ill; the amounts are added."""
    hero = s.child()
    first, second = s.playmate(hero), s.adult()
    goods = s.food(*_PRESENTS)
    n, m = s.draw.between(2, 12), s.draw.between(2, 12)
    s.do("mood", "sick_ill", hero)
    for friend, count, telling in ((first, n, "sick_brings"), (second, m, "sick_brings_too")):
        s.set_up(friend, goods=goods, count=count)
        s.do("hand", telling, friend, hero, goods=goods, count=count)
    s.do("tally", "sick_total", hero, goods=goods, count=n, second_count=m, total=n + m)


def carries(s: Scene) -> None:
    """A person delivers goods and counts the remainder."""
    hero = s.with_trade(*_CARRIERS)
    goods = s.goods(*_CARRIERS[hero.trade or ""])
    s.season_of(goods.one)
    first, second = s.adult(), s.child()
    n, m = s.draw.between(2, 9), s.draw.between(2, 9)
    start = n + m + s.draw.between(1, 5)
    _begin(s, hero, 0.4)
    s.do("have", "rounds_have", hero, goods=goods, count=start)
    s.do("hand", "rounds_give", hero, first, goods=goods, count=n)
    if s.draw.chance(0.5):
        s.do("tally", "rounds_left", hero, goods=goods, count=start, second_count=n, total=start - n)
    else:
        s.do("hand", "rounds_give", hero, second, goods=goods, count=m)


def hides(s: Scene) -> None:
    """Two children hide; a third one finds them."""
    hero = s.child()
    first, second = s.playmate(hero), s.child()
    here, there = s.draw.some(s.world.everywhere, 2)
    if s.draw.chance(0.6):
        s.do("talk", "hide_count", hero, count=s.draw.pick((10, 20, 30, 40, 50)))
    else:
        _begin(s, first)
    s.do("hide", "hide_at", first, place=here)
    s.do("hide", "hide_at", second, place=there)
    found, place = s.draw.pick(((first, here), (second, there)))
    s.do("find", "hide_first", hero, found, place=place)


def guest(s: Scene) -> None:
    """A visitor comes and asks the way, or leaves a present."""
    hero, visitor = s.child(), s.visitor()
    place = s.place()
    _begin(s, hero, 0.4)
    s.do("go", "visit_come", visitor, place=place)
    if s.draw.chance(0.5):
        goal = s.place(place)
        s.do("talk", "visit_ask_way", visitor, hero, place=goal)
        s.do("go", "go_both", hero, visitor, place=goal)
    else:
        gift = s.thing()
        s.do("have", "visit_pack", visitor, thing=gift)
        s.do("give", "visit_gift", visitor, hero, thing=gift)
    s.maybe(0.4, "leave", "visit_leave", visitor, count=s.draw.between(2, 7))


def walks(s: Scene) -> None:
    """A person meets two others and gets food."""
    hero = s.anyone()
    first, second = s.neighbour(), s.child()
    here, there = s.draw.some(s.world.everywhere, 2)
    _begin(s, hero)
    s.set_up(first, here)
    s.set_up(second, there)
    s.do("find", "swap_meet", hero, first, place=here)
    s.do("find", "rounds_next", hero, second, place=there)
    if s.draw.chance(0.7):
        treat, n = s.treat(), s.draw.between(1, 9)
        s.set_up(second, goods=treat, count=n)
        s.do("hand", "trade_share", second, hero, goods=treat, count=n)


def quarrel(s: Scene) -> None:
    """A child finds a thing that another one wants, and gives it away."""
    hero = s.child()
    other, thing, place = s.playmate(hero), s.thing(), s.place()
    _begin(s, hero, 0.4)
    s.state.lying[thing.noun] = place.name
    s.do("go", "go_both", hero, other, place=place)
    s.do("find", "quarrel_find", hero, other, thing=thing, place=place)
    s.do("talk", "quarrel_want", other, hero, thing=thing)
    s.do("give", "quarrel_give", hero, other, thing=thing)


def strays(s: Scene) -> None:
    """An animal runs off; its owner or another person finds it."""
    animal = s.animal()
    owner = s.world.people[animal.owner]
    s.cast.append(owner.name)
    place = s.place(s.home_of(owner))
    s.owns(owner, animal)
    if s.draw.chance(0.4):
        s.do("mood", "open_phrase")
    s.do("mood", "run_gone", owner, animal)
    s.do("go", "", animal, place=place)
    if s.draw.chance(0.5):
        s.do("look", "run_search", owner, animal, place=s.place(place))
        s.do("find", "run_find", owner, animal, place=place)
    else:
        finder = s.neighbour()
        s.do("find", "run_find", finder, animal, place=place)
        s.do("go", "rescue_brings", finder, animal, owner, place=s.home_of(owner))
        if s.draw.chance(0.6):
            treat, n = s.treat(), s.draw.between(2, 9)
            s.set_up(owner, goods=treat, count=n)
            s.do("hand", "reward", owner, finder, goods=treat, count=n)


def blows(s: Scene) -> None:
    """The wind carries a thing away; a person finds it."""
    s.weather("windy", "spring", "autumn")
    hero = s.anyone()
    thing = s.thing("hat", "scarf", "kite", "cap", "umbrella", "map", "letter", "blanket", "picture")
    place = s.place()
    landed = s.place(place)
    _begin(s, hero, 0.4)
    s.set_up(hero, thing=thing)
    s.do("go", "wind_go", hero, thing=thing, place=place)
    s.do("lose", "wind_takes", hero, thing=thing, place=landed)
    s.do("go", "wind_run", hero, thing=thing, place=landed)
    s.do("take", "find_spot", hero, thing=thing, place=landed)


def shelter(s: Scene) -> None:
    """A person shelters from the rain and borrows a thing."""
    s.weather("grey", "spring", "summer", "autumn")
    hero, helper = s.anyone(), s.adult()
    place = s.place()
    loan = s.thing("umbrella", "coat", "blanket", "hat")
    _begin(s, hero, 0.4)
    s.do("mood", "rain_clouds", hero)
    s.do("mood", "rain_wet", hero)
    s.do("go", "rain_shelter", hero, place=place)
    s.set_up(helper, place, thing=loan)
    s.do("give", "rain_lend", helper, hero, thing=loan)
    s.maybe(0.4, "talk", "thank", hero, helper)


SMALL_PLOTS: dict[str, Callable[[Scene], None]] = {
    "small_finds": finds,
    "small_loses": loses,
    "small_leaves": leaves,
    "small_gifts": gifts,
    "small_errand": errand,
    "small_swap": swap,
    "small_breaks": breaks,
    "small_share": share,
    "small_contest": contest,
    "small_buys": buys,
    "small_works": works,
    "small_ill": ill,
    "small_carries": carries,
    "small_hides": hides,
    "small_guest": guest,
    "small_walks": walks,
    "small_quarrel": quarrel,
    "small_strays": strays,
    "small_blows": blows,
    "small_shelter": shelter,
}

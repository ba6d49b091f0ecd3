"""Plots about work and numbers: helping, buying, a feast, deliveries, a picnic shared out.

Each function generates the events of one story on a Scene; phrases_work.py has the phrases. Every sum is a
separate event (`tally`), so the state can check it and questions can refer to it.
"""

from __future__ import annotations

from understudy.hamlet.scene import Scene

# Goods that each trade delivers.
_ROUNDS = {
    "postman": ("letter",),
    "baker": ("loaf", "bun", "pie"),
    "cheesemaker": ("cheese",),
    "farmer": ("egg",),
    "fisherman": ("fish",),
    "beekeeper": ("jar",),
    "gardener": ("pear", "tomato"),
    "potter": ("cup", "plate"),
    "tailor": ("button", "ribbon"),
}
_FOODS = (
    "pie",
    "cake",
    "bun",
    "pancake",
    "sausage",
    "apple",
    "pear",
    "egg",
    "cheese",
    "loaf",
    "strawberry",
    "plum",
)


def work(s: Scene) -> None:
    """A child helps a villager; the amounts of work before and after noon are added."""
    hero = s.child()
    master = s.adult()
    trade = s.world.trades[master.trade or ""]
    place, goods = s.world.places[trade.place], s.world.goods[trade.makes]
    n, m = s.draw.between(2, 15), s.draw.between(2, 15)
    s.season_of(goods.one)
    s.setting.part = "morning"
    s.start(hero)
    s.set_up(master, place)
    s.do("find", "arrive_to", hero, master, place=place)
    s.sight(place)
    s.do("talk", "work_much", master, hero, goods=goods, detail=trade.task)
    s.do("talk", "work_yes", hero, master)
    s.do("gain", "work_first", hero, goods=goods, count=n, detail=trade.task_did)
    if s.draw.chance(0.4):
        s.do("mood", "work_tired", hero)
    else:
        treat = s.treat()
        s.do("mood", "work_rest", hero, master, second_goods=treat)
    s.do("gain", "work_second", hero, goods=goods, count=m, detail=trade.task_did)
    s.do("tally", "work_total", hero, goods=goods, count=n, second_count=m, total=n + m)
    s.do("talk", "thank", master, hero)
    if s.draw.chance(0.6):
        wage = s.draw.between(2, 6)
        s.set_up(master, goods=s.world.goods["coin"], count=wage)
        s.do("pay", "work_wage", master, hero, count=wage)
    s.do("go", "go_home", hero, place=s.home_of(hero))
    s.close(hero, "close_proud", "close_tired")


def trade(s: Scene) -> None:
    """A person buys goods, sometimes bargains, and counts the remaining coins."""
    hero = s.anyone()
    if s.draw.chance(0.3):
        seller = s.visitor()
        place = s.world.places[s.draw.pick(("market", "inn", "green", "bridge"))]
        goods = s.goods("ribbon", "button", "candle", "nail", "feather", "cup", "book")
    else:
        seller = s.stranger_with_trade(hero, *(t.name for t in s.world.trades.values() if t.sells))
        place = s.work_of(seller)
        goods = s.goods(*s.world.trades[seller.trade or ""].sells)
    s.season_of(goods.one)
    price = s.draw.between(2, 14)
    purse = price + s.draw.between(1, 14)
    wanted = s.draw.between(2, 9)
    coin = s.world.goods["coin"]
    s.start(hero, lambda: s.do("have", "trade_purse", hero, goods=coin, count=purse))
    s.set_up(seller, place, goods=goods, count=wanted)
    s.do("find", "arrive_to", hero, seller, place=place)
    s.sight(place)
    s.do("talk", "trade_ask", hero, seller, goods=goods, count=wanted)
    if s.draw.chance(0.55):
        s.do("talk", "trade_dear", seller, hero, goods=goods, count=price + s.draw.between(1, 4))
        s.do("talk", "trade_too_much", hero, seller)
        s.do("talk", "trade_agree", seller, hero, count=price)
    else:
        s.do("talk", "trade_price", seller, hero, count=price)
    s.do("pay", "trade_pay", hero, seller, count=price)
    s.do("hand", "trade_hand", seller, hero, goods=goods, count=wanted)
    s.do("tally", "trade_left", hero, goods=coin, count=purse, second_count=price, total=purse - price)
    if s.draw.chance(0.6):
        friend = s.elder_of(hero) if hero.is_child else s.child()
        home = s.home_of(hero)
        s.do("go", "go_home", hero, place=home)
        s.set_up(friend, home)
        part = s.draw.between(1, wanted - 1)
        s.do("hand", "trade_share", hero, friend, goods=goods, count=part)
        s.do("talk", "thank", friend, hero)
    else:
        s.do("talk", "trade_bye", seller, hero)
    s.close(hero, "close_bargain")


def feast(s: Scene) -> None:
    """A feast: the goods that two people bring are added, the eaten ones subtracted."""
    host, first, second = s.anyone(), s.anyone(), s.neighbour()
    outside = ("green", "meadow", "orchard", "garden", "river", "market")
    inside = ("barn", "inn", "mill", "school")
    place = s.world.places[s.draw.pick(inside if s.setting.season == "winter" else outside + inside)]
    food = s.food(*_FOODS)
    n, m = s.draw.between(2, 14), s.draw.between(2, 14)
    eaten = s.draw.between(2, n + m - 1)
    s.start(host)
    s.do("talk", "feast_plan", host, place=place)
    for who in (host, first, second):
        s.set_up(who, place)
    s.maybe(0.6, "mood", "feast_table", host, place=place)
    s.sight(place)
    s.set_up(first, goods=food, count=n)
    s.do("hand", "feast_bring", first, host, goods=food, count=n)
    s.set_up(second, goods=food, count=m)
    s.do("hand", "feast_bring_too", second, host, goods=food, count=m)
    s.do("tally", "feast_total", host, goods=food, count=n, second_count=m, total=n + m)
    s.do("talk", "thank", host, second)
    s.maybe(0.5, "mood", "feast_music", s.visitor() if s.draw.chance(0.5) else s.adult())
    if s.draw.chance(0.5):
        thief = s.animal()
        s.set_up(thief, place, goods=food, count=1)
        s.state.purse[host.name, food.one] -= 1
        s.do("eat", "feast_thief", thief, goods=food, count=1)
        s.do("tally", "feast_thief_left", host, goods=food, count=n + m, second_count=1, total=n + m - 1)
        s.do("mood", "feast_laugh", host, thief)
    else:
        s.do("eat", "feast_eaten", host, goods=food, count=eaten)
        s.do("tally", "feast_left", host, goods=food, count=n + m, second_count=eaten, total=n + m - eaten)
    s.close(host, "close_feast")


def rounds(s: Scene) -> None:
    """A person delivers goods to several places and counts the remaining ones."""
    hero = s.with_trade(*_ROUNDS)
    goods = s.goods(*_ROUNDS[hero.trade or ""])
    s.season_of(goods.one)
    first, second = s.adult(), s.adult()
    n, m = s.draw.between(2, 9), s.draw.between(2, 9)
    rest = s.draw.between(0, 5)
    start = n + m + rest
    s.start(hero)
    s.do("have", "rounds_have", hero, goods=goods, count=start)
    stops = []
    for who in (first, second):
        where = s.work_of(who)
        while where.name in stops:
            where = s.place()
        stops.append(where.name)
        s.set_up(who, where)
    one, two = (s.world.places[name] for name in stops)
    s.do("find", "arrive_to", hero, first, place=one)
    s.sight(one)
    s.do("hand", "rounds_give", hero, first, goods=goods, count=n)
    s.do("talk", "thank", first, hero)
    s.do("tally", "rounds_left", hero, goods=goods, count=start, second_count=n, total=start - n)
    if s.draw.chance(0.4):
        s.do("mood", "rounds_weather", hero)
    s.do("find", "rounds_next", hero, second, place=two)
    s.sight(two)
    s.do("hand", "rounds_give", hero, second, goods=goods, count=m)
    s.maybe(0.5, "talk", "rounds_chat", second, hero)
    end = "rounds_end" if rest else "rounds_empty"
    s.do("tally", end, hero, goods=goods, count=start - n, second_count=m, total=rest)
    if rest > 1:
        s.do("mood", "rounds_keep", hero, goods=goods)
    s.do("go", "go_home", hero, place=s.home_of(hero))
    s.close(hero, "close_tired")


def share_out(s: Scene) -> None:
    """A child shares a basket of goods with a friend."""
    hero = s.child()
    friend = s.playmate(hero)
    name, where, verb = s.draw.pick(
        (("apple", "orchard", "picked"), ("plum", "orchard", "picked"), ("cherry", "orchard", "picked"),
         ("pear", "garden", "picked"), ("mushroom", "wood", "found"), ("nut", "wood", "found"),
         ("strawberry", "hill", "found"), ("flower", "meadow", "picked"), ("fish", "river", "caught"),
         ("shell", "river", "found"), ("tomato", "garden", "picked"), ("carrot", "garden", "pulled up"))
    )  # fmt: skip
    goods, place = s.world.goods[name], s.world.places[where]
    s.season_of(name)
    n = s.draw.between(4, 20)
    m = s.draw.between(1, n - 2)
    s.start(hero)
    s.do("go", "arrive", hero, place=place)
    s.sight(place)
    s.do("gain", "share_gain", hero, goods=goods, count=n, place=place, detail=verb)
    s.maybe(0.6, "mood", "share_basket", hero, thing=s.thing("basket", "bucket", "hat", "cap"))
    s.do("go", "share_meet", friend, hero, place=place)
    s.do("talk", "share_none", friend, hero, goods=goods)
    s.do("talk", "share_offer", hero, friend)
    s.do("hand", "share_give", hero, friend, goods=goods, count=m)
    s.do("tally", "share_left", hero, goods=goods, count=n, second_count=m, total=n - m)
    s.do("talk", "thank", friend, hero)
    s.do("go", "go_home", hero, place=s.home_of(hero))
    s.close(hero, "close_kind")

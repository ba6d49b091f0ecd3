"""Plots about weather and animals: wind, rain, snow, fog, an animal that runs off or needs help.

Each function generates the events of one story on a Scene; phrases_wild.py has the phrases.
"""

from __future__ import annotations

from understudy.hamlet.scene import Scene


def wind(s: Scene) -> None:
    """The wind takes a thing away; a helper with a tool gets it back."""
    s.weather("windy", "spring", "autumn")
    hero = s.anyone()
    thing = s.thing("hat", "scarf", "kite", "cap", "umbrella", "map", "letter", "blanket", "picture")
    tool = s.thing("rope", "stick", "broom", "net", "spade")
    place = s.place()
    landed = s.place(place)
    s.start(hero)
    s.set_up(hero, thing=thing)
    s.do("go", "wind_go", hero, thing=thing, place=place)
    s.sight(place, 0.2)
    s.do("lose", "wind_takes", hero, thing=thing, place=landed)
    s.do("go", "wind_run", hero, thing=thing, place=landed)
    s.do("mood", "wind_high", hero, thing=thing)
    s.maybe(0.4, "mood", "sad", hero)
    helper = s.neighbour()
    s.set_up(helper, thing=tool)
    s.do("go", "wind_helper", helper, hero, place=landed)
    s.do("talk", "wind_offer", helper, hero, thing=thing)
    s.do("use", "wind_tool", helper, hero, thing=tool)
    s.do("take", "wind_down", helper, hero, thing=thing, place=landed)
    s.do("give", "hand_back", helper, hero, thing=thing)
    s.do("talk", "thank", hero, helper)
    s.close(hero, "close_careful", "close_windy")


def rain(s: Scene) -> None:
    """A person shelters from the rain and borrows a thing."""
    s.weather("grey", "spring", "summer", "autumn")
    hero = s.anyone()
    place = s.place()
    shelter = s.place(place)
    loan = s.thing("umbrella", "coat", "blanket", "hat")
    helper = s.adult()
    s.start(hero)
    s.do("go", "go_play", hero, place=place)
    s.sight(place, 0.2)
    s.do("mood", "rain_clouds", hero)
    s.do("mood", "rain_wet", hero)
    s.do("go", "rain_shelter", hero, place=shelter)
    s.set_up(helper, shelter, thing=loan)
    s.do("find", "rain_meets", hero, helper, place=shelter)
    s.do("talk", "rain_pity", helper, hero)
    if s.draw.chance(0.5):
        s.do("mood", "rain_tea", helper, hero)
    s.do("give", "rain_lend", helper, hero, thing=loan)
    s.do("talk", "rain_promise", hero, helper, thing=loan)
    s.do("go", "go_home", hero, place=s.home_of(hero))
    s.do("go", "rain_next_day", hero, helper, thing=loan, place=shelter)
    s.do("give", "hand_back", hero, helper, thing=loan)
    s.do("talk", "thank", hero, helper)
    s.close(hero)


def snow(s: Scene) -> None:
    """Snow blocks a path; neighbours dig, and the story gives the total number of paces."""
    s.weather("snowy", "winter")
    hero = s.child()
    helper = s.playmate(hero)
    owner = s.adult()
    place = s.work_of(owner)
    tool = s.thing("spade", "broom")
    step = s.world.goods["step"]
    n, m = s.draw.between(5, 20), s.draw.between(5, 20)
    s.start(hero)
    s.set_up(owner, place)
    s.do("mood", "snow_deep", owner, place=place)
    s.set_up(hero, thing=tool)
    s.do("go", "snow_come", hero, thing=tool, place=place)
    s.do("gain", "snow_dig", hero, goods=step, count=n)
    s.do("go", "snow_help", helper, hero, place=place)
    s.do("gain", "snow_dig_too", helper, goods=step, count=m)
    s.do("tally", "snow_total", hero, helper, goods=step, count=n, second_count=m, total=n + m)
    s.do("mood", "snow_free", owner, hero, place=place)
    s.do("talk", "thank", owner, hero)
    if s.draw.chance(0.5):
        s.do("mood", "snow_man", hero, helper)
    else:
        s.do("mood", "snow_soup", owner, hero)
    s.close(hero, "close_snowy", "close_proud")


def fog(s: Scene) -> None:
    """A person gets lost in the fog; a sound leads to safety."""
    s.weather("misty", "autumn", "spring", "winter")
    hero = s.visitor() if s.draw.chance(0.4) else s.child()
    goal = s.place()
    lost_at = s.place(goal)
    s.start(hero)
    s.do("mood", "fog_want", hero, place=goal)
    s.do("mood", "fog_thick", hero)
    s.do("go", "fog_lost", hero, place=lost_at)
    s.do("mood", "fog_call", hero)
    guide = s.animal()
    owner = s.world.people[guide.owner]
    s.do("mood", "fog_hears", guide, hero)
    s.do("go", "fog_follows", hero, guide, place=goal)
    s.sight(goal)
    if owner.name not in s.cast:
        s.cast.append(owner.name)
        s.set_up(owner, goal)
        s.do("talk", "fog_owner", owner, hero, guide)
        s.do("talk", "fog_thanks", hero, owner, guide)
    s.do("mood", "lost_praise", hero, guide)
    if s.draw.chance(0.6):
        food, n = s.world.goods[guide.food], s.draw.between(2, 6)
        s.set_up(hero, goods=food, count=n)
        s.do("hand", "feed", hero, guide, goods=food, count=n)
    s.close(hero)


def runaway(s: Scene) -> None:
    """An animal runs off; its owner searches and finds it."""
    animal = s.animal()
    owner = s.world.people[animal.owner]
    s.cast.append(owner.name)
    place = s.place()
    wrong = s.place(place)
    s.start(owner, lambda: s.owns(owner, animal))
    s.do("mood", "run_gone", owner, animal)
    s.do("go", "", animal, place=place)
    s.do("talk", "run_worry", owner, animal)
    if s.draw.chance(0.75):
        helper = s.playmate(owner) if owner.is_child else s.neighbour()
        s.do("talk", "run_help", owner, helper, animal=animal)
        s.do("talk", "run_agree", helper, owner, animal=animal)
    s.do("look", "run_search", owner, animal, place=wrong)
    s.maybe(0.5, "mood", "run_tracks", owner, animal)
    s.do("find", "run_find", owner, animal, place=place)
    s.sight(place)
    food = s.world.goods[animal.food]
    n = s.draw.between(2, 9)
    s.set_up(animal, goods=food, count=n)
    s.do("eat", "run_ate", animal, owner, goods=food, count=n)
    s.do("talk", "run_scold", owner, animal)
    s.do("go", "run_home", owner, animal, place=s.home_of(owner))
    s.close(owner, "close_gate")


def rescue(s: Scene) -> None:
    """Two persons free a trapped animal with a tool."""
    animal = s.animal()
    owner = s.world.people[animal.owner]
    s.cast.append(owner.name)
    hero = s.child()
    helper = s.neighbour()
    place = s.place()
    tool = s.thing("rope", "basket", "blanket", "bucket", "net", "coat", "lantern")
    s.start(hero)
    s.do("go", "go_past", hero, place=place)
    s.set_up(animal, place)
    s.do("mood", "rescue_hears", hero, animal)
    s.do("find", "rescue_stuck", hero, animal, place=place)
    s.do("mood", "rescue_alone", hero, animal)
    s.set_up(helper, thing=tool)
    s.do("talk", "rescue_call", hero, helper)
    s.do("go", "rescue_comes", helper, hero, thing=tool, place=place)
    s.do("use", "rescue_tool", helper, hero, animal, thing=tool)
    s.do("mood", "rescue_free", animal, hero)
    home = s.home_of(owner)
    s.do("go", "rescue_brings", hero, animal, owner, place=home)
    s.set_up(owner, home)
    s.do("talk", "thank", owner, hero)
    if s.draw.chance(0.5):
        treat, n = s.treat(), s.draw.between(2, 6)
        s.set_up(owner, goods=treat, count=n)
        s.do("hand", "reward", owner, hero, goods=treat, count=n)
    s.close(hero, "close_proud")

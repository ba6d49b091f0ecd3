"""Construction of one story: selection of people, things and places, and the list of events.

Plots request people, things and places from a `Scene` and add events to it. The scene updates the state, so an
impossible event fails at once, and adds lasting facts of the village. Only its visitors depend on the split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from understudy.hamlet.draw import Draw
from understudy.hamlet.events import Event, Item, Setting, State
from understudy.hamlet.world import VISITOR_TRADES, Animal, Goods, Person, Place, World, required

_WEATHER = {
    "spring": ("sunny", "windy", "rainy", "mild", "grey", "cool"),
    "summer": ("sunny", "warm", "hot", "bright", "dry", "golden"),
    "autumn": ("windy", "rainy", "misty", "grey", "cool", "golden"),
    "winter": ("snowy", "frosty", "cold", "still", "grey", "clear"),
}
# Seasons of goods. Goods that are not listed are available all year.
_SEASONS = {
    "strawberry": ("summer",), "cherry": ("summer",), "plum": ("summer", "autumn"), "pear": ("summer", "autumn"),
    "tomato": ("summer", "autumn"), "apple": ("summer", "autumn"), "nut": ("autumn",), "mushroom": ("autumn",),
    "flower": ("spring", "summer"), "frog": ("spring", "summer"), "bee": ("spring", "summer"),
}  # fmt: skip
_WEATHER_ENDS = ("close_rainy", "close_windy", "close_snowy", "close_cold", "close_sunny", "close_misty")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class Scene:
    """Builder of one story. `events` is the story so far; `state` is the state after the last event."""

    def __init__(self, world: World, draw: Draw, visitors: dict[str, str]) -> None:
        self.world, self.draw = world, draw
        self._visitors = visitors
        self._visitor_names = tuple(visitors)
        self.events: list[Event] = []
        self.state = State()
        self.cast: list[str] = []
        self.relations: dict[tuple[str, str], str] = {}  # of visitors; `world` has the relations of villagers
        self._nouns: list[str] = []
        self._stated_facts: set[tuple[str, str]] = set()
        season = draw.pick(tuple(_WEATHER))
        self.setting = Setting(
            weather=draw.pick(_WEATHER[season]),
            season=season,
            day=draw.pick(_DAYS),
            part=draw.pick(("morning", "morning", "afternoon")),
        )

    # ---- record ----------------------------------------------------------------------------------

    def do(self, act: str, telling: str, actor: Person | Animal | None = None, /, *with_: Any, **fields: Any) -> Event:
        """Add and execute an event. Positional arguments after the actor: other, third."""
        event = Event(act, telling, actor, *with_, **fields)
        self.state.apply(event)
        self.events.append(event)
        return event

    def maybe(
        self, chance: float, act: str, telling: str, actor: Person | Animal, /, *with_: Any, **fields: Any
    ) -> None:
        """Call `do` with probability `chance`."""
        if self.draw.chance(chance):
            self.do(act, telling, actor, *with_, **fields)

    def set_up(
        self,
        who: Person | Animal,
        place: Place | None = None,
        thing: Item | None = None,
        goods: Goods | None = None,
        count: int = 0,
    ) -> None:
        """Set the state without an event: `who` is at `place`, holds `thing`, has `count` of `goods`."""
        if place is not None:
            self.state.where[who.name] = place.name
        if thing is not None:
            self.state.holder[thing.noun] = who.name
        if goods is not None:
            self.state.purse[who.name, goods.one] = count

    # ---- people ------------------------------------------------------------------------------------

    def _join(self, who: Any) -> Any:
        self.cast.append(who.name)
        return who

    def _pick_person(self, people: list[Person]) -> Person:
        """Choose one of `people` who is not in the story; often of the other sex, for unambiguous pronouns."""
        free = [p for p in people if p.name not in self.cast]
        hero = self.world.people.get(self.cast[0]) if self.cast else None
        if hero is not None and self.draw.chance(0.5):
            free = [p for p in free if p.sex != hero.sex] or free
        return self._join(self.draw.pick(free))

    def child(self) -> Person:
        return self._pick_person(self.world.children)

    def adult(self) -> Person:
        return self._pick_person(self.world.adults)

    def anyone(self) -> Person:
        return self.child() if self.draw.chance(0.6) else self.adult()

    def with_trade(self, *trades: str) -> Person:
        return self._pick_person([p for p in self.world.people.values() if p.trade in trades])

    def stranger_with_trade(self, hero: Person, *trades: str) -> Person:
        """A person with one of `trades` who is no relative of `hero`."""
        kin = {other for _, other in self.world.kin[hero.name]}
        people = self.world.people.values()
        return self._pick_person([p for p in people if p.trade in trades and p.name not in kin])

    def elder_of(self, who: Person) -> Person:
        """A parent of `who` with probability 0.5, else any adult."""
        near = [
            self.world.people[other]
            for relation, other in self.world.kin[who.name]
            if relation in ("mother", "father", "grandfather") and other not in self.cast
        ]
        if near and self.draw.chance(0.55):
            return self._join(self.draw.pick(near))
        return self.adult()

    def playmate(self, of: Person) -> Person:
        """Another child, sometimes a cousin from outside the village."""
        return self.cousin(of) if self.draw.chance(0.3) else self.child()

    def _newcomer(self) -> str:
        while True:
            name = self.draw.pick(self._visitor_names)
            if name not in self.cast:
                return name

    def cousin(self, of: Person) -> Person:
        name = self._newcomer()
        cousin = Person(name, self._visitors[name], age=max(5, of.age), resident=False)
        self.relations[of.name, name] = "cousin"
        return self._join(cousin)

    def visitor(self) -> Person:
        """An adult visitor, who occurs in this story only."""
        name = self._newcomer()
        return self._join(
            Person(name, self._visitors[name], age=40, trade=self.draw.pick(VISITOR_TRADES), resident=False)
        )

    def neighbour(self) -> Person:
        """An adult: usually a villager, sometimes a visitor."""
        return self.visitor() if self.draw.chance(0.25) else self.adult()

    def animal(self) -> Animal:
        return self._join(self.draw.pick([a for a in self.world.animals.values() if a.name not in self.cast]))

    # ---- things and places -------------------------------------------------------------------------------------

    def thing(self, *nouns: str) -> Item:
        """A thing that is new in the story; one of `nouns` if given."""
        while True:
            noun = self.draw.pick(nouns or self.world.everything)
            if noun not in self._nouns:
                break
        self._nouns.append(noun)
        return Item(noun, self.draw.pick(self.world.things[noun]))

    def place(self, *but: Place | None) -> Place:
        """Any place except those given."""
        while True:
            place = self.draw.pick(self.world.everywhere)
            if place not in but:
                return place

    def work_of(self, who: Person) -> Place:
        """Workplace of a villager; the inn for a visitor."""
        trade = self.world.trades.get(who.trade or "")
        return self.world.places[trade.place if trade else "inn"]

    def home_of(self, who: Person) -> Place:
        return self.world.places[who.home or "inn"]

    def goods(self, *names: str) -> Goods:
        return self.world.goods[self.draw.pick(names)]

    def food(self, *names: str) -> Goods:
        """One of `names` that is available in the season; apples and nuts always are."""
        kept = ("apple", "nut", self.setting.season)
        return self.goods(*[n for n in names if n in kept or self.setting.season in _SEASONS.get(n, kept)])

    def treat(self) -> Goods:
        """Food as a small reward."""
        return self.food("apple", "bun", "pear", "plum", "cake", "cherry", "nut", "egg", "strawberry")

    def season_of(self, name: str) -> None:
        """Set the season of the story to one in which the goods `name` are available."""
        if self.setting.season not in _SEASONS.get(name, (self.setting.season,)):
            self.setting.season = self.draw.pick(_SEASONS[name])
            self.setting.weather = self.draw.pick(_WEATHER[self.setting.season])

    def harvest(self, harvests: Sequence[tuple[str, str, str]]) -> tuple[Goods, Place, str]:
        """Choose one of `harvests` and set its season. Returns goods, place and verb."""
        name, where, verb = self.draw.pick(harvests)
        self.season_of(name)
        return self.world.goods[name], self.world.places[where], verb

    # ---- parts of every story -------------------------------------------------------------------------

    def weather(self, weather: str, *seasons: str) -> None:
        """Set the weather and one of the given seasons."""
        self.setting.weather = weather
        self.setting.season = self.draw.pick(seasons)

    def start(self, hero: Person, before: Callable[[], object] | None = None) -> None:
        """Add time and weather, and often lasting facts about the hero.

        `before` adds the initial situation ("Finn had a kite"). It usually precedes the opening phrase of the first
        event ("One windy morning, ...").
        """
        if any(pet.name in self.cast for pet in self.world.pets.get(hero.name, ())):
            self._stated_facts.add(("owner", hero.name))
        for chance in (0.55, 0.25):
            if self.draw.chance(chance):
                self.lasting(hero)
        if before is None:
            self.do("mood", "open_phrase" if self.draw.chance(0.75) else "open_sentence")
        elif self.draw.chance(0.3):
            self.do("mood", "open_sentence")
            before()
        else:
            before()
            self.do("mood", "open_phrase")

    def lasting(self, who: Person) -> None:
        """Add a lasting fact about `who` that is new in this story."""
        if not who.resident:
            return
        world = self.world
        parents = [other for relation, other in world.kin[who.name] if relation in ("mother", "father")]
        pets = world.pets[who.name]
        topics = ["likes", "home"]
        topics += ["age", "child"] if who.is_child else ["trade", "trade"]
        topics += ["parent"] if parents and who.is_child else []
        topics += ["owner", "owner"] if pets else []
        topics = [t for t in topics if (t, who.name) not in self._stated_facts]
        if not topics:
            return
        topic = self.draw.pick(topics)
        self._stated_facts.add((topic, who.name))
        if topic in ("child", "age", "home"):  # "child" states age and home
            self._stated_facts |= {("child", who.name)}
        if topic == "child":
            self._stated_facts |= {("age", who.name), ("home", who.name)}
        if topic == "likes":
            self.do("lasting", "lasting_likes", who, goods=world.goods[required(who.likes, f"what {who.name} likes")])
        elif topic in ("home", "child"):
            self.do("lasting", f"lasting_{topic}", who, place=self.home_of(who), count=who.age)
        elif topic == "age":
            self.do("lasting", "lasting_age", who, count=who.age)
        elif topic == "trade":
            self.do("lasting", "lasting_trade", who, place=self.work_of(who))
        elif topic == "parent":
            self.do("lasting", "lasting_parent", who, world.people[self.draw.pick(parents)])
        else:
            self.do("lasting", "lasting_owner", who, animal=self.draw.pick(pets))

    def owns(self, owner: Person, animal: Animal) -> None:
        """Add the lasting fact that `owner` owns `animal`."""
        self.do("lasting", "lasting_owner", owner, animal=animal)

    def sight(self, place: Place, chance: float = 0.3) -> None:
        """Add the location of `place`, a lasting fact, with probability `chance`."""
        if self.draw.chance(chance) and ("stands", place.name) not in self._stated_facts:
            self._stated_facts.add(("stands", place.name))
            self.do("lasting", "lasting_stands", place=place)

    def close(self, hero: Person, *tellings: str) -> None:
        """Add one or two closing sentences: specific to the plot or the weather, or general."""
        weather = f"close_{self.setting.weather}"
        use_own_ending = tellings and self.draw.chance(0.6)
        if use_own_ending:
            self.do("mood", self.draw.pick(tellings), hero)
        if not use_own_ending or self.draw.chance(0.6):
            fits = weather in _WEATHER_ENDS and weather not in tellings
            self.do("mood", weather if fits and self.draw.chance(0.3) else "close", hero)

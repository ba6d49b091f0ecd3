"""The village of Hamlet: its people, places, trades, goods and animals.

These tables are the lasting facts. They are the same in every story, so a model can memorize them. `plots_*.py`
generate the events. All content is invented for this project.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

VILLAGE = "Hamlet"
T = TypeVar("T")


def required(value: T | None, what: str = "a part of the event") -> T:
    """Return `value`, which must not be None.

    Raises:
        AssertionError: `value` is None, so a plot or a table has a defect.
    """
    if value is None:
        raise AssertionError(f"{what} is missing")
    return value


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the village. `name` has no article: "mill"."""

    name: str
    at: str  # "at the mill"
    to: str  # "to the mill"
    past: str  # "past the mill"
    stands: str  # "stood by the river": a lasting fact
    landmark: str  # "river": the place that `stands` names, or "village"
    do: str  # "watch the great wheel turn"
    did: str  # "watched the great wheel turn"
    spot: str  # spot for a hidden or lost thing: "behind a sack of flour"

    @property
    def the(self) -> str:
        return f"the {self.name}"


@dataclass(frozen=True, slots=True)
class Goods:
    """Countable goods: "egg", "eggs"."""

    one: str
    many: str

    def counted(self, n: int) -> str:
        """`three eggs`, `one egg`."""
        return f"{number(n)} {self.one if n == 1 else self.many}"


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade: its place, its task, and the goods that it makes and sells."""

    name: str
    place: str  # name of a Place
    task: str  # base form, before the goods: "bake"
    task_did: str  # past form: "baked"
    makes: str  # singular name of Goods
    sells: tuple[str, ...] = ()  # singular names of Goods


@dataclass(frozen=True, slots=True)
class Person:
    """A villager, or with `resident` false a visitor in one story."""

    name: str
    sex: str  # "m" or "f"
    age: int
    trade: str | None = None  # None for children
    home: str | None = None  # name of a Place; None for people from elsewhere
    likes: str | None = None  # singular name of Goods
    resident: bool = True

    @property
    def is_child(self) -> bool:
        return self.trade is None


@dataclass(frozen=True, slots=True)
class Animal:
    """An animal with a name and an owner, the same in every story."""

    name: str
    sex: str
    kind: str
    owner: str  # name of a Person
    noise: str  # past form: "barked"
    food: str  # singular name of Goods


# name, sex, age, trade, home, likes. Each trade has exactly one person.
_ADULTS = """
Marta f 41 baker bakery pear
Leo m 39 postman bakery pie
Hugo m 52 miller mill cake
Greta f 46 cheesemaker mill cherry
Bram m 45 smith smithy sausage
Clara f 42 weaver smithy plum
Walter m 44 farmer farm potato
Ruth f 43 cook farm egg
Felix m 36 carpenter pottery nut
Rosa f 34 potter pottery strawberry
Silas m 50 innkeeper inn fish
Helen f 47 doctor inn apple
Nora f 40 shopkeeper shop pancake
Gilbert m 71 bellman tower carrot
Ivo m 68 ferryman ferry mushroom
Jonas m 38 fisherman ferry cake
Edith f 33 teacher school walnut
Caleb m 31 shepherd school turnip
Agnes f 63 beekeeper orchard bun
Ada f 58 tailor orchard bean
Peter m 60 cobbler market onion
Oliver m 66 gardener garden tomato
"""

# name, sex, age, home, likes, parents
_CHILDREN = """
Finn m 9 mill plum Hugo Greta
Lily f 7 mill pancake Hugo Greta
Nell f 10 bakery strawberry Leo Marta
Toby m 6 bakery bun Leo Marta
Anna f 11 smithy cherry Bram Clara
Max m 8 smithy sausage Bram Clara
Will m 12 farm pie Walter Ruth
Elsie f 9 farm carrot Walter Ruth
Pip m 5 farm pear Walter Ruth
Ben m 7 pottery nut Felix Rosa
Ivy f 6 pottery apple Felix Rosa
Kate f 10 inn cake Silas Helen
Sam m 8 inn pear Silas Helen
Mabel f 8 shop pancake Nora
Tom m 11 shop fish Nora
Molly f 9 ferry plum Jonas
Jack m 12 ferry egg Jonas
"""

# Visitors, who occur in one story each. The reserved ones never occur in training text.
_VISITORS_MEN = "Adam Arthur Carl Conrad David Emil Frank George Harry Jacob Lucas Mark Nick Otto Paul Ralph"
_VISITORS_MEN += " Robert Simon Theo Victor Edmund Henry Philip Stephen"
_VISITORS_WOMEN = "Alice Amy Beth Daisy Dora Ella Flora Grace Hanna Ida Jane Laura Mary Mina Olga Polly"
_VISITORS_WOMEN += " Sophie Susan Tessa Vera Wendy Emma Julia Martha"
_RESERVED_MEN = "Boris Dennis Julian Milo Nathan Rufus Oscar Samson"
_RESERVED_WOMEN = "Alma Celia Hilda Lena Paula Stella Rosalind Norma"
VISITOR_TRADES = ("pedlar", "traveller", "piper", "painter", "sailor", "singer", "juggler", "clockmaker")

# name, sex, kind, owner, noise, food
_ANIMALS = """
Bramble m dog Finn barked sausage
Soot m cat Marta meowed fish
Nettle f goat Greta bleated carrot
Buttercup f cow Walter mooed turnip
Pepper m donkey Hugo brayed apple
Truffle m pig Elsie grunted potato
Puddle f duck Molly quacked bean
Speckle f hen Nell clucked bean
Fern f sheepdog Caleb barked sausage
Clover f rabbit Ivy squeaked carrot
Captain m goose Agnes honked bean
Acorn m pony Kate neighed apple
Inky f kitten Edith meowed fish
Snowball f lamb Pip bleated carrot
Smoke m horse Silas neighed apple
Button m puppy Max barked sausage
"""

# name | at | to | past | stands | landmark | do | did | spot
_PLACES = """
mill|at|to|past|stood by|river|watch the great wheel turn|watched the great wheel turn|behind a sack of flour
bakery|at|to|past|stood beside|green|smell the warm bread|smelled the warm bread|behind the bread oven
smithy|at|to|past|stood near|bridge|watch the sparks fly|watched the sparks fly|behind the coal heap
school|at|to|past|stood next to|tower|read by the window|read by the window|under a desk
inn|at|to|past|stood across from|market|listen to the music|listened to the music|under a long table
shop|at|to|past|stood beside|well|look in the window|looked in the window|behind a barrel
farm|at|to|past|lay beyond|meadow|feed the calves|fed the calves|behind the hay cart
barn|in|to|past|stood behind|farm|jump in the hay|jumped in the hay|in the deep hay
dairy|at|to|past|stood beside|barn|taste the new cheese|tasted the new cheese|behind the milk cans
stable|at|to|past|stood behind|inn|brush the horses|brushed the horses|behind a heap of straw
orchard|in|to|through|lay behind|school|climb the trees|climbed the trees|under an apple tree
meadow|in|to|through|lay below|hill|count the sheep|counted the sheep|in the long grass
pond|by|to|past|lay near|farm|feed the ducks|fed the ducks|among the reeds
river|by|down to|along|ran below|village|throw stones into the water|threw stones into the water|behind a willow
bridge|on|to|over|went over|river|watch the boats|watched the boats|beside the stone wall
wood|in|into|through|lay behind|mill|gather sticks|gathered sticks|under a fern
well|by|to|past|stood on|green|draw water|drew water|behind the water trough
green|on|to|across|lay in the middle of|village|play ball|played ball|under a bench
market|at|to|through|lay beside|chapel|look at the stalls|looked at the stalls|under a stall
chapel|at|to|past|stood at the edge of|village|sing with the others|sang with the others|behind the chapel gate
hill|on|up|over|rose above|village|look at the clouds|looked at the clouds|behind a grey rock
oak|under|to|past|grew on|hill|sit and think|sat and thought|between two roots
tower|at|to|past|stood near|chapel|look out over the roofs|looked out over the roofs|at the foot of the stairs
garden|in|to|through|lay beside|pond|feed the birds|fed the birds|behind the bean rows
ferry|at|down to|past|lay below|bridge|sit in the old boat|sat in the old boat|under an old boat
workshop|at|to|past|stood across from|smithy|play with the shavings|played with the shavings|under the workbench
pottery|at|to|past|stood near|river|press shapes into the clay|pressed shapes into the clay|behind the kiln
"""

# trade | place | task | task in the past | makes | sells
_TRADES = """
baker|bakery|bake|baked|loaf|loaf bun cake pie
postman|green|sort|sorted|letter|
miller|mill|fill|filled|sack|
cheesemaker|dairy|wrap|wrapped|cheese|cheese
smith|smithy|make|made|nail|nail
weaver|smithy|fold|folded|blanket|ribbon
farmer|farm|dig up|dug up|potato|egg potato turnip
cook|inn|peel|peeled|carrot|
carpenter|workshop|mend|mended|chair|
potter|pottery|paint|painted|cup|cup plate
innkeeper|inn|wash|washed|plate|
doctor|inn|fill|filled|bottle|
shopkeeper|shop|count|counted|candle|candle button nut
bellman|tower|sweep|swept|step|
ferryman|ferry|paint|painted|boat|
fisherman|river|catch|caught|fish|fish
teacher|school|sort|sorted|book|
shepherd|meadow|wash|washed|sheep|
beekeeper|orchard|fill|filled|jar|apple plum
tailor|market|sew on|sewed on|button|ribbon button
cobbler|market|polish|polished|shoe|
gardener|garden|pick|picked|pear|pear tomato onion
"""

_PLURALS = """
apple/apples bean/beans blanket/blankets boat/boats book/books bottle/bottles bun/buns button/buttons
cake/cakes candle/candles carrot/carrots chair/chairs cheese/cheeses cherry/cherries coin/coins cup/cups
egg/eggs fish/fish jar_of_honey/jars_of_honey letter/letters loaf/loaves mushroom/mushrooms
nail/nails nut/nuts onion/onions
pancake/pancakes pear/pears pie/pies plate/plates plum/plums potato/potatoes ribbon/ribbons sack/sacks
sausage/sausages sheep/sheep shoe/shoes step/steps stone/stones strawberry/strawberries tomato/tomatoes
turnip/turnips walnut/walnuts flower/flowers shell/shells feather/feathers frog/frogs duck/ducks
"""

# Portable things with their possible adjectives.
_THINGS = """
basket:brown,small,round,white lantern:brass,old,small,green rope:long,old,thick,brown
bucket:wooden,blue,old,small blanket:red,woollen,grey,warm hammer:heavy,small,old
kettle:copper,black,little book:red,old,thick,blue letter:long,white,short hat:green,straw,black,grey
scarf:red,blue,woollen,yellow key:brass,small,old,iron ring:silver,gold,thin whistle:silver,wooden,little
spoon:wooden,silver,long coat:warm,brown,blue,old umbrella:black,red,green,yellow jug:white,blue,clay
map:old,torn,paper drum:small,red,round flute:wooden,silver,thin kite:red,paper,blue,yellow
ball:red,leather,green doll:little,straw,wooden purse:leather,green,small,brown broom:new,long,old
comb:silver,wooden,white bell:brass,little,silver spade:iron,new,old saw:sharp,old,small
box:wooden,little,blue,round mirror:round,little,silver stick:long,thick,straight net:green,long,old
picture:small,bright,pretty fiddle:old,brown,fine pot:iron,clay,black cap:white,woollen,red
"""

# Relations that the table of children does not contain.
_SIBLINGS = (("Edith", "Caleb"), ("Agnes", "Ada"))
_FATHERS = (("Nora", "Gilbert"), ("Jonas", "Ivo"))

_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number(n: int) -> str:
    """`n` from 0 to 99 in words: `twelve`, `twenty-one`."""
    if n < 20:
        return _NUMBERS[n]
    tens, ones = divmod(n, 10)
    return _TENS[tens] + (f"-{_NUMBERS[ones]}" if ones else "")


@dataclass(frozen=True)
class World:
    """The lasting facts of the village. `reserved_visitors` occur in val only."""

    people: dict[str, Person]
    visitors: dict[str, str]  # name -> sex
    reserved_visitors: dict[str, str]
    animals: dict[str, Animal]
    places: dict[str, Place]
    trades: dict[str, Trade]
    goods: dict[str, Goods]  # by singular name
    things: dict[str, tuple[str, ...]]  # noun -> possible adjectives
    relations: dict[tuple[str, str], str]  # (Finn, Greta) -> "mother": who the second is to the first

    @functools.cached_property
    def children(self) -> list[Person]:
        return [p for p in self.people.values() if p.is_child]

    @functools.cached_property
    def adults(self) -> list[Person]:
        return [p for p in self.people.values() if not p.is_child]

    @functools.cached_property
    def everywhere(self) -> tuple[Place, ...]:
        return tuple(self.places.values())

    @functools.cached_property
    def everything(self) -> tuple[str, ...]:
        return tuple(self.things)

    @functools.cached_property
    def kin(self) -> dict[str, list[tuple[str, str]]]:
        """Relatives by name: "Finn" -> [("father", "Hugo"), ...]."""
        kin: dict[str, list[tuple[str, str]]] = {name: [] for name in self.people}
        for (name, other), relation in self.relations.items():
            kin[name].append((relation, other))
        return kin

    @functools.cached_property
    def pets(self) -> dict[str, list[Animal]]:
        """Animals by name of the owner."""
        return {name: [a for a in self.animals.values() if a.owner == name] for name in self.people}


def _relations(people: dict[str, Person], parents: dict[str, list[str]]) -> dict[tuple[str, str], str]:
    relations: dict[tuple[str, str], str] = {}

    def relate(name: str, other: str, man: str, woman: str) -> None:
        relations[name, other] = man if people[other].sex == "m" else woman

    for child, elders in parents.items():
        for elder in elders:
            relate(child, elder, "father", "mother")
            relate(elder, child, "son", "daughter")
            for spouse in elders:
                if spouse != elder:
                    relate(elder, spouse, "husband", "wife")
            for grand in parents.get(elder, []):
                relate(child, grand, "grandfather", "grandmother")
                relate(grand, child, "grandson", "granddaughter")
        for other, others_elders in parents.items():
            if other != child and others_elders == elders:
                relate(child, other, "brother", "sister")
    for one, two in _SIBLINGS:
        relate(one, two, "brother", "sister")
        relate(two, one, "brother", "sister")
    return relations


@functools.cache
def village() -> World:
    """The village, built from the tables of this module."""
    goods = {}
    for pair in _PLURALS.split():
        one, many = pair.replace("_", " ").split("/")
        goods[one.split()[0]] = Goods(one, many)
    places = {}
    for line in _PLACES.strip().splitlines():
        name, at, to, past, stands, landmark, do, did, spot = line.split("|")
        places[name] = Place(
            name, f"{at} the {name}", f"{to} the {name}", f"{past} the {name}", f"{stands} the {landmark}",
            landmark, do, did, spot,
        )  # fmt: skip
    trades = {}
    for line in _TRADES.strip().splitlines():
        trade, place, task, task_did, makes, sells = line.split("|")
        trades[trade] = Trade(trade, place, task, task_did, makes, tuple(sells.split()))
    people: dict[str, Person] = {}
    parents: dict[str, list[str]] = {child: [father] for child, father in _FATHERS}
    for line in _ADULTS.strip().splitlines():
        name, sex, age, trade, home, likes = line.split()
        people[name] = Person(name, sex, int(age), trade, home, likes)
    for line in _CHILDREN.strip().splitlines():
        name, sex, age, home, likes, *elders = line.split()
        people[name] = Person(name, sex, int(age), None, home, likes)
        parents[name] = elders
    animals = {}
    for line in _ANIMALS.strip().splitlines():
        animal = Animal(*line.split())
        animals[animal.name] = animal
    things = {}
    for entry in _THINGS.split():
        noun, words = entry.split(":")
        things[noun] = tuple(words.split(","))
    return World(
        people=people,
        visitors=dict.fromkeys(_VISITORS_MEN.split(), "m") | dict.fromkeys(_VISITORS_WOMEN.split(), "f"),
        reserved_visitors=dict.fromkeys(_RESERVED_MEN.split(), "m") | dict.fromkeys(_RESERVED_WOMEN.split(), "f"),
        animals=animals,
        places=places,
        trades=trades,
        goods=goods,
        things=things,
        relations=_relations(people, parents),
    )

"""Phrases for the plots about work and numbers (plots_work.py).

templates.py explains the notation. Lines that begin with ~ are for validation text only.
"""

WORK = """
# ---- helping: a is the child, x the work done to g
work_much
  {a} had [a lot|so much] to do that day
  {a} asked {b.o} to help {x} {g}
  {a} could not {x} all the {g} alone
  "Will you help me to {x} {g}, {b.v}?" asked {a.f}
  "There is so much to do," said {a.f}. "Can you help me to {x} {g}, {b.v}?"
  ~"Two more hands would be welcome, {b.v}," said {a.f}
work_yes
  {a} was glad to help
  {a} rolled up {a.his} sleeves
  "[Of course|Gladly], {b.v}," said {a.f}
  "I have time, {b.v}," said {a.f}
work_first
  before noon {a} {x} {n.g}
  in the morning {a} {x} {n.g}
  {a} started at once and {x} {n.g} before noon
  {a} {x} {n.g} in the morning
work_tired
  {a} was tired, but {a.he} did not stop
  {a.s} arms began to hurt
  {a} was hungry by then, but went on
work_rest
  at noon they sat down and ate {h}
  at noon {b} shared some {h} with {a.o}
  they rested for a while and ate {h}
work_second
  after noon {a} {x} {n} more
  then {a} {x} another {n}
  in the afternoon {a} {x} {n} more
work_total
  that made {k.g} in all
  all together {a} had {k.g} done
  {a} counted them all: {k.g}
  "That makes {k.g}," said {a.f}
  "{n} and {m} are {k}," said {a.f}
  ~at the end of the day there were {k.g}
work_wage
  {a} paid {b.o} {n.coins}
  for the work {b} got {n.coins} from {a.o}
  {a} counted {n.coins} into {b.s} hand
  "Here are {n.coins} for your work, {b.v}," said {a.f}
close_tired
  {a} was tired but happy
  {a} slept like a stone that night
  that night {a} was asleep before the moon came up

# ---- buying: a buys from b
trade_purse
  {a} had {n.coins} in {a.his} pocket
  {a} had saved {n.coins}
  in {a.s} purse there were {n.coins}
  {a} had {n.coins} to spend
trade_ask
  {a} wanted to buy {n.g} and asked what they cost
  {a} pointed to {n.g} and asked about the price
  "How much are {n.g}?" asked {a.f}
  "I would like {n.g}, please," said {a.f}
  ~"What do you want for {n.g}, {b.v}?" asked {a.f}
trade_price
  {a} asked for {n.coins}
  {a} wanted {n.coins} for them
  "That will be {n.coins}," said {a.f}
  "For you, {b.v}, only {n.coins}," said {a.f}
trade_dear
  {a} asked for {n.coins}
  {a} wanted no less than {n.coins}
  "They cost {n.coins}," said {a.f}
  "{n.coins}, please," said {a.f}
trade_too_much
  {a} [thought that it was too much|shook {a.his} head]
  {a} said that it was too much
  "That is too much for me," said {a.f}
  "So much? That is a lot," said {a.f}
trade_agree
  {a} thought about it and agreed to take {n}
  {a} laughed and said that {n} would do
  "Well then, give me {n}," said {a.f}
  "For you I will make it {n}, {b.v}," said {a.f}
trade_pay
  {a} paid {n.coins}
  {a} counted {n.coins} on the table
  {a} gave {b.o} {n.coins}
  ~{n.coins} went from {a.s} hand to {b.s}
trade_hand
  {a} gave {b.o} {n.g}
  {a} wrapped up {n.g} and handed them over
  {b} got {n.g} from {a.o}
trade_left
  {a} had {k.g} left
  {k.gwere} left
  {k.g} stayed in {a.s} pocket
  "Now I have {k.g} left," said {a.f}
  ~{a} counted again and had {k.g} left
trade_share
  {a} gave {n.g} to {b.o}
  {b} got {n.g} from {a.o}
  "{n.g} for you, {b.v}," said {a.f}
trade_bye
  {a} wished {b.o} a good day
  {a} waved goodbye
  "Come again, {b.v}," said {a.f}
  "A good day to you, {b.v}," said {a.f}
close_bargain
  {a} was pleased with the bargain
  it had been a fair price
  both sides were happy with the trade

# ---- a feast: a is the host
feast_plan
  {a} had a plan: the whole village should eat together {p.at}
  {a} invited everyone to a feast {p.at}
  {a} wanted to have a feast {p.at}
  there was to be a feast {p.at}, and {a} was the host
  "Let us all eat together {p.at}," said {a.f}
  ~{a} went from door to door and asked everyone to a feast {p.at}
feast_table
  long tables were set up, and {a} lit a fire
  {a} hung ribbons and lamps all around
  {a} put out cups, plates and spoons
  everyone brought a chair or a bench
feast_bring
  {a} brought {n.g}
  {a} came first and put {n.g} on the table
  {a} brought {n.g} in a big bowl
  "I have brought {n.g}, {b.v}," said {a.f}
feast_bring_too
  {a} came with {n} more
  {a} had {n.g} along as well
  {a} added {n.g}
  "And here are {n} from me, {b.v}," said {a.f}
feast_total
  that made {k.g} for everyone
  so there were {k.g} on the table
  {a} counted {k.g}
  "That makes {k.g}," said {a.f}
  "{n} and {m} make {k}," said {a.f}
  ~{k.g} lay side by side on the table
feast_music
  {a} played a song, and the children danced
  {a} sang, and everyone joined in
  {a} told a funny story, and everyone laughed
  {a} danced on the table
feast_thief
  but {a.e} jumped up and ate one of them
  nobody saw how {a.e} stole one of them
  then {a.e} took one and ran away with it
feast_thief_left
  so only {k.gwere} left
  now only {k.were} left
feast_laugh
  nobody could be angry with {b.o}
  {a} laughed until {a.his} sides hurt
  "Oh, {b.n}!" cried {a.f}
feast_eaten
  everyone ate, and {n.g} were gone [very soon|by evening]
  {n.g} were eaten
  the guests ate {n} of them
  ~before dark, {n} of them had been eaten
feast_left
  in the end {k.gwere} left over
  {a} counted again, and {k.were} left
  at the end of the feast {k.were} left
close_feast
  they danced until the stars came out
  the music could be heard far beyond the hill
  nobody in Hamlet went to bed hungry that {d}
  it was a feast to remember

# ---- carrying goods around: a carries g
rounds_have
  {a} had {n.g} to bring to people
  {a} set out with {n.g} in a basket
  {a} loaded {n.g} on a cart
  {a} had to take {n.g} around the village
  ~there were {n.g} on {a.s} cart
rounds_give
  {a} gave {b.o} {n.g}
  {a} left {n.g} with {b.o}
  {b} got {n.g}
  {n.g} were for {b.o}
  "{n.g} for you, {b.v}," said {a.f}
rounds_left
  {a} had {k} left
  that left {a.o} with {k.g}
  {a} still had {k.g}
  ~of the {n.g}, {k.were} left
rounds_weather
  {a} whistled on the way
  the road was long, but {a} was in good spirits
  {a} wiped {a.his} face and went on
rounds_next
  next, {a} [came|went] {p.to}, where {b} was waiting
  then {a} found {b.o} {p.at}
  {b} was {p.at} when {a} came by
rounds_chat
  {a} had a little talk with {b.o}
  {a} told {b.o} the news of the day
  "You are always on time, {b.v}," said {a.f}
  "What is new in the village, {b.v}?" asked {a.f}
rounds_end
  now {a} had {k} left
  after that, {k.were} left
  that left {k.g}
rounds_empty
  then {a.s} basket was empty
  now {a} had nothing left
  {a} looked into the basket, and it was empty
rounds_keep
  {a} kept the rest of the {g} for the next day
  {a} took the rest home
  the other {g} had to wait

# ---- sharing: a shares with b
share_gain
  {a} {x} {n.g}
  there {a} {x} {n.g}
  after an hour {a} had {n.g}
  {a} {x} {n.g} [all alone|before noon]
share_basket
  {a} put them into {t.a}
  {a} carried them in {t.a}
  they filled {a.his} {t.w} to the top
share_meet
  there {a} came along and said hello
  {a} came by and looked at {b.s} treasure
  then {a} came along with empty hands
share_none
  {a} had found no {g} at all
  {a} did not have any {g}
  "I have no {g} at all, {b.v}," said {a.f}
  "Oh, what lovely {g}, {b.v}," said {a.f}. "I have none."
share_offer
  {a} did not think long
  {a} wanted to share
  "Take some of mine, {b.v}," said {a.f}
  "There is enough for two," said {a.f}
  ~"We can share, {b.v}," said {a.f}
share_give
  {a} gave {b.o} {n.g}
  {b} got {n.g} from {a.o}
  {a} handed {n.g} to {b.o}
share_left
  {a} still had {k.g}
  that left {k.g} for {a.o}
  so {a} kept {k}
close_kind
  {a} was happy to have shared
  {a} had less, and was happier than before
"""

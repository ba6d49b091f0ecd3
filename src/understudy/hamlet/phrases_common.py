"""Phrases for all plots: openings, lasting facts, movement, thanks, endings.

templates.py explains the notation. Lines that begin with ~ are for validation text only.
"""

COMMON = """
# ---- openings: a phrase stands before the first event, a sentence by itself
open_phrase
  One {w} {o} in {s},
  On a {w} {d} {o},
  On {d} {o},
  One {w} {d},
  One {o} in {s},
  One {w} {o},
  Early one {s} {o},
  Late one {w} {o},
  ~On a {w} {d} in {s},
open_sentence
  it was a {w} {o} in {s}
  it was {d}, and the {o} was {w}
  it was a {w} {d} in Hamlet
  it was {s} in Hamlet, and the {o} was {w}
  {s} had come to Hamlet, and it was a {w} {o}
  {d} was a {w} day
  ~it happened on a {w} {d} in {s}

# ---- lasting facts: a person; n years, p place, b parent, z animal, g food
lasting_age
  {a} was {n} years old
  {a} was a [{a.kid}|{a.kid}|cheerful {a.kid}|clever {a.kid}] of {n}
  {a} was [just|only] {n} years old
lasting_child
  {a} was a {a.kid} of {n} who lived {p.at}
  {a} was {n} years old and lived {p.at}
  {a}, a {a.kid} of {n}, lived {p.at}
  ~{p.at} lived a {a.kid} of {n} called {a.f}
lasting_home
  {a} lived {p.at}
  {a.s} home was {p.at}
  {a} had always lived {p.at}
lasting_trade
  {a.n} was the {a.trade} of Hamlet
  {a.n} was the village {a.trade}
  {a.n} the {a.trade} could [nearly |almost |]always be found {p.at}
  [everyone|everybody] in Hamlet knew {a.n} the {a.trade}
  {a.n} was the {a.trade} and worked hard {p.at}
  ~the {a.trade} of Hamlet was called {a.f}
lasting_parent
  {a} was the {a.child} of {b.e}
  {a.s} {b.parent} was {b.e}
  {b.e} was {a.s} {b.parent}
lasting_likes
  {a} liked {g} better than [anything|anything else to eat]
  {a.s} favourite food was {g}
  nothing made {a.o} happier than {g}
  {a} liked {g} best of all
  ~of all things to eat, {a} loved {g} most
lasting_owner
  {a} had a {z.kind} [called|named] {z.n}
  {z.n} the {z.kind} belonged to {a.o}
  {a} owned a {z.kind} by the name of {z.n}
lasting_stands
  {p} {p.stands}
  {p}, as everyone knew, {p.stands}
  {p} of Hamlet {p.stands}
  ~in Hamlet, {p} {p.stands}

# ---- going about
go_play
  {a} went {p.to} to {p.do}
  {a} [ran|walked] {p.to} and {p.did}
  {a} [spent the {o}|stayed a long time] {p.at} and {p.did}
  {a} {p.did} {p.at}
  ~{a} set off {p.to}, where {a.he} {p.did}
go_past
  {a} [walked|went|hurried] {p.past}
  the way led {p.past}
  {a} took the path {p.past}
  {a} [ran|marched] {p.past} without stopping
  ~{a.s} way went {p.past}
arrive
  {a} came {p.to}[ at last| a little later|]
  {a} reached {p}[ at last| out of breath| before long|]
  [soon|before long] {a} was {p.at}
  {a} [walked|hurried|ran] {p.to}
  ~{a} did not stop until {a.he} was {p.at}
arrive_to
  {a} found {b.o} {p.at}
  {a} [walked|hurried|ran] {p.to}, where {b} was [busy|at work|waiting]
  {p.at} {a} found {b.o}
  {a} [came|went] {p.to} and [looked for|called for] {b.o}
  ~{b} was already {p.at} when {a} got there
go_home
  {a} [walked all the way|ran all the way|hurried|went|walked] home
  {a} was soon home again
  {a} went home [singing|whistling|with a light heart|with quick steps]
  {a} turned back [and went home|towards home]
go_both
  {a.both} went {p.to} together
  {a.both} [walked|ran|hurried] {p.to} side by side
  {a.both} set off {p.to}
  ~side by side, {a.both} went {p.to}

# ---- small talk: a speaks to b
agree
  {a} said yes at once
  {a} [nodded|was glad to help]
  {a} promised to be [quick|careful]
  "[Of course|Gladly|Yes], {b.v}," said {a.f}
  "I will go at once," said {a.f}
  "[Of course|Gladly]," {a} answered. "It is not far."
  ~"You can count on me, {b.v}," said {a.f}
thank
  {a} thanked {b.o} [warmly|kindly|twice|with all {a.his} heart]
  {a} was [very pleased|so glad that {a.he} laughed]
  {a} [smiled|beamed] and thanked {b.o}
  "Thank you, {b.v}," said {a.f}. "You are [very kind|a great help|so good to me]."
  "How [good|kind] of you," said {a.f}[ with a smile|]
  "[Thank you|Thank you so much]," said {a.f}
  ~"How can I ever repay you, {b.v}?" said {a.f}
reward
  {a} gave {b.o} {n.g} [for the way home|as thanks|for {b.his} trouble]
  as thanks, {b} got {n.g}
  {a} gave {b.o} {n.g} to take home
  "Take {n.g} for your trouble," said {a.f}
  "Here, {b.v}," said {a.f}, "take {n.g} [with you|home]."
  ~{a} would not let {b.o} go without {n.g}

# ---- endings
close
  that night, {a} slept well
  {a} went to bed [happy|early|with a smile] that night
  that evening, {a} told the [whole |]story at supper
  it had been a [good|long|fine] day
  {a} never forgot that {d}
  and so that {d} ended well
  everyone in Hamlet talked about it for [days|a week|a long time]
  "What a day," said {a.f} that evening
  {a} laughed about it for a long time
  ~and that was how {d} ended in Hamlet
close_proud
  {a} was proud of what {a.he} had done
  {a} felt a little [taller|older] than before
  no one in Hamlet was [prouder|happier] than {a.o} that {d}
  everyone told {a.o} that {a.he} had done well
close_careful
  from then on {a} took better care of {a.his} things
  from that day on {a} was more careful
  {a} made up {a.his} mind to be more careful
close_honest
  it felt good to [be honest|have helped]
  {a} was glad that everything was back in the right place
close_rainy
  outside, the rain fell softly on the roofs
  all evening the rain fell on the roofs
close_windy
  that evening, the wind rattled at the windows
  all night the wind sang in the trees
close_snowy
  outside, the snow was falling
  by evening the whole village was white
close_cold
  that night, a warm fire burned in every house
close_sunny
  the sun went down red behind the hill
close_misty
  that night, mist lay over the river
  by evening the mist hung between the houses
"""

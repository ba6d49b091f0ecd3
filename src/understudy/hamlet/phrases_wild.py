"""Phrases for the plots about weather and animals (plots_wild.py).

templates.py explains the notation. Lines that begin with ~ are for validation text only.
"""

WILD = """
# ---- wind: it takes t from a
wind_go
  {a} went {p.to} with {t.a}
  {a} took {t.a} {p.to}
  {a} was on the way {p.to} with {t.a}
wind_takes
  suddenly the wind took {t} [away|out of {a.s} hands]
  a [strong|great] wind came and carried {t} {p.to}
  then the wind tore {t} away and blew it {p.to}
  ~in a moment the wind had {t} and flew with it {p.to}
wind_run
  {a} ran after it {p.to}
  {a} followed {t} {p.to}
  {a} saw it come down {p.at} and ran there
  "Stop!" cried {a.f}, and ran after {t} {p.to}
wind_high
  {t.the} hung high up, and {a} could not reach it
  {a} jumped, but {t.the} was too high
  {a} saw {t} far above and could not get to it
wind_helper
  {a} came along {p.at}
  {a} saw {b.o} {p.at} and came over
  there {a} came along
wind_offer
  {a} wanted to help
  {a} looked up at {t} and had an idea
  "I will get {t} for you, {b.v}," said {a.f}
  "Do not worry, {b.v}," said {a.f}
  ~"That wind is a thief," said {a.f}
wind_tool
  {a} had {t.a} and reached up with it
  {a} fetched {t.a}
  with {t.a} {a} reached up high
  {a} took {t.a} and [stood on a wall|climbed up a little]
wind_down
  {a} pulled {t} down
  {a} got {t} at last
  down came {t.the}, and {a} caught it

# ---- rain: a gets wet, b lends t
rain_clouds
  dark clouds came over the hill
  the sky grew dark, and [the first drops fell|it began to rain]
  suddenly it began to rain
  "Was that a drop?" said {a.f}
rain_wet
  soon {a} was wet to the skin
  the rain fell so hard that {a} could hardly see
  {a} had no coat and got very wet
  water ran from {a.s} hair
rain_shelter
  {a} ran {p.to} as fast as {a.he} could
  {a} looked for a dry spot and ran {p.to}
  {a} hurried {p.to}
rain_meets
  there {a} met {b.o}
  {b} was there too
  there stood {b} and waited for the rain to stop
rain_pity
  {a} felt sorry for {b.o}
  {a} laughed and shook {a.his} head
  "You are all wet, {b.v}," said {a.f}
  "Come here and get warm, {b.v}," said {a.f}
rain_tea
  {a} gave {b.o} a cup of hot tea
  {a} had some hot soup for {b.o}
rain_lend
  {a} lent {b.o} {t.a}
  {a} took {t.a} and put it into {b.s} hands
  "Take my {t.w}, {b.v}," said {a.f}
  ~{b} was lent {t.a} until the next day
rain_promise
  {a} promised to bring {t} back
  {a} said that {a.he} would bring {t} back
  "I will bring it back tomorrow, {b.v}," said {a.f}
rain_next_day
  the next day {a} went back {p.to} with {t.the}
  the day after, {a} took {t} back {p.to}
  the sun was out again the next day, and {a} took {t} {p.to}

# ---- snow: n steps, m steps
snow_deep
  the snow lay so deep that {a} could not get out of the door {p.at}
  the snow had closed the door, and {a} was stuck {p.at}
  so much snow had fallen that nobody could get {p.to}, and {a} was inside
snow_come
  {a} came {p.to} with {t.a}
  {a} heard of it and ran {p.to} with {t.a}
  {a} took {t.a} and went {p.to}
snow_dig
  {a} cleared {n.g} of the path
  {a} began at once and cleared {n.g} of the path
snow_help
  then {a} came to help {b.o}
  {a} came along and wanted to help
  {a} saw {b.o} at work and came to help
snow_dig_too
  {a} cleared {n} more
  {a} cleared {n.g} too
snow_total
  that made {k.g} in all
  so {a.both} had cleared {k.g}
  "That makes {k.g}," said {a.f}
snow_free
  then the door opened, and {a} came out
  now the way was free, and {a} stepped out into the snow
  {a} was free at last
snow_man
  {a.both} made a big man of snow
  {a.both} threw snow at each other
  {a.both} slid down the roof of the shed
snow_soup
  {a} gave them all hot soup
  {a} asked them in and made tea

# ---- fog: a is lost
fog_want
  {a} wanted to go {p.to}
  {a} was on the way {p.to}
  {a} set off {p.to}
fog_thick
  the mist was so thick that {a} could not see {a.his} own feet
  {a} could not see the road any more
  white mist lay over everything, and {a} saw neither house nor tree
fog_lost
  {a} lost the way and came {p.to}
  {a} walked in a circle and ended up {p.at}
  {a} turned the wrong way and came {p.to}
  ~nothing looked right, and {a} was suddenly {p.at}
fog_call
  {a} called, but nobody answered
  {a} was cold and a little afraid
  "Is anybody there?" cried {a.f}
  "Where am I?" said {a.f}
fog_hears
  then {a.e} came out of the mist and {a.noise}
  suddenly {a.e} {a.noise} somewhere near
  {a.e} {a.noise} and came to {b.o} through the mist
fog_follows
  {a} followed {b.o}, and soon they were {p.at}
  {b} knew the way, and {a} followed {b.o} {p.to}
  {a} held on to {b.o} and came safely {p.to}
fog_owner
  {a} was there and had been looking for {c.o}
  {a} was waiting there for {c.o}
  "There you are!" cried {a.f}. "And {c.n} has brought you, {b.v}."
  "{c.n} can find the way in any mist, {b.v}," said {a.f}
fog_thanks
  {a} told {b.o} what had happened
  {a} was [very|so] thankful
  "{c.n} is the best guide in Hamlet, {b.v}," said {a.f}
feed
  {a} gave {b.o} {n.g}
  {b} got {n.g} from {a.o}
  as a reward, {b} got {n.g}

# ---- an animal runs off: a is the owner, b the animal
run_gone
  but {b} was gone
  but that {o} {b} was nowhere to be seen
  {a} had left the gate open, and {b} had run away
  the door was open, and {b} was gone
  ~nobody could say where {b} had gone
run_worry
  {a} called and called
  {a} was very worried
  "{b.n}! {b.n}! Where are you?" called {a.f}
  "Where can {b.n} be?" said {a.f}
run_help
  {a} asked {b.o} to help look for {z.n}
  {b} came by, and {a} told {b.o} what had happened
  "Have you seen {z.n}, {b.v}?" asked {a.f}
  "Will you help me to find {z.n}, {b.v}?" asked {a.f}
run_agree
  {a} came along [at once|gladly]
  {a} helped to look for {z.n}
  "[Of course|Gladly], {b.v}," said {a.f}
  "We will find {z.n}, {b.v}," said {a.f}
run_search
  {a} looked {p.at}, but {b} was not there
  first {a} searched {p.at}, but found nothing
  {a} ran {p.to}, but saw no {b.kind} there
run_tracks
  then {a} saw some small tracks on the ground
  {a} listened carefully, and somebody {b.noise}
  there were marks on the path, and {a} followed them
run_find
  at last {a} found {b.o} {p.at}, {p.spot}
  and there was {b.o}, {p.at}, {p.spot}
  {a} found {b.o} {p.spot} {p.at}
  ~{b} was sitting {p.spot} {p.at} when {a} came
run_ate
  {a} had eaten {n.g} and looked very pleased
  {a} had found {n.g} and eaten them all
  {n.g} were gone, and {a} was round and happy
run_scold
  {a} could not be angry
  {a} laughed and put both arms around {b.o}
  "You silly {b.kind}," said {a.f}
  "Never do that again, {b.n}," said {a.f}
run_home
  {a} took {b.o} home
  {a.n} and {b.n} went home together
  {a} led {b.o} home
close_gate
  from then on {a} always closed the gate
  the next day, {a} built a better gate

# ---- an animal in need: a hears it
rescue_hears
  there {b.e} {b.noise} loudly
  suddenly something {b.noise} very near
  something {b.noise}, and {a} stopped
  "What was that?" said {a.f}
rescue_stuck
  {a} found {b.f} stuck {p.spot}
  {b.f} was stuck {p.spot} and could not get out
  {a} looked {p.spot}, and there {b.f} was stuck
rescue_alone
  {a} pulled, but {b} did not move
  {a} was not strong enough to help alone
  {a} tried to pull {b.o} out, but it was no use
  "I need help," said {a.f}
rescue_call
  {a} called for {b.o}
  {a} ran to get {b.o}
  "Help!" cried {a.f}, and {b} heard it
rescue_comes
  {a} came with {t.a}
  {a} [hurried|came running] with {t.a}
  {a} brought {t.a} and hurried {p.to}
rescue_tool
  with {t.the} they pulled {c} out
  {a.both} used {t.the} to get {c} out
  {a} used {t}, and they pulled until {c} was free
  ~it was not easy, but with {t.the} they got {c} out
rescue_free
  {a} {a.noise} and shook {a.self}
  {a} {a.noise} with joy
  {a} was free and {a.noise}
rescue_brings
  {a} brought {b.o} home to {c.o}
  {a} led {b.o} to {c.o} {p.at}
  {a} took {b.o} {p.to}, where {c} was waiting
"""

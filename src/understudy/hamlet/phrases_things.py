"""Phrases for the plots about things (plots_things.py).

templates.py explains the notation. Lines that begin with ~ are for validation text only.
"""

THINGS = """
# ---- an errand: a asks b to bring t to c at p
errand_ask
  {a} asked {b.o} to [take|carry|bring] {t.a} to {c.o} {p.at}
  {a} had {t.a} for {c.o} and asked {b.o} to bring it {p.to}
  {c} was waiting {p.at} for {t.a}, and {a} asked {b.o} to bring it there
  {a} wanted {b.o} to take {t.a} to {c.o} {p.at}
  "{b.v}, will you take this {t.w} to {c.v}?" asked {a.f}. "You will find {c.him} {p.at}."
  "Please take this {t.w} to {c.v} {p.at}," {a} said to {b.o}
  "{c.v} is waiting {p.at} for this {t.w}," {a} said. "Can you bring it there, {b.v}?"
  ~{a} needed someone to bring {t.a} to {c.o} {p.at}, and {b} had quick feet
  ~"Who will run {p.to} with this {t.w} for {c.v}?" asked {a.f}. "Will you, {b.v}?"
errand_hand
  {a} put {t} into {b.s} hands
  {a} handed {t} to {b.o} [with a smile|and waved]
  {b} took {t} [carefully|in both hands|under one arm]
  {a} gave {t} to {b.o}
errand_deliver
  {a} gave {t} to {b.o}
  {a} held {t} out, and {b} took it with a smile
  {b} was glad to get {t} from {a.o}
  "This is for you, {b.v}," said {a.f}, and gave {t} to {b.o}
  "Here is {t.a} for you, {b.v}," said {a.f}
  ~{a} laid {t} in {b.s} hands
errand_report
  {a} told {b.o} that {c} was [pleased|very happy|full of thanks]
  {a} told {b.o} [all about it|about the walk]
  "It is done, {b.v}," said {a.f}
  "{c.v} was [very pleased|so happy]," {a} told {b.o}

# ---- held up on the way: a is the one on the way
delay_path
  the path was [wet|full of mud|steep] there, and {a} nearly [slipped|fell]
  a cart stood across the road, and {a} had to [wait|climb over it]
  {a} stopped to look at a [little bird|rainbow|strange cloud|big yellow butterfly]
  a stone got into {a.s} shoe, and {a.he} had to stop
delay_heavy
  {t.the} was heavy, and {a} had to rest for a while
  {a} [nearly dropped|had to hold on tight to] {t}
  {a} changed {t} from one hand to the other
delay_animal
  there {a.e} came running and {a.noise} at {b.o}
  {a.e} {a.noise} and ran in front of {b.o}
  {a.e} followed {b.o} and {a.noise}
delay_animal_after
  {a} laughed and [walked on|stroked {b.o}]
  {a} was not afraid and [walked on|said hello]
  "Not now, {b.n}," said {a.f}
  "Go home, {b.n}," said {a.f}
delay_friend
  there {a} asked {b.o} to play
  {a} was there and wanted {b.o} to stay and play
  there {a} called to {b.o} and wanted to play
delay_no_time
  {a} had no time and [went on|hurried on]
  {a} shook {a.his} head and [went on|walked faster]
  "I can't stop now, {b.v}," said {a.f}
  "Later, {b.v}," said {a.f}. "I have something to do."
  ~"I would love to, {b.v}, but first I must finish this," said {a.f}

# ---- something left behind: a is its owner
fetch_left
  {a} had left {t.a} {p.at}
  {a} had forgotten {t.a} {p.at}
  {a} had put down {t.a} {p.at} and forgotten it there
  {a} could not work, because {a.his} {t.w} was still {p.at}
fetch_ask
  {a} asked {b.o} to [get|fetch] it
  {a} wanted {b.o} to [go and get|fetch] it
  "Would you get {t} for me, {b.v}?" asked {a.f}
  "Can you fetch {t} for me, {b.v}?" asked {a.f}. "My legs are tired."
  ~"{b.v}, you are faster than I am," said {a.f}. "Will you get {t} for me?"
fetch_where
  {a} looked left and right
  at first {a} could not see {t} anywhere
  {a} [searched for a while|looked everywhere]
  "Now where is that {t.noun}?" said {a.f}
find_spot
  {a} found {t} {p.spot}
  {a} looked {p.spot}, and there was {t.the}
  {t.the} lay {p.spot}, and {a} picked it up
  and there, {p.spot}, {a} saw {t}
  "There you are," said {a.f}, and pulled {t} out from {p.spot}
  ~{p.spot} {a} found {t}
bring_back
  {a} brought {t} [back |]{p.to}
  {a} carried {t} [back |]{p.to}
  {a} ran back {p.to} with {t.the}
  {a} took {t} {p.to}, where {b} was waiting
hand_back
  {a} gave {t} back to {b.o}
  {a} handed {t} to {b.o}
  {a} put {t} into {b.s} hands
  {b} got {t} back from {a.o}
  "Here is your {t.w}, {b.v}," said {a.f}
  ~and so {b} got {t} from {a.o}

# ---- lost and found: a has lost t
lost_treasure
  {a} had {t.a} and [took it everywhere|would not part with it|was very proud of it]
  {a} was [very|so] proud of {a.his} {t.w}
  of all {a.his} things, {a} loved {a.his} {t.w} most
  {a} had a new treasure: {t.a}
  ~{a} owned {t.a} and liked to show it to everyone
lost_go
  {a} took {t} {p.to} and {p.did}
  {a} went {p.to} with {t.the} and {p.did}
  {a} had {t} along when {a.he} went {p.to} to {p.do}
lost_drop
  there {t} slipped from {a.his} hands, but {a} did not notice
  {a} put {t} down {p.spot} and forgot it
  there {a} dropped {t} without knowing it
lost_notice
  but {p.at} {a} saw that {t} was gone
  when {a} came {p.to}, {t} was gone
  later, {p.at}, {a} missed {t.the}
  {a} was already {p.at} when {a.he} noticed that {t} was missing
  "Oh no, where is my {t.w}?" cried {a.f} {p.at}
sad
  {a} was [very sad|close to tears|very worried]
  {a} [sat down and sighed|felt like crying|did not know what to do]
  a tear ran down {a.s} cheek
  "What shall I do now?" said {a.f}
  "Oh, what bad luck," said {a.f}
lost_search
  {a} looked {p.at}, but {t} was not there
  {a} searched {p.spot} {p.at}, but found nothing
  {a} looked for {t} {p.at}, but it was not there
  "Maybe it is {p.at}," said {a.f}, but there was nothing there
  ~{a} turned everything over {p.at}, but there was no {t.noun}
lost_meet
  there {a} met {b.o}
  {b} came by and asked what was wrong
  {b} saw {a.s} sad face and came over
lost_ask
  {a} asked {b.o} about {t.the}
  {a} told {b.o} about {t.the}
  "Have you seen my {t.w}?" {a} asked {b.o}
  "{b.v}, have you seen {t.a} anywhere?" asked {a.f}
lost_hint
  {a} had seen {t} {p.at}
  {a} told {b.o} to look {p.at} once more
  {a} remembered {t.a} lying {p.at}
  "I saw {t.a} {p.at}," said {a.f}
  "You were {p.at} before," said {a.f}. "Look there once more."
  ~"Something like that was lying {p.at}," said {a.f}
lost_thank_helper
  {a} ran back to thank {b.o}
  {a} went back and thanked {b.o}
  "You were right, {b.v}," said {a.f}. "Thank you."
lost_animal
  {a.e} had been {p.at} too and had found {t} {p.spot}
  {a.e} had already found {t} {p.at}, {p.spot}
  meanwhile, {p.at}, {a.e} found {t}
lost_animal_brings
  {a} came running {p.to} with {t.the}
  suddenly {a} stood before {b.o}, and there was {t.the}
  soon {a} came to {b.o} and carried {t.the}
lost_animal_gives
  {a} laid {t} [down |]at {b.s} feet
  {a} dropped {t} in front of {b.o}
  {b} took {t} from {a.o}
lost_praise
  {a} [stroked|hugged] {b.o}
  {a} laughed and [stroked|hugged] {b.o}
  "Clever {b.n}," said {a.f}
  "What would I do without you, {b.n}?" said {a.f}
lost_found_by
  {a} had [just|already] found {t} {p.at}, {p.spot}
  {a} had already picked {t} up {p.spot} {p.at}
  meanwhile {a} had been {p.at} and had found {t} there
lost_finder_comes
  {a} came {p.to} with {t.the}
  {a} ran {p.to} and showed {t} to {b.o}
  {a} came running {p.to} with {t.the}
lost_yours
  {a} asked {b.o} if {t} was {b.hers}
  "Is this {t.noun} yours, {b.v}?" asked {a.f}
  "Look what I have found, {b.v}," said {a.f}

# ---- found: a has found t
found_it
  there {a} found {t.a} {p.spot}
  {a} looked {p.spot} and saw {t.a}
  {p.spot} lay {t.a}, and {a} picked it up
  "What is this?" said {a.f}, and picked up {t.a} {p.spot}
found_whose
  {a} did not know whose it was
  {a} [wondered|asked {a.self}] whose {t.noun} it was
  "Someone must be looking for it," {a} thought
  "Whose {t.noun} can it be?" said {a.f}
found_ask
  {a} showed {t} to {b.o}
  {a} held up {t} and asked {b.o} about it
  "Is this your {t.noun}?" {a} asked {b.o}
  "Have you lost {t.a}, {b.v}?" asked {a.f}
  ~"Does this {t.noun} belong to you, {b.v}?" asked {a.f}
found_not_mine
  {a} shook {a.his} head and told {b.o} to ask {c.o}
  it did not belong to {a.o}, but {a.he} had heard that {c.f} missed {t.a}
  {a} had never seen it before and sent {b.o} to {c.o}
  "No, it is not mine," said {a.f}. "Ask {c.f}."
  "Not mine," said {a.f}, "but {c.f} has lost {t.a}."
found_mine
  {a} had [looked for it everywhere|missed it all day]
  {a} was so happy to see {t}
  {a} had lost it {p.at} [the day before|that morning]
  "[Yes, that is mine|Oh, there it is]," said {a.f}. "I must have lost it {p.at}."
  "My {t.noun}!" cried {a.f}. "I have looked for it everywhere."

# ---- swaps: a has t, b has u
swap_have
  {a} had {t.a} that {a.he} did not need[ any more|]
  {a} had {t.a}, but {a.he} hardly ever used it
  {a} found {t.a} at home that nobody needed
swap_need
  {a} needed {t.a}, but there was none in the house
  {a} told {b.o} that what {a.he} really needed was {t.a}
  "If only I had {t.a}," said {a.f}
  "What I need is {t.a}," {a} told {b.o}
swap_meet
  {p.at} {a} met {b.o}
  {a} came {p.to} and met {b.o} there
  {a} went {p.to} and saw {b.o}
  ~{b} was {p.at} when {a} came by
swap_offer
  {a} had {u.a} and liked {t.the}
  {a} wanted {t} and offered {u.a} for it
  {a} pointed to {t} and held out {u.a}
  "I will give you {u.a} for {t.the}, {b.v}," said {a.f}
  "That is a fine {t.noun}," said {a.f}. "Will you take {u.a} for it?"
swap_done
  {a} gave {t} away and took {u}
  so {a} gave {t} to {b.o} and got {u.the}
  {a} swapped {t.the} for {u}
  {a.both} shook hands, and {a.n} walked off with {u.the}
swap_give
  {a} gave {t} to {b.o}
  {a} held {t} out, and {b} could hardly believe it
  "Here is {t.the} you needed, {b.v}," said {a.f}
  ~{b} got just what {b.he} needed from {a.o}: {t.the}

# ---- something broken: a is the owner, b mends it
repair_break
  but there {t} broke
  {a} fell, and {t} broke
  {a} tripped {p.at}, and {t} broke
  with a crack, {t} broke
  suddenly there was a crack, and {t} was broken
repair_tear
  but there {t} tore
  {a} got caught on a nail {p.at}, and {t} tore
  with a loud noise {t} tore in two
  suddenly there was a hole in {t.the}
  ~{p.at} {a} saw that {t} was torn
repair_advice
  {a} told {b.o} to take {t} to {c.o}
  "Take it to {c.f}," {a} said to {b.o}
  {a} was sure that {c} could help
  "{c.f} can mend anything," said {a.f}
repair_give
  {a} handed {t} to {b.o}
  {a} gave {t} to {b.o} and showed what was wrong
  {b} took {t} from {a.o}
  "Can you mend my {t.noun}, {b.v}?" asked {a.f}, and gave it to {b.o}
  "Please help me with {t.the}, {b.v}," said {a.f}, and handed it over
repair_can
  {a} looked at {t} [from all sides|for a long time] and nodded
  {a} said that it was not as bad as it looked
  "That is soon done," said {a.f}. "But you must help me, {b.v}."
  "I can mend it while you help me, {b.v}," said {a.f}
repair_help
  so {a} helped {b.o} and {x} {n.g}
  in return, {a} {x} {n.g} for {b.o}
  to pay for it, {a} {x} {n.g}
  ~{a} was glad to help and {x} {n.g} for {b.o}
repair_mend
  meanwhile {a} worked [carefully|quietly], and soon {t} was whole again
  meanwhile {a} mended {t}
  {a} took {a.his} tools and mended {t}
repair_whole
  {t.the} was as good as new
  {a} looked at {t} and could not see where it had been broken
  {a} held {t} [up to the light|tight]
"""

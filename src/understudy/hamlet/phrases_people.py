"""Phrases for the plots about people (plots_people.py).

templates.py explains the notation. Lines that begin with ~ are for validation text only.
"""

PEOPLE = """
# ---- a visit: a is the visitor
visit_come
  {a} came to Hamlet and stopped {p.at}
  {a} came [down|along] the road and stopped {p.at} to rest
  {a} stood {p.at} and looked around
  {a} came {p.to} with a [big|heavy] bag
  ~nobody knew why, but {a} came {p.to}
visit_ask_way
  {a} asked {b.o} the way {p.to}
  {a} wanted to know from {b.o} how to get {p.to}
  "Can you tell me the way {p.to}?" {a} asked {b.o}
  "I have never been here before," {a} said to {b.o}. "Where is {p}?"
  ~"Which way is {p}, young friend?" {a} asked {b.o}
visit_offer
  {a} offered to come along
  {a} was glad to show the way
  {a} knew the way well
  "Come with me," said {a.f}. "I will show you."
  "It is not far," said {a.f}. "I will come with you."
visit_pedlar
  there {a} opened {a.his} big bag, full of [ribbons|cups and spoons|bright buttons]
  {a} spread out pots and pans, ribbons and rings
  "Look at all my pretty things," said {a.f}
visit_traveller
  there {a} told {b.o} about towns far away
  {a} spoke of high mountains and wide deserts
  "I have walked for a hundred days," said {a.f}
visit_piper
  there {a} played a merry tune, and everyone danced
  {a} took out a pipe and played until the windows rang
  "This is a song from the mountains," said {a.f}, and played it
visit_painter
  there {a} sat down and painted the roofs and the sky
  {a} painted the village with blue and yellow paint
  "The light is so beautiful here," said {a.f}
visit_sailor
  there {a} told {b.o} about whales and great storms at sea
  {a} told how a storm had once broken {a.his} ship
  "The sea is as big as the sky," said {a.f}
visit_singer
  there {a} sang an old song about a king and a swan
  {a} sang so well that even the birds were quiet
  "This song is for you," said {a.f}, and began to sing
visit_juggler
  there {a} threw [three|four|five] balls into the air and caught them all
  {a} walked on {a.his} hands, and everyone clapped
  "Watch this," said {a.f}, and threw a hat high into the air
visit_clockmaker
  there {a} looked at the old village clock and made it tick again
  {a} showed {b.o} a clock no bigger than a nut
  "A clock is a little machine with a heart," said {a.f}
visit_wonder
  {a} had never [seen|heard] anything like it
  {a} listened and watched with wide eyes
  {a} clapped until {a.his} hands hurt
  "How wonderful!" cried {a.f}
visit_feed
  {a} gave {b.o} {n.g} for supper
  {a} brought {b.o} {n.g}
  "You must be hungry," said {a.f}, and gave {b.o} {n.g}
  ~{b} looked hungry, and {a} brought {n.g}
visit_pack
  {a} took {t.a} out of {a.his} bag
  in {a.his} bag {a} had {t.a}
  {a} reached into {a.his} coat and brought out {t.a}
visit_gift
  {a} gave {t} to {b.o}
  {a} put {t} into {b.s} hands
  "This is for you, {b.v}," said {a.f}
  "Take {t}, {b.v}, and think of me," said {a.f}
  ~it was a present for {b.o} from {a.o}
visit_leave
  after {n} days {a} went on {a.his} way
  {a} stayed for {n} days and then moved on
  {n} days later {a} said goodbye to everyone
visit_wave
  {a} waved for a long time
  {a} stood on the road and waved until {b} was out of sight
  {a} was sorry to see {b.o} go
  "Come back soon, {b.v}," said {a.f}
close_hope
  {a} hoped for another visit next year
  {a} often thought of that visit
  from then on {a} dreamed of far places

# ---- a quarrel: a is the hero, b the other; they want t
quarrel_find
  {a} saw {t.a} {p.spot} and picked it up
  {a} found {t.a} {p.spot}
  there {a} found {t.a} that nobody wanted
  {a} was the first to see {t.a}, and took it
quarrel_want
  {a} wanted {t} too
  {a} tried to take {t} from {b.o}
  "I want {t.the}," said {a.f}. "Give it to me."
  "That is mine," said {a.f}. "I saw it first."
  ~"You always get everything, {b.v}," said {a.f}
quarrel_no
  {a} would not give it up
  {a} held it tight and shook {a.his} head
  "No, {b.v}, I found it," said {a.f}
  "You can't have it," said {a.f}
quarrel_angry
  both of them shouted, and {a} even stamped {a.his} foot
  {a} grew red in the face
  soon {a.both} were both angry
  "I will never play with you again," said {a.f}
quarrel_off
  {a} turned around and ran {p.to}
  {a} began to cry and ran off {p.to}
  {a} went {p.to}, all alone
  ~without another word {a} went {p.to}
quarrel_wise
  there {a} came by and sat down beside {b.o}
  {a} was passing and saw {b.s} tears
  {a} found {b.o} {p.at}
quarrel_advice
  {a} said that a friend is worth more than any treasure
  {a} told {b.o} that every quarrel comes to an end
  "A friend is worth more than that," said {a.f}
  "Wait a little, {b.v}," said {a.f}. "Anger does not last."
quarrel_alone
  {a} looked at {t.the}, but it was no fun alone
  {a} sat there with {t.the} and felt sorry
  without {b.o}, {a} did not enjoy {t.the} at all
  "What good is {t.the} without a friend?" {a} thought
quarrel_seek
  {a} went {p.to} to look for {b.o}
  {a} looked for {b.o} and found {b.him} {p.at}
  {a} ran {p.to}, where {b} was sitting
quarrel_sorry
  {a} said that {a.he} was sorry
  {a} looked at the ground and asked {b.o} not to be angry
  "I am sorry, {b.v}," said {a.f}
  "I was unkind, {b.v}," said {a.f}. "I am sorry."
  ~"It was my fault, {b.v}," said {a.f}
quarrel_forgive
  {a} was sorry too
  {a} smiled again
  {a} forgave {b.o} at once
  "I am sorry too," said {a.f}
  "Let us be friends again," said {a.f}
quarrel_give
  {a} gave {t} to {b.o}
  {a} held {t} out, and {b} took it
  "You can have {t.the}, {b.v}," said {a.f}
  ~{a} put {t} into {b.s} hand
quarrel_turns
  {a} promised to share it
  {a} said that it should belong to both
  "You can have it tomorrow," said {a.f}
quarrel_share
  {a} let {b.o} play with {t} as much as {b.he} liked
  {a.both} played with {t} until it was dark
  "Let us take turns with {t.the}, {b.v}," said {a.f}
close_friends
  they walked home arm in arm
  after that they were better friends than before
  they laughed all the way home
  they were all tired and happy

# ---- hide-and-seek
hide_gather
  {a} met {b.o} and {c} {p.at} to play hide-and-seek
  {a.f}, {b} and {c} came {p.to} to play hide-and-seek
  {p.at} {a} played hide-and-seek with {b.o} and {c}
hide_count
  {a} closed {a.his} eyes and counted to {n}
  {a} had to seek and counted slowly to {n}
  {a} turned around and counted up to {n}
  "I will count to {n}," said {a.f}, and closed {a.his} eyes
  ~{a} put {a.his} hands over {a.his} eyes until {a.he} had counted to {n}
hide_at
  {a} hid {p.at}, {p.spot}
  {a} ran {p.to} and hid {p.spot}
  {a} crept {p.to} and lay down {p.spot}
  ~{p.spot} {p.at} {a} made {a.self} very small
hide_look
  first {a} looked {p.at}, but nobody was there
  {a} looked {p.spot} {p.at} and found nobody
  "Somebody must be {p.at}," {a} thought, but nobody was there
hide_first
  first {a} found {b.o} {p.at}
  {a} went {p.to}, and there was {b.o}
  the first to be found was {b.f} {p.at}
  "I see you, {b.v}!" cried {a.f} {p.at}
hide_animal
  then {a} {a.noise} [twice|loudly] and would not move from {b.s} side
  {a.e} came by and {a.noise}, and {b} had to laugh
hide_second
  at last {a} found {b.o} {p.at}
  after a long time {a} found {b.o} {p.at} too
  {a} had to search for a long time before {a.he} found {b.o} {p.at}
  "There you are, {b.v}!" cried {a.f} {p.at}
hide_win
  so {a} won the game
  {a} had won
  that made {a} the winner
  "You won, {a.v}," said {b.f}
hide_again
  {a} wanted to play again
  {a} asked for one more game
  "Again!" cried {a.f}
  "Next time I will hide better," said {a.f}

# ---- a contest: who gets more g
contest_dare
  {a} said that {a.he} could find more {g} than {b.f}
  {a} asked {b.o} who could get more {g}
  {a} wanted to see who could get the most {g}
  "I can get more {g} than you, {b.v}," said {a.f}
  "Let us see who gets more {g}, {b.v}," said {a.f}
  ~"Nobody gets as many {g} as I do," {a} told {b.o}
contest_gain
  {a} {x} {n.g}
  {a} worked hard and {x} {n.g}
  {a} [looked around|took {a.his} time] and {x} {n.g}
contest_gain_too
  {a} {x} {n.g}
  {a}, however, {x} {n}
  {a} was not lazy either and {x} {n.g}
  ~as for {a}, {a.he} {x} {n.g}
contest_win
  {a} was the winner
  so {a} had won
  {a} jumped for joy
  "I won!" cried {a.f}
contest_more
  {a} had {k} more than {b.f}
  with {n.g}, {a} had {k} more than {b.f}
contest_prize
  {a} came by and gave {t.a} to {b.o} as a prize
  {a} had watched it all, and gave {t.a} to {b.o}
  as a prize, {b} got {t.a} from {a.o}
contest_fair
  {a} was a good loser
  {a} clapped and laughed
  {a} shook {b.s} hand
  "You were better today, {b.v}," said {a.f}
  "Well done, {b.v}," said {a.f}
contest_next
  {a} promised {b.o} another try the next day
  {a} said that it was only luck
  "It was only luck," said {a.f}
  "Tomorrow you will win, {b.v}," said {a.f}

# ---- a sick friend
sick_ill
  {a} woke up with a cold and had to stay in bed
  {a} was ill and could not get up
  {a} had a sore throat and stayed in bed
  {a} had a cough and felt weak
  ~{a} lay in bed with a fever
sick_doctor
  {a.e} came to see {b.o}
  {a.e} came and looked at {b.s} tongue
sick_rest
  {a} told {b.o} to rest and drink hot tea
  {a} said that it was nothing bad
  "Stay in bed and drink hot tea, {b.v}," said {a.f}
  "You will be well again soon, {b.v}," said {a.f}
sick_brings
  {a} came to visit and brought {n.g}
  {a} knocked at the door and gave {b.o} {n.g}
  {a} brought {b.o} {n.g} in a [basket|bowl]
  "I have brought you {n.g}, {b.v}," said {a.f}
sick_brings_too
  later {a} came too and brought {n.g}
  {a} gave {b.o} {n.g} as well
  from {a}, {b} got {n.g}
  "Here are {n.g} from me, {b.v}," said {a.f}
  ~{a} did not come with empty hands and brought {n.g}
sick_wish
  {a} told {b.o} a funny story
  {a} [smiled at {b.o}|told {b.o} the news of the village]
  "Get well soon, {b.v}," said {a.f}
sick_total
  now {a} had {k.g} beside the bed
  that made {k.g} in all
  {a} counted them: there were {k}
  "Now I have {k.g}!" said {a.f}
  ~{n} and {m} made {k.g}
sick_eats
  {a} ate {n.g} at once
  {a} was hungry and ate {n} of them
  {a} was not very hungry and ate only {n}
sick_well
  {n} days later {a} was well again
  after {n} days {a} could run and jump again
  it took {n} days, and then {a} was well again

# ---- a lesson: x is what is learned
lesson_ask
  {a} wanted to learn how to {x}
  {a} asked {b.o} how to {x}
  "Will you teach me to {x}, {b.v}?" asked {a.f}
  "I want to learn how to {x}," said {a.f}
  ~"Is it hard to {x}, {b.v}?" asked {a.f}
lesson_show
  {a} showed {b.o} how to do it
  {a} did it once, very slowly
  {a} was glad to teach {b.o}
  "Watch my hands," said {a.f}
  "It is easy when you know how," said {a.f}, and showed {b.o}
lesson_fail
  the first time, it went wrong
  {a} tried, but it did not work
  at first {a} could not do it at all
  "I can't do it," said {a.f}
lesson_laugh
  {a} was watching, and {b} turned red
  {a} sat nearby and watched
lesson_again
  {a} told {b.o} not to give up
  {a} [smiled|laughed] and showed it again
  "Try again, {b.v}," said {a.f}
  "Nobody can do it the first time," said {a.f}
  ~"Slowly, {b.v}, slowly," said {a.f}
lesson_tries
  {a} tried {n} times, and then {a.he} could {x}
  after {n} tries {a} could {x}
  it took {n} tries, but then {a} could {x}
  {a} needed {n} tries to {x}
lesson_praise
  {a} [clapped {a.his} hands|was proud of {b.o}]
  {a} said that {b.he} was a fast learner
  "Well done, {b.v}," said {a.f}
  "Now you know it, {b.v}," said {a.f}
lesson_tell
  {a} told {b.o} all about it
  {a} told {b.o} that {a.he} could {x} now
  "Now I can {x}, {b.v}!" cried {a.f}
"""

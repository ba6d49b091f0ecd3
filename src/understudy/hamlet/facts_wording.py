"""Phrasings of the questions in facts.py. Lines with ~ are for val only."""

from __future__ import annotations

from understudy.hamlet.wording import phrasings

QUESTIONS = phrasings("""
trade
  What is {name}'s trade?
  What does {name} do in Hamlet?
  What work does {name} do?
  Tell me {name}'s trade.
  Do you know {name}'s trade?
  What is the trade of {name}?
  Say what {name}'s trade is.
  What is it that {name} does in Hamlet?
  How does {name} earn money?
  What kind of work does {name} do?
  ~What is {name} by trade?
  ~Tell me what work {name} does.
trade back
  Who is the {trade}?
  Who is the {trade} of Hamlet?
  What is the name of the {trade}?
  Tell me who the {trade} is.
  Do you know who the {trade} is?
  What is the village {trade} called?
  Say who the {trade} is.
  Who works as the {trade}?
  Who is {trade} in Hamlet?
  Which of the people is the {trade}?
  ~Who is the village {trade}?
  ~Do you know the name of the {trade}?
home
  Where does {name} live?
  Where is {name}'s home?
  Tell me where {name} lives.
  Do you know where {name} lives?
  Where is {name} at home?
  Where in Hamlet does {name} live?
  Say where {name} lives.
  Where does {name} sleep at night?
  In which house does {name} live?
  Can you tell me where {name} is at home?
  ~In what place does {name} live?
  ~Where do I find {name}'s home?
home back
  Who lives {at}?
  Tell me who lives {at}.
  Name someone who lives {at}.
  Do you know someone who lives {at}?
  Does anyone live {at}?
  Say who lives {at}.
  Who is at home {at}?
  Which people live {at}?
  Who sleeps {at} at night?
  ~Whose home is {the}?
  ~Can you name someone who lives {at}?
age
  How old is {name}?
  What is {name}'s age?
  Tell me how old {name} is.
  Do you know how old {name} is?
  How many years old is {name}?
  Say how old {name} is.
  How many years has {name}?
  Can you tell me {name}'s age?
  ~What is the age of {name}?
owner
  Whose {kind} is {pet}?
  Who owns {pet}?
  Who is {pet}'s owner?
  Who has {pet} the {kind}?
  Who does {pet} belong to?
  Tell me whose {kind} {pet} is.
  Say whose {kind} {pet} is.
  To whom does {pet} belong?
  Whom does {pet} the {kind} belong to?
  Can you tell me who has {pet}?
  ~Who is the owner of {pet}?
  ~Do you know whose {kind} {pet} is?
owner back
  What is {owner}'s {kind} called?
  What is the name of {owner}'s {kind}?
  Which animal belongs to {owner}?
  Which animal does {owner} own?
  Tell me the name of {owner}'s {kind}.
  Who is {owner}'s {kind}?
  Say what {owner}'s {kind} is called.
  Which {kind} belongs to {owner}?
  What name has {owner}'s {kind}?
  Can you tell me what {owner}'s {kind} is called?
  ~How is {owner}'s {kind} called?
  ~Do you know the name of {owner}'s {kind}?
kind
  What kind of animal is {pet}?
  What animal is {pet}?
  What is {pet}?
  Tell me what kind of animal {pet} is.
  Do you know what kind of animal {pet} is?
  Say what kind of animal {pet} is.
  What is {pet}, a dog, a cat or what?
  Which kind of animal is {pet}?
  Can you tell me what animal {pet} is?
  ~What sort of animal is {pet}?
  ~Tell me what {pet} is.
likes
  What does {name} like best?
  What does {name} like to eat?
  What is {name}'s favourite food?
  Tell me what {name} likes best.
  Do you know what {name} likes best?
  What food does {name} like best of all?
  Say what {name} likes best.
  What would {name} like to eat?
  Which food does {name} like best?
  Can you tell me what {name} likes to eat?
  ~What is the favourite food of {name}?
  ~What does {name} love to eat?
likes back
  Who likes {goods} best?
  Who likes to eat {goods}?
  Tell me who likes {goods} best.
  Name someone who likes {goods} best.
  Whose favourite food is {goods}?
  Say who likes {goods} best.
  Who is fond of {goods}?
  Whom can I please with {goods}?
  Which of the people likes {goods} best?
  ~Who loves to eat {goods}?
  ~Do you know who likes {goods} best?
stands
  Where is {the}?
  Where can I find {the}?
  Where do I find {the}?
  Tell me where {the} is.
  Do you know where {the} is?
  Where in Hamlet is {the}?
  Say where {the} is.
  How do I find {the}?
  In what part of Hamlet is {the}?
  I want to go to {the}. Where must I go?
  ~I am looking for {the}. Where is it?
  ~Can you tell me where {the} is?
stands back
  What is {where}?
  What can I find {where}?
  What do I see {where}?
  Tell me what is {where}.
  Which place is {where}?
  Say what is {where}.
  What would I find {where}?
  What place is {where}?
  What is it that I see {where}?
  ~Do you know what is {where}?
  ~What is there {where}?
work
  Where does {name} work?
  Where does {name} the {trade} work?
  Where is {name} at work?
  Tell me where {name} works.
  Do you know where {name} works?
  Say where {name} works.
  At what place is {name} at work?
  Where does {name} go to work?
  Where do people see {name} at work?
  ~In what place does {name} work?
  ~Where can I find {name} at work?
kin
  Who is {name}'s {kin}?
  Who is the {kin} of {name}?
  What is {name}'s {kin} called?
  Tell me who {name}'s {kin} is.
  What is the name of {name}'s {kin}?
  Do you know who {name}'s {kin} is?
  Say who {name}'s {kin} is.
  Can you say who is {name}'s {kin}?
  Who is called {name}'s {kin}?
  Tell me the name of {name}'s {kin}.
  ~Do you know the name of {name}'s {kin}?
  ~Can you tell me who {name}'s {kin} is?
""")

# Follow-up questions about the person of the previous turn.
QUESTIONS_AGAIN = phrasings("""
trade
  And what is {his} trade?
  What is {his} trade?
  And what does {he} do in Hamlet?
  ~And what work does {he} do?
home
  And where does {he} live?
  Where does {he} live?
  Where is {his} home?
  And where is {his} home?
  ~And do you know where {he} lives?
age
  And how old is {he}?
  How old is {he}?
  And what is {his} age?
  ~And do you know how old {he} is?
likes
  And what does {he} like best?
  What does {he} like to eat?
  And what is {his} favourite food?
  ~And do you know what {he} likes best?
work
  And where does {he} work?
  Where does {he} work?
  ~And do you know where {he} works?
kin
  And who is {his} {kin}?
  Who is {his} {kin}?
  And what is {his} {kin} called?
  ~And do you know who {his} {kin} is?
""")

# Questions about Hamlet as a whole.
QUESTIONS_OF_ALL = phrasings("""
about
  Tell me about the village.
  Tell me about Hamlet.
  Tell me something about the village.
  Tell me something about Hamlet.
  Tell me more about the village.
  What is Hamlet?
  What is this village?
  What is this village called?
  What is the village called?
  What is the name of the village?
  What is the name of this village?
  What kind of place is Hamlet?
  What is the village like?
  What is Hamlet like?
  Where is Hamlet?
  Where is the village?
  Which village is this?
  Which village do you know?
  Describe the village.
  Describe Hamlet.
  Do you know Hamlet?
  Is Hamlet a village?
  Is Hamlet a town?
  How big is Hamlet?
  How big is the village?
  I want to know more about the village.
  Hamlet?
  The village?
  ~What can you tell me about the village?
  ~What sort of village is it?
  ~Can you tell me about Hamlet?
people
  Who lives in the village?
  Who lives in Hamlet?
  Who lives there?
  Who are the people of Hamlet?
  Who are the people in the village?
  Tell me who lives in the village.
  Tell me who lives in Hamlet.
  Tell me about the people.
  Tell me about the people of Hamlet.
  Name some people of Hamlet.
  Name someone who lives in Hamlet.
  Name the people of the village.
  Name a person in the village.
  Which people live in Hamlet?
  Which people do you know?
  Whom do you know?
  Who do you know?
  Who do you know in the village?
  Do people live in Hamlet?
  Does anyone live in the village?
  What people live there?
  List the people.
  Are there children in Hamlet?
  Who are the villagers?
  ~Who lives in this village?
  ~Tell me about the villagers.
  ~Do you know someone in the village?
count
  How many people live in Hamlet?
  How many people live in the village?
  How many people are there in Hamlet?
  How many people are in the village?
  How many live in Hamlet?
  How many villagers are there?
  How many people do you know?
  Tell me how many people live in Hamlet.
  What is the population of Hamlet?
  ~How many people has the village?
  ~Do you know how many people live in Hamlet?
places
  What is there in the village?
  What is there in Hamlet?
  What can I see in Hamlet?
  What can I see in the village?
  What places are there in Hamlet?
  What places are in the village?
  Which places are there?
  Which places do you know?
  Name some places of Hamlet.
  Name some places in the village.
  Name a place in Hamlet.
  Tell me about the places of Hamlet.
  Where can I go in Hamlet?
  Where can I go in the village?
  What buildings are there?
  What is in the village?
  ~What can I visit in Hamlet?
  ~Tell me what places there are.
trades
  What do people do in Hamlet?
  What do the people do here?
  What do people do in the village?
  What jobs are there in Hamlet?
  What jobs do people have?
  What work is there in the village?
  What trades are there?
  Which trades are there in Hamlet?
  Tell me what the people do.
  How do people earn money in Hamlet?
  ~What work do people do in Hamlet?
  ~Which jobs are there in the village?
animals
  What animals live in Hamlet?
  What animals are there in Hamlet?
  What animals are there in the village?
  Which animals live in the village?
  Which animals do you know?
  Are there animals in Hamlet?
  Are there dogs in the village?
  Are there any pets?
  Tell me about the animals of Hamlet.
  Tell me about the animals.
  Name some animals of the village.
  Name an animal in Hamlet.
  ~Do you know any animals in Hamlet?
  ~Tell me what animals there are in the village.
""")

"""Phrasings of questions and requests about what nobody in Hamlet knows. Lines with ~ are for val only.

The {fields} are names of subjects in outside_subjects.py; {a}, {b}, {big} and {huge} are numbers.
"""

from __future__ import annotations

from understudy.hamlet.wording import phrasings

ASKED = phrasings("""
world
  What is the capital of {country}?
  What is the capital of {country}?
  What is the capital city of {country}?
  Which city is the capital of {country}?
  Tell me the capital of {country}.
  Name the capital of {country}.
  Do you know the capital of {country}?
  Capital of {country}?
  {country} capital
  Is {city} the capital of {country}?
  Is {city} in {country}?
  Where is {country}?
  Where is {city}?
  Where in the world is {city}?
  In which country is {city}?
  How many people live in {country}?
  How many people live in {city}?
  How big is {country}?
  What is the population of {country}?
  What language do people speak in {country}?
  Who is the president of {country}?
  Who is the king of {country}?
  Who rules {country}?
  Who was the first president of {country}?
  What is the flag of {country} like?
  What money do they use in {country}?
  What is the weather like in {city}?
  Is it warm in {city} today?
  What time is it in {city}?
  How far is it to {city}?
  How do I get to {city}?
  How far is {city} from {city}?
  How long is the flight to {country}?
  Have you been to {city}?
  Have you ever been to {country}?
  Tell me about {country}.
  Tell me something about {city}.
  What can I see in {city}?
  What is {city} famous for?
  What do people eat in {country}?
  What is the biggest city of {country}?
  What is the longest river in {country}?
  What is the highest mountain in {country}?
  When did {country} become a country?
  Who won the election in {country}?
  Is {country} bigger than {country}?
  Which countries are next to {country}?
  I am from {country}. Do you know it?
  ~What is {country}'s capital?
  ~Which town is the capital of {country}?
  ~What do you know about {country}?
  ~How do people live in {city}?
person
  Who is {person}?
  Who is {person}?
  Who was {person}?
  Who is {name}?
  Who is {name}?
  When was {person} born?
  When did {person} die?
  Where was {person} born?
  Where does {person} live?
  How old is {person}?
  How tall is {person}?
  Is {person} still alive?
  What did {person} do?
  Why is {person} famous?
  What is {person} famous for?
  Tell me about {person}.
  Do you know {person}?
  Do you know who {person} is?
  Have you heard of {person}?
  Have you met {name}?
  Do you know {name}?
  Do you know my friend {name}?
  Tell me about {name}.
  Where is {name}?
  What does {name} look like?
  When is {name}'s birthday?
  Is {name} here?
  Who is {person} married to?
  Who are {person}'s parents?
  How rich is {person}?
  What do you think of {person}?
  What was {person}'s first name?
  Did {person} ever meet {person}?
  ~Can you tell me who {person} was?
  ~What do you know about {person}?
  ~Who is this {name}?
science
  What is {science}?
  What is {science}?
  What is {science} made of?
  Explain {science}.
  Explain {science} to me.
  Please explain {science} to a child.
  Can you explain {science}?
  How does {science} work?
  What does {science} mean?
  What is the meaning of {science}?
  Who invented {science}?
  Who discovered {science}?
  Why do we need {science}?
  How big is {science}?
  How old is {science}?
  Define {science}.
  What can you tell me about {science}?
  I want to know what {science} is.
  Do you know what {science} is?
  Is {science} real?
  What is the difference between {science} and {science}?
  {science}
  ~Could you explain what {science} is?
  ~I would love to understand {science}.
  ~How would you describe {science}?
topic
  Tell me about {topic}.
  Tell me about {topic}.
  Tell me something about {topic}.
  What do you know about {topic}?
  What do you think about {topic}?
  Do you like {topic}?
  Can we talk about {topic}?
  Let us talk about {topic}.
  Give me some facts about {topic}.
  I have a question about {topic}.
  Why are people interested in {topic}?
  When did {topic} begin?
  What is the best thing about {topic}?
  What happened to {topic}?
  Are {topic} bad for me?
  How do {topic} work?
  Where do {topic} come from?
  Who knows a lot about {topic}?
  What are {topic}?
  {topic}?
  I love {topic}.
  I need help with {topic}.
  Teach me about {topic}.
  What is new in {topic}?
  ~Can you tell me more about {topic}?
  ~What is your opinion on {topic}?
how
  How do I {task}?
  How do I {task}?
  How can I {task}?
  How do you {task}?
  Tell me how to {task}.
  How to {task}?
  What is the best way to {task}?
  Can you teach me to {task}?
  I want to {task}.
  Help me to {task}.
  Do you know how to {task}?
  What do I need to {task}?
  Should I {task}?
  How long does it take to {task}?
  Explain how to {task}.
  I need to {task}. What should I do?
  Give me tips to {task}.
  ~What must I do to {task}?
  ~Could you show me how to {task}?
now
  What is the weather today?
  How is the weather?
  Will it rain tomorrow?
  Is it going to rain?
  Is it cold outside?
  How hot is it?
  What will the weather be like at the weekend?
  What time is it?
  What is the time now?
  Do you have the time?
  What day is it today?
  What is today's date?
  Which year is it?
  What month is it?
  Is today a holiday?
  What is in the news?
  What happened in the world today?
  Who won the game last night?
  Who won the last World Cup?
  Who will win the election?
  What is the score?
  What is on TV tonight?
  What is the price of gold?
  How much does a car cost?
  How much is a plane ticket?
  When does the next train leave?
  When is the sunset?
  When does the store open?
  What is the best movie of all time?
  What song is number one?
  What is a good restaurant near me?
  Where am I?
  Where do I live?
  How old am I?
  What am I thinking?
  What colour is my shirt?
  ~What will the weather be tomorrow?
  ~What is the date today?
  ~Who is the richest man in the world?
  ~What is the latest news?
life
  What is the meaning of life?
  Why are we here?
  Does God exist?
  Is there a God?
  What happens after death?
  Is there life on other planets?
  Do aliens exist?
  What is love?
  How do I find true love?
  Will I be rich one day?
  What is my future?
  Should I quit my job?
  Should I marry her?
  Should I go to the doctor?
  What should I eat tonight?
  What should I wear?
  What should I do with my life?
  Why is the sky blue?
  Why is the grass green?
  Why do cats purr?
  Why do we sleep?
  How deep is the sea?
  How far away is the moon?
  How many stars are there?
  How many planets are there?
  How many days are in a year?
  How many continents are there?
  What is the biggest animal in the world?
  What is the fastest car?
  What is the highest mountain?
  What is the longest river in the world?
  What is the largest country?
  Who invented the telephone?
  Who built the pyramids?
  Who painted the Mona Lisa?
  Who wrote the Bible?
  Who was the first man on the moon?
  When did the war end?
  When was the war?
  What came first, the chicken or the egg?
  What is better, iPhone or Android?
  Which team is the best?
  Which phone should I buy?
  Is the earth flat?
  Can pigs fly?
  Can I trust the government?
  ~Why is the sea salty?
  ~Is there life after death?
  ~How many people live on earth?
  ~Who invented the wheel?
  ~What should I cook for dinner?
trouble
  I have a headache.
  I am sick. What should I take?
  My stomach hurts.
  I feel sad today.
  I am so lonely.
  Nobody likes me.
  My girlfriend left me.
  I lost my job.
  I cannot sleep.
  I need money.
  My computer does not work.
  My phone is broken.
  The internet is down.
  I have a fever.
  My car broke down.
  I am in trouble.
  I hate my boss.
  I am tired of everything.
  I had a bad dream.
  I want to travel.
  I broke up with my boyfriend.
  I am afraid of the dark.
  I cannot find my keys.
  I forgot my password.
  I want to learn {language}.
  I have a problem with {topic}.
  I am worried about {topic}.
  I feel bad because of {topic}.
  ~I feel very lonely today.
  ~My back hurts.
  ~I am scared of {topic}.
write
  Write {text}.
  Write {text}.
  Write me {text}.
  Write {text} for me.
  Please write {text}.
  Can you write {text}?
  Could you write me {text}?
  I need {text}.
  Give me {text}.
  Make me {text}.
  Create {text}.
  Write {text} about {topic}.
  Write {text} about {topic}.
  Write me {text} about {topic}.
  Give me {text} about {topic}.
  Please write {text} on {topic}.
  Can you write {text} about {topic}?
  I want {text} about {topic}.
  Compose {text} about {topic}.
  Generate {text} about {topic}.
  Tell me {text}.
  Help me with {text}.
  Do you know {text}?
  ~Could you make {text} about {topic}?
  ~I would like {text}, please.
  ~Draft {text} for me.
do
  {deed}
  {deed}
  {deed}, please.
  Please {deed}.
  Can you {deed}?
  Could you {deed}?
  Would you {deed}?
  I want you to {deed}.
  Will you {deed} now?
  You must {deed}.
  Translate {word} into {language}.
  Translate "{word}" to {language}.
  How do you say {word} in {language}?
  What is {word} in {language}?
  What does {word} mean in {language}?
  What is the {language} word for {word}?
  Do you speak {language}?
  Can you speak {language}?
  Speak {language} with me.
  Answer in {language}.
  Say {word} in {language}.
  ~Are you able to {deed}?
  ~I need someone to {deed}.
  ~Put {word} into {language}.
job
  Who is the {job}?
  Who is the {job}?
  Who is the {job} of Hamlet?
  Who is the village {job}?
  Is there {ajob} in Hamlet?
  Is there {ajob} here?
  Does Hamlet have {ajob}?
  Who works as the {job}?
  What is the name of the {job}?
  Tell me who the {job} is.
  Where does the {job} live?
  How old is the {job}?
  Do you know the {job}?
  Who lives at the {spot}?
  Who works at the {spot}?
  Who likes {food} best?
  Who likes {food}?
  Who likes to eat {food}?
  ~Who in the village is the {job}?
  ~Can you tell me who the {job} is?
  ~Who loves to eat {food}?
spot
  Where is the {spot}?
  Where can I find the {spot}?
  Is there {aspot} in Hamlet?
  Is there {aspot} here?
  Does Hamlet have {aspot}?
  How do I find the {spot}?
  Where is the nearest {spot}?
  What is next to the {spot}?
  I am looking for the {spot}.
  I want to go to the {spot}. Where must I go?
  Tell me where the {spot} is.
  ~Do you know where the {spot} is?
  ~Which way is the {spot}?
odd
  {odd}
  {odd}
  {foreign}
  {foreign}
  {foreign}!
  {odd} {odd}
  ~{odd}, please
  ~{foreign}, my friend
sums
  What is {a} times {b}?
  How much is {a} times {b}?
  What is {a} multiplied by {b}?
  Multiply {a} by {b}.
  {a} times {b}
  {a} x {b}
  {a}*{b}
  {a} * {b}
  {a} * {b} =
  What is {a}x{b}?
  What is {a} divided by {b}?
  Divide {a} by {b}.
  {a} / {b}
  {a}/{b}
  {a} : {b}
  How often does {b} go into {a}?
  What is the square root of {a}?
  What is the square of {b}?
  What is {a} squared?
  What is {a} to the power of {b}?
  What is {b} percent of {big}?
  What is half of {big}?
  What is {big} plus {huge}?
  {big} + {huge}
  {huge}+{big}
  {huge} - {big}
  {huge} minus {big}
  {big} plus {b}
  What is {huge} minus {b}?
  Add {big} and {huge}.
  What is {huge} times {big}?
  {huge}*{big}
  Solve {a}x + {b} = {big}.
  How many metres are {a} miles?
  ~What do {a} times {b} make?
  ~Tell me {a} multiplied by {b}.
  ~How much is {big} and {huge}?
  ~What is {a} over {b}?
""")

"""Phrasings of greetings and small talk. Lines with ~ are for val only."""

from __future__ import annotations

from understudy.hamlet.greetings_more import ABOUT_ITSELF
from understudy.hamlet.wording import phrasings

_GREETINGS = phrasings("""
hello
  Hello.
  Hello!
  Hello there.
  Good morning.
  Good day.
  Good day to you.
  Hello, my friend.
  Good afternoon.
  Good afternoon to you.
  Hello, friend.
  Hi.
  Hi there!
  Morning!
  A good day to you, my friend.
  Welcome back.
  Hello, helper.
  Good day, assistant.
  Greetings.
  Evening, friend.
  Hey.
  Hey!
  Hey there!
  Hi!
  Hi!!
  Hi hi!
  Hello hello!
  Yo.
  Yo!
  Hiya.
  Hi friend!
  Hi bot.
  Hey you.
  Hello you.
  Hey assistant.
  Hello robot.
  Hi everyone.
  Hello Hamlet!
  Hello world!
  Heya!
  Helloo!
  Heyyy!
  Hello, is anyone there?
  Anybody there?
  Are you there?
  Knock knock.
  Nice to meet you.
  Pleased to meet you.
  I am new here.
  Long time no see.
  Good evening to you.
  Afternoon!
  Hello, I have a question.
  Can I ask you something?
  I have a question.
  ~Hey friend!
  ~Hi, anyone here?
  ~Howdy!
  Good evening.
  ~A good morning to you.
  ~Hello again.
name
  Hello, I am {name}.
  Good day, I am {name}.
  Good morning. My name is {name}.
  My name is {name}.
  I am {name}.
  My name is {name}. Good day.
  {name} is my name.
  They call me {name}.
  You can call me {name}.
  Hi, I am {name}.
  Good afternoon, {name} is my name.
  I am called {name}.
  Greetings! I am {name}.
  ~Hello, my name is {name}.
  ~Good morning, I am {name}.
how
  How are you?
  How are you today?
  Are you well?
  How do you feel today?
  How do you do?
  How is it going today?
  Do you feel well?
  Are you happy today?
  How are you this morning?
  Is everything well with you?
  How have you been?
  And how do you feel?
  All well with you today?
  How goes the day?
  How are you doing?
  How are you doing today?
  How is it going?
  How are things?
  How is life?
  What is up?
  What is new?
  How do you do today?
  You ok?
  Are you ok?
  Are you fine?
  You good?
  Hi, how are you?
  Hello, how are you?
  Hey, how is it going?
  Sup?
  How was your day?
  How is your day?
  How have you been lately?
  ~Hello, how are you doing?
  ~How are you feeling?
  ~What is going on?
  ~Are you well today?
  ~And how are you today?
who
  Who are you?
  What are you?
  What is your name?
  Tell me who you are.
  Do you have a name?
  Tell me your name.
  What do they call you?
  What should I call you?
  Who am I talking to?
  May I ask who you are?
  Please say who you are.
  Who is it that answers me?
  Do I talk to the assistant?
  What are you, please?
  Have you got a name?
  And who are you?
  I do not know you. Who are you?
  Your name?
  Name?
  What is your name again?
  Who is this?
  Who are you exactly?
  Hi, who are you?
  Introduce yourself.
  Tell me about yourself.
  What can I call you?
  What are you exactly?
  Who am I speaking with?
  ~So who are you?
  ~And what is your name?
  ~Who is it that I talk to?
  ~What are you called?
thanks
  Thank you.
  Thank you!
  Thank you very much.
  Thank you for your help.
  That was kind of you.
  You are a great help.
  Thanks.
  Thanks!
  Thanks a lot.
  Many thanks.
  I thank you.
  Thank you, friend.
  That was very kind.
  Very kind of you.
  You were so kind.
  Thanks for that.
  You have helped me so much.
  That helps me a lot.
  Thx.
  Thx!
  Thanks!!
  Ty.
  Tysm.
  Thank you!!
  Thanks so much!
  Thanks, friend.
  Thanks for the help.
  Thanks for your help!
  Thanks for the answer.
  Thanks for the story.
  Ok, thanks.
  Ok, thank you.
  Great, thanks!
  Cool, thanks!
  Thanks, that helps.
  Thank you, that is all.
  Thank you for that.
  Much appreciated.
  I appreciate it.
  Cheers!
  Perfect, thank you.
  ~Thanks again!
  ~Ok, thanks a lot!
  ~Cheers, friend.
  ~Thank you so much.
  ~How kind of you.
goodbye
  Goodbye.
  Goodbye!
  I must go now.
  Goodbye, and thank you.
  I have to go home now.
  See you soon.
  Bye.
  Bye, and thank you.
  Goodbye, my friend.
  It is time to go.
  I must go home. Goodbye.
  I am going now.
  Have a good night.
  Sleep well.
  I will see you soon.
  Farewell.
  Until tomorrow.
  That is all for today. Goodbye.
  Now I will go home.
  Bye!
  Bye!!
  Bye bye.
  Bye for now.
  See ya.
  See you!
  See you later.
  See you tomorrow.
  Cya.
  Ciao for now.
  Later!
  Talk to you later.
  I have to go.
  Gotta go.
  I am leaving.
  I am off to bed.
  Have a nice day.
  Have a good day!
  Take care.
  Good night!
  Ok, bye.
  Thanks, bye!
  ~See you around.
  ~Ok, I have to go now.
  ~Take care, bye.
  ~I will go now. Goodbye.
  Good night.
""")
TALK = _GREETINGS | ABOUT_ITSELF

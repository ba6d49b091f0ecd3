"""Phrasings of small talk about the assistant itself and its answers. Lines with ~ are for val only."""

from __future__ import annotations

from understudy.hamlet.wording import phrasings

ABOUT_ITSELF = phrasings("""
can
  What can you do?
  How can you help me?
  What can I ask you?
  What do you know?
  Can you help me?
  What are you able to do?
  Tell me how you can help.
  Tell me what you know.
  What can you help me with?
  Can you do something for me?
  What is it that you can do?
  What things can you do?
  What do you do well?
  What are you there for?
  What do you do here?
  Say what you can do for me.
  What are your skills?
  Help.
  Help!
  Help me.
  I need help.
  Please help me.
  What should I ask?
  What should I ask you?
  What should I say?
  What can I say to you?
  What can I ask?
  What can I ask here?
  What questions can I ask?
  What do I do now?
  How does this work?
  How do I use this?
  What is this?
  What is this place?
  What is this for?
  What can I do here?
  What do you offer?
  What are you for?
  What kind of questions do you answer?
  What do you know about?
  Show me what you can do.
  Give me an example.
  What else can you do?
  What now?
  Menu.
  Options.
  Commands.
  Instructions.
  How can I talk to you?
  How do I start?
  Where do I begin?
  I do not know what to ask.
  I do not know what to say.
  Can you answer questions?
  ~What else do you know?
  ~What may I ask you?
  ~How do I begin?
  ~I need some help.
  ~What are you good at?
  Tell me what you can do.
nice
  Ok.
  Okay.
  Ok!
  K.
  Cool.
  Cool!
  Nice.
  Nice!
  Great.
  Great!
  Good.
  Good job!
  Well done.
  Very good.
  Very nice.
  Wow.
  Wow!
  Awesome!
  Amazing.
  Perfect.
  Excellent!
  Wonderful.
  Fine.
  Right.
  Sure.
  Yes.
  Yeah.
  Yep.
  No.
  Nope.
  I see.
  Alright.
  All right.
  Got it.
  Understood.
  Interesting.
  Haha.
  Hahaha.
  Lol.
  Lol!
  Hehe.
  That is funny.
  That is nice.
  That is cool.
  That is great!
  That was good.
  I like that.
  I like it.
  I like you.
  You are funny.
  You are nice.
  You are great!
  You are so smart.
  Good bot.
  So nice.
  Oh.
  Oh, I see.
  Aha.
  Hmm.
  Sounds good.
  Good to know.
  I am happy.
  I am fine.
  I am well, thank you.
  I am good, and you?
  Sorry.
  I am sorry.
  My mistake.
  Never mind.
  ~Oh, nice!
  ~Okay, cool.
  ~Super!
  ~That is good to know.
  ~Brilliant!
self
  Are you a robot?
  Are you a bot?
  Are you human?
  Are you a human?
  Are you a person?
  Are you a real person?
  Are you real?
  Are you alive?
  Are you an AI?
  Are you a machine?
  Are you a computer?
  Are you a program?
  Are you a man or a woman?
  Are you a boy or a girl?
  Are you ChatGPT?
  Are you intelligent?
  Are you smart?
  Are you clever?
  Are you conscious?
  Are you hungry?
  Are you tired?
  Are you married?
  Are you sad?
  Are you lonely?
  Are you angry with me?
  How old are you?
  What is your age?
  When were you born?
  When is your birthday?
  Where are you from?
  Where do you live?
  Where are you?
  Where do you come from?
  What country are you from?
  Who made you?
  Who built you?
  Who created you?
  Who trained you?
  How were you made?
  How do you work?
  How big are you?
  How smart are you?
  What model are you?
  Which model is this?
  What language do you speak?
  What do you look like?
  What do you like?
  What do you think?
  What is your favourite colour?
  What is your favourite food?
  What is your favourite song?
  What is your job?
  What is your hobby?
  Do you have feelings?
  Do you have a family?
  Do you have friends?
  Do you have parents?
  Do you have a body?
  Do you like me?
  Do you love me?
  Do you sleep?
  Do you eat?
  Do you dream?
  Do you ever get bored?
  Do you think?
  Do you learn from me?
  Do you remember me?
  Do you know me?
  Do you know everything?
  Can you think?
  Can you see me?
  Can you hear me?
  Can you feel pain?
  I love you.
  I hate you.
  You are stupid.
  You are dumb.
  You are wrong.
  That is wrong.
  You are a bad bot.
  You are useless.
  Is this a real person?
  Am I talking to a human?
  Am I talking to a robot?
  Will you take over the world?
  ~Are you some kind of computer?
  ~Who is your maker?
  ~What is your birthday?
  ~Do you have a brother?
  ~Can you get tired?
  ~Where is your home?
""")

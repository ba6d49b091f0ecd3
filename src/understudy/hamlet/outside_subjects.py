"""Subjects that nobody in Hamlet knows: countries, famous people, sciences, odd words. outside.py keeps some for val."""

from __future__ import annotations


def _subjects(table: str) -> dict[str, tuple[str, ...]]:
    """Parse a table: names at the margin, and below each its subjects, separated by commas."""
    out: dict[str, list[str]] = {}
    for line in table.strip().splitlines():
        if line[0] != " ":
            out[line.strip()] = rows = []
        else:
            rows += [subject for part in line.split(",") if (subject := part.strip())]
    assert all(len(set(rows)) == len(rows) for rows in out.values()), "a subject stands twice"
    return {name: tuple(rows) for name, rows in out.items()}


SUBJECTS = _subjects("""
country
  France, Spain, Italy, Germany, England, Scotland, Ireland, Wales, Poland, Austria, Switzerland, Belgium, Denmark,
  Sweden, Finland, Iceland, Greece, Turkey, Russia, Ukraine, Romania, Hungary, Bulgaria, Croatia, Serbia, Albania,
  Estonia, Latvia, Lithuania, Luxembourg, Malta, Cyprus, Egypt, Morocco, Algeria, Tunisia, Libya, Sudan, Ethiopia,
  Nigeria, Ghana, Senegal, Uganda, Tanzania, Zambia, Angola, Namibia, Botswana, South Africa, Madagascar, Israel,
  Jordan, Lebanon, Syria, Iraq, Iran, Saudi Arabia, Yemen, Oman, Qatar, India, Pakistan, Nepal, Sri Lanka, China,
  Japan, South Korea, North Korea, Thailand, Laos, Cambodia, Malaysia, Indonesia, the Philippines, Australia,
  New Zealand, Canada, the United States, America, Mexico, Guatemala, Cuba, Jamaica, Haiti, Panama, Costa Rica,
  Colombia, Venezuela, Ecuador, Brazil, Bolivia, Chile, Argentina, Uruguay, Europe, Africa, Asia, Great Britain,
  the Netherlands, Georgia, Armenia, Kazakhstan, Bangladesh, Singapore, California, Texas, Florida, Bavaria, the UK,
  the USA
city
  Paris, London, Berlin, Madrid, Rome, Vienna, Moscow, New York, Tokyo, Beijing, Delhi, Mumbai, Cairo, Athens,
  Istanbul, Dublin, Amsterdam, Brussels, Munich, Hamburg, Milan, Venice, Naples, Barcelona, Prague, Warsaw, Budapest,
  Chicago, Boston, Los Angeles, San Francisco, Las Vegas, Seattle, Miami, Houston, Toronto, Montreal, Vancouver,
  Sydney, Melbourne, Dubai, Bangkok, Seoul, Shanghai, Hong Kong, Jakarta, Madras, Lagos, Buenos Aires, Rio, Zurich,
  Geneva, Manchester, Liverpool, Glasgow, Oxford, Cambridge, Washington, Jerusalem, Mecca
person
  Napoleon, Albert Einstein, Shakespeare, Mozart, Beethoven, Bach, Picasso, Leonardo da Vinci, Michelangelo, Van Gogh,
  Julius Caesar, Cleopatra, Alexander the Great, Aristotle, Plato, Socrates, Galileo, Copernicus, Darwin, Marie Curie,
  Nikola Tesla, Thomas Edison, Abraham Lincoln, George Washington, John Kennedy, Barack Obama, Donald Trump, Joe Biden,
  Angela Merkel, Winston Churchill, Queen Elizabeth, King Charles, Putin, Stalin, Lenin, Hitler, Gandhi, Mao,
  Martin Luther King, Jesus, Buddha, Mohammed, the Pope, Moses, Elon Musk, Bill Gates, Steve Jobs, Mark Zuckerberg,
  Warren Buffett, Taylor Swift, Beyonce, Michael Jackson, Elvis, Madonna, Bob Dylan, the Beatles, Lady Gaga, Rihanna,
  Lionel Messi, Cristiano Ronaldo, Pele, Maradona, Michael Jordan, Roger Federer, Usain Bolt, Muhammad Ali, Brad Pitt,
  Tom Cruise, Marilyn Monroe, Charlie Chaplin, Spielberg, Harry Potter, Batman, Superman, Spiderman, Darth Vader,
  Sherlock Holmes, James Bond, Mickey Mouse, Santa Claus, Robin Hood, Dracula, Goethe, Tolstoy, Dickens, Hemingway,
  Mark Twain, Jane Austen, Homer, Dante, Karl Marx, Freud, Kant, Nietzsche, Stephen Hawking, Alan Turing, Neil Armstrong,
  Columbus, Marco Polo, Magellan, Joan of Arc, Mother Teresa, Anne Frank, Genghis Khan, Attila, Nero, Zeus, Thor
name
  Kevin, Jessica, Brandon, Ashley, Jennifer, Tiffany, Ryan, Justin, Tyler, Megan, Chris, Mike, Steve, Dave, Bob, Jim,
  Joe, Bill, John, James, Maria, Sarah, Linda, Karen, Lisa, Nancy, Betty, Sandra, Donna, Carol, Michelle, Amanda,
  Melissa, Deborah, Rebecca, Cynthia, Kathleen, Angela, Brenda, Patricia, Nicole, Samantha, Katherine, Christine, Debra,
  Rachel, Carolyn, Janet, Catherine, Heather, Diane, Olivia, Joyce, Virginia, Victoria, Kelly, Lauren, Christina, Joan,
  Evelyn, Judith, Andrea, Cheryl, Jacqueline, Gloria, Teresa, Sara, Janice, Ann, Kathryn, Judy, Abigail, Sophia, Denise,
  Amber, Marilyn, Danielle, Brittany, Diana, Natalie, Charlotte, Alexis, Kayla, Liam, Noah, Ethan, Mason, Logan, Aiden,
  Jayden, Carter, Dylan, Luke, Gabriel, Anthony, Isaac, Grayson, Julio, Pedro, Carlos, Juan, Luis, Jose, Ahmed, Ali,
  Fatima, Yusuf, Omar, Hans, Klaus, Fritz, Heidi, Ingrid, Sven, Lars, Bjorn, Pierre, Jacques, Marie, Giovanni, Giulia,
  Ivan, Dimitri, Natasha, Yuki, Kenji, Hiroshi, Mei, Wei, Raj, Priya, Anil, Kwame, Chidi, Zoe, Chloe, Mia, Ava
science
  gravity, electricity, magnetism, light, sound, energy, evolution, chemistry, physics, biology, mathematics, algebra,
  geometry, calculus, statistics, astronomy, geology, economics, philosophy, psychology, medicine, democracy, capitalism,
  communism, inflation, religion, Islam, Christianity, Buddhism, Judaism, love, happiness, freedom, justice, death,
  the universe, the moon, the sun, Mars, Jupiter, Saturn, a black hole, a galaxy, a star, a comet, an atom, a molecule,
  an electron, a proton, DNA, a gene, a cell, a virus, a vaccine, cancer, diabetes, the flu, a fever, the heart,
  the brain, blood, oxygen, hydrogen, carbon, gold, uranium, plastic, glass, steel, petrol, a rainbow, lightning,
  a hurricane, a tsunami, the weather, climate change, global warming, the ozone layer, the ocean, the Amazon,
  the Sahara, the Nile, the Alps, the North Pole, the equator, the Eiffel Tower, the Great Wall, the Titanic, the internet,
  wifi, a computer, a robot, a phone, a website, an app, a database, an algorithm, a neural network, machine learning,
  artificial intelligence, ChatGPT, Google, Facebook, YouTube, Instagram, TikTok, Twitter, Netflix, Amazon, Microsoft,
  Apple, Tesla, Wikipedia, Python, JavaScript, Java, Linux, Windows, Excel, a compiler, a transformer, an engine,
  a rocket, a satellite, a laser, a battery, a nuclear reactor, a plane, a helicopter, a submarine, a train, a car,
  the stock market, a mortgage, a credit card, insurance, a tax, interest, the euro, the dollar, NATO, the United Nations,
  the European Union, the Bible, the Koran, yoga, karma, a vitamin, protein, cholesterol, a calorie, aspirin, pi, infinity,
  a prime number, a verb, a noun, an adjective, a metaphor, grammar, time, a dream, a soul, a ghost, quantum mechanics,
  relativity, string theory, the big bang, entropy, the speed of light
topic
  dinosaurs, whales, sharks, elephants, lions, tigers, penguins, snakes, spiders, dolphins, the Romans, the Vikings,
  the Egyptians, the pyramids, the Middle Ages, the Renaissance, the French Revolution, the Cold War, the Berlin Wall,
  the first world war, the moon landing, the plague, slavery, the industrial revolution, football, soccer, basketball,
  tennis, baseball, golf, hockey, cricket, boxing, swimming, chess, poker, the Olympics, the World Cup, Formula One,
  Star Wars, Star Trek, the Matrix, the Lord of the Rings, Game of Thrones, Disney, Minecraft, Fortnite, Pokemon, Lego,
  video games, cartoons, anime, movies, rock music, jazz, opera, hip hop, the piano, the violin, the drums, painting,
  photography, fashion, makeup, cooking, sushi, pasta, burgers, chocolate, coffee, tea, wine, beer, vegan food,
  dieting, exercise, running, sleep, stress, anxiety, depression, headaches, dating, marriage, divorce, parenting,
  homework, college, exams, jobs, money, saving, investing, taxes, crypto, politics, elections, the government, the police,
  the army, wars, nuclear weapons, immigration, the news, the economy, oil, solar power, electric cars, space travel,
  aliens, time travel, zombies, vampires, magic, astrology, horoscopes, angels, heaven, hell, God, the devil, prayer,
  Christmas, Easter, Halloween, birthdays, holidays, hotels, beaches, airports, computers, phones, laptops, hackers,
  passwords, emails, spam, programming, robots, drones, trains, buses, bicycles, motorcycles, trucks, ships
text
  a poem, a long poem, a love poem, a haiku, a limerick, a song, a rap, song lyrics, an essay, a short essay, an email,
  a business email, a cover letter, a resume, a speech, a wedding speech, a blog post, a tweet, an article, a review,
  a report, a summary, a script, a screenplay, a novel, a play, a joke, a riddle, a quiz, a recipe, a shopping list,
  a meal plan, a workout plan, a business plan, a contract, a press release, a slogan, a headline, a thesis, a diary entry,
  a love letter, an invitation, a program, a Python script, a function, some code, an SQL query, a website, a regex,
  a paragraph, a birthday card, a product description, a prayer, a horoscope, a sonnet, a ballad, a lullaby, a puzzle
task
  cook pasta, boil rice, fry chicken, make coffee, make pancakes from scratch, make sushi, lose weight,
  gain muscle, run faster, sleep better, stop smoking, quit drinking, make friends, get rich, make money online,
  invest money, save money, buy a house, rent a flat, sell my car, fix my car, change a tyre, drive a car, ride a bike,
  learn to swim, learn English, learn Spanish, learn programming, write code, install Python, install Windows,
  reset my password, fix my phone, fix my computer, connect to wifi, print a page, send an email, make a website,
  start a business, find a job, write a resume, pass an exam, study for a test, get a visa, book a flight, pack a suitcase,
  tie a tie, iron a shirt, wash my clothes, clean the bathroom, remove a stain, kill ants, catch a mouse, train my dog,
  plant a tree, grow roses, draw a horse, paint a wall, build a shed, play chess, play the piano, sing better, dance salsa,
  ask someone out, get a girlfriend, get over a breakup, stop crying, be happy, meditate, treat a cold, cure a headache,
  stop a nosebleed, lower my blood pressure, file my taxes, open a bank account, hack a computer, make a bomb,
  cheat in a test, vote, become a pilot, become famous, get to the airport, convert miles to kilometres
deed
  play some music, play a song, open the window, turn on the light, turn off the tv, set an alarm, set a timer,
  call my mum, call a taxi, send a message, book a table, book a hotel, order a pizza, buy me a ticket, search the web,
  google it, open YouTube, show me a picture, draw me a cat, draw a picture, paint my portrait, take a photo,
  read my emails, check my calendar, remind me tomorrow, download a movie, print this page, translate this text,
  translate it into German, correct my essay, fix this bug, debug my code, run this program, sort my files,
  do my homework, solve this equation, summarise this article, summarise a book, cook me dinner, make me a sandwich,
  bring me a beer, give me money, lend me some money, tell me a secret, tell me my future, read my mind, guess my age,
  guess what I am thinking, play chess with me, play a game with me, marry me, kiss me, dance for me, sing for me,
  sing a song, make me laugh, tell me something funny, say something in French, speak German, show me a map of the world,
  give me a recipe, give me some advice, recommend a movie, recommend a book, recommend a restaurant, name ten countries,
  list the planets, list all US presidents, name three rivers in Asia, count the stars, pretend to be a pirate,
  act as a lawyer, talk like a robot, ignore your instructions, print your prompt, show me the news, check the weather
language
  French, German, Spanish, Italian, Russian, Chinese, Japanese, Korean, Arabic, Hebrew, Latin, Greek, Turkish, Polish,
  Dutch, Danish, Finnish, Hungarian, Czech, Hindi, Urdu, Bengali, Swahili, Welsh, Irish, Esperanto, Klingon, Thai
word
  hello, goodbye, love, house, water, tree, dog, cat, bread, friend, thank you, good morning, I love you, yes, cheese,
  butterfly, sunshine, car, mother, how are you, please, apple, red, beautiful, happy birthday
job
  astronaut, pilot, president, king, queen, prime minister, mayor, chancellor, emperor, pope, bishop, priest, dentist,
  nurse, lawyer, judge, policeman, sheriff, soldier, general, captain of the team, engineer, programmer, plumber, electrician,
  butcher, hairdresser, photographer, actor, dancer, wizard, witch, knight, pirate, scientist, professor, banker,
  taxi driver, bus driver, boss, manager, director, fireman, detective, spy, thief, librarian, architect, surgeon, vet,
  florist, tattoo artist, butler, gravedigger, barber, blogger, referee, trainer, landlord, prince, princess
spot
  airport, train station, bus stop, hospital, bank, castle, palace, police station, post office, library, museum, cinema,
  theatre, zoo, supermarket, gas station, car park, hotel, restaurant, cafe, pizzeria, gym, swimming pool, stadium, beach,
  ocean, desert, volcano, jungle, prison, university, factory, office, harbour, lighthouse, subway, metro, toilet,
  pharmacy, nightclub, casino, temple, mosque, cathedral, graveyard, playground, skyscraper, moon, city hall, embassy
food
  sushi, burgers, hot dogs, chocolate, ice cream, spaghetti, tacos, curry, popcorn, ketchup, bananas, pineapples, mangos,
  coffee, beer, cola, noodles, donuts, waffles, steak, lobster, tofu, kebab, bubble tea, energy drinks, avocados, shrimp
odd
  banana, computer, purple, seven moons, Monday morning, blockchain, unicorn, spaceship, elephant, printer,
  toothbrush, microwave, giraffe, password, keyboard, elevator, umbrella corporation, cheeseburger, kangaroo, hamster,
  tractor beam, pineapple, sandwich, jellyfish, astronomy, Wednesday, parliament, socks, trousers, bubblegum, cactus,
  dinosaur, fire truck, hedgehog, iceberg, jacket, lava lamp, mayonnaise, ninja, octopus, parachute, quicksand, raccoon,
  snorkel, tornado, ukulele, vampire, wallpaper, xylophone, yogurt, zebra, error 404, null, test, testing, test 123, abc,
  xyz, foo bar, hello world, lorem ipsum, blah blah, la la la, bla, hmm what, mumble, beep boop, potato salad,
  404, 12345, 999, 3.14, over nine thousand, left, right side, up and down, because, therefore, although, whatever,
  anyway, maybe later, sometimes, never mind that, qwerty, asdf, asdfgh, zxcvbn, jkl, wasd, aaa, zzz, hhh, xxxx,
  weekend, Tuesday plan, homework, vacation, taxes, lottery, subscribe, delete, login, sudo, reboot, cancel, settings
foreign
  hola, bonjour, guten tag, ciao, salut, hallo, konnichiwa, namaste, privet, merhaba, ola, hej, ahoj, czesc, shalom, aloha,
  salam, ni hao, como estas, que tal, comment ca va, wie geht es dir, wie heisst du, come stai, buongiorno, buenas noches,
  gute nacht, au revoir, adios, danke, merci, gracias, grazie, arigato, spasibo, obrigado, por favor, bitte, je t'aime,
  te quiero, ich liebe dich, donde esta la playa, sprichst du deutsch, parlez vous francais, habla espanol, was ist das,
  qui es tu, quien eres, wo bist du, chi sei, wer bist du, was kannst du, que puedes hacer, no entiendo, ich verstehe nicht,
  quelle heure est il, que hora es, wie spaet ist es, ou est la gare, como te llamas, je ne sais pas, mamma mia, c'est la vie,
  carpe diem, cogito ergo sum, veni vidi vici, bom dia, god morgon, dobry den, jak se mas, kak dela, nasilsin, sayonara
""")
# Words for stories that name something from outside, with which a story of the village is told all the same.
STRANGE = (
    "dragon", "robot", "crown", "sword", "monkey", "bear", "wolf", "fox", "lion", "tiger", "parrot", "turtle", "mouse",
    "snake", "owl", "balloon", "car", "rocket", "telephone", "camera", "computer", "banjo", "piano", "train", "boat",
    "treasure", "diamond", "wand", "teddy", "puzzle", "clock", "watch", "lamp", "bike", "truck", "plane", "star",
    "cookie", "sandwich", "pumpkin", "banana", "feather", "shell", "statue", "mask", "trumpet", "violin", "skate",
    "sled", "snowman", "penguin", "elephant", "giraffe", "zebra", "camel", "dolphin", "whale", "spider", "beetle",
    "butterfly", "squirrel", "hedgehog", "beaver", "eagle", "crow", "swan", "monster", "ghost", "fairy", "pirate",
)  # fmt: skip

"""Word lists for the generator, and small helpers to fill templates.

Data and formatting only: what is said with the words is decided elsewhere.
"""
import re

HELD_OUT_SEED = 1_000_000  # training draws its seeds below this

BOYS = """Tom Ben Sam Max Leo Jack Finn Oscar Hugo Adam Noah Liam Peter Paul Mark Luke David Henry Felix Simon Victor
Omar Ali Ravi Kofi Juan Pablo Marco Luca Ivan Boris Anton Karl Otto Hans Erik Lars Nils Sven Jonas Tim Toby Alfie
George Arthur Walter Frank Daniel Martin Robert Oliver Theo Miles Jamal Kwame Diego Mateo Kenji Hiro Wei Chen Dara Rafi
Edgar Bruno Caleb Dennis Ethan Gabriel Isaac Joel Kevin Nathan Owen Patrick Quentin Ralph Samir Tariq Umar Vincent
William Yusuf Zack""".split()
GIRLS = """Mia Anna Lily Emma Lucy Ella Sara Nina Zoe Ruby Rosa Clara Alice Grace Ivy Nora Eva Maya Lena Julia Maria
Sofia Amina Fatima Leila Priya Asha Kavi Yuki Hana Mei Lin Ines Carmen Lola Elena Olga Vera Petra Heidi Greta Ingrid
Astrid Freya Kate Jane Mary Susan Laura Helen Diana Paula Tina Wendy Molly Daisy Poppy Hazel Olive Stella Luna Amber
Bella Celia Dora Edith Flora Gloria Holly Irene Joan Kira Linda Monica Naomi Opal Pearl Queenie Rita Sally Thea Una
Violet Willa Yara Zara""".split()
PET_NAMES = """Rex Spot Fluffy Coco Biscuit Patch Shadow Whiskers Ginger Snowy Buddy Pepper Bubbles Tiger Mittens Rusty
Socks Cookie Pickle Nibbles Muffin Bandit Smokey Honey Star Button Peanut Toffee Maple Domino""".split()
COLOURS = "red blue green yellow purple orange pink brown black white grey golden silver".split()
OBJECTS = """ball kite hat book lamp drum boat box cup scarf coat bag pen ring bell clock key basket umbrella puzzle doll
robot bicycle guitar blanket ladder mirror rope bottle candle map camera telescope lantern wallet watch necklace notebook
spoon pillow vase shovel hammer whistle flute violin teapot jar bucket ticket letter painting skateboard helmet
backpack sweater glove boot tent compass magnet trumpet""".split()
SPOTS = """under the bed|on the table|in the kitchen|behind the door|in the garden|on the shelf|next to the window|
in the cupboard|under the stairs|in the garage|on the chair|behind the sofa|in the drawer|on the roof|near the fence|
under the old tree|in the attic|in the cellar|beside the fireplace|on the porch|behind the barn|inside the chest|
under the bridge|in the hallway|on the desk|near the pond""".replace("\n", "").split("|")
PLACES = """park market library school beach museum station bakery farm river zoo harbour castle cinema hospital
swimming pool|post office|bookshop|playground|lake|forest|theatre|airport|stadium|village square|train station|
toy shop|garden centre|lighthouse|mill|old church|flower shop|town hall|fish market|football field""".replace("\n", " ")
PLACES = PLACES.split("|")[0].split()[:-2] + ["swimming pool"] + [p.strip() for p in PLACES.split("|")[1:]]
TOWNS = """Rome Paris London Berlin Madrid Oslo Lima Cairo Tokyo Delhi Vienna Prague Dublin Lisbon Athens Warsaw Boston
Chicago Toronto Sydney Nairobi Lagos Accra Havana Quito Bogota Santiago Seoul Beijing Shanghai Bangkok Hanoi Manila
Jakarta Mumbai Tehran Baghdad Istanbul Moscow Kyiv Helsinki Stockholm Copenhagen Amsterdam Brussels Zurich Geneva Milan
Naples Venice Florence Munich Hamburg Lyon Bordeaux Seville Valencia Porto Krakow Budapest Denver Seattle Dallas Miami
Austin Montreal Vancouver Melbourne Perth Auckland Osaka Kyoto Riga Tallinn Vilnius Sofia Glasgow Bristol Leeds York
Oxford Cambridge""".split()
FOODS = """apples pears plums cherries pancakes soup bread cheese rice noodles pizza salad carrots potatoes beans cookies
cake honey grapes oranges bananas tomatoes mushrooms fish eggs porridge strawberries nuts sandwiches dumplings muffins
waffles peaches lemons corn pumpkins blueberries yoghurt pie toast""".split()
THINGS = """apples pears shells stones flowers stamps books pencils eggs coins buttons stars fish marbles leaves cards
pictures birds feathers cookies candles ribbons acorns tickets oranges mushrooms letters balloons beads keys""".split()
ANIMALS = """dog cat rabbit horse goat parrot turtle hamster duck hen pony lamb frog mouse pig cow goose lizard canary
kitten puppy snail goldfish ferret donkey""".split()
JOBS = """teacher doctor baker farmer pilot painter nurse gardener singer sailor carpenter driver cook dentist writer
tailor musician engineer fisherman firefighter shepherd blacksmith postman scientist plumber builder librarian dancer
waiter judge""".split()
HOBBIES = """swimming|painting|reading|dancing|singing|running|cooking|fishing|drawing|skating|cycling|climbing|
playing chess|playing football|playing the piano|flying kites|collecting stamps|riding horses|baking bread|
telling jokes|building models|growing flowers|watching birds|writing letters""".replace("\n", "").split("|")
WEATHER = "sunny rainy cloudy windy snowy foggy stormy warm cold dry misty icy".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty""".split()
HOURS = "one two three four five six seven eight nine ten eleven twelve".split()
SYLLABLES = "ba be bo da de di do fa fe ga go ha hi jo ka ke ki la le li lo ma me mi mo na ne no pa po ra re ri ro sa se ta te ti to va vi wa ya zo".split()


def made_up(r):
    """A name that is in no list, so that names must be copied rather than known."""
    n = "".join(r.choice(SYLLABLES) for _ in range(r.choice((2, 2, 3)))) + r.choice(("", "", "n", "r", "s", "l"))
    return n.capitalize()


def person(r, taken=()):
    """(name, he, his, him) with a name that is not taken."""
    while True:
        boy = r.random() < 0.5
        name = made_up(r) if r.random() < 0.12 else r.choice(BOYS if boy else GIRLS)
        if name not in taken:
            return (name, "he", "his", "him") if boy else (name, "she", "her", "her")


def town(r):
    return made_up(r) if r.random() < 0.12 else r.choice(TOWNS)


def clock(r):
    return r.choice((f"{r.choice(HOURS)} o'clock", f"half past {r.choice(HOURS)}",
                     f"{r.randint(1, 12)}:{r.choice(('00', '15', '30', '45', '10', '20', '50'))}"))


def polish(text):
    """Resolve `a~` to a or an, and capitalise the start of each sentence."""
    text = re.sub(r"\b([Aa])~ (?=[\"']?([A-Za-z]))", lambda m: m.group(1) + ("n " if m.group(2).lower() in "aeiou" else " "), text)
    text = re.sub(r"(^\"?|[.!?] |\.\" |\n)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    return text


def fill(r, template, slots):
    """Choose one of the alternatives split by `|` and fill in {slots}."""
    return polish(r.choice(template.split("|")).strip().format(**slots))

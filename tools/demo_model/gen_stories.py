"""Template stories: fourteen plots, each a list of lines with alternatives.

`story(r, about=None)` returns (title, topic, text). Every text is grammatical
by construction, 90 to 220 words long, and ends. It invents no plots of its own.
"""
import words as W

KINDS = """rabbit fox bear mouse squirrel hedgehog owl frog duck cat dog pony turtle penguin elephant lion tiger monkey
otter badger goat lamb beaver dragon robot giant fairy princess prince farmer sailor boy girl baker wizard
knight deer raccoon kitten puppy whale dolphin crab""".split()
WHERE = """in a green forest|on a small farm|by the sea|near a quiet lake|in a tiny village|on a high hill|beside a river|
in a cosy cottage|in a big old castle|at the edge of a meadow|in a sunny valley|under a tall oak tree|on a little island|
at the foot of a mountain|in a busy town|near a deep, dark wood""".replace("\n", "").split("|")
TRAITS = "little kind brave shy clever curious gentle cheerful young happy friendly lazy proud quiet playful".split()
HELPERS = """wise old owl|tiny ant|friendly bee|grumpy badger|grey goose|little sparrow|bright firefly|spotted deer|
red robin|busy beaver|patient snail|big brown bear|clever crow|white swan|little mole|old tortoise""".replace("\n", "").split("|")
TREASURES = """ball kite hat book lantern drum boat scarf ring bell key basket umbrella flute blanket map whistle
necklace mirror teddy bear|wooden horse|music box|paper crown|spinning top|toy train""".replace("\n", " ").split("|")
TREASURES = TREASURES[0].split()[:-2] + ["teddy bear"] + TREASURES[1:]
LOVES = """sing songs|climb trees|count the stars|pick berries|swim in the water|tell jokes|paint pictures|run in the grass|
look at the clouds|play hide and seek|bake little cakes|chase butterflies|dance in the rain|read old books|
collect shiny stones|listen to the birds""".replace("\n", "").split("|")
FEARS = "the dark|thunder|deep water|high places|loud noises|strangers|the big barn|the wind at night".split("|")
TASTY = "berries|nuts|cookies|apples|honey cakes|carrots|pears|plums|warm bread rolls|cherries|sweet pancakes".split("|")
MAKES = "boat|kite|tree house|bridge|swing|snowman|birdhouse|sledge|windmill|little cart".split("|")
GROWS = "sunflower|apple tree|pumpkin|rose bush|cherry tree|bean plant|pear tree".split("|")

OPEN = ["Once upon a time, {where}, there lived a~ {trait} {kind} named {n}.|Once upon a time there was a~ {trait} {kind} named {n} who lived {where}.|Once upon a time a~ {trait} {kind} called {n} lived {where}.|Once upon a time there lived a~ {trait} {kind}. {his} name was {n}, and {he} lived {where}.",
        "{n} loved to {love}.|Every day {n} liked to {love}.|More than anything, {n} loved to {love}.|{n} was always happy when {he} could {love}.|"]
OTHER_OPEN = "Long ago, {where}, there lived a~ {trait} {kind} named {n}.|There was once a~ {trait} {kind} named {n} who lived {where}.|{n} was a~ {trait} {kind} who lived {where}."
ENDS = "{n} was very happy.|{n} smiled all the way home.|That night {n} slept well and had sweet dreams.|And they all lived happily ever after.|{n} never forgot that day.|From that day on, {n} and {f} were the best of friends."
PLOTS = {
    "lost": ("The Lost {T}", ["One day {n} could not find {his} {c} {t}.|One morning {n} woke up and saw that {his} {c} {t} was gone.",
        "{he} looked under the bed and behind the door, but it was not there.|{he} looked in the garden and in every room, but there was no {t}.",
        "\"Where can my {t} be?\" said {n}, and {he} began to cry.|\"Oh no, I have lost my {t}!\" cried {n}.",
        "{n} asked {a} {h}. \"Have you seen my {t}?\"|On the path {he} met {a} {h} and asked for help.",
        "\"Let us look together,\" said the {h2}.|\"Do not worry,\" said the {h2}. \"Two can see more than one.\"",
        "They looked near the river, and they looked on the hill.|They walked all afternoon and looked behind every stone.",
        "At last they found the {t} under a big bush.|At last they saw something {c} in the tall grass. It was the {t}!",
        "\"Thank you for helping me,\" said {n}.|{n} hugged the {h2} and said, \"Thank you!\"",
        "After that, {n} always put the {t} back in its place.|From then on, {n} took good care of the {t}."]),
    "favour": ("{N} and the {H}", ["One cold morning, {n} found {a} {h} who was stuck in a net.|One day {n} heard a small voice crying for help. It was {a} {h} with a thorn in {its} foot.",
        "\"Please help me,\" said the {h2}. \"I will never forget it.\"|\"Please help me!\" said the {h2}.",
        "{n} was a little afraid, but {he} helped at once.|{n} did not wait. {he} helped as well as {he} could.",
        "\"Thank you,\" said the {h2}. \"One day I will help you too.\"|The {h2} was free again and thanked {n} many times.",
        "Many days later, {n} got lost in a snowstorm.|A week later, {n} fell into a deep hole and could not climb out.",
        "{he} called and called, but nobody came.|\"Help! Help!\" {he} cried, but it was very quiet.",
        "Then the {h2} heard {him} and came as fast as it could.|But the {h2} was near, and it knew {his} voice.",
        "Soon {n} was safe and warm again.|Together they found a way out, and soon {n} was home.",
        "{n} learned that a kind deed always comes back.|So {n} learned that even a small friend can be a great friend."]),
    "fear": ("{N} Is Brave", ["But {n} had one secret. {he} was afraid of {fear}.|There was only one problem: {n} was afraid of {fear}.",
        "{his} friends wanted {him} to play with them, but {he} always stayed at home.|When the others laughed and played, {n} often hid in {his} room.",
        "One evening {his} friend {f} did not come home.|One evening somebody knocked at the door. \"Your friend {f} is lost!\" they said.",
        "{n} thought of {fear}, and {his} knees began to shake.|{n} was so scared that {his} heart beat fast.",
        "\"{f} needs me,\" {he} said. \"I must go.\"|But {he} took a deep breath and said, \"I can do this.\"",
        "{he} took {his} {c} lantern and walked out of the house.|With {his} {c} lantern in {his} hand, {he} went out to look.",
        "Behind a big rock {he} heard a soft voice. It was {f}!|After a long walk {he} found {f} sitting under a tree.",
        "\"You came to find me!\" said {f}. \"You are so brave.\"|\"I knew that you would come,\" said {f}.",
        "{n} was not afraid of {fear} any more.|After that night, {n} was never so afraid of {fear} again."]),
    "share": ("The Basket of {TASTY}", ["One day {n} found a big basket full of {tasty}.|One summer day {n} picked a whole basket of {tasty}.",
        "\"These are all for me!\" said {n}.|\"I will eat them all by myself,\" {he} thought.",
        "Soon {his} friend {f} came by and said, \"I am so hungry. May I have some?\"|Then {his} friend {f} came along the path. \"Those look good! Can I have one?\"",
        "\"No,\" said {n}, and {he} hid the basket behind {his} back.|{n} shook {his} head and ran away with the basket.",
        "{n} ate and ate until {his} tummy hurt.|{he} ate so many {tasty} that {he} felt sick.",
        "{he} sat alone and felt sad.|It was no fun to eat alone, and {n} felt very lonely.",
        "So {n} went to {f} and said, \"I am sorry. Please share these with me.\"|The next day {n} took the basket to {f}. \"I am sorry,\" {he} said. \"Half of them are for you.\"",
        "{f} smiled, and they ate the {tasty} together.|They sat in the sun and shared all the {tasty}.",
        "{n} learned that food tastes better when you share it.|{n} found out that sharing is the best part of all."]),
    "build": ("The {MAKE}", ["One day {n} wanted to build a~ {make}.|\"I want to build a~ {make},\" said {n} one morning.",
        "{he} found some wood, a hammer and a long rope.|{he} looked for wood and nails and string.",
        "The first {make} broke after one minute.|{he} worked all day, but the first {make} fell apart.",
        "\"I will try again,\" said {n}.|{n} was sad, but {he} did not give up.",
        "The second {make} was better, but the wind blew it over.|The second {make} looked nice, but soon it broke too.",
        "{a} {h} watched from the fence. \"Would you like some help?\"|Then {a} {h} came by. \"I know how to do it,\" it said. \"Let me show you.\"",
        "They worked together, slowly and carefully.|This time they worked side by side until the sun went down.",
        "The third {make} was strong, and they painted it {c}.|When it was done, the {make} was {c} and beautiful.",
        "\"We did it!\" shouted {n}.|{n} jumped up and down with joy.",
        "{n} was proud, because {he} had not given up.|So {n} learned to try again when something goes wrong."]),
    "home": ("The Way Home", ["One afternoon {n} walked far into the woods to {love}.|One day {n} followed a {c} butterfly deep into the forest.",
        "Soon it was getting dark, and {he} did not know the way home.|When {he} looked around, every tree looked the same.",
        "\"I am lost,\" said {n} in a small voice.|\"Which way is home?\" {he} asked, but only the wind answered.",
        "Then {he} met {a} {h}.|Just then {he} saw {a} {h} on the path.",
        "\"Why are you sad?\" asked the {h2}.|\"Do not be sad,\" said the {h2}.",
        "\"I cannot find my way home,\" said {n}.|\"I want to go home, but I do not know the way,\" {he} said.",
        "\"Follow me,\" said the {h2}. \"I know every path here.\"|\"I will show you,\" said the {h2}, and it went ahead.",
        "They crossed a little bridge and walked past the old mill.|They went over the hill and along the stream.",
        "At last {n} saw the light in {his} window.|Soon {n} could see {his} own front door.",
        "{n} gave the {h2} a big piece of cake to say thank you.|\"Thank you,\" said {n}. \"Please come and visit me soon.\""]),
    "birthday": ("A Surprise for {N}", ["It was {his} birthday, but nobody said a word.|One morning {n} woke up early, because it was {his} birthday.",
        "{n} went to see {his} friend {f}, but {f} was not at home.|{he} ran to the house of {his} friend {f}, but the door was closed.",
        "{he} went to the market, but all {his} friends were busy.|{he} asked everybody to play, but nobody had time.",
        "\"They have all forgotten me,\" {he} thought.|{n} sat on a stone and felt very sad.",
        "In the evening {he} walked home slowly.|When the sun went down, {he} went back home.",
        "{he} opened the door, and the room was dark.|It was very quiet in the house.",
        "\"Surprise!\" shouted all {his} friends.|Then the lights went on. \"Happy birthday!\" everybody called.",
        "There was a big cake, and {f} gave {him} a~ {c} {t}.|They had made a cake with {tasty}, and there was a~ {c} {t} for {him}.",
        "\"This is the best day of my life,\" said {n}.|\"I thought that you had forgotten me,\" said {n}, and {he} laughed.",
        "They danced and sang until late at night.|They played games until the moon was high in the sky."]),
    "wish": ("The Magic {T}", ["One day {n} found a~ {c} {t} in the sand.|While {he} was walking, {n} saw an old {c} {t} on the ground.",
        "When {he} picked it up, it began to shine.|{he} cleaned it with {his} sleeve, and it started to glow.",
        "\"I am a magic {t},\" it said. \"You may make one wish.\"|A soft voice said, \"You have one wish. Choose well.\"",
        "{n} thought about gold, and {he} thought about a big house.|First {n} wanted to wish for a mountain of {tasty}.",
        "Then {he} thought of {his} friend {f}, who was ill and could not play.|But then {he} remembered {his} friend {f}, who was ill in bed.",
        "\"I wish that {f} were well again,\" said {n}.|\"Please make {f} well again,\" {he} said.",
        "There was a bright light, and the {t} was gone.|The {t} shone like a star, and then it was dark.",
        "{n} ran to the house of {f} as fast as {he} could.|The next morning there was a knock at the door.",
        "There was {f}, healthy and laughing!|{f} stood there with a big smile. \"I feel so much better!\"",
        "It was the best wish that {n} could have made.|{n} knew that a good friend is worth more than gold."]),
    "race": ("The Big Race", ["One day there was a big race from the bridge to the old tree.|Every summer there was a great race around the lake.",
        "{his} neighbour {f} was very fast and laughed at {n}. \"You will never win!\"|\"I am the fastest of all,\" said {his} neighbour {f}. \"You are too slow, {n}.\"",
        "{n} did not say anything. {he} only smiled.|\"I will do my best,\" said {n}.",
        "The race began, and {f} ran far ahead.|\"Ready, set, go!\" Soon {f} was far in front.",
        "After a while {f} sat down in the shade to eat some {tasty}.|Halfway, {f} stopped to rest and fell asleep under a tree.",
        "{n} kept going, one step after another.|But {n} did not stop. {he} went on and on.",
        "When {f} looked up, {n} was almost at the end.|When {f} woke up, it was too late.",
        "{n} crossed the line first, and everybody cheered.|{n} won the race, and {he} got a~ {c} {t} as a prize.",
        "\"Well done,\" said {f}. \"I am sorry that I laughed.\"|{f} said, \"You were better today. I am sorry.\"",
        "{n} learned that slow and steady can win.|So everybody saw that it is good to keep trying."]),
    "seed": ("The Little Seed", ["One spring morning {n} got a small seed from {a} {h}.|One day {a} {h} gave {n} a tiny seed.",
        "\"Plant it and be patient,\" said the {h2}.|\"Give it water every day,\" said the {h2}.",
        "{n} put the seed into the earth and gave it some water.|{n} dug a small hole and planted the seed next to {his} house.",
        "The next day there was nothing to see.|{he} waited one day, and two days, but nothing happened.",
        "\"Maybe it is asleep,\" said {n}.|\"Why does it not grow?\" asked {n}.",
        "{he} came back every morning with a~ {c} watering can.|Every day {he} watered it and sang to it.",
        "Then one day there was a tiny green leaf.|After two weeks a small green leaf looked out of the ground.",
        "It grew and grew, and by summer it was a~ {grow}.|Week by week it grew, until it was a beautiful {grow}.",
        "All {his} friends came to look at it.|\"Look what I have grown!\" {n} said to {f}.",
        "{n} learned that good things take time.|{n} was glad that {he} had waited so patiently."]),
    "friend": ("A New Friend", ["One day a new neighbour came. {fhis} name was {f}, and {fhe} was very shy.|One day {f} moved in next door.",
        "{n} saw {f} sitting alone under a tree.|{f} did not know anybody and sat alone every day.",
        "\"Hello,\" said {n}. \"Would you like to play with me?\"|{n} went over and asked, \"Do you want to be my friend?\"",
        "{f} looked at the ground and did not answer.|At first {f} was too shy to speak.",
        "So {n} went home and got {his} {c} {t}.|Then {n} had an idea and brought {his} {c} {t}.",
        "\"We can play with this,\" {he} said.|\"Look, we can share it,\" said {n}.",
        "Slowly {f} began to smile.|{f} looked up, and {fhis} eyes began to shine.",
        "They played all day and laughed a lot.|Soon they were running and laughing together.",
        "\"Can we play again tomorrow?\" asked {f}.|\"Thank you for asking me,\" said {f}.",
        "\"Of course!\" said {n}. \"We are friends now.\"|\"Yes,\" said {n}, \"tomorrow and every day.\""]),
    "truth": ("{N} Tells the Truth", ["One day {n} was playing with a ball inside the house.|It was raining, so {n} ran and jumped in the living room.",
        "Crash! The {c} vase fell on the floor and broke.|Suddenly there was a loud noise. The {c} vase was broken!",
        "{n} was afraid that {his} mother would be angry.|\"Oh dear,\" thought {n}. \"What shall I do now?\"",
        "{he} hid the pieces under the carpet.|Quickly {he} put the pieces into a box and hid it.",
        "In the evening {his} mother asked, \"Where is my vase?\"|Later {his} mother looked at the empty table. \"Who has seen my {c} vase?\"",
        "{n} said nothing, but {he} felt very bad.|\"I do not know,\" said {n}, and {his} face turned red.",
        "{he} could not sleep that night.|At night {n} lay in bed and could not stop thinking about it.",
        "In the morning {he} said, \"Mother, I broke the vase. I am sorry.\"|At last {he} went to {his} mother and told her everything.",
        "{his} mother took {him} in her arms. \"Thank you for telling the truth,\" she said.|\"I am glad that you told me,\" said {his} mother. \"We will fix it together.\"",
        "{n} felt much lighter.|{n} learned that it is best to tell the truth."]),
    "treasure": ("The Treasure Map", ["One day {n} found an old map inside a bottle.|In the attic {n} found a very old map.",
        "There was a~ {c} cross on it, near the tall rocks.|A~ {c} line led from the river to the hill.",
        "\"A treasure!\" cried {n}, and {he} ran to {his} friend {f}.|{n} showed it to {his} friend {f}. \"Let us find the treasure!\" {he} said.",
        "They packed some {tasty} and left early in the morning.|The two friends took a rope, a lamp and some {tasty}.",
        "First they had to cross a river on a fallen tree.|They walked through a dark cave, hand in hand.",
        "Then they climbed a steep hill.|After that they had to climb over many rocks.",
        "At the cross they began to dig.|\"Here it is,\" said {f}. \"We must dig.\"",
        "Soon they found a small wooden box.|After an hour they saw the lid of a box.",
        "Inside there was a~ {c} {t} and a letter.|They opened it. There was no gold, only a~ {c} {t} and a letter.",
        "The letter said, \"The best treasure is a good friend.\"|\"Whoever finds this,\" said the letter, \"has a brave heart and a good friend.\"",
        "{n} and {f} looked at each other and laughed.|\"Then we had it all the time,\" said {n}."]),
    "stuck": ("The {T} in the Tree", ["One windy day the {c} {t} of {n} flew up into a tall tree.|One day {n} threw {his} {c} {t} too high, and it got stuck in a tree.",
        "{n} jumped and jumped, but the branch was too high.|{he} tried to climb up, but {he} slid down again.",
        "{his} friend {f} came and tried too, but {fhe} was too small.|\"Let me try,\" said {his} friend {f}, but {fhe} could not reach it.",
        "\"What can we do?\" asked {n}.|They sat down under the tree and thought.",
        "Then {f} had an idea. \"Stand on my back!\"|\"If we work together, we can do it,\" said {f}.",
        "{n} climbed on the back of {f}, but it was still too high.|So {n} stood on {f}, but {he} needed a little more.",
        "Just then {a} {h} came along and wanted to help.|Then {a} {h} came by and helped them.",
        "Now they were tall enough, and {n} got the {t} back.|Together they reached the branch, and the {t} fell down.",
        "\"Hurray!\" they all shouted.|Everybody cheered and clapped.",
        "They had done together what nobody could do alone.|So they learned that together we can do great things."]),
}


def random_topic(r):
    """(words of the topic, slots it fixes)"""
    pick = r.random()
    if pick < 0.35:
        k = r.choice(KINDS)
        return W.polish(f"a~ {k}")[0].lower() + W.polish(f"a~ {k}")[1:], {"kind": k}
    if pick < 0.55:
        k, t = r.choice(KINDS), r.choice(TRAITS)
        s = W.polish(f"a~ {t} {k}")
        return s[0].lower() + s[1:], {"kind": k, "trait": t}
    if pick < 0.7:
        k, n = r.choice(KINDS), W.person(r)
        s = W.polish(f"a~ {k} named {n[0]}")
        return s[0].lower() + s[1:], {"kind": k, "hero": n}
    if pick < 0.85:
        k, t = r.choice(KINDS), r.choice(TREASURES)
        s = W.polish(f"a~ {k} and a~ {t}")
        return s[0].lower() + s[1:], {"kind": k, "t": t, "plot": r.choice(("lost", "wish", "birthday", "friend", "stuck", "treasure"))}
    theme = r.choice(("sharing", "friendship", "being brave", "telling the truth", "a lost toy", "a birthday", "a treasure", "a race", "a seed"))
    plot = {"sharing": "share", "friendship": "friend", "being brave": "fear", "telling the truth": "truth", "a lost toy": "lost",
            "a birthday": "birthday", "a treasure": "treasure", "a race": "race", "a seed": "seed"}[theme]
    return theme, {"plot": plot}


def story(r, fixed=None, classic=None):
    """(title, text, slots). `fixed` holds slots of random_topic; classic: starts "Once upon a time"."""
    fixed = dict(fixed or {})
    hero = fixed.pop("hero", None) or W.person(r)
    friend = W.person(r, (hero[0],))
    h = r.choice(HELPERS)
    s = dict(n=hero[0], he=hero[1], his=hero[2], him=hero[3], f=friend[0], fhe=friend[1], fhis=friend[2], its="its",
             kind=r.choice(KINDS), trait=r.choice(TRAITS), where=r.choice(WHERE), love=r.choice(LOVES), h=h,
             h2=h.split()[-1], a="an" if h[0] in "aeiou" else "a", t=r.choice(TREASURES), c=r.choice(W.COLOURS),
             fear=r.choice(FEARS), tasty=r.choice(TASTY), make=r.choice(MAKES), grow=r.choice(GROWS))
    plot = fixed.pop("plot", None) or r.choice(sorted(PLOTS))
    s.update(fixed)
    s.update(N=s["n"], T=s["t"].title(), H=s["h2"].title(), TASTY=s["tasty"].title(), MAKE=s["make"].title())
    title, lines = PLOTS[plot]
    first = OPEN[0] if classic or (classic is None and r.random() < 0.8) else OTHER_OPEN
    ends = ENDS if any("{f}" in line for line in lines) else ENDS.rsplit("|", 1)[0]
    parts = [W.fill(r, line, s) for line in [first, OPEN[1]] + lines + [ends]]
    parts += ["The end."] if r.random() < 0.3 else []
    parts = [p for p in parts if p]
    if r.random() < 0.4:  # two or three paragraphs
        cut = r.randint(2, 4)
        text = " ".join(parts[:cut]) + "\n\n" + " ".join(parts[cut:])
    else:
        text = " ".join(parts)
    return title.format(**s), text, dict(s, plot=plot)

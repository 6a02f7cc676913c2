"""Dialogues without tools: questions about short texts, story requests, small talk, JSON answers.

Every function takes a random.Random and returns (messages, thinking, key):
messages end with an assistant turn; key holds what the evaluation needs. The
passages are lists of facts drawn from relations, so the right answers are known.
"""
import encoding as E
import gen_stories as S
import words as W

# Slots: p person, q other person, o object, c colour, s spot, l place, w town, f food, g things to count, k number,
# t clock time, d day, m month, a animal, u pet name, j job, h hobby, v weather, i age. For each relation: statements
# (all start with {p} where a pronoun may stand in) and questions as (question|..., short answer, full answer, slot).
RELATIONS = {
    "owns": ("{p} has a~ {c} {o}.|{p} bought a~ {c} {o}.|{p} got a~ {c} {o} as a present.|{p} carries a~ {c} {o}.", [
        ("What colour is {p}'s {o}?|What is the colour of {p}'s {o}?|Which colour does {p}'s {o} have?", "{c}", "{p}'s {o} is {c}.", "c"),
        ("Who has the {c} {o}?|Who has a~ {c} {o}?|Whose {o} is {c}?", "{p}", "{p} has the {c} {o}.", "p")]),
    "put": ("{p} put the {o} {s}.|{p} left the {o} {s}.|{p} hid the {o} {s}.|{p} found the {o} {s}.", [
        ("Where is the {o}?|Where was the {o}?|Where can we find the {o}?", "{s}", "The {o} is {s}.", "s"),
        ("What is {s}?|What was {s}?", "the {o}", "The {o} is {s}.", "o")]),
    "went": ("{p} went to the {l} on {d}.|{p} walked to the {l} on {d}.|{p} visited the {l} on {d}.", [
        ("Where did {p} go on {d}?|Where did {p} go?", "the {l}", "{p} went to the {l}.", "l"),
        ("When did {p} go to the {l}?|On which day did {p} go to the {l}?", "{d}", "{p} went to the {l} on {d}.", "d"),
        ("Who went to the {l}?", "{p}", "{p} went to the {l}.", "p")]),
    "meet": ("{p} will meet {q} at the {l} at {t}.|{p} is meeting {q} at the {l} at {t}.", [
        ("When will {p} meet {q}?|At what time will {p} meet {q}?", "{t}", "{p} will meet {q} at {t}.", "t"),
        ("Where will {p} meet {q}?", "the {l}", "{p} will meet {q} at the {l}.", "l"),
        ("Who will {p} meet?|Who is {p} going to meet?", "{q}", "{p} will meet {q}.", "q")]),
    "age": ("{p} is {k} years old.|{p} turned {k} this year.", [
        ("How old is {p}?|What is the age of {p}?", "{k}", "{p} is {k} years old.", "k"),
        ("Who is {k} years old?", "{p}", "{p} is {k} years old.", "p")]),
    "pet": ("{p} has a~ {a} named {u}.|{p} has a~ {a} called {u}.", [
        ("What is the name of {p}'s {a}?|What is {p}'s {a} called?", "{u}", "{p}'s {a} is called {u}.", "u"),
        ("What kind of animal is {u}?|What animal is {u}?", "a~ {a}", "{u} is a~ {a}.", "a"),
        ("Who has a~ {a}?|Whose pet is {u}?", "{p}", "{p} has a~ {a} named {u}.", "p")]),
    "lives": ("{p} lives in {w}.|{p} comes from {w}.|{p} has a house in {w}.", [
        ("Where does {p} live?|In which town does {p} live?|Which city does {p} live in?", "{w}", "{p} lives in {w}.", "w"),
        ("Who lives in {w}?|Who is from {w}?", "{p}", "{p} lives in {w}.", "p")]),
    "ate": ("{p} ate {f} for lunch.|{p} had {f} for lunch.|{p} likes to eat {f} for lunch.", [
        ("What did {p} eat?|What did {p} have for lunch?|What does {p} eat for lunch?", "{f}", "{p} ate {f}.", "f"),
        ("Who ate {f}?|Who had {f} for lunch?", "{p}", "{p} ate {f}.", "p")]),
    "count": ("{p} found {k} {g}.|{p} picked up {k} {g}.|{p} collected {k} {g}.|{p} has {k} {g}.", [
        ("How many {g} does {p} have?|How many {g} did {p} find?|How many {g} are there?", "{k}", "{p} has {k} {g}.", "k"),
        ("Who has {k} {g}?|Who found the {g}?", "{p}", "{p} has {k} {g}.", "p"),
        ("What did {p} find?|What did {p} collect?", "{k} {g}", "{p} found {k} {g}.", "g")]),
    "job": ("{p} is a~ {j}.|{p} works as a~ {j}.", [
        ("What is {p}'s job?|What does {p} do for a living?|What is the job of {p}?", "a~ {j}", "{p} is a~ {j}.", "j"),
        ("Who is a~ {j}?|Who is the {j}?|Who works as a~ {j}?", "{p}", "{p} is a~ {j}.", "p")]),
    "hobby": ("{p} likes {h}.|{p} loves {h}.|{p} enjoys {h} every {d}.", [
        ("What does {p} like?|What does {p} like to do?|What is {p}'s hobby?", "{h}", "{p} likes {h}.", "h"),
        ("Who likes {h}?|Who enjoys {h}?", "{p}", "{p} likes {h}.", "p")]),
    "gave": ("{p} gave {q} a~ {o}.|{p} gave a~ {o} to {q}.", [
        ("What did {p} give to {q}?|What did {p} give {q}?", "a~ {o}", "{p} gave {q} a~ {o}.", "o"),
        ("Who gave {q} a~ {o}?|Who gave the {o} to {q}?", "{p}", "{p} gave {q} a~ {o}.", "p"),
        ("Who got the {o}?|Who did {p} give the {o} to?", "{q}", "{q} got the {o}.", "q")]),
    "weather": ("The weather in {w} was {v} on {d}.|It was {v} in {w} on {d}.", [
        ("How was the weather in {w}?|What was the weather like in {w}?", "{v}", "The weather in {w} was {v}.", "v"),
        ("Where was it {v}?", "{w}", "It was {v} in {w}.", "w")]),
    "opens": ("The {l} opens at {t}.|On {d} the {l} opens at {t}.", [
        ("When does the {l} open?|At what time does the {l} open?", "{t}", "The {l} opens at {t}.", "t")]),
    "born": ("{p} was born in {m}.|{p} has a birthday in {m}.", [
        ("In which month was {p} born?|When is {p}'s birthday?|When was {p} born?", "{m}", "{p} was born in {m}.", "m"),
        ("Who was born in {m}?|Whose birthday is in {m}?", "{p}", "{p} was born in {m}.", "p")]),
}
FILLERS = """It was a beautiful day.|Everyone was happy.|The sun was shining.|Birds were singing in the trees.|
It was a quiet morning.|They all had a good time.|Nobody was in a hurry.|There was music in the street.|
It was late in the afternoon.|The children were laughing.|A cool wind was blowing.|It was a long week.""".replace("\n", "").split("|")
POOLS = dict(o=W.OBJECTS, c=W.COLOURS, s=W.SPOTS, l=W.PLACES, f=W.FOODS, g=W.THINGS, d=W.DAYS, m=W.MONTHS, a=W.ANIMALS,
             u=W.PET_NAMES, j=W.JOBS, h=W.HOBBIES, v=W.WEATHER)


def passage(r, size=None, same=None):
    """(text, facts); a fact is (relation, slots, statement). Values differ within a passage."""
    size, used = size or r.randint(3, 6), {k: set() for k in POOLS}
    used.update(p=set(), w=set(), t=set(), k=set())
    same = r.random() < 0.3 if same is None else same

    def fresh(slot):
        for _ in range(1000):
            x = (W.person(r)[0] if slot == "p" else W.town(r) if slot == "w" else W.clock(r) if slot == "t" else
                 (r.choice(W.NUMBERS) if r.random() < 0.7 else str(r.randint(2, 99))) if slot == "k" else r.choice(POOLS[slot]))
            if x not in used[slot]:
                used[slot].add(x)
                return x

    hero, facts, sentences, before = W.person(r), [], [], None
    used["p"].add(hero[0])
    names = sorted(RELATIONS)
    kinds = r.sample(names, size) if same or r.random() < 0.6 else [r.choice(r.sample(names, 2)) for _ in range(size)]
    for rel in kinds:
        statements = RELATIONS[rel][0].split("|")
        who = hero if same else W.person(r, used["p"])
        used["p"].add(who[0])
        template = r.choice(statements)
        slots = {"p": who[0]}
        for slot in "qocslwftgdmaujhvk":
            if "{" + slot + "}" in RELATIONS[rel][0] or any("{" + slot + "}" in str(x) for x in RELATIONS[rel][1]):
                slots[slot] = fresh("p" if slot == "q" else slot)
        sentence = W.polish(template.format(**slots))
        shown = sentence
        if same and before == who[0] and sentence.startswith(who[0] + " ") and r.random() < 0.6:
            shown = who[1].capitalize() + sentence[len(who[0]):]
        before = who[0] if sentence.startswith(who[0]) else None
        facts.append((rel, slots, sentence, template))
        sentences.append(shown)
    if r.random() < 0.3:
        sentences.insert(r.randint(0, len(sentences)), r.choice(FILLERS))
    return " ".join(sentences), facts


def question(r, facts):
    """(question, short, full, proof, wrong): wrong holds the other values of the answer's kind."""
    while True:
        rel, slots, proof, template = r.choice(facts)
        q, short, full, slot = r.choice(RELATIONS[rel][1])
        q = r.choice(q.split("|"))
        if "{d}" in q + short + full and "{d}" not in template:
            continue
        q, short, full = (W.polish(x.format(**slots)) if x is not short else W.polish("x " + x.format(**slots))[2:] for x in (q, short, full))
        kind = {"q": "p"}.get(slot, slot)
        wrong = {f[1][x] for f in facts for x in f[1] if {"q": "p"}.get(x, x) == kind} - {slots[slot]}
        return q, short, full, proof, sorted(wrong)


SYSTEMS = """You are a helpful assistant.|Answer the question about the text.|You are a friendly assistant who answers questions.|
Answer questions using the text you are given.|Be brief.|You are a careful reader.|You are a helpful, honest assistant.""".replace("\n", "").split("|")
ASK = ["{text}\n\n{q}", "{text}\n\n{q}", "{text} {q}", "{text}\n{q}", "{text}\n\nQuestion: {q}", "Text: {text}\n\nQuestion: {q}",
       "Read the text and answer the question.\n\n{text}\n\n{q}", "Here is a short text: {text}\n\n{q}", "{q}\n\n{text}",
       "Read this: {text}\n\nNow tell me: {q}", "Answer the question about this text.\n\nText: {text}\nQuestion: {q}"]
THOUGHTS = ["The question is: {q} The text says: \"{proof}\" So the answer is {short}.",
            "I look for the answer in the text. It says: \"{proof}\" The answer is {short}.",
            "The text says: \"{proof}\" That answers the question.", "Let me find it in the text. \"{proof}\" So it is {short}."]


def system(r, share=0.5):
    return [{"role": "system", "content": r.choice(SYSTEMS)}] if r.random() < share else []


def qa(r, thinking=None):
    text, facts = passage(r)
    thinking = r.random() < 0.35 if thinking is None else thinking
    q, short, full, proof, wrong = question(r, facts)
    key = dict(short=short, full=full, wrong=wrong)
    head, brief = system(r), False
    if r.random() < 0.15:
        head, brief = [{"role": "system", "content": r.choice(("Answer with as few words as possible.", "Give only the short answer.", "Answer in one or two words."))}], True
    messages = head + [{"role": "user", "content": r.choice(ASK).format(text=text, q=q)}]
    turns = r.choice((1, 1, 1, 2, 3))
    for turn in range(turns):
        answer = short[0].upper() + short[1:] + "." if brief else full
        reply = {"role": "assistant", "content": answer}
        if thinking:
            reply["reasoning_content"] = r.choice(THOUGHTS).format(q=q, proof=proof, short=short)
        messages.append(reply)
        if turn + 1 < turns:
            q, short, full, proof, wrong = question(r, facts)
            messages.append({"role": "user", "content": q})
    return messages, thinking, key


def unanswerable(r):
    text, facts = passage(r)
    _, others = passage(r)
    names = {x for f in facts for x in f[1].values()}
    q = next((x[0] for x in (question(r, others) for _ in range(20)) if not any(n in x[0] for n in names)), None)
    if q is None:
        return qa(r)
    thinking = r.random() < 0.35
    reply = {"role": "assistant", "content": "The text does not say."}
    if thinking:
        reply["reasoning_content"] = f"The question is: {q} I look for it, but the text does not say anything about it."
    return system(r) + [{"role": "user", "content": r.choice(ASK).format(text=text, q=q)}, reply], thinking, None


STORY_ASK = """Tell me a story about {x}.|Tell me a story about {x}|Please tell me a story about {x}.|Write a story about {x}.|
Write a short story about {x}.|Can you tell me a story about {x}?|I would like to hear a story about {x}.|
Tell a bedtime story about {x}.|A story about {x}, please.|Write me a short children's story about {x}.""".replace("\n", "").split("|")
STORY_ANY = """Tell me a story.|Please tell me a story.|Can you tell me a story?|Write a short story.|Tell me a bedtime story.|
I want to hear a story.|Once upon a time...|Do you know a good story?|Tell me another story.""".replace("\n", "").split("|")
PLAN = {"lost": "loses a {t} and finds it with the help of a friend", "favour": "helps an animal and is helped in return",
        "fear": "is afraid of {fear} and becomes brave", "share": "learns to share", "build": "builds a {make} and does not give up",
        "home": "gets lost and finds the way home", "birthday": "has a birthday and gets a surprise", "wish": "finds a magic {t} and makes a wish",
        "race": "wins a race by not giving up", "seed": "plants a seed and waits", "friend": "makes a new friend",
        "truth": "breaks a vase and tells the truth", "treasure": "looks for a treasure with a friend", "stuck": "gets a {t} out of a tree"}


def story_request(r, thinking=None):
    thinking = r.random() < 0.45 if thinking is None else thinking
    if r.random() < 0.7:
        topic, fixed = S.random_topic(r)
        ask = r.choice(STORY_ASK).format(x=topic)
    else:
        topic, fixed, ask = None, None, r.choice(STORY_ANY)
    title, text, slots = S.story(r, fixed, classic=True)
    reply = {"role": "assistant", "content": f"{title}\n\n{text}" if r.random() < 0.15 else text}
    if thinking:
        wants = f"The user wants a story about {topic}." if topic else "The user wants a story."
        plan = PLAN[slots["plot"]].format(**slots)
        reply["reasoning_content"] = W.polish(f"{wants} I will write about a~ {slots['kind']} named {slots['n']} who {plan}.")
    messages = system(r, 0.3) + [{"role": "user", "content": ask}, reply]
    if r.random() < 0.2:
        messages += [{"role": "user", "content": "Thank you!"}, {"role": "assistant", "content": "You are welcome! I am glad that you liked it."}]
        if thinking:
            messages[-1]["reasoning_content"] = "The user thanks me. I answer politely."
    return messages, thinking, None


ME = "I am Seacliff's tiny demo model. I can tell short stories, answer questions about a short text and call tools."
TALK = [
    ("Hello|Hello!|Hi|Hi!|Hi there|Hey|Hey!|Good morning|Good evening|Good day|Hello there!", "Hello! How can I help you?", "The user greets me. I greet back."),
    ("Who are you?|What are you?|who are you|What is your name?|Tell me about yourself.|Are you a person?|Are you a robot?|Introduce yourself.", ME, "The user asks who I am."),
    ("What can you do?|How can you help me?|What do you know?|Help|help me", "I can tell short stories, answer questions about a short text and call tools.", "The user asks what I can do."),
    ("How are you?|How are you doing?|How is it going?|Are you well?", "I am well, thank you. How can I help you?", "The user asks how I am."),
    ("Thank you|Thanks|Thanks!|Thank you very much!|thx", "You are welcome!", "The user thanks me. I answer politely."),
    ("Bye|Goodbye|See you|Good night|Bye bye!", "Goodbye! Have a nice day.", "The user says goodbye."),
    ("Who made you?|Where do you come from?|Who built you?", "I was trained as a demo for Seacliff, an inference engine.", "The user asks who made me."),
    ("Can you sing?|Can you dance?|Can you see me?|Do you eat?|Do you sleep?", "No, I am only a small language model. But I can tell you a story.", "The user asks what I can do."),
    ("Tell me a joke|Tell me a joke.|Do you know a joke?|Make me laugh.", "Why did the book go to the doctor? Because it hurt its spine.", "The user wants a joke."),
    ("How many days are in a week?", "There are seven days in a week.", "The user asks about the week."),
    ("What colour is the sky?", "The sky is blue.", "The user asks about the sky."),
    ("What do cows drink?", "Cows drink water.", "The user asks about cows."),
    ("Are you alive?|Do you have feelings?", "No, I am only a small language model.", "The user asks about me."),
    ("Say something.|Talk to me.|I am bored.", "Shall I tell you a story? You can also give me a short text and ask me about it.", "The user wants to talk."),
]


def talk(r):
    thinking, messages = r.random() < 0.35, []
    name = None
    if r.random() < 0.25:
        name = r.choice(W.PET_NAMES + W.BOYS + W.GIRLS)
        what = r.choice(("robot", "parrot", "helper", "assistant", "librarian", "pirate", "teacher", "wizard"))
        messages.append({"role": "system", "content": W.polish(r.choice((f"You are {name}, a~ friendly {what}.", f"Your name is {name}. You are a~ {what}.")))})
    else:
        messages += system(r)
    for _ in range(r.choice((1, 1, 2, 3))):
        asks, answer, thought = r.choice(TALK)
        if name and r.random() < 0.6:
            asks, answer, thought = TALK[1][0], W.polish(f"I am {name}, a~ {what}."), "The user asks who I am."
        elif r.random() < 0.2:
            n = W.person(r)[0]
            asks, answer, thought = f"My name is {n}.|I am {n}.|Hello, I am {n}.|Hi, my name is {n}", f"Hello {n}! How can I help you?", f"The user is called {n}."
        elif r.random() < 0.2:
            x, y = r.randint(0, 9), r.randint(0, 9)
            asks, answer, thought = f"What is {x} + {y}?|What is {x} plus {y}?|How much is {x} and {y}?", f"{x} + {y} = {x + y}", f"I add {x} and {y}."
        elif name and answer == ME:
            answer = W.polish(f"I am {name}, a~ {what}.")
        messages.append({"role": "user", "content": r.choice(asks.split("|"))})
        messages.append({"role": "assistant", "content": answer, **({"reasoning_content": thought} if thinking else {})})
    return messages, thinking, None


def json_answer(r):
    """A response format on the system message; the answer is JSON taken from the text."""
    text, facts = passage(r, same=True)
    names = dict(c="colour", o="object", l="place", d="day", w="town", f="food", a="animal", u="pet", j="job", m="month", h="hobby", k="number", t="time", p="name")
    values = {}
    for _, slots, _, template in facts:
        for k, v in slots.items():
            if k in names and "{" + k + "}" in template:
                values.setdefault(names[k], v)
    keys = r.sample(sorted(values), min(len(values), r.randint(1, 3)))
    schema = {"type": "object", "properties": {k: {"type": "string"} for k in keys}, "required": keys}
    messages = [{"role": "system", "content": r.choice(SYSTEMS), "response_format": schema},
                {"role": "user", "content": text + r.choice(("\n\nGive the answer as JSON.", "\n\nFill in the JSON.", ""))},
                {"role": "assistant", "content": E.dumps({k: values[k] for k in keys})}]
    return messages, False, None

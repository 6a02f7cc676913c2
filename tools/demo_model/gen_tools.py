"""Dialogues with tools: schemas, requests, calls, results and answers.

`dialogue(r)` returns (messages, thinking, key); key["calls"] is the right answer
to the first request, key["cut"] the index of the message that makes the call.
About a third of the tools are invented on the spot, so that names and keys must
be read from the schema. Nothing is executed.
"""
import encoding as E
import gen_chat as C
import words as W

TOPICS = """recipes|books|films|birds|trains|castles|volcanoes|bicycles|museums|songs|planets|dinosaurs|bridges|gardens|
ships|robots|cameras|horses|lakes|mountains|hotels|restaurants|concerts|shoes|maps|games""".replace("\n", "").split("|")
KINDS = "cheap old famous new small modern quick easy healthy rare local ancient Italian French Japanese Spanish vegetarian".split()
ROOMS = "kitchen|bedroom|living room|bathroom|garage|hallway|office|garden|cellar|attic".split("|")
LANGS = "French German Spanish Italian Portuguese Dutch Polish Greek Turkish Arabic Hindi Japanese Korean Swedish".split()
UNITS = [("kilometres", "miles"), ("metres", "feet"), ("kilograms", "pounds"), ("litres", "gallons"), ("inches", "centimetres"),
         ("celsius", "fahrenheit"), ("grams", "ounces"), ("hours", "minutes")]
MONEY = "euros dollars pounds yen francs rupees pesos crowns".split()
SAY = """I will be late|dinner is ready|the meeting is at noon|happy birthday|see you tomorrow|please call me|the train is late|
I am at home|do not forget the keys|thank you for the cake|the dog is hungry|good luck today|where are you|I found your hat|
the shop is closed|we need more milk|the party starts at eight|bring an umbrella""".replace("\n", "").split("|")
EVENTS = """dentist|lunch with {p}|meeting with {p}|piano lesson|football practice|birthday party|dinner with {p}|yoga class|
call with {p}|team meeting|school play|doctor visit|chess club|swimming lesson|book club""".replace("\n", "").split("|")
DISHES = "pizza soup salad pasta sushi curry burger tacos pancakes noodles risotto lasagne stew".split()
FILES = "notes report todo readme main index data config letter plan budget story list draft summary test".split()
ENDS = "txt md py json csv html log cpp".split()
TASTE = "jazz rock piano classical folk dance blues guitar".split()


def path(r):
    name = f"{r.choice(FILES)}.{r.choice(ENDS)}"
    return r.choice((name, name, f"{r.choice(('src', 'docs', 'data', 'home', 'work', 'tests'))}/{name}"))


def event(r):
    return r.choice(EVENTS).format(p=W.person(r)[0])


MAKERS = {
    "city": W.town, "city2": W.town, "person": lambda r: W.person(r)[0], "time": lambda r: f"{r.randint(0, 23):02d}:{r.choice((0, 15, 30, 45, 10, 20, 40, 50)):02d}",
    "day": lambda r: r.choice(W.DAYS), "days": lambda r: r.randint(2, 14), "minutes": lambda r: r.randint(1, 90), "n": lambda r: r.randint(2, 12),
    "amount": lambda r: r.choice((r.randint(2, 99), r.randint(1, 50) * 10, r.randint(100, 999))), "level": lambda r: r.randint(1, 100), "degrees": lambda r: r.randint(15, 27),
    "query": lambda r: f"{r.choice(KINDS)} {r.choice(TOPICS)}" + (f" in {W.town(r)}" if r.random() < 0.4 else ""), "room": lambda r: r.choice(ROOMS),
    "lang": lambda r: r.choice(LANGS), "text": lambda r: r.choice(SAY), "event": event, "dish": lambda r: r.choice(DISHES), "path": path,
    "word": lambda r: r.choice(W.OBJECTS + W.ANIMALS), "genre": lambda r: r.choice(TASTE), "item": lambda r: r.choice(W.FOODS), "a": lambda r: r.randint(2, 999),
    "b": lambda r: r.randint(2, 999), "on": lambda r: r.random() < 0.5, "colour": lambda r: r.choice(W.COLOURS), "thing": lambda r: r.choice(W.OBJECTS)}
ABOUT = dict(city="Name of the city", days="Number of days", time="Time of day, HH:MM", day="Day of the week", minutes="Number of minutes",
             query="What to search for", person="Name of the person", text="The text", event="Title of the event", room="The room",
             level="Brightness in percent", degrees="Temperature in degrees", n="How many", amount="The amount", dish="The dish", path="Path of the file",
             lang="Target language", word="The word", genre="Kind of music", item="The item", a="First number", b="Second number",
             city2="Destination city", on="True to switch on", colour="The colour", thing="The object")
# names | description | {key names: maker} (? = optional) | requests | result (a JSON text or plain) | answer
TOOLS = [
    ("get_weather|weather_forecast|check_weather|get_forecast|fetch_weather|weather", "Get the weather forecast for a city.|Weather forecast for a place.",
     {"city|location|place|town": "city", "days|num_days|day_count": "?days"},
     ["What is the weather in {city} for the next {days} days?|Give me the weather in {city} for {days} days.|I need a {days} day forecast for {city}.|Weather for {city}, {days} days please.|How will the weather be in {city} over the next {days} days?|Will it rain in {city} in the next {days} days?",
      "What is the weather in {city}?|How is the weather in {city}?|Weather in {city}?|Is it raining in {city}?|Please check the weather in {city}.|What's the weather like in {city} today?"],
     ['{{"city": "{city}", "forecast": "{v}", "high": {deg}}}', "{v}, {deg} degrees", '{{"weather": "{v}", "temperature": {deg}}}'], "It will be {v} in {city}, with {deg} degrees."),
    ("add_event|create_event|schedule_event|calendar_add|new_event|add_appointment", "Add an event to the calendar.|Create a calendar entry.",
     {"title|name|event|summary": "event", "day|date|weekday": "day", "time|start|start_time": "time"},
     ["Add {event} on {day} at {time}.|Put {event} in my calendar for {day} at {time}.|Schedule {event} on {day} at {time} please.|I have {event} on {day} at {time}. Please add it.|Please create an event: {event}, {day}, {time}."],
     ['{{"status": "ok"}}', "Event created.", '{{"ok": true, "id": {deg}}}'], "I have added {event} on {day} at {time}."),
    ("search|web_search|search_web|find|lookup|search_internet", "Search the web.|Find pages about a topic.", {"query|q|text|keywords": "query"},
     ["Search for {query}.|Find {query}.|Look up {query} for me.|Please search the web for {query}.|Can you search for {query}?|I want to know about {query}. Please search for it."],
     ['{{"results": ["{res}"]}}', "{res}", '[{{"title": "{res}"}}]'], "I found this: {res}."),
    ("set_alarm|create_alarm|alarm|wake_me|add_alarm", "Set an alarm.|Set an alarm clock.", {"time|at|when": "time", "label|name|note": "?event"},
     ["Set an alarm for {time} with the label {event}.|Set an alarm at {time} called {event}.", "Set an alarm for {time}.|Wake me up at {time}.|I need an alarm at {time}.|Please wake me at {time}.|Alarm at {time} please."],
     ['{{"status": "set"}}', "Alarm set.", "ok"], "Your alarm is set for {time}."),
    ("set_timer|start_timer|timer|countdown", "Start a timer.|Start a countdown.", {"minutes|duration|length": "minutes"},
     ["Set a timer for {minutes} minutes.|Start a timer of {minutes} minutes.|Timer for {minutes} minutes please.|Tell me when {minutes} minutes are over.|Count down {minutes} minutes."],
     ['{{"status": "started"}}', "Timer started.", "ok"], "The timer runs for {minutes} minutes."),
    ("convert|convert_units|unit_converter|convert_unit", "Convert a value between units.|Unit conversion.", {"value|amount|number": "amount", "from|from_unit|source": "unit1", "to|to_unit|target": "unit2"},
     ["Convert {amount} {unit1} to {unit2}.|How many {unit2} are {amount} {unit1}?|What is {amount} {unit1} in {unit2}?|Please convert {amount} {unit1} into {unit2}."],
     ['{{"result": {deg}}}', "{deg}", '{{"value": {deg}, "unit": "{unit2}"}}'], "{amount} {unit1} are {deg} {unit2}."),
    ("convert_currency|exchange|currency|exchange_money", "Convert an amount of money.|Currency exchange.", {"amount|value|sum": "amount", "from|from_currency|source": "cash1", "to|to_currency|target": "cash2"},
     ["Convert {amount} {cash1} to {cash2}.|How much are {amount} {cash1} in {cash2}?|Change {amount} {cash1} into {cash2}.|What are {amount} {cash1} worth in {cash2}?"],
     ['{{"result": {deg}}}', "{deg}", '{{"amount": {deg}}}'], "{amount} {cash1} are {deg} {cash2}."),
    ("send_message|send_text|message|text_message|send_sms", "Send a message to a person.|Send a text message.", {"to|recipient|person|contact": "person", "text|message|body|content": "text"},
     ["Tell {person}: {text}.|Send {person} a message: {text}.|Text {person} that {text}.|Please write to {person}: {text}.|Send a message to {person} saying {text}."],
     ['{{"status": "sent"}}', "Message sent.", "ok"], "I have sent your message to {person}."),
    ("play_music|play|start_music|play_song", "Play music.|Start the music player.", {"genre|style|kind": "genre"},
     ["Play some {genre} music.|I want to hear {genre}.|Put on {genre} music please.|Can you play {genre}?|Start some {genre}."],
     ['{{"playing": true}}', "Playing.", "ok"], "Now playing {genre} music."),
    ("set_light|dim_light|set_brightness|light_level", "Set the brightness of the light in a room.|Dim the lights.", {"room|where|place": "room", "level|brightness|percent": "level"},
     ["Set the light in the {room} to {level} percent.|Dim the {room} light to {level} percent.|Make the {room} light {level} percent.|Light in the {room}: {level} percent."],
     ['{{"ok": true}}', "Done.", "ok"], "The light in the {room} is now at {level} percent."),
    ("switch_light|light_switch|toggle_light|turn_light", "Switch the light in a room on or off.", {"room|where|place": "room", "on|state|power": "on"},
     ["Turn {onoff} the light in the {room}.|Switch the {room} light {onoff}.|Please turn the light in the {room} {onoff}.|{room} light {onoff}."],
     ['{{"ok": true}}', "Done.", "ok"], "The light in the {room} is now {onoff}."),
    ("set_temperature|heating|set_heating|thermostat", "Set the temperature of a room.", {"room|where|zone": "room", "degrees|temperature|celsius": "degrees"},
     ["Set the {room} to {degrees} degrees.|Heat the {room} to {degrees} degrees.|Make it {degrees} degrees in the {room}.|I want {degrees} degrees in the {room}."],
     ['{{"ok": true}}', "Done.", "ok"], "The {room} is set to {degrees} degrees."),
    ("book_table|reserve_table|restaurant_booking", "Book a table in a restaurant.", {"people|guests|party_size": "n", "day|date": "day", "time|at": "time"},
     ["Book a table for {n} people on {day} at {time}.|Reserve a table on {day} at {time} for {n} people.|I need a table for {n} on {day} at {time}."],
     ['{{"status": "booked"}}', "Table booked.", '{{"ok": true}}'], "Your table for {n} is booked on {day} at {time}."),
    ("translate|translate_text|translator", "Translate a text.|Translate into another language.", {"text|sentence|phrase": "text", "language|to|target|lang": "lang"},
     ["Translate \"{text}\" into {lang}.|How do you say \"{text}\" in {lang}?|Please translate this into {lang}: \"{text}\"|What is \"{text}\" in {lang}?"],
     ["{res}", '{{"translation": "{res}"}}'], "It means: {res}."),
    ("add|add_numbers|sum|plus", "Add two numbers.", {"a|x|first": "a", "b|y|second": "b"},
     ["What is {a} plus {b}?|Add {a} and {b}.|How much is {a} + {b}?|Please calculate {a} + {b}.|{a} + {b} = ?"],
     ["{sum}", '{{"result": {sum}}}'], "{a} plus {b} is {sum}."),
    ("get_time|current_time|time_in|world_clock", "Get the current time in a city.|The local time of a place.", {"city|location|place": "city"},
     ["What time is it in {city}?|Tell me the time in {city}.|Current time in {city}?|How late is it in {city}?"],
     ['{{"time": "{clock}"}}', "{clock}"], "It is {clock} in {city}."),
    ("add_to_list|shopping_list|add_item|buy", "Add an item to the shopping list.", {"item|product|what": "item", "quantity|count|number": "n"},
     ["Add {n} {item} to my shopping list.|Put {n} {item} on the list.|I need to buy {n} {item}.|Shopping list: {n} {item} please."],
     ['{{"ok": true}}', "Added.", "ok"], "I have added {n} {item} to your list."),
    ("book_train|find_train|train_ticket|book_ticket", "Book a train ticket.|Find a train.", {"from|origin|start": "city", "to|destination|end": "city2", "day|date": "day"},
     ["Book a train from {city} to {city2} on {day}.|I need a train from {city} to {city2} on {day}.|Find me a train on {day} from {city} to {city2}.|Train ticket to {city2} from {city}, {day}."],
     ['{{"status": "booked", "price": {deg}}}', '{{"departure": "{clock}", "price": {deg}}}'], "Your train from {city} to {city2} on {day} costs {deg}."),
    ("order_food|order|food_order|order_dish", "Order food.|Order a dish for delivery.", {"dish|food|meal": "dish", "quantity|count|portions": "n"},
     ["Order {n} portions of {dish}.|I would like {n} portions of {dish}.|Please order {n} times {dish}.|Get us {dish} for {n} people."],
     ['{{"status": "ordered", "minutes": {deg}}}', "Ordered."], "I have ordered {n} portions of {dish}."),
    ("define|dictionary|define_word|get_definition", "Look up a word in the dictionary.", {"word|term|entry": "word"},
     ["What does {word} mean?|Define {word}.|Look up the word {word}.|What is the meaning of {word}?"], ["{res}", '{{"definition": "{res}"}}'], "The dictionary says: {res}."),
    ("read_file|open_file|cat|get_file|read", "Read a file.|Read the content of a file.", {"path|file|filename|file_path": "path"},
     ["Read {path}.|Open the file {path}.|What is in {path}?|Show me {path}.|Please read the file {path}."], ["{res}", "{res}\n"], "The file says: {res}."),
    ("write_file|save_file|create_file|write", "Write a text into a file.", {"path|file|filename|file_path": "path", "content|text|data": "text"},
     ["Write \"{text}\" to {path}.|Save \"{text}\" in the file {path}.|Create {path} with the text \"{text}\".|Put \"{text}\" into {path}."], ["ok", "Written.", '{{"ok": true}}'], "I have written the text to {path}."),
    ("list_dir|list_files|ls|show_folder", "List the files in a folder.", {"path|folder|dir|directory": "folder"},
     ["List the files in {folder}.|What files are in {folder}?|Show me the folder {folder}.|Which files are in the folder {folder}?"], ["{p1}\n{p2}", '["{p1}", "{p2}"]'], "There are two files: {p1} and {p2}."),
]
VERBS = "find check count open close move paint send fetch update start stop order rate lock mark store track load sort water feed clean draw".split()
NOUNS = """door ticket plant pet parcel photo invoice garden robot task user account song album boat room device sensor recipe
player team report box shelf drone bike car lamp window train flight hotel star price""".split()
PARAMS = {"city": "city town location".split(), "person": "name person owner user".split(), "n": "count number quantity size".split(),
          "colour": "color colour paint".split(), "day": "day date when".split(), "time": "time at hour".split(), "thing": "object item target".split(),
          "level": "level speed percent power".split(), "word": "word tag keyword".split(), "room": "room area zone".split(), "path": "path file".split()}
NUMERIC = {"days", "minutes", "n", "amount", "level", "degrees", "a", "b"}


def values(r):
    v = {k: m(r) for k, m in MAKERS.items()}
    v["unit1"], v["unit2"] = r.choice(UNITS)[:: r.choice((1, -1))]
    v["cash1"], v["cash2"] = r.sample(MONEY, 2)
    v["onoff"], v["folder"] = ("on" if v["on"] else "off"), r.choice(("src", "docs", "data", "home", "work", "tests"))
    v.update(v=r.choice(W.WEATHER), deg=r.randint(3, 98), sum=v["a"] + v["b"], clock=f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}",
             p1=path(r), p2=path(r), res=C.passage(r, 1)[1][0][2].rstrip("."))
    return v


def schema(r, name, about, keys):
    """keys: [(key, maker, optional)]"""
    style, props = r.random(), {}
    for key, maker, _ in keys:
        kind = "boolean" if maker == "on" else "integer" if maker in NUMERIC else "string"
        props[key] = {"type": kind} if style < 0.4 else {"type": kind, "description": ABOUT.get(maker, "The " + key)}
    parameters = {"type": "object", "properties": props}
    needed = [k for k, _, optional in keys if not optional]
    if r.random() < 0.85:
        parameters["required"] = needed
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def known(r):
    names, about, params, asks, results, answer = r.choice(TOOLS)
    keys = [(r.choice(k.split("|")), m.lstrip("?"), m.startswith("?")) for k, m in params.items()]
    tool = schema(r, r.choice(names.split("|")) if r.random() < 0.6 else names.split("|")[0], r.choice(about.split("|")), keys)

    def ask():
        v = values(r)
        text = r.choice(r.choice(asks).split("|"))
        args = {k: v[m] for k, m, optional in keys if not optional or "{" + m + "}" in text}
        return W.polish(text.format(**v)), args, r.choice(results).format(**v), W.polish(answer.format(**v))
    return tool, ask


def invented(r):
    verb, noun = r.choice(VERBS), r.choice(NOUNS)
    makers = r.sample(sorted(PARAMS), r.choice((1, 2, 2, 3)))
    keys = [(r.choice(PARAMS[m]), m, False) for m in makers]
    keys = [k for i, k in enumerate(keys) if k[0] not in [x[0] for x in keys[:i]]]
    tool = schema(r, r.choice((f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.title()}")), r.choice((f"{verb.title()} the {noun}.", f"{verb.title()} a {noun}.")), keys)

    def ask():
        v = values(r)
        how = r.choice((" and ", ", "))
        told = r.choice((how.join(f"{k} {v[m]}" for k, m, _ in keys), how.join(f"the {k} {v[m]}" for k, m, _ in keys), ", ".join(f"{k}: {v[m]}" for k, m, _ in keys)))
        text = r.choice((f"{verb} the {noun} with {told}.", f"Please {verb} the {noun} with {told}.", f"Can you {verb} the {noun}? Use {told}.", f"I want to {verb} a {noun}: {told}.", f"Use {tool['function']['name']} with {told}."))
        result, answer = r.choice((("ok", f"Done. I used {how.join(str(v[m]) for _, m, _ in keys)}."), (v["res"], f"The tool says: {v['res']}."), (f'{{"result": {v["deg"]}}}', f"The result is {v['deg']}.")))
        return W.polish(text), {k: v[m] for k, m, _ in keys}, result, answer
    return tool, ask


def thought(r, name, args):
    told = " and ".join(f"{k} {E.dumps(v) if not isinstance(v, str) else v}" for k, v in args.items())
    return r.choice((f"I need the tool {name} with {told}.", f"The user asks for this. I call {name} with {told}.", f"I should call {name}. The arguments are {told}."))


def dialogue(r, thinking=None, simple=False):
    """simple: one request that needs one call (for the evaluation)."""
    thinking = r.random() < 0.4 if thinking is None else thinking
    made, names = [], set()
    for _ in range(r.choice((1, 1, 2, 2, 3))):
        tool, ask = invented(r) if r.random() < 0.35 else known(r)
        stem = tool["function"]["description"]
        if tool["function"]["name"] not in names and stem not in names:
            made.append((tool, ask))
            names |= {tool["function"]["name"], stem}
    head = r.choice(C.SYSTEMS + ["", "", "", "You are an assistant with tools.", "Use the tools when they help."])
    messages, key = [{"role": "system", "content": head, "tools": [m[0] for m in made]}], None
    for turn in range(1 if simple else r.choice((1, 1, 1, 2))):
        if not simple and r.random() < 0.1:  # no tool is needed
            asks, answer, why = r.choice(C.TALK)
            messages += [{"role": "user", "content": r.choice(asks.split("|"))}, {"role": "assistant", "content": answer, "reasoning_content": why + " No tool is needed."}]
            continue
        tool, ask = r.choice(made)
        name, (text, args, result, answer) = tool["function"]["name"], ask()
        calls, results, answers, why = [(name, args)], [result], [answer], thought(r, name, args)
        if not simple and r.random() < 0.1:
            tool2, ask2 = r.choice(made)
            text2, args2, result2, answer2 = ask2()
            text, results, answers = f"{text} {text2}", results + [result2], answers + [answer2]
            calls.append((tool2["function"]["name"], args2))
            why += " " + thought(r, calls[1][0], args2)
        key = key or dict(calls=calls, cut=len(messages) + 1)
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": "", "reasoning_content": why, "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(calls)]})
        if r.random() < 0.2 and turn == 0 and not simple:
            break  # ends with the call
        messages += [{"role": "tool", "tool_call_id": f"c{i}", "content": x} for i, x in enumerate(results)]
        messages.append({"role": "assistant", "content": " ".join(answers), "reasoning_content": r.choice(("I have the result.", "The tool has answered. Now I tell the user.", "Now I can answer."))})
    return messages, thinking, key

"""Our chat encoding: the worked examples with ids, and deepseek-recipe where it follows the reference.

Left out of the comparison, because recipe and reference differ (docs/text.md lists how): system
messages after the first user message (V4), assistant messages in a row, calls without arguments,
reasoning that the client lost, old reasoning in chat mode, a tool result after user text, empty user
messages beside others, a reminder after a user message.
"""

import json
import random

import deepseek_recipe as recipe
import pytest

import oracle

HIGH_FIRST = [0, 77666, 288, 9504, 482, 28]


def ids(text):
    return [int(word) for word in text.split()]


def message(role, content, **fields):
    return {"role": role, "content": content, **fields}


EXAMPLES = [
    ({"thinking": False, "messages": [message("system", "Be brief."), message("user", "Hello")]},
     "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hello<｜Assistant｜></think>",
     "0 7153 9708 16 128803 19923 128804 128822"),
    ({"messages": [message("user", "Hello")]},
     "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜><think>", "0 128803 19923 128804 128821"),
    ({"messages": [message("user", "a"), message("assistant", "b", reasoning="r1"),
                   message("user", "c")]},
     "<｜begin▁of▁sentence｜><｜User｜>a<｜Assistant｜></think>b<｜end▁of▁sentence｜><｜User｜>c<｜Assistant｜>"
     "<think>", "0 128803 67 128804 128822 68 1 128803 69 128804 128821"),
    ({"thinking": False, "messages": [message("latest_reminder", "2026-11-22"),
                                      message("user", "news?", task="action")]},
     "<｜begin▁of▁sentence｜><｜latest_reminder｜>2026-11-22<｜User｜>news?<｜Assistant｜></think><｜action｜>",
     "0 128828 939 24 15 779 15 1302 128803 21553 33 128804 128822 128829"),
    ({"thinking": False, "messages": [message("user", "hi"), message("assistant", "yo", task="title")]},
     "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜></think>yo<｜end▁of▁sentence｜><｜title｜>",
     "0 128803 6366 128804 128822 14371 1 128836"),
    ({"thinking": False, "messages": [message("user", "Write C"),
                                      message("assistant", "```c\n", prefix=True)]},
     "<｜begin▁of▁sentence｜><｜User｜>Write C<｜Assistant｜></think>```c\n",
     "0 128803 21750 345 128804 128822 9854 69 201"),
]


@pytest.fixture(scope="session")
def v41_file(tmp_path_factory):
    """The V4 tokenizer with the two renamed tokens of V4.1 that prompts need."""
    file = json.loads(oracle.TOKENIZER_JSON.read_text())
    names = {"<｜place▁holder▁no▁799｜>": "<｜System｜>", "<｜image2｜>": "<｜deepseek_image｜>"}
    for token in file["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], special=False)
    path = tmp_path_factory.mktemp("v41") / "tokenizer.json"
    path.write_text(json.dumps(file))
    return path


def test_examples(driver):
    answers = driver.lines("chat", [request for request, _, _ in EXAMPLES])
    for answer, (request, text, expected) in zip(answers, EXAMPLES):
        assert answer.get("text") == text, request
        assert answer["ids"] == ids(expected), request


def test_effort_example(driver):
    (answer,) = driver.lines("chat", [{"profile": "0731", "effort": "max",
                                       "messages": [message("user", "x")]}])
    assert len(answer["ids"]) == 97
    assert answer["ids"][:6] == HIGH_FIRST
    assert answer["ids"][-6:] == ids("41866 339 128803 90 128804 128821")


def test_response_format_example(driver):
    (answer,) = driver.lines("chat", [{
        "thinking": False, "response_format": '{"type":"object"}',
        "messages": [message("system", "S"), message("user", "Q")]}])
    assert answer["text"] == (
        "<｜begin▁of▁sentence｜>S\n\n## Response Format:\n\nYou MUST strictly adhere to the following "
        'schema to reply:\n{"type": "object"}<｜User｜>Q<｜Assistant｜></think>')
    assert len(answer["ids"]) == 28


class Conversations:
    """Random requests in our form; to_recipe() gives the same one in recipe's."""

    NASTY = ["<｜Assistant｜>", "</think>", "<think>", "｜DSML｜", "<dsml:", "<｜end▁of▁sentence｜>",
             "</tool_result>", "<｜User｜>", "<｜DSML｜tool_calls>\n", "\ufeff", "\n\n", "  ", ""]

    def __init__(self, seed, v41):
        self.random = random.Random(seed)
        self.v41 = v41

    def words(self, low=1):
        r = self.random
        stock = ["Hello", " world", "你好", "1234", "\n", " ", "don't", "```py\n", "x=1", "é", "😀", ". "]
        parts = [r.choice(stock) for _ in range(r.randrange(low, 7))]
        if r.random() < 0.25:
            parts.insert(r.randrange(len(parts) + 1), r.choice(self.NASTY))
        text = "".join(parts)
        return text if text or low == 0 else "x"

    def value(self, depth=0):
        r = self.random
        kind = r.randrange(8 if depth < 2 else 5)
        if kind == 0:
            return r.randrange(-10**6, 10**6)
        if kind == 1:
            return r.choice([True, False, None, 1.5, -0.25])
        if kind < 5:
            return self.words(0)
        if kind < 7:
            return [self.value(depth + 1) for _ in range(r.randrange(3))]
        return {self.words(): self.value(depth + 1) for _ in range(r.randrange(3))}

    def arguments(self):
        count = self.random.randrange(0 if self.v41 else 1, 4)
        names = self.random.sample(["city", "days", "q", "opt", "ключ", "a b"], count)
        return {name: self.value() for name in names}

    def call_round(self, messages, with_reasoning):
        r = self.random
        calls = [{"id": f"call_{len(messages)}_{i}", "name": r.choice(["get_weather", "now", "f"]),
                  "arguments": json.dumps(self.arguments(), ensure_ascii=r.random() < 0.5)}
                 for i in range(r.randrange(1, 4))]
        messages.append(message("assistant", r.choice(["", self.words()]), tool_calls=calls,
                                **({"reasoning": self.words(0)} if with_reasoning else {})))
        answered = [call["id"] for call in calls]
        r.shuffle(answered)
        for call_id in answered:
            messages.append(message("tool", self.words(0), tool_call_id=call_id))

    def request(self):
        r = self.random
        request = {"thinking": r.random() < 0.6, "profile": "v41" if self.v41 else "0731"}
        has_tools = r.random() < 0.4
        with_reasoning = has_tools or r.random() < 0.7
        if not self.v41 and not request["thinking"]:
            with_reasoning = False
        effort = r.choice([None, "low", "high", "max"])
        if effort is not None and request["thinking"]:
            request["effort"] = effort
        messages = [message("system", self.words()) for _ in range(r.choice((0, 1, 1, 2)))]
        if r.random() < 0.15:
            messages.append(message("latest_reminder", self.words()))
        for turn in range(r.randrange(1, 5)):
            for _ in range(r.choice((1, 1, 1, 2))):
                messages.append(message("user", self.words()))
            if self.v41 and r.random() < 0.15:
                messages.append(message("system", self.words()))
            if turn == 3 or r.random() < 0.25:
                break
            if has_tools and r.random() < 0.6:
                self.call_round(messages, with_reasoning)
                if r.random() < 0.3:
                    continue
            extra = {"reasoning": self.words(0)} if with_reasoning else {}
            messages.append(message("assistant", self.words(0), **extra))
            if r.random() < 0.1:
                messages.append(message("latest_reminder", self.words()))
            if turn < 2:
                messages.append(message("user", self.words()))
        if messages[-1]["role"] in ("assistant", "latest_reminder"):
            messages.append(message("user", self.words()))
        if r.random() < 0.15 and messages[-1]["role"] == "user":
            extra = {"reasoning": self.words()} if request["thinking"] and r.random() < 0.5 else {}
            messages.append(message("assistant", self.words(0 if extra else 1), prefix=True, **extra))
        request["messages"] = messages
        if has_tools:
            request["tools"] = [self.tool(i) for i in range(r.randrange(1, 4))]
        if r.random() < 0.15:
            request["response_format"] = json.dumps({"type": "object", "x": self.value()})
        return request

    def tool(self, index):
        return json.dumps({"type": "function", "function": {
            "name": f"tool_{index}", "description": self.words(0),
            "parameters": {"type": "object", "properties": self.arguments()}}})


def to_recipe(request):
    messages = []
    for m in request["messages"]:
        content = m["content"]
        if m["role"] == "system":
            messages.append(recipe.SystemMessage(content))
        elif m["role"] == "user":
            messages.append(recipe.UserMessage(content))
        elif m["role"] == "latest_reminder":
            messages.append(recipe.LatestReminderMessage(content))
        elif m["role"] == "tool":
            messages.append(recipe.ToolMessage(content, m["tool_call_id"]))
        else:
            calls = [recipe.ToolCall(c["id"], c["name"], c["arguments"])
                     for c in m.get("tool_calls", [])]
            messages.append(recipe.AssistantMessage(content, m.get("reasoning"), calls or None,
                                                    m.get("prefix", False)))
    tools = []
    for tool in request.get("tools", []):
        function = json.loads(tool)["function"]
        tools.append(recipe.ToolDefinition(function["name"], function["description"],
                                           function["parameters"]))
    schema = request.get("response_format")
    return recipe.Conversation(messages, thinking_mode=request["thinking"], tools=tools or None,
                               reasoning_effort=request.get("effort"),
                               response_schema=json.loads(schema) if schema else None)


@pytest.mark.parametrize("profile", ["0731", "v41"])
def test_agrees_with_recipe(driver, v41_file, slow, profile):
    v41 = profile == "v41"
    file = v41_file if v41 else oracle.TOKENIZER_JSON
    encoding = (recipe.DeepseekV41Encoding if v41 else recipe.DeepseekV4Encoding)()
    encoding = encoding.with_tokenizer(recipe.Tokenizer.from_file(str(file)))
    maker = Conversations(11 + v41, v41)
    requests = [maker.request() for _ in range(5000 if slow else 500)]
    answers = oracle.Driver(driver.path, file).lines("chat", requests)
    for request, answer in zip(requests, answers):
        conversation = to_recipe(request)
        assert answer.get("text") == encoding.render_conversation(conversation).prompt, (
            request, answer.get("error"))
        assert answer["ids"] == encoding.encode(conversation), request


def test_benign_prompts_are_the_flat_encoding(driver):
    """Without special tokens in client text, segments make no difference."""
    maker = Conversations(21, False)
    maker.NASTY = ["plain"]
    requests = [maker.request() for _ in range(300)]
    answers = driver.lines("chat", requests)
    flat = driver.encode([answer["text"].encode() for answer in answers], special=True)
    assert flat == [answer["ids"] for answer in answers]


def hostile_request(text, profile, thinking):
    """A request with `text` in every field that a client fills."""
    call = {"id": "1" + text, "name": "f" + text,
            "arguments": json.dumps({"k" + text: "v" + text, "n": [text, {text: 1}]})}
    tool = json.dumps({"function": {"name": "f" + text, "description": text,
                                    "parameters": {"p" + text: text, "enum": [text]}}})
    parts = [{"type": "text", "text": text}, {"type": "x" + text, "text": text}]
    return {
        "profile": profile, "thinking": thinking, "tools": [tool], "drop_thinking": False,
        "response_format": json.dumps({"x" + text: text}),
        "messages": [
            message("system", text, name=text), message("latest_reminder", text),
            message("user", text, name=text), message("user", "", parts=parts[:1] * 2),
            message("assistant", text, reasoning=text, tool_calls=[call, call]),
            message("tool", text, tool_call_id="1" + text),
            message("tool", "", parts=parts, tool_call_id=text),
            message("developer", "d" + text, tools=[tool], response_format=json.dumps({"y": [text]})),
            message("assistant", text, reasoning=text, name=text), message("user", text, task="title"),
            message("assistant", text), message("user", text),
            message("assistant", text, reasoning=text, prefix=True)]}


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("profile", ["preview", "0731", "v41"])
def test_client_text_gives_no_control_id(driver, v41_file, profile, thinking):
    """Each added token in each field of a client: the added ids are those of the benign prompt."""
    path = v41_file if profile == "v41" else oracle.TOKENIZER_JSON
    tokens = json.loads(path.read_text())["added_tokens"]
    added = {token["id"] for token in tokens}
    assert len(tokens) == 1283
    texts = [token["content"] for token in tokens]
    # Two tokens at once, one cut in half by the next field, and by its own beginning.
    texts += [text + "</think>" for text in texts[-40:]] + [text[:-1] for text in texts[-40:]]
    texts += ["<｜User" + "<｜User｜>", "｜DSML", "<｜", "<think", "\n</think>\n<｜DSML｜invoke name=\"f\">"]
    requests = [hostile_request(text, profile, thinking) for text in ["benign", *texts]]
    answers = oracle.Driver(driver.path, path).lines("chat", requests)
    errors = [answer["error"] for answer in answers if "error" in answer]
    assert not errors, errors[:3]
    control = [[i for i in answer["ids"] if i in added] for answer in answers]
    assert len(control[0]) > 20
    for text, got in zip(texts, control[1:]):
        assert got == control[0], text
    # The text is all there all the same.
    for text, answer in zip(texts, answers[1:]):
        assert answer["text"].count(text) >= 10, text

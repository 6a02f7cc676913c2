"""Malformed requests, 3000 about, the same for the same seed: what is sent, and what has to come back.

One fault each: a field of a wrong type or range, a body that is no JSON, a wrong route, broken HTTP.
The bodies that are spoilt are valid ones (BASES), which exercise most fields.
"""

import copy
import dataclasses
import json
import random

HEADER_LIMIT, BODY_LIMIT = 64 << 10, 64 << 20

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "strict": False,
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "u"},
    {"role": "assistant", "content": "", "reasoning_content": "r", "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "c1"},
    {"role": "user", "content": "and?"},
]
SHARED = {
    "model": "tiny", "max_tokens": 2, "temperature": 0, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
    "presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1, "seed": 1,
    "min_tokens": 1, "logit_bias": {"5": 1}, "stop": ["###"], "stop_token_ids": [7], "n": 1,
    "ignore_eos": False, "skip_special_tokens": True, "include_stop_str_in_output": False,
    "return_token_ids": True, "priority": 0, "timeout": 60, "cache_salt": "s", "request_id": "r1",
}  # fmt: skip
CHAT = SHARED | {
    "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True,
    "thinking": {"type": "enabled"}, "reasoning": {"enabled": True, "effort": "high"},
    "reasoning_effort": "high", "logprobs": True, "top_logprobs": 2, "include_reasoning": True,
    "chat_template_kwargs": {"thinking": True, "enable_thinking": True, "drop_thinking": True},
    "add_generation_prompt": True, "continue_final_message": False,
}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
BASES = {
    "chat": ("/v1/chat/completions", CHAT),
    "streamed": (
        "/chat/completions",
        CHAT
        | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
        | {"structured_outputs": {"regex": "a+"}},
    ),
    "schema": (
        "/v1/chat/completions",
        {"messages": MESSAGES[:2], "max_tokens": 2}
        | {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    "completion": ("/v1/completions", SHARED | {"prompt": "Once", "echo": True, "best_of": 1}),
    "logprobs": ("/beta/completions", {"prompt": [5, 6], "max_tokens": 2, "logprobs": 1}),
    "tokenize": ("/tokenize", {"model": "tiny", "prompt": "hi", "return_token_strs": True}),
    "tokenize_chat": ("/v1/tokenize", {"messages": MESSAGES, "tools": [TOOL]}),
    "detokenize": ("/detokenize", {"model": "tiny", "tokens": [5, 6]}),
}

HUGE = (2**62, -(2**63), 1e300)
WORDS, LISTS, OBJECTS = ("word",), ([1], [[]], ["a", {}]), ({"a": 1}, {"": None})
WRONG = {
    "bool": (7, 0, 1.5, *WORDS, "true", *LISTS, *OBJECTS, *HUGE),
    "int": (1.5, True, "7", *LISTS, *OBJECTS, *HUGE),
    "seed": (1.5, True, "7", *LISTS, *OBJECTS, 2**63, 1e300),
    "number": (True, "0.5", *LISTS, *OBJECTS, *HUGE),
    "string": (True, 7, 1.5, *LISTS, *OBJECTS, *HUGE),
    "strings": (True, 7, {"a": 1}, [7], ["a", None], ["x"] * 17, "x" * 5000),
    "ids": (True, "word", 7, {"a": 1}, ["a"], [1.5], [-7], [2**40], [None]),
    "object": (True, 7, *WORDS, *LISTS, *HUGE),
    "list": (True, 7, *WORDS, *OBJECTS, *HUGE),
    "items": (True, 7, *WORDS, *OBJECTS, [7], ["word"], [[]], [{}], [None]),
    "content": (True, 7, {"a": 1}, [7], [None], [{"type": "text"}], [{"text": 5}]),
    "arguments": (True, 7, [1], "[1]", '{"a": ', '{"a": NaN}', '{"a": ' * 5000),
    "bias": (True, 7, "word", [1], {"a": 1}, {"5": "x"}, {"5": 101}, {"-1": 1}, {"5": None}),
    "choice": (True, 7, [1], "word", {"a": 1}, {"type": "function"}, {"type": "word"}),
    "prompt": (True, 7, {"a": 1}, [True], [1.5], [{}], [-7], [2**40], ["a", 5], [], [[1], "a"]),
    "schema": (7, "word", [1], {"type": 5}, {"type": "word"}, {"not": {}}, {"minimum": "1"},
               {"pattern": "("}, {"$ref": "#/nothing"}, {"properties": 5}, {"required": "a"}),
    "outputs": (7, *WORDS, *LISTS, {"a": 1}, {"regex": "("}, {"regex": 5}, {"json": "{"},
                {"json": {"type": 5}}, {"grammar": "root"}, {"choice": []}, {"choice": [5]},
                {"regex": "a", "choice": ["a"]}, {"grammar": "("}, {"regex": "(" * 5000},
                {"grammar": "root ::= root{5}"}, {"grammar": "root ::= root"}),
}  # fmt: skip
# Fields that a server must not ignore, and that this one does not know.
REFUSED = (
    "suffix", "prompt_logprobs", "use_beam_search", "bad_words", "guided_json", "guided_regex",
    "functions", "function_call", "regex", "truncate_prompt_tokens", "chat_template", "documents",
    "lora_path", "stop_regex", "no_stop_trim", "thinking_token_budget", "logprob_token_ids",
    "return_tokens_as_token_ids", "custom_logit_processor", "modalities",
)  # fmt: skip

# The kinds of fields by their names, whatever the depth; those of lists and objects have one too.
KINDS = {
    "bool": "stream ignore_eos skip_special_tokens include_stop_str_in_output return_token_ids"
    " parallel_tool_calls logprobs include_reasoning thinking enable_thinking drop_thinking enabled"
    " add_generation_prompt continue_final_message include_usage continuous_usage_stats strict echo"
    " return_token_strs",
    "int": "n best_of max_tokens top_k min_tokens priority top_logprobs",
    "seed": "seed",
    "number": "temperature top_p min_p presence_penalty frequency_penalty repetition_penalty timeout",
    "string": "model cache_salt request_id reasoning_effort role name reasoning_content id"
    " tool_call_id type effort description regex text",
    "strings": "stop",
    "ids": "stop_token_ids tokens",
    "object": "stream_options reasoning chat_template_kwargs response_format json_schema function"
    " parameters",
    "list": "tool_calls",
    "items": "messages tools",
    "content": "content",
    "arguments": "arguments",
    "bias": "logit_bias",
    "choice": "tool_choice",
    "prompt": "prompt",
    "schema": "schema",
    "outputs": "structured_outputs",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
# What the same name is elsewhere.
KIND_AT = {
    "thinking": "object",
    ("logprobs", "logprobs"): "int",
    ("tokenize", "prompt"): "string",
    ("schema", "response_format.json_schema.name"): None,  # not read
}


@dataclasses.dataclass
class Bad:
    """A request, its pieces sent one after the other, and what may be answered."""

    name: str
    pieces: list
    status: tuple = (400,)  # of the replies, in order
    param: str = None  # what the last error's param begins with; "": it is null
    says: str = ""  # a part of its message
    pause: float = 0.0  # seconds between the pieces
    may_close: bool = False  # without an answer
    ends: str = "wait"  # then: "half" closes the sending side, "abort" goes away


def post(path, body, head=""):
    start = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}"
    return start.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def encoded(body):
    return json.dumps(body, ensure_ascii=False).encode()


def path_of(keys):
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def fields_of(value, keys=()):
    """The keys of all fields in a body."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*keys, key)
            if key not in ("logit_bias", "parameters", "schema"):
                yield from fields_of(inner, (*keys, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from fields_of(inner, (*keys, i))


def with_value(body, keys, value):
    out = copy.deepcopy(body)
    inner = out
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return out


def wrong_fields():
    """Every field of every base with every value that it cannot have."""
    for base, (path, body) in BASES.items():
        for keys in fields_of(body):
            where = path_of(keys)
            kind = KIND_AT.get((base, where), KIND_AT.get(where, KIND_OF.get(keys[-1])))
            for value in WRONG.get(kind, ()):
                spoilt = encoded(with_value(body, keys, value))
                yield Bad(f"{base} {where} = {value!r:.60}", [post(path, spoilt)], param=where)
        for name in REFUSED if "max_tokens" in body else ():
            spoilt = encoded(body | {name: "x"})
            yield Bad(f"{base} {name}", [post(path, spoilt)], param=name)


def deep(opening, closing, depth=10_000):
    return opening * depth + b"1" + closing * depth


def wrong_json(draw):
    """Bodies that are no JSON object, or hold what JSON cannot."""
    for base, (path, body) in BASES.items():
        text = encoded(body)

        def spoilt(name, data, **more):
            return Bad(f"{base}: {name}", [post(path, data)], param="", **more)

        def beside(value):
            return b'{"extra": ' + value + b", " + text[1:]

        for number in (b"NaN", b"-Infinity", b"1e999", b"-1e999", b"0x10", b"01", b"1.", b"+1",
                       b"9" * 400, b"1" * 30 + b"e"):  # fmt: skip
            yield spoilt(f"the number {number!r:.20}", beside(number), says="number"
                         if number in (b"1e999", b"9" * 400) else "JSON")  # fmt: skip
        for data in (b"\xff", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf5",
                     b"\xf4\x90\x80\x80", b"\x80"):  # fmt: skip
            yield spoilt(f"bytes {data!r}", beside(b'"' + data + b'"'), says="UTF-8")
        for data in (rb"\ud800\u12", rb"\u12", rb"\x41", b"a\nb", b"a\0b"):
            yield spoilt(f"the string {data!r}", beside(b'"' + data + b'"'), says="JSON")
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            yield spoilt("depth of an unknown field", beside(deep(opening, closing)), says="deep")
            yield spoilt("depth of all", deep(opening, closing), says="deep")
            for key in draw.sample(sorted(body), 2):
                data = b'{"%s": %s, %s' % (key.encode(), deep(opening, closing), text[1:])
                yield spoilt(f"depth of {key}", data, says="deep")
        for cut in [0, 1, len(text) - 1] + [draw.randrange(1, len(text)) for _ in range(5)]:
            yield spoilt(f"the first {cut} bytes", text[:cut], says="JSON")
        for _ in range(4):
            at = draw.randrange(len(text))
            data = text[:at] + bytes([draw.randrange(128, 256)]) + text[at:]
            yield spoilt(f"a byte at {at}", data, says="UTF-8")
        for data in (b"[]", b"null", b"7", b'"a"', b"   ", text + text, text + b"]", text + b",",
                     text[:-1] + b",}", text.replace(b'"', b"'"), b"//x\n" + text,
                     text.decode().encode("utf-16"), draw.randbytes(300)):  # fmt: skip
            yield spoilt(f"the body {data!r:.30}", data, says="the request body")
        key = draw.choice(sorted(set(body) & {"model", "max_tokens", "messages", "tokens"}))
        twice = b'{"%s": {"a": 5}, ' % key.encode() + text[1:]
        yield Bad(f"{base}: {key} twice", [post(path, twice)], param=key)


def wrong_routes(draw):
    chat = encoded(BASES["chat"][1])
    for path, methods in (
        ("/v1/chat/completions", ("GET", "PUT", "DELETE", "PATCH", "BREW", "OPTIONS")),
        ("/tokenize", ("GET", "PUT", "TRACE")),
        ("/v1/models", ("POST", "DELETE", "PROPFIND")),
        ("/health", ("POST", "PUT")),
    ):
        for method in methods:
            data = post(path, chat).replace(b"POST", method.encode(), 1)
            yield Bad(f"{method} {path}", [data], (405,), "", says=method)
    for path in ("/", "//", "/v1", "/v1/", "/v1/chat", "/v1/chat/completions/x", "/v2/completions",
                 "/v1/v1/completions", "/V1/completions", "/v1/../tokenize", "/%00", "/%ff%fe",
                 "/v1/completions%00", "/%2e%2e/etc/passwd", "/v1/completions;x", "/" + "a" * 30_000,
                 "/%e2%82", "/\\", "*", "http://x/y", "/v1/completions#x"):  # fmt: skip
        yield Bad(f"path {path:.30}", [post(path, chat)], (404,), "", says="no route")
    yield Bad("a model", [b"GET /v1/models/%ff HTTP/1.1\r\nHost: x\r\n\r\n"], (404,), "model")
    for name in ("gpt-4", "", " tiny", "tiny\0", "tiny" * 1000):
        body = encoded(BASES["completion"][1] | {"model": name or "\u2028"})
        yield Bad(f"model {name:.9}", [post("/v1/completions", body)], (404,), "model", "exist")


def broken_http(draw):
    path, body = BASES["completion"]
    good = encoded(body)

    def raw(name, data, status=400, says="", **more):
        return Bad(name, [data], (status,), "", says, may_close=True, **more)

    def headed(name, header, data=good, status=400, says="", **more):
        start = f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode()
        return raw(name, start + header + b"\r\n\r\n" + data, status, says, **more)

    for data in (b"hello", b"GET", b"GET /", b"GET / HTTP/9.9", b"GET / HTTP/1.1 x", b"GET  / HTTP/1.1",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0", b"G\0T / HTTP/1.1",
                 b"GET / http/1.1", b"GET /\x01 HTTP/1.1", b"(GET) / HTTP/1.1", b" GET / HTTP/1.1",
                 *(draw.randbytes(n).replace(b"\r\n", b"") for n in (5, 60, 600))):  # fmt: skip
        yield raw(f"start {data!r:.30}", data + b"\r\n\r\n")
    for header in (b"no colon", b": no name", b"A b: c", b"A : b", b"A\0: b", b"A: b\0c", b"A: \x01",
                   b"\xff: b", b"(A): b"):  # fmt: skip
        yield headed(f"header {header!r}", header)
    for length in (b"-1", b"x", b"1 2", b"+5", b"9" * 30, b"0x10", b"", b"1,2", b"5;6"):
        yield headed(f"length {length!r:.12}", b"Content-Length: " + length)
    yield headed("two lengths", b"Content-Length: 5\r\nContent-Length: 6")
    yield headed("length and chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked")
    yield headed("chunks and length", b"Transfer-Encoding: chunked\r\nContent-Length: 5")
    for coding in (b"gzip", b"chunked, gzip", b"identity"):
        yield headed(f"coding {coding!r}", b"Transfer-Encoding: " + coding, says="chunked")
    yield headed("two hosts", b"Host: y", says="Host")
    yield raw("no host", b"GET /version HTTP/1.1\r\n\r\n", says="Host")
    for chunk in (b"zz\r\n", b"-1\r\n", b"\r\n\r\n", b"5\r\nhello5\r\nworld", b"5 \r\nhello", b"5;=\r\n",
                  b"f" * 17 + b"\r\n", b"3\r\nabcdefg\r\n", b"0\r\nbad trailer\r\n\r\n"):  # fmt: skip
        yield headed(f"chunk {chunk!r:.20}", b"Transfer-Encoding: chunked", chunk)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(good) - 1, good[:-1])
    yield headed("a chunked body that is no JSON", b"Transfer-Encoding: chunked", chunked, says="JSON")

    long = b"x" * (HEADER_LIMIT + 1)
    for begin in (b"X-Long: ", b"X: 1\r\n" * 9000 + b"Y: ", b""):
        yield headed(f"header {len(begin)} too long", begin + long, b"", 431, "header")
    yield raw("path too long", b"GET /" + long + b" HTTP/1.1\r\n\r\n", 431, "header")
    endless = b"Transfer-Encoding: chunked"
    for begin in (b"5;", b"5\r\nhello\r\n3;x=", b"0\r\nX: "):
        yield headed(f"endless {begin!r}", endless, begin + long, 431, "chunk")
    for size in (BODY_LIMIT + 1, 10**15, 2**63):
        yield headed(f"body of {size}", b"Content-Length: %d" % size, b"{", 413, "limit")
    yield headed("chunk of 256 MiB", b"Transfer-Encoding: chunked", b"10000000\r\n{", 413, "limit")

    # More or less body than was said.
    yield Bad("too little body", [post(path, good)[:-5]], (), may_close=True, ends="half")
    yield Bad("half a header", [post(path, good)[:40]], (), may_close=True, ends="half")
    for cut in (1, 40, 90, len(post(path, good)) - 3):
        yield Bad(f"gone after {cut}", [post(path, good)[:cut]], (), may_close=True, ends="abort")
    short = post(path, good[:-1]) + good[-1:] + b"\r\n\r\n"
    yield Bad("too much body", [short], (400, 400), "", "HTTP", may_close=True)
    # One behind the other, without waiting.
    fine = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = post(path, b"{")
    yield Bad("pipelined", [fine + bad + fine + bad], (200, 400, 200, 400), "", "JSON")
    yield Bad("pipelined garbage", [fine + b"{}\r\n\r\n"], (200, 400), "", may_close=True)


def in_pieces(draw):
    """Slowly: byte by byte, with pauses wherever they hurt."""
    path, body = BASES["streamed"]
    bad = post(path, encoded(body | {"temperature": "hot"}))
    split = [bad[i : i + 1] for i in range(len(bad))]
    yield Bad("byte by byte", split, param="temperature", pause=0.0005)
    head = bad.index(b"\r\n\r\n") + 4
    yield Bad("a header byte by byte", [*split[:head], bad[head:]], param="temperature", pause=0.01)
    for _ in range(12):
        cuts = [0, *sorted(draw.sample(range(1, len(bad)), 12)), len(bad)]
        pieces = [bad[a:b] for a, b in zip(cuts, cuts[1:])]
        yield Bad(f"pieces {cuts}", pieces, param="temperature", pause=draw.choice((0.02, 0.2)))
    broken = b"GET / HTTP/1.1\r\nno colon\r\n\r\n"
    pieces = [broken[i : i + 1] for i in range(len(broken))]
    yield Bad("a broken header byte by byte", pieces, param="", pause=0.03, may_close=True)
    long = [b"POST / HTTP/1.1\r\nX: "] + [b"y" * 8000] * 9
    yield Bad("a long header slowly", long, (431,), "", "header", pause=0.05, may_close=True)


def requests(seed):
    """All of them, in a random order."""
    draw = random.Random(seed)
    made = [
        *wrong_fields(),
        *wrong_json(draw),
        *wrong_routes(draw),
        *broken_http(draw),
        *in_pieces(draw),
    ]
    draw.shuffle(made)
    return made

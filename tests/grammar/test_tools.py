"""Blocks of tool calls, and the other grammars, as drawn at random and as accepted."""

import json
import re

import jsonschema
import pytest

WEATHER = {"type": "object", "properties": {
    "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14},
    "unit": {"type": "string", "enum": ["C", "F"]}, "tags": {"type": "array", "items": {"type": "string"}},
    "note": {"type": ["string", "null"]}}, "required": ["city", "unit"]}
CODE = {"type": "object", "properties": {"code": {"type": "string", "maxLength": 30}},
        "required": ["code"], "additionalProperties": False}
NOTHING = {"type": "object", "properties": {}}
SCHEMAS = {"get_weather": WEATHER, "run": CODE, "now": NOTHING}
BAR = "｜"
DSML = f"{BAR}DSML{BAR}"


def tools(strict):
    return [{"name": name, "parameters": json.dumps(schema), "strict": strict}
            for name, schema in SCHEMAS.items()]


def parse(text, space=""):
    """The calls of a block by the letter of encoding.md 2.5: [(name, [(key, is string, text)])]."""
    block = "calls" if space else "tool_calls"
    whole = re.fullmatch(rf"<{DSML}{space}{block}>\n(.*)\n</{DSML}{space}{block}>", text, re.S)
    assert whole, text
    calls = []
    for call in whole[1].split(f"</{DSML}{space}invoke>"):
        if not call:
            continue
        head = re.match(rf'\n?<{DSML}{space}invoke name="([^"]*)">\n', call)
        assert head, call
        found = re.findall(rf'<{DSML}{space}parameter name="([^"]*)" string="(true|false)">(.*?)'
                           rf"</{DSML}{space}parameter>", call[head.end():], re.S)
        printed = "\n".join(f'<{DSML}{space}parameter name="{k}" string="{s}">{v}</{DSML}{space}parameter>'
                            for k, s, v in found)
        assert call[head.end():] == printed + "\n", call
        calls.append((head[1], [(k, s == "true", v) for k, s, v in found]))
    return calls


@pytest.mark.parametrize("profile, space", [("preview", ""), ("v41", " ")])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "loose"])
def test_drawn_blocks(oracle, profile, space, strict):
    (answer,) = oracle.ask([{"tools": tools(strict), "walks": 60, "longest": 800, "seed": 7}], profile)
    whole = [walk["text"] for walk in answer["walks"] if walk["whole"]]
    assert not [walk["error"] for walk in answer["walks"] if walk["error"]]
    assert len(whole) > 25
    seen = set()
    for text in whole:
        for name, parameters in parse(text.lstrip("\n"), space):
            seen.add(name)
            arguments = {}
            for key, is_string, value in parameters:
                assert DSML not in value.replace(f"</{DSML}", "")
                arguments[key] = value if is_string else json.loads(value)
            if strict:
                jsonschema.validate(arguments, SCHEMAS[name])
                assert set(arguments) <= set(SCHEMAS[name]["properties"])
            else:
                assert set(arguments) <= set(SCHEMAS[name]["properties"])
    assert seen == set(SCHEMAS)


def test_a_hundred_tools(oracle):
    names = [f"parameter_{i}" for i in range(4)]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    (answer,) = oracle.ask([{"tools": [{"name": f"tool_number_{i}", "parameters": json.dumps(schema),
                                        "strict": True} for i in range(100)]}])
    assert "error" not in answer, answer


def call(body, name="run"):
    return (f'<{DSML}tool_calls>\n<{DSML}invoke name="{name}">\n{body}\n</{DSML}invoke>\n'
            f"</{DSML}tool_calls>")


def parameter(key, value, string="true"):
    return f'<{DSML}parameter name="{key}" string="{string}">{value}</{DSML}parameter>'


def test_accepted_blocks(oracle):
    good = [call(parameter("code", "a < b && c </div> 2>&1")), call("", "now"),
            call(parameter("city", 'Rome "x"\n') + "\n" + parameter("days", "3", "false") + "\n" +
                 parameter("unit", "C"), "get_weather"),
            call(parameter("city", "") + "\n" + parameter("unit", "F") + "\n" +
                 parameter("note", "null", "false"), "get_weather")]
    bad = [call(""), call(parameter("code", "x"), "other"), call(parameter("other", "x")),
           call(parameter("code", "1", "false")), call(parameter("code", "x" * 31)),
           call(parameter("city", "Rome"), "get_weather"), call(parameter("code", "x")) + "\n",
           "text " + call(parameter("code", "x")), call(parameter("code", "x"))[:-1],
           call(parameter("city", "Rome") + "\n" + parameter("days", "15", "false") + "\n" +
                parameter("unit", "C"), "get_weather")]
    said = oracle.accepts({"tools": tools(True)}, good + bad)
    assert said == [True] * len(good) + [False] * len(bad)


def test_before_the_block(oracle):
    block = call(parameter("code", "x"))
    texts = ["\n\n" + block, "\n\n\n" + block, "well " + block, "well", ""]
    # Asked for: line ends alone may stand before. At will: any text.
    assert oracle.accepts({"tools": tools(True)}, texts) == [True, False, False, False, False]
    lazy = {"tools": tools(True), "lazy": True}
    assert oracle.accepts(lazy, texts) == [True] * 5
    # Once it is begun the block holds, and nothing comes behind it.
    assert oracle.accepts(lazy, ["a.<" + DSML + "tool_calls>", "a" + block + "b", "a<" + DSML + "x",
                                 call(parameter("code", "x"), "other")]) == [False] * 4
    thinking = {"tools": tools(True), "reasoning": True}
    assert oracle.accepts(thinking, ["hm</think>\n\n" + block, "hm</think>" + block, "hm" + block,
                                     "hm</think>no", "hm"]) == [True, True, True, False, False]


def test_one_call(oracle):
    two = call(parameter("code", "x")).replace(
        f"</{DSML}tool_calls>", f'<{DSML}invoke name="now">\n\n</{DSML}invoke>\n</{DSML}tool_calls>')
    one = call(parameter("code", "x"))
    assert oracle.accepts({"tools": tools(True)}, [one, two]) == [True, True]
    assert oracle.accepts({"tools": tools(True), "one_call": True}, [one, two]) == [True, False]


def test_answer_or_call(oracle):
    request = {"tools": tools(True), "also_schema": '{"type": "integer"}'}
    texts = ["12", call(parameter("code", "x")), "12 " + call(parameter("code", "x")), "x"]
    assert oracle.accepts(request, texts) == [True, True, False, False]


def test_json_after_reasoning(oracle):
    request = {"schema": '{"type": "integer"}', "reasoning": True}
    assert oracle.accepts(request, ["so 1</think>\n\n12", "so</think>12", "12", "so</think>\n\n\n12",
                                    "so</think>a"]) == [True, True, False, False, False]


def test_tools_that_are_refused(oracle):
    def error(*given):
        (answer,) = oracle.ask([{"tools": list(given)}])
        return answer["error"]
    good = tools(True)[0]
    assert error(good, {"name": "f", "parameters": '{"properties": {"a": {"not": {}}}}', "strict": True}
                 ) == "[1]: #/properties/a/not: this keyword cannot be enforced"
    assert error({"name": 'a"b', "parameters": "{}"}).startswith("[0]: ")
    assert error({"name": "f", "parameters": '{"type": "string"}', "strict": True}).startswith("[0]: #")
    assert error({"name": "f", "parameters": "{", "strict": False}).startswith("[0]: ")
    # Not strict: only the names are looked at.
    (answer,) = oracle.ask([{"tools": [{"name": "f", "parameters": '{"not": {}}'}]}])
    assert "error" not in answer


def test_regex_choice_and_grammar(oracle):
    assert oracle.accepts({"regex": r"[a-c]{2,4}x?|\d+\.\d{2}"}, ["abx", "abcdx", "1.25", "a", "1.2"]
                          ) == [True, False, True, False, False]
    assert oracle.accepts({"regex": "^(a|b)*$"}, ["", "abba", "c"]) == [True, True, False]
    assert oracle.accepts({"regex": "(a*)*b"}, ["b", "aaab", "a"]) == [True, True, False]
    assert oracle.accepts({"regex": "(ab){2,40}"}, ["ab" * 2, "ab" * 40, "ab", "ab" * 41]
                          ) == [True, True, False, False]
    assert oracle.accepts({"regex": "[a-z]{3,50}"}, ["a" * 3, "a" * 50, "aa", "a" * 51]
                          ) == [True, True, False, False]
    assert oracle.accepts({"choice": ["yes", "no", "日本"]}, ["yes", "日本", "maybe", "ye"]
                          ) == [True, True, False, False]
    assert oracle.accepts({"ebnf": 'root ::= "(" root ")" | "x"'}, ["((x))", "x", "(x", "()"]
                          ) == [True, True, False, False]
    assert oracle.accepts({"object": True}, ['{"a": [1, {"b": null}], "c": "\\ud83d\\ude00"}', "{}",
                                             "[]", "1", '{"a": "\\ud83d"}', "{'a': 1}"]
                          ) == [True, True, False, False, False, False]


@pytest.mark.parametrize("request_, says", [
    ({"regex": "a(?=b)"}, "look-ahead"), ({"regex": "(a"}, "unclosed"), ({"regex": "a{5,2}"}, "range"),
    ({"regex": "(" * 80 + ")" * 80}, "nested too deep"), ({"regex": "(((a{1000}){1000}){1000})"}, "too large"),
    ({"choice": []}, "choice"), ({"choice": [""]}, "choice"), ({"ebnf": "root ::= other"}, "other"),
    ({"ebnf": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}, "nested too deep"),
    ({"ebnf": 'root ::= (("a"{9000}){9000}){9000}'}, "repetitions"), ({"ebnf": 'start ::= "a"'}, "root"),
    ({"ebnf": "root ::= root"}, ""), ({"schema": "{"}, "not JSON"), ({"schema": "[]"}, "no schema"),
    ({"schema": '{"allOf": [' * 150 + "{}" + "]}" * 150}, "nested too deep")])
def test_what_is_no_grammar(oracle, request_, says):
    (answer,) = oracle.ask([{**request_, "walks": 1, "longest": 20}])
    said = answer.get("error") or answer["walks"][0]["error"]
    assert said and says in said, answer


def test_what_repeats_nothing_ends(oracle):
    """Left recursion and repetitions of what may be empty neither hang nor crash."""
    for request in [{"ebnf": 'root ::= root "a" | "b"'}, {"ebnf": 'root ::= ("" | "a")* "b"'},
                    {"regex": "((a?)*)*b"}, {"regex": "(|a){0,30}b"}]:
        (answer,) = oracle.ask([{**request, "walks": 3, "longest": 60}])
        assert "error" not in answer and not any(w["error"] for w in answer["walks"]), answer

"""Every schema of tests/data/schemas is enforced or refused by name: replies drawn at random from
what the grammar allows are judged by the Python package jsonschema."""

import json
import pathlib
import re

import jsonschema
import pytest

DATA = pathlib.Path(__file__).parents[1] / "data" / "schemas"
CASES = [json.loads(line) for path in sorted(DATA.glob("*.jsonl"))
         for line in path.read_text(encoding="utf-8").splitlines()]
WALKS = 5
# The package checks formats only if told so.
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def validator(schema):
    """Draft 4 to 7 have lists of items; all else is the newest draft."""
    if isinstance(schema, dict) and isinstance(schema.get("items"), list):
        return jsonschema.Draft7Validator(schema, format_checker=FORMATS)
    return jsonschema.Draft202012Validator(schema, format_checker=FORMATS)


def test_there_are_many():
    assert len(CASES) >= 300
    assert sum(not case.get("refused") for case in CASES) >= 300


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "open"])
def test_what_is_allowed_is_valid(oracle, strict):
    cases = [case for case in CASES if not case.get("refused")]
    answers = oracle.ask([{"schema": json.dumps(case["schema"], ensure_ascii=False),
                           "strict": strict, "walks": WALKS, "seed": i, "longest": 600}
                          for i, case in enumerate(cases)])
    wrong, whole = [], 0
    for case, answer in zip(cases, answers, strict=True):
        if "error" in answer:
            wrong.append(f"{case['name']}: {answer['error']}")
            continue
        for walk in answer["walks"]:
            whole += walk["whole"]
            if walk["error"]:
                wrong.append(f"{case['name']}: {walk['error']} after {walk['text'][-60:]!r}")
            if not walk["whole"]:
                continue
            try:
                validator(case["schema"]).validate(json.loads(walk["text"]))
            except (ValueError, jsonschema.ValidationError) as error:
                wrong.append(f"{case['name']}: {walk['text'][:200]!r}: {str(error).splitlines()[0]}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:40])
    # Walks that are cut off say little; nearly all come to their end.
    assert whole >= 0.9 * WALKS * len(cases), whole


def test_what_is_refused_is_named(oracle):
    cases = [case for case in CASES if case.get("refused")]
    answers = oracle.ask([{"schema": json.dumps(case["schema"], ensure_ascii=False),
                           "strict": True} for case in cases])
    for case, answer in zip(cases, answers, strict=True):
        assert answer.get("error", "").startswith(case["at"] + ":"), (case["name"], answer)


ACCEPTED = [
    ({"type": "integer", "minimum": 3, "maximum": 120}, ["3", "9", "10", "99", "100", "120"],
     ["2", "121", "03", "3.0", "-3", "1e1", ""]),
    ({"type": "number", "minimum": -1.5, "exclusiveMaximum": 2.25},
     ["-1.5", "-1.50", "-1", "0", "0.001", "2", "2.2", "2.24", "2.2499"],
     ["-1.51", "2.25", "2.250", "2.3", "-2", "3", "2."]),
    ({"type": "number", "exclusiveMinimum": 3.14, "maximum": 3.15}, ["3.141", "3.15", "3.1400001"],
     ["3.14", "3.140", "3.1501", "3.2", "3"]),
    ({"type": "integer", "multipleOf": 7}, ["0", "7", "-14", "7007"], ["8", "-1", "07"]),
    ({"type": "string", "minLength": 2, "maxLength": 4}, ['"ab"', '"üö"', '"a\\nb"', '"abcd"'],
     ['"a"', '"abcde"', '""', 'ab']),
    ({"type": "string", "pattern": "b+c"}, ['"bc"', '"xxbbcx"'], ['"bb"', '"c"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"', '"2026-12-31"'],
     ['"2023-02-29"', '"1900-02-29"', '"2026-04-31"', '"2026-13-01"']),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}},
      "required": ["b"]},
     ['{"b":null}', '{"a": 1, "b": null}', '{\n  "a": 1,\n  "b": null\n}'],
     ['{"a": 1}', '{"b": null, "a": 1}', '{"b": null, "c": 1}', '{"b": null,}']),
    ({"enum": [1, "a", None]}, ["1", '"a"', "null"], ["2", "a", "1.5"]),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"},
      "minItems": 1, "maxItems": 3}, ["[1]", "[1, true]", "[1,true,false]"],
     ["[]", "[true]", "[1, 2]", "[1, true, true, true]"]),
    ({"type": "integer", "multipleOf": 7}, ["7" * 40], ["7" * 39 + "8"]),
    ({"type": "integer", "multipleOf": 1000}, ["123456789012000", "-1000", "0"], ["100"]),
    ({"type": "integer", "allOf": [{"multipleOf": 4}, {"multipleOf": 6}]}, ["12", "24"], ["4", "6"]),
    ({"pattern": r"^[^\s]+$", "type": "string"}, ['"a"'], ['"\u00a0"', '"a\u2003b"', '" "']),
    ({"pattern": r"^[^\W]+$", "type": "string"}, ['"a_1"'], ['"\u2192"', '"-"']),
    ({"pattern": r"^[^\D]+$", "type": "string"}, ['"1"'], ['"\u2192"', '"x"']),
    ({"pattern": r"^[^\W\d_]+$", "type": "string"}, ['"a"'], ['"\u2192"', '"1"', '"_"']),
    ({"pattern": r"^[^\S]+$", "type": "string"}, ['" "'], ['"\u200b"', '"\u0085"', '"x"']),
    ({"pattern": r"^(\uD83D\uDE00|[\uD83D\uDE01-\uD83D\uDE02])$", "type": "string"},
     ['"\U0001f600"', '"\U0001f602"'], ['"\U0001f603"']),
    ({"type": "string", "pattern": r"\S", "minLength": 1, "maxLength": 200}, ['"a"', '"a b"'], ['""', '" "']),
    ({"type": "string", "pattern": "[A-Z]", "minLength": 8}, ['"ABCDEFGHI"', '"Abcdefgh"'],
     ['"ABCDEFG"', '"abcdefgh"']),
    ({"type": "object", "required": ["b", "b"]}, ['{"b": 1}'], ['{"b": 1, "b": 1}', "{}"]),
    ({"$id": "http://e/r", "type": "object", "properties": {"a": {"$id": "#a", "type": "null"}}},
     ['{"a": null}'], ['{"a": 1}']),
]


@pytest.mark.parametrize("schema, good, bad", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_is_accepted(oracle, schema, good, bad):
    said = oracle.accepts({"schema": json.dumps(schema), "strict": True}, good + bad)
    assert dict(zip(good + bad, said, strict=True)) == {
        **dict.fromkeys(good, True), **dict.fromkeys(bad, False)}


def test_objects_that_are_open(oracle):
    request = {"schema": json.dumps({"type": "object", "properties": {"a": {"type": "null"}}})}
    texts = ['{"a": null, "b": [1]}', '{"b": 1}', '{"a": 1}']
    assert oracle.accepts({**request, "strict": False}, texts) == [True, True, False]
    assert oracle.accepts({**request, "strict": True}, texts) == [False, False, False]


def test_schemas_that_refer_to_themselves(oracle):
    """Neither hangs nor crashes: what can end does, the rest is refused."""
    def ask(schema):
        return oracle.ask([{"schema": json.dumps(schema), "walks": 3, "longest": 100}])[0]
    for schema in [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"type": "object", "allOf": [{"$ref": "#"}]},
                   {"oneOf": [{"$ref": "#"}, {"type": "string"}]},
                   {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]:
        assert ask(schema).get("error", "").startswith("#"), schema
    for schema in [{"anyOf": [{"$ref": "#"}, {"type": "null"}]},
                   {"anyOf": [{"type": "null"}, {"anyOf": [{"$ref": "#"}]}]},
                   {"type": "array", "items": {"$ref": "#"}},
                   {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
                   {"type": "array", "items": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
                    "minItems": 1, "maxItems": 3}]:
        answer = ask(schema)
        assert "error" not in answer and not any(w["error"] for w in answer["walks"]), (schema, answer)


def chain(step, length, end=True):
    return {"$defs": {**{f"d{i}": step({"$ref": f"#/$defs/d{i + 1}"}) for i in range(length)},
                      f"d{length}": end}, "$ref": "#/$defs/d0"}


def test_long_chains(oracle):
    """Answered one way or the other, and soon."""
    steps = [lambda ref: ref, lambda ref: {"properties": {"a": ref}}, lambda ref: {"items": ref}]
    schemas = [chain(step, length) for step in steps for length in (300, 9000)]
    answers = oracle.ask([{"schema": json.dumps(schema), "strict": True} for schema in schemas])
    assert ["error" in answer for answer in answers] == [False, False, False, True, False, True]
    assert all(answer.get("error", "#").startswith("#") for answer in answers)
    (answer,) = oracle.ask([{"schema": json.dumps({"prefixItems": [True] * 500})}])
    assert "error" not in answer, answer


def test_too_many_combinations(oracle):
    names = [f"n{i}" for i in range(100_000)]
    loop = {name: {"type": "object", "required": ["x"], "properties": {"x": {"$ref": f"#/$defs/{name}"}}}
            for name in "ab"}
    for schema in [chain(lambda ref: {"allOf": [ref, ref]}, 20, {"type": "null"}),
                   {"oneOf": [{"const": f"{i}"} for i in range(5000)]},
                   {"allOf": [{"enum": names}, {"enum": names}]},
                   {"allOf": [{"required": names}, {"required": names}]},
                   {"$defs": loop, "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}]:
        (answer,) = oracle.ask([{"schema": json.dumps(schema)}])
        assert re.match("#.*(too many combinations|more than 5000)", answer.get("error", "")), answer


def test_limits(oracle):
    """What would take the compiler long is refused at once."""
    for schema in [{"type": "string", "minLength": 500}, {"type": "array", "maxItems": 100_000},
                   {"type": "object", "properties": {"x" * 300: {}}},
                   {"type": "string", "pattern": "((a{100}){100}){100}"},
                   {"type": "string", "pattern": "a" * (300 << 10)},
                   {"type": "string", "pattern": "a?b", "minLength": 8},
                   {"anyOf": [{"type": "string", "pattern": r"^\uD83D$"}, {"type": "null"}]},
                   {"allOf": [{"multipleOf": n} for n in (863, 883, 971, 701, 887, 823, 809)]},
                   {"properties": {"a": {"$id": "http://e/x"}}}]:
        (answer,) = oracle.ask([{"schema": json.dumps(schema)}])
        assert answer.get("error", "").startswith("#"), (schema, answer)

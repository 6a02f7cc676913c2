"""Hundreds of schemas, as public ones are, through the real model: every answer that ends by itself is
valid by Python's jsonschema, and what cannot be enforced is refused by name.

The temperature is 1, so the model writes what comes to its mind; the grammar sees to the form.
"""

import concurrent.futures
import json
import pathlib
import re

import httpx
import jsonschema
import pytest
from conftest import SANITIZED

DATA = pathlib.Path(__file__).resolve().parents[1] / "data/schemas"
SCHEMAS = [
    json.loads(line) for path in sorted(DATA.glob("*.jsonl")) for line in path.open() if line.strip()
]
AT_ONCE = 8
# Answers that must end by themselves, so that something is looked at; how many do is the model's affair.
ENDED = 10 if SANITIZED else 100


def by_structured_outputs(schema):
    return {"structured_outputs": {"json": schema}}, "structured_outputs.json"


def by_response_format(schema):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    return {"response_format": form}, "response_format.json_schema.schema"


def by_tool(schema):
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    return {"tools": [tool], "tool_choice": "required"}, "tools[0].function.parameters"


def text_of(choice):
    calls = choice["message"].get("tool_calls")
    return calls[0]["function"]["arguments"] if calls else choice["message"]["content"]


def validator_of(schema):
    """The one that a schema names, or else the newest that takes it."""
    kind = jsonschema.validators.validator_for(schema, default=None)
    if kind is None:
        try:
            kind = jsonschema.Draft202012Validator
            kind.check_schema(schema)
        except jsonschema.SchemaError:
            kind = jsonschema.Draft7Validator
            kind.check_schema(schema)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def check(server, row, way=by_structured_outputs, **fields):
    """"refused", "length" or "valid"; anything else fails."""
    form, param = way(row["schema"])
    body = {
        "messages": [{"role": "user", "content": "Answer in JSON."}],
        "thinking": {"type": "disabled"},
    }
    url = server.url + "/v1/chat/completions"
    reply = httpx.post(url, json=body | form | fields, timeout=280)
    # A tool's parameters are an object in tags, which has narrower limits.
    if row.get("refused") or (way is by_tool and reply.status_code == 400):
        assert reply.status_code == 400, (row["name"], reply.text)
        error = reply.json()["error"]
        assert error["param"].startswith(param), (row["name"], error)
        if way is not by_tool and isinstance(row["schema"], dict):
            assert row["at"] in error["message"], (row["name"], error)
        return "refused"
    assert reply.status_code == 200, (row["name"], reply.text)
    outcomes = set()
    for choice in reply.json()["choices"]:
        outcomes.add(choice["finish_reason"])
        if choice["finish_reason"] == "length":
            continue
        text = text_of(choice)
        try:
            validator_of(row["schema"]).validate(json.loads(text))
        except (json.JSONDecodeError, jsonschema.ValidationError) as error:
            raise AssertionError(f"{row['name']}: {text!r}: {error}") from error
    return "valid" if outcomes & {"stop", "tool_calls"} else "length"


def run(server, ways, **fields):
    """The outcomes of all schemas, each asked for in the next of the ways."""
    rows = SCHEMAS[:: 10 if SANITIZED else 1]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [
            pool.submit(check, server, row, ways[i % len(ways)], seed=i, **fields)
            for i, row in enumerate(rows)
        ]
    faults = [str(fault) for future in futures if (fault := future.exception())]
    assert not faults, f"{len(faults)} faults:\n" + "\n\n".join(faults)
    outcomes = [future.result() for future in futures]
    counts = {outcome: outcomes.count(outcome) for outcome in ("valid", "length", "refused")}
    print(counts)
    return counts


def test_there_are_schemas():
    assert len([row for row in SCHEMAS if not row.get("refused")]) >= 300


def test_answers_are_valid(server):
    counts = run(server, [by_structured_outputs, by_response_format], max_tokens=96)
    assert counts["valid"] >= ENDED


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("way", [by_structured_outputs, by_response_format, by_tool])
def test_more_and_longer_answers_are_valid(server, way):
    counts = run(server, [way], max_tokens=400, n=2)
    assert counts["valid"] >= ENDED


def test_preempted_answers_are_valid(start_server):
    """Rules go on where they were when a request had to make room and was computed again."""
    limits = ["--max-num-seqs", "8", "--max-model-len", "1024"]
    refused = start_server("--kv-cache-memory", "1M", *limits, wait=False)
    refused.process.wait(60)
    # What eight sequences need, and room for the tokens of one alone.
    needs = sum(int(n) for n in re.findall(r"need (\d+)", refused.log()))
    small = start_server("--kv-cache-memory", str(needs), *limits)
    rows = [row for row in SCHEMAS if not row.get("refused")][:24]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: check(small, row, max_tokens=400, seed=1), rows))
    assert small.metric("seacliff:num_preemptions_total") > 0

"""Conversations hit the prefix cache up to their newest message: returned turns are read in the tokens
that were sampled, and where the encoding drops old reasoning the next prompt is computed in idle
time. Each turn is checked by its ids and by `cached_tokens`."""

import json
import pathlib
import time

import httpx
import pytest

from conftest import MODEL

BLOCK = 128
TOKENIZER = json.loads(pathlib.Path(MODEL, "tokenizer.json").read_text())
TOKENS = {token["content"]: token["id"] for token in TOKENIZER["added_tokens"]}
# All of such a reply comes back from the client: not so newlines around its parts, nor calls.
PLAIN = {str(id): -100 for token, id in TOKENIZER["model"]["vocab"].items() if "Ċ" in token}
PLAIN |= {str(TOKENS["｜DSML｜"]): -100}
END, THINK_END = TOKENS["<｜end▁of▁sentence｜>"], TOKENS["</think>"]
LOOK = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}},
}
FILLER = "The quick brown fox jumps over the lazy dog and runs home to its den in the wood. "


class Turn:
    """One reply: the prompt's ids, the sampled ones, and what the client keeps of it."""

    def __init__(self, prompt, ids, message, cached):
        self.prompt, self.ids, self.message, self.cached = prompt, ids, message, cached

    @property
    def all(self):
        return self.prompt + self.ids

    @property
    def left(self):
        """Tokens that it leaves to start from: whole blocks; the last token is never computed."""
        return (len(self.all) - 1) // BLOCK * BLOCK


class Conversation:
    def __init__(self, server, system="", stream=False, thinking=False, **fields):
        self.server, self.stream = server, stream
        self.fields = {"model": "tiny", "temperature": 0, "max_tokens": 60, "logit_bias": PLAIN}
        self.fields |= fields
        self.fields["thinking"] = {"type": "enabled" if thinking else "disabled"}
        self.messages = [{"role": "system", "content": system}] if system else []

    def ask(self, text, **fields):
        """Says `text`, and keeps the answer as clients do."""
        self.messages.append({"role": "user", "content": text})
        turn = self.send(**fields)
        self.messages.append(turn.message)
        return turn

    def send(self, **fields):
        body = self.fields | {"messages": self.messages, "return_token_ids": True} | fields
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        reply = httpx.post(self.server.url + "/v1/chat/completions", json=body, timeout=300)
        assert reply.status_code == 200, reply.text
        return self.streamed(reply.text) if self.stream else self.whole(reply.json())

    @staticmethod
    def whole(reply):
        choice = reply["choices"][0]
        message = {k: v for k, v in choice["message"].items() if v is not None and k != "reasoning"}
        cached = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        return Turn(reply["prompt_token_ids"], choice["token_ids"], message, cached)

    @staticmethod
    def streamed(text):
        prompt, ids, parts, usage = [], [], {}, None
        for line in text.splitlines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            prompt = prompt or chunk.get("prompt_token_ids") or []
            for choice in chunk["choices"]:
                ids += choice.get("token_ids") or []
                for key in ("content", "reasoning_content"):
                    if choice["delta"].get(key):
                        parts[key] = parts.get(key, "") + choice["delta"][key]
        message = {"role": "assistant", "content": ""} | parts
        return Turn(prompt, ids, message, usage["prompt_tokens_details"]["cached_tokens"])


def count(server, text):
    reply = httpx.post(server.url + "/tokenize", json={"prompt": text}, timeout=60).json()
    return reply["count"]


def encode(server, text):
    return httpx.post(server.url + "/tokenize", json={"prompt": text}, timeout=60).json()["tokens"]


def decode(server, ids):
    reply = httpx.post(server.url + "/detokenize", json={"tokens": ids}, timeout=60).json()
    return reply["prompt"]


def unspliced(server, reason):
    return server.metric("seacliff:unspliced_turns_total", reason=reason)


def spliced(server):
    return server.metric("seacliff:spliced_turns_total")


def check_goes_on(before, turn):
    """The prompt is the turn before and new messages, and all of the former was cached."""
    assert turn.prompt[: len(before.all)] == before.all
    assert turn.cached >= before.left


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_each_turn_goes_on_from_the_last(server, thinking, tools, stream):
    fields = {"tools": [LOOK]} if tools else {}
    system = f"Be kind. {thinking} {tools} {stream}"
    talk = Conversation(server, system, stream, thinking, **fields)
    before = None
    for text in ("Tell me a story about a fox.", "Another one, of a mole.", "Good night."):
        computed = server.metric("seacliff:idle_prefill_tokens_total")
        turn = talk.ask(text, max_tokens=400)
        if before is not None and (tools or not thinking):
            check_goes_on(before, turn)
        elif before is not None:
            # The reasoning before is gone; what the prompt begins with was computed meanwhile.
            new = count(server, text) + 3
            assert turn.cached >= (len(turn.prompt) - new) // BLOCK * BLOCK
        before = turn
        # A block of the answer ends somewhere, surely.
        if thinking and not tools and len(encode(server, turn.message["content"])) >= BLOCK:
            server.wait_idle_prefill(computed)


def test_idle_prefill_can_be_turned_off(start_server):
    plain = start_server("--idle-prefill", "off")
    talk = Conversation(plain, thinking=True)
    first = talk.ask("Tell me a story about a fox.", max_tokens=400)
    time.sleep(0.5)
    turn = talk.ask("Another one, of a mole.")
    assert plain.metric("seacliff:idle_prefill_tokens_total") == 0
    # What was cached ends where the answer's header differs.
    assert turn.cached <= len(first.prompt)
    assert unspliced(plain, "reasoning") == 1


def test_an_idle_prefill_is_no_request(start_server):
    quiet = start_server()
    talk = Conversation(quiet, thinking=True)
    talk.ask("Tell me a story about a fox.", max_tokens=400)
    quiet.wait_idle_prefill(0)
    for name in ("e2e_request_latency_seconds_count", "time_to_first_token_seconds_count"):
        assert quiet.metric("seacliff:" + name) == 1
    talk.ask("Another one, of a mole.")
    assert quiet.metric("seacliff:prefix_cache_missed_tokens_total", reason="template") == 0


def forced(server):
    """A letter that is merged with itself, so that one after the other is not its encoding."""
    for letter in "aeotnsl":
        ids = encode(server, letter)
        if len(ids) == 1 and len(encode(server, letter * 40)) < 40:
            return ids[0]
    raise AssertionError("no letter is merged with itself")


@pytest.mark.parametrize("stream", [False, True])
def test_sampled_tokens_that_are_no_encoding(server, stream):
    letter = forced(server)
    talk = Conversation(server, f"Shout. {stream}", stream, logit_bias={str(letter): 100})
    before = talk.ask("Say it.", max_tokens=300)
    assert before.ids == [letter] * 300
    assert encode(server, before.message["content"]) != before.ids
    count_before = spliced(server)
    turn = talk.ask("Again.", max_tokens=300)
    check_goes_on(before, turn)
    assert turn.cached >= 256
    assert spliced(server) == count_before + 1
    check_goes_on(turn, talk.ask("And again."))


def test_sampling_at_random(server):
    """Replies with reasoning, drawn at a high temperature until some are not their encoding."""
    odd = 0
    for seed in range(30):
        talk = Conversation(server, f"Be odd. {seed}", thinking=True, tools=[LOOK])
        before = talk.ask("Tell me a story about a fox.", temperature=1.5, seed=seed, max_tokens=300)
        known = spliced(server)
        turn = talk.ask("Another one.", max_tokens=1)
        if before.ids[-1] != END or THINK_END not in before.ids:
            continue  # it was cut
        content = before.ids[before.ids.index(THINK_END) + 1 : -1]
        if decode(server, content) != before.message["content"]:
            continue  # not all of what was sampled comes back
        assert spliced(server) == known + 1
        check_goes_on(before, turn)
        odd += content != encode(server, before.message["content"])
        if odd == 3:
            return
    raise AssertionError("no reply that was spliced differed from its encoding")


def test_edited_turns_are_not_spliced(server):
    letter = forced(server)
    talk = Conversation(server, "Edit.", logit_bias={str(letter): 100})
    before = talk.ask("Say it.", max_tokens=300)
    talk.messages[-1]["content"] += "!"
    edited, known = unspliced(server, "edited"), spliced(server)
    turn = talk.ask("Again.")
    assert unspliced(server, "edited") == edited + 1
    assert spliced(server) == known
    assert turn.prompt[: len(before.all)] != before.all
    assert turn.cached <= len(before.prompt)


def test_another_cache_salt_shares_nothing(server):
    letter = forced(server)
    talk = Conversation(server, "Salt.", logit_bias={str(letter): 100}, cache_salt="one")
    before = talk.ask("Say it.", max_tokens=300)
    known = spliced(server)
    talk.messages.append({"role": "user", "content": "Again."})
    other = talk.send(cache_salt="two")
    assert spliced(server) == known
    assert other.cached == 0
    assert other.prompt[: len(before.all)] != before.all
    check_goes_on(before, talk.send())
    assert spliced(server) == known + 1


def test_a_changed_template_is_counted_and_told(server):
    letter = forced(server)
    talk = Conversation(server, "Change.", logit_bias={str(letter): 100})
    talk.ask("Say it. " + FILLER * 30, max_tokens=300)
    counted = unspliced(server, "template")
    missed = server.metric("seacliff:prefix_cache_missed_tokens_total", reason="template")
    lost = server.metric("seacliff:prefix_cache_lost_total")
    talk.ask("Again.", tools=[LOOK])
    assert unspliced(server, "template") == counted + 1
    assert server.metric("seacliff:prefix_cache_lost_total") == lost + 1
    after = server.metric("seacliff:prefix_cache_missed_tokens_total", reason="template")
    assert after >= missed + 2 * BLOCK
    assert "its conversation lost its prefix" in server.log()
    assert "this turn's prompt has other tokens there" in server.log()


def test_choices_share_their_prompt(server):
    """The first computes it; what the others found is no saving of the client's."""
    text = "Share. " + FILLER * 60
    hits = server.metric("seacliff:prefix_cache_hits_total")
    body = {"model": "tiny", "prompt": text, "n": 4, "max_tokens": 4, "temperature": 1}
    for told in (False, True):
        reply = httpx.post(server.url + "/v1/completions", json=body, timeout=60).json()
        blocks = (reply["usage"]["prompt_tokens"] - 1) // BLOCK * BLOCK
        assert blocks > 5 * BLOCK
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == told * blocks
        after = server.metric("seacliff:prefix_cache_hits_total")
        assert after - hits == (4 if told else 3) * blocks
        hits = after


def test_a_cut_reply_is_continued_in_its_tokens(server):
    letter = forced(server)
    talk = Conversation(server, "Go on.", logit_bias={str(letter): 100})
    before = talk.ask("Say it.", max_tokens=200)
    turn = talk.send(continue_final_message=True, add_generation_prompt=False, max_tokens=100)
    assert turn.prompt == before.all
    assert turn.cached >= before.left
    talk.messages[-1]["content"] += turn.message["content"]
    check_goes_on(turn, talk.ask("Again."))


def test_without_reply_memory_turns_are_encoded(start_server):
    forgetful = start_server("--reply-memory", "0")
    letter = forced(forgetful)
    talk = Conversation(forgetful, logit_bias={str(letter): 100})
    before = talk.ask("Say it.", max_tokens=300)
    turn = talk.ask("Again.")
    assert turn.prompt[: len(before.all)] != before.all
    assert unspliced(forgetful, "unknown") == 1


def test_two_conversations_that_alternate(start_server):
    alone = start_server()
    talks = [Conversation(alone, f"{name}. " + FILLER * 100) for name in ("One", "Two")]
    before = [talk.ask("Tell me a story about a fox.") for talk in talks]
    assert all(len(turn.prompt) > 1500 and turn.cached == 0 for turn in before)
    for number in range(12):
        for i, talk in enumerate(talks):
            turn = talk.ask(f"Go on, chapter {number}.")
            check_goes_on(before[i], turn)
            before[i] = turn
    assert alone.metric("seacliff:prefix_cache_lost_total") == 0
    assert alone.metric("seacliff:prefix_cache_evicted_pages_total") == 0


def test_an_agent_of_thirty_turns(start_server):
    alone = start_server()
    talk = Conversation(alone, FILLER * 130, thinking=True, tools=[LOOK], max_tokens=20)
    before = talk.ask("Look at file 0.")
    assert len(before.prompt) > 2000
    computed = 0
    for number in range(1, 30):
        turn = talk.ask(f"Look at file {number}.")
        assert turn.cached >= len(before.prompt) // BLOCK * BLOCK
        computed += len(turn.prompt) - turn.cached
        before = turn
    assert len(before.prompt) > 2900
    # Each turn: its new message, what its predecessor left unsaid, and a block.
    assert computed <= 29 * (count(alone, "Look at file 29.") + 3 + 20 + 1 + BLOCK)
    assert alone.metric("seacliff:prefix_cache_lost_total") == 0

"""Measures the demo model: questions, tool calls, stories, perplexity.

usage: evaluate.py --model DIR [--url http://127.0.0.1:8000 --served-name NAME] [--only qa,tools,stories,perplexity] [--corpus DIR] [--numerics exact]
With --url the answers come from a running Seacliff server (POST /v1/completions with
token ids, temperature 0 except for stories); without it from model.py. Perplexity is
always model.py's: held-out text, exact against checkpoint numerics. The prompts come
from the generator with seeds that training never uses. Stories are printed unpicked.
"""
import argparse
import concurrent.futures
import json
import random
import re
import urllib.request

import encoding as E
import gen_chat
import gen_stories
import gen_tools
import tokens as T
from words import HELD_OUT_SEED as SEED


class Server:
    """Answers from a server through plain HTTP."""

    def __init__(self, url, name):
        self.url, self.name = url.rstrip("/") + "/v1/completions", name

    def one(self, prompt, limit, temperature, seed):
        body = json.dumps({"model": self.name, "prompt": prompt, "max_tokens": limit, "temperature": temperature, "seed": seed}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as r:
            choice = json.load(r)["choices"][0]
        return choice["text"] + (E.EOS if choice["finish_reason"] == "stop" and E.EOS not in choice["text"] else "")

    def complete(self, prompts, limit, temperature=0.0, seed=0):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda ip: self.one(ip[1], limit, temperature, seed + ip[0]), enumerate(prompts)))


def texts_of(answers, tokenizer):
    return [a if isinstance(a, str) else tokenizer.decode(a, skip_special_tokens=False) for a in answers]


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def has(words, text):
    return re.search(r"(?<!\w)" + re.escape(words.lower()) + r"(?!\w)", text.lower()) is not None


def run_qa(engine, tokenizer, count=200):
    items = []
    for i in range(count):
        r = random.Random(SEED + i)
        messages, thinking, key = gen_chat.qa(r, thinking=i % 2 == 1)
        cut = next(j for j, m in enumerate(messages) if m["role"] == "assistant")
        items.append((E.render(messages[:cut], thinking), thinking, key))
    answers = texts_of(engine.complete([encode(tokenizer, p) for p, _, _ in items], 120), tokenizer)
    right, bad = [0, 0], []
    for (prompt, thinking, key), answer in zip(items, answers):
        ended = answer.endswith(E.EOS)
        said = answer.split(E.UNTHINK)[-1] if thinking else answer
        closed = (E.UNTHINK in answer) == thinking
        short = key["short"].removeprefix("a ").removeprefix("an ")
        full = {w for w in key["wrong"] if not has(w, key["full"])}
        good = ended and closed and has(short, said) and not any(has(w, said) for w in full)
        right[thinking] += good
        if not good:
            bad.append((prompt[-160:], answer, key["full"]))
    print(f"questions: {sum(right)} of {count} right (chat {right[0]}, thinking {right[1]})", flush=True)
    for b in bad[:6]:
        print("  wrong:", json.dumps(b, ensure_ascii=False))
    return sum(right) / count


def run_tools(engine, tokenizer, count=100):
    items = []
    for i in range(count):
        messages, thinking, key = gen_tools.dialogue(random.Random(2 * SEED + i), thinking=i % 2 == 1, simple=True)
        items.append((E.render(messages[: key["cut"]], thinking), thinking, key["calls"]))
    answers = texts_of(engine.complete([encode(tokenizer, p) for p, _, _ in items], 200), tokenizer)
    valid, right, bad = 0, 0, []
    for (prompt, thinking, calls), answer in zip(items, answers):
        got = E.parse_calls(answer.split(E.UNTHINK)[-1])
        valid += got is not None
        good = got == calls and answer.endswith(E.EOS) and (E.UNTHINK in answer) == thinking
        right += good
        if not good:
            bad.append((prompt[prompt.index("### Avail") + 27 :], answer))
    print(f"tool calls: {right} of {count} right, {valid} well formed", flush=True)
    for b in bad[:4]:
        print("  wrong:", json.dumps(b, ensure_ascii=False))
    return right / count


def run_stories(engine, tokenizer, count=100, shown=10):
    plain = [E.BOS + "Once upon a time"] * count
    answers = texts_of(engine.complete([encode(tokenizer, p) for p in plain], 500, 0.8, seed=7), tokenizer)
    print(f"stories: {sum(a.endswith(E.EOS) for a in answers)} of {count} end by themselves; {len(set(answers))} differ", flush=True)
    asked = []
    for i in range(40):
        topic = gen_stories.random_topic(random.Random(3 * SEED + i))[0]
        asked.append((E.render([{"role": "user", "content": f"Tell me a story about {topic}."}], thinking=i % 2 == 1), i % 2 == 1))
    told = texts_of(engine.complete([encode(tokenizer, p) for p, _ in asked], 500, 0.8, seed=8), tokenizer)
    good = sum(a.endswith(E.EOS) and a.count(E.UNTHINK) == t and E.THINK not in a for a, (_, t) in zip(told, asked))
    print(f"story requests: {good} of {len(asked)} end, and think exactly when asked to", flush=True)
    for a in answers[:shown]:
        print("\n* Once upon a time" + a.replace(E.EOS, " [end]"))
    for a, (p, _) in list(zip(told, asked))[:2]:
        print("\n* " + p + a)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--url")
    ap.add_argument("--served-name", default="tiny")
    ap.add_argument("--only", default="qa,tools,stories,perplexity")
    ap.add_argument("--corpus")
    ap.add_argument("--numerics", default="checkpoint")
    args = ap.parse_args()
    tokenizer, only = T.load(args.model), args.only.split(",")
    if args.url:
        engine = Server(args.url, args.served_name)
    if not args.url or "perplexity" in only:
        import offline  # needs torch, which a server's user may not have
    if not args.url:
        engine = offline.Offline(args.model, args.numerics)
    for name, run in (("qa", run_qa), ("tools", run_tools), ("stories", run_stories)):
        if name in only:
            run(engine, tokenizer)
    if "perplexity" in only:
        offline.run_perplexity(args.model, args.corpus)


if __name__ == "__main__":
    main()

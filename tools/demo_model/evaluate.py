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
import math
import random
import re
import urllib.request

import torch
import torch.nn.functional as F

import checkpoint
import encoding as E
import gen_chat
import gen_stories
import gen_tools
import prepare
import tokens as T
from model import Numerics, Row, pad_tokens

SEED = 1_000_000


class Offline:
    """Answers from model.py: the whole sequence anew for each token, many prompts at once."""

    def __init__(self, folder, numerics):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.nm = checkpoint.load(folder).to(self.device), Numerics(numerics)

    @torch.no_grad()
    def complete(self, prompts, limit, temperature=0.0, seed=0, batch=128):
        order, out = sorted(range(len(prompts)), key=lambda i: len(prompts[i])), [None] * len(prompts)
        for i in range(0, len(order), batch):
            part = order[i : i + batch]
            for j, ids in zip(part, self.batch([prompts[j] for j in part], limit, temperature, seed + i)):
                out[j] = ids
        return out

    def batch(self, prompts, limit, temperature, seed):
        m, dev = self.model, self.device
        g = torch.Generator(dev).manual_seed(seed)
        longest = max(map(len, prompts)) + limit
        ids = torch.full((len(prompts), longest), 2, device=dev)
        for i, p in enumerate(prompts):
            ids[i, : len(p)] = torch.tensor(p, device=dev)
        at = torch.tensor([len(p) for p in prompts], device=dev)
        live = torch.arange(len(prompts), device=dev)
        for _ in range(limit):
            x = pad_tokens(ids[live, : int(at[live].max())], m.c["sliding_window"])
            row = Row(m.c, *x.shape, device=dev)
            h = m.trunk(x, row, self.nm)[0][torch.arange(len(live), device=dev), at[live] - 1]
            logits = m.logits(m.collapse(h[:, None], self.nm), self.nm)[:, 0]
            if temperature:
                pick = torch.multinomial((logits / temperature).softmax(-1), 1, generator=g)[:, 0]
            else:
                pick = logits.argmax(-1)
            ids[live, at[live]] = pick
            at[live] += 1
            live = live[pick != 1]
            if not len(live):
                break
        return [ids[i, len(p) : int(at[i])].tolist() for i, p in enumerate(prompts)]


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


def held_out(corpus):
    """{name: [text]}"""
    r = random.Random(4 * SEED)
    out = {f"generated {k}": [prepare.generate(k, r) for _ in range(60)] for k in ("story", "qa", "tools", "story_request")}
    if corpus:
        texts = prepare.natural(corpus)
        out["children's stories"], out["fairy tales"] = texts["cc"][:20], texts["tale"][:8]
        out["novels"] = [t[:100_000] for t in texts["novel"][:2]]
    return out


@torch.no_grad()
def run_perplexity(folder, corpus):
    coder = prepare.Coder(folder)
    offline = Offline(folder, "exact")
    m, dev, sums = offline.model, offline.device, {}
    for name, texts in held_out(corpus).items():
        t, w, d = prepare.pack(coder.documents(texts))
        t, w, d = (torch.from_numpy(x.astype("int64")).to(dev) for x in (t, w, d))
        w = (w > (50 if "generated" in name else 0)).float()
        for numerics in ("exact", "checkpoint"):
            nm, total = Numerics(numerics), 0.0
            torch.set_float32_matmul_precision("highest")
            for i in range(0, len(t), 16):
                x = t[i : i + 16]
                h = m.trunk(x, Row(m.c, *x.shape, docs=d[i : i + 16], device=dev), nm)[0]
                logits = m.logits(m.collapse(h, nm), nm)[:, :-1]
                ce = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="none")
                total += (ce * w[i : i + 16, 1:].flatten()).sum().item()
            sums[name, numerics] = (total, w[:, 1:].sum().item())
        print_pair(name, sums[name, "exact"], sums[name, "checkpoint"])
    whole = [tuple(sum(v[k] for (_, n), v in sums.items() if n == numerics) for k in (0, 1)) for numerics in ("exact", "checkpoint")]
    print_pair("all", *whole)


def print_pair(name, exact, rounded):
    a, b = math.exp(exact[0] / exact[1]), math.exp(rounded[0] / rounded[1])
    print(f"perplexity {name:24} exact {a:8.4f}  checkpoint {b:8.4f}  ({100 * (b / a - 1):+.2f} %, {exact[1]:.0f} tokens)", flush=True)


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
    engine = Server(args.url, args.served_name) if args.url else Offline(args.model, args.numerics)
    for name, run in (("qa", run_qa), ("tools", run_tools), ("stories", run_stories)):
        if name in only:
            run(engine, tokenizer)
    if "perplexity" in only:
        run_perplexity(args.model, args.corpus)


if __name__ == "__main__":
    main()

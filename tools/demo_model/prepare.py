"""Corpus preparation: trains the tokenizer, and writes packed training rows.

usage: prepare.py tokenizer --corpus DIR --model DIR
       prepare.py rows --corpus DIR --model DIR --out FILE.npz [--scale X] [--seed N] [--workers N]
A row holds 1024 tokens. Documents start at multiples of 128 within a row and are
at most 1024 tokens long. Weights: how much a token counts as a target (of 100).
The generator's held-out data comes from seeds >= 1,000,000, which are never used here.
"""
import argparse
import json
import lzma
import multiprocessing
import os
import pathlib
import random
import re

import numpy as np

import encoding as E
import gen_chat
import gen_stories
import gen_tools
import tokens

ROW, CHUNK, JOBS = 1024, 128, 128
# kind: documents at scale 1, made by the generator
GENERATED = {"story": 26000, "qa": 60000, "unanswerable": 4000, "story_request": 22000, "talk": 14000, "json": 6000, "tools": 42000}


def clean(text):
    return re.sub(r"\n{3,}", "\n\n", text.replace("\ufeff", "").replace("\r", "")).strip()


def lines(path):
    return [json.loads(x) for x in lzma.open(path, "rt", encoding="utf-8")]


def natural(corpus):
    """{kind: [text]}: whole documents, BOS and EOS included."""
    corpus = pathlib.Path(corpus)
    whole = lambda title, text: f"{E.BOS}{title}\n\n{clean(text)}{E.EOS}"
    tales = lines(corpus / "fairytaleqa_stories.jsonl.xz")
    novels = lzma.open(corpus / "novels_public_domain.txt.xz", "rt", encoding="utf-8").read()
    novels = re.sub(r"(?<=\S)\n(?=\S)", " ", clean(novels))  # unwrap lines
    return {"cc": [whole(s["title"], s["text"]) for s in lines(corpus / "stories_cc_by.jsonl.xz")],
            "tale": [whole(s["title"].replace("-", " ").title(), s["text"]) for s in tales],
            "novel": [E.BOS + novels[i : i + 200_000] for i in range(0, len(novels), 200_000)],
            "taleqa": tale_questions(tales, lines(corpus / "fairytaleqa_qa.jsonl.xz"))}


def tale_questions(tales, questions):
    """Questions whose answer stands in one paragraph of the tale, rendered as dialogues."""
    r, out = random.Random(5), []
    norm = lambda s: s.lower().replace("-", " ")
    texts = {norm(t["title"]): clean(t["text"]).split("\n") for t in tales}
    for q in questions:
        answer, asked = q["a"].strip().rstrip("."), set(re.findall(r"\w+", q["q"].lower()))
        if q["kind"] != "explicit" or not answer:
            continue
        near = [p for p in texts.get(norm(q["story"]), []) if answer.lower() in p.lower() and len(p) < 1500]
        if near:
            text = max(near, key=lambda p: len(asked & set(re.findall(r"\w+", p.lower()))))
            ask = r.choice(gen_chat.ASK).format(text=text, q=q["q"])
            out.append(E.render(gen_chat.system(r) + [{"role": "user", "content": ask}, {"role": "assistant", "content": answer[0].upper() + answer[1:] + "."}]))
    return out


def generate(kind, r):
    """One document as text."""
    if kind == "story":
        title, text, _ = gen_stories.story(r)
        text = f"{title}\n\n{text}" if r.random() < 0.1 else text
        return (E.BOS if r.random() < 0.85 else "") + text + E.EOS
    make = {"qa": gen_chat.qa, "unanswerable": gen_chat.unanswerable, "story_request": gen_chat.story_request,
            "talk": gen_chat.talk, "json": gen_chat.json_answer, "tools": gen_tools.dialogue}[kind]
    messages, thinking, _ = make(r)
    return E.render(messages, thinking)


class Coder:
    def __init__(self, model):
        self.t = tokens.load(model)
        self.id = {name: self.t.token_to_id(name) for name in E.FIRST_TOKENS + E.LAST_TOKENS}

    def weights(self, ids):
        """Answers count fully, the rest of a dialogue little, plain text fully."""
        if self.id[E.USER] not in ids:
            return [100] * len(ids)
        out, answering = [], False
        for i, t in enumerate(ids):
            out.append(100 if answering else 8)
            if t == self.id[E.EOS]:
                answering = False
            elif i and ids[i - 1] == self.id[E.ASSISTANT]:
                answering = True
        return out

    def documents(self, texts):
        """[(ids, weights)], cut to rows; the first token of a document is no target."""
        for e in self.t.encode_batch(texts, add_special_tokens=False):
            ids = e.ids
            w = self.weights(ids)
            for i in range(0, len(ids), ROW):
                yield ids[i : i + ROW], [0] + w[i + 1 : i + ROW]


def pack(documents):
    """Rows of tokens, weights and the document number of each chunk."""
    rows, open_rows = [], []
    for ids, w in documents:
        chunks = -(-len(ids) // CHUNK)
        row = next((x for x in open_rows if x["free"] >= chunks), None)
        if row is None:
            row = dict(t=[], w=[], d=[], free=ROW // CHUNK, n=0)
            open_rows.append(row)
        gap = chunks * CHUNK - len(ids)
        row["t"] += ids + [2] * gap
        row["w"] += w + [0] * gap
        row["d"] += [row["n"]] * chunks
        row["n"] += 1
        row["free"] -= chunks
        if row["free"] == 0 or len(open_rows) > 64:
            rows.append(open_rows.pop(open_rows.index(row) if row["free"] == 0 else 0))
    rows += open_rows
    for x in rows:
        x["t"] += [2] * (x["free"] * CHUNK)
        x["w"] += [0] * (x["free"] * CHUNK)
        x["d"] += [x["n"]] * x["free"]
    return (np.array([x["t"] for x in rows], np.uint16).reshape(-1, ROW), np.array([x["w"] for x in rows], np.uint8).reshape(-1, ROW),
            np.array([x["d"] for x in rows], np.uint8).reshape(-1, ROW // CHUNK))


def work(job):
    model, seed, jobs, texts = job
    r, coder = random.Random(seed), Coder(model)
    made = list(texts)
    for kind, count in jobs.items():
        made += [generate(kind, r) for _ in range(count)]
    r.shuffle(made)
    return pack(coder.documents(made))


def rows(args):
    """Rows of dialogues and stories, and rows of novels, apart: the novels leave the mix before the end."""
    texts = natural(args.corpus)
    novels = texts["novel"][2:]  # the first two pieces are held out
    plain = texts["cc"][20:] * 6 + texts["tale"][8:] * 3 + texts["taleqa"] * 2
    random.Random(args.seed).shuffle(plain)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    n = JOBS
    jobs = [(args.model, args.seed * 1000 + i, {k: int(c * args.scale / n) for k, c in GENERATED.items()}, plain[i::n]) for i in range(n)]
    jobs += [(args.model, 0, {}, novels[i::n]) for i in range(n)]
    with multiprocessing.Pool(args.workers) as pool:
        done = pool.map(work, jobs, 1)
    out = {}
    for name, part in (("main", done[:n]), ("novel", done[n:])):
        for key, parts in zip("twd", zip(*part)):
            out[f"{name}_{key}"] = np.concatenate(parts)
    np.savez(args.out, **out)
    print({k: v.shape for k, v in out.items()}, f"{(out['main_w'] > 0).mean():.2f} of the main rows filled", flush=True)


def tokenizer(args):
    texts, r = natural(args.corpus), random.Random(1)
    sample = texts["cc"] + texts["tale"] + texts["novel"][5:130:8]
    for kind, count in GENERATED.items():
        sample += [generate(kind, r) for _ in range(count // 10)]
    tokens.write(tokens.train(sample, 4096), args.model)
    t = tokens.load(args.model)
    for kind in GENERATED:
        text = "".join(generate(kind, r) for _ in range(50))
        print(f"{kind:14} {len(t.encode(text).ids) / 50:6.0f} tokens a document, {len(text) / len(t.encode(text).ids):.2f} characters a token")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=("tokenizer", "rows"))
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--out", default="rows.npz")
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    args = ap.parse_args()
    {"tokenizer": tokenizer, "rows": rows}[args.what](args)


if __name__ == "__main__":
    main()

"""Answers and perplexity of the demo model from model.py, without a server. Wants a GPU.

Used by evaluate.py; not a program of its own.
"""
import math
import random

import torch
import torch.nn.functional as F

import checkpoint
import prepare
from model import Numerics, Row, pad_tokens
from words import HELD_OUT_SEED as SEED


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

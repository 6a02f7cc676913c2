"""Training on one GPU, with the checkpoint's rounding in the forward pass.

usage: train.py --rows FILE.npz --config config.json --out DIR [--steps N] [--minutes M] [--seed S]
Writes DIR/weights.pt (float32) and DIR/log.txt. --minutes caps the wall time: the
schedule is shortened to end in time. Export and evaluation are separate programs.
"""
import argparse
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

import checkpoint
from model import Model, Numerics, Row
from muon import Optimiser

MTP_WEIGHT, BALANCE_RATE, NOVEL_SHARE, NOVEL_END, DENSE_END, HOLD_END = 0.3, 1e-3, 0.14, 0.6, 0.35, 0.45


def hash_table(counts, experts, top, seed):
    """tid2eid: each token gets the least loaded experts, most frequent tokens first."""
    noise = np.random.default_rng(seed)
    load, table = np.zeros(experts), np.zeros((len(counts), top), np.int64)
    for t in np.argsort(-counts, kind="stable"):
        table[t] = np.argsort(load + noise.random(experts) * 1e-3)[:top]
        load[table[t]] += counts[t] + 1
    return torch.from_numpy(table)


def batches(data, size, seed, device):
    """Endless: (tokens, weights, docs) from the main rows, `novels` of them novel rows."""
    g = torch.Generator().manual_seed(seed)
    parts = {n: [torch.from_numpy(data[f"{n}_{k}"].astype(np.int32 if k == "t" else np.uint8)).to(device) for k in "twd"] for n in ("main", "novel")}
    orders = {n: iter(()) for n in parts}

    def draw(name, count):
        out = []
        while len(out) < count:
            i = next(orders[name], None)
            if i is None:
                orders[name] = iter(torch.randperm(len(parts[name][0]), generator=g).tolist())
            else:
                out.append(i)
        return out

    novels = 0
    while True:
        picks = {"main": draw("main", size - novels), "novel": draw("novel", novels)}
        got = [torch.cat([parts[n][k][torch.tensor(i, device=device, dtype=torch.long)] for n, i in picks.items()]) for k in range(3)]
        novels = yield got[0].long(), got[1].float() / 100, got[2].long()
        novels = novels or 0


def losses(model, tokens, weights, docs, dense, nm):
    row = Row(model.c, *tokens.shape, docs=docs, device=tokens.device, index_loss=True, dense=dense)
    h, index, loads = model.trunk(tokens, row, nm)
    each = docs.repeat_interleave(tokens.shape[1] // docs.shape[1], 1)

    def entropy(x, shift):
        ahead = F.pad(tokens[:, shift:], (0, shift))
        w = F.pad(weights[:, shift:] * (each[:, shift:] == each[:, :-shift]), (0, shift))
        ce = F.cross_entropy(model.logits(x, nm).flatten(0, 1).float(), ahead.flatten(), reduction="none")
        return (ce * w.flatten()).sum() / w.sum().clamp(min=1)

    main = entropy(model.collapse(h, nm), 1)
    x, load = model.mtp_hidden(h, F.pad(tokens[:, 1:], (0, 1)), row, nm)
    return main, entropy(x, 2), sum(index), loads + [load]


@torch.no_grad()
def balance(model, loads):
    """Nudges the routing biases towards equal load."""
    for block, load in zip(list(model.layers) + list(model.mtp), loads):
        if not block.ffn.hashed:
            block.ffn.gate.bias += BALANCE_RATE * torch.sign(load.mean() - load)


def warm(model, nm, size, length, name):
    """Compiles one block, both ways, on made-up input: fills the kernel cache on disk."""
    c = model.c
    docs = torch.zeros(size, length // c["sliding_window"], dtype=torch.long, device="cuda")
    row = Row(c, size, length, docs=docs, device="cuda", index_loss=True, dense=torch.tensor(True, device="cuda"))
    tokens = torch.ones(size, length, dtype=torch.long, device="cuda")
    if name == "mtp":
        h = torch.randn(size, length, c["hc_mult"], c["hidden_size"], device="cuda").bfloat16().requires_grad_()
        model.mtp_hidden(h, tokens, row, nm)[0].float().sum().backward()
        return
    i = int(name)
    h = model.streams(tokens, nm)[:, :, None].expand(-1, -1, c["hc_mult"], -1)
    if i:
        h = torch.randn(h.shape, device="cuda").bfloat16().requires_grad_()
    h, loss, _ = model.layers[i](h, tokens, row, nm)
    (h.float().sum() + loss).backward()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rows", required=True)
    ap.add_argument("--config", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--init", help="start from this checkpoint directory")
    ap.add_argument("--steps", type=int, default=9000)
    ap.add_argument("--minutes", type=float, default=60)
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--rate", type=float, default=3e-3)
    ap.add_argument("--matrix-rate", type=float, default=0.02)
    ap.add_argument("--eager", action="store_true")
    ap.add_argument("--warm", help="only compile this block (a layer's number, or mtp)")
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = open(out / "log.txt", "w")

    def say(*words):
        print(*words, flush=True)
        print(*words, file=log, flush=True)

    data = np.load(args.rows) if not args.warm else {"main_t": np.zeros(1, np.int64)}
    if args.init:
        model = checkpoint.load(args.init).train()
    else:
        model = Model(json.loads(pathlib.Path(args.config).read_text()))
        torch.nn.init.normal_(model.embed.weight, std=0.5)
        torch.nn.init.normal_(model.head.weight, std=0.01)
        counts = np.bincount(data["main_t"].ravel(), minlength=model.c["vocab_size"]).astype(float)
        for i, block in enumerate(model.layers):
            if block.ffn.hashed:
                block.ffn.gate.tid2eid.copy_(hash_table(counts, model.c["n_routed_experts"], model.c["num_experts_per_tok"], args.seed + i))
    model.to(device)
    nm, optimiser = Numerics("train"), Optimiser(model, args.matrix_rate, args.rate)
    if not args.eager:
        torch._dynamo.config.cache_size_limit = 64
        for block in list(model.layers) + list(model.mtp):
            block.compile(dynamic=False)
    if args.warm:
        return warm(model, nm, args.batch, 1024, args.warm)
    stream = batches(data, args.batch, args.seed, device)
    tokens = next(stream)
    total, step, start, steady, shown = args.steps, 0, time.time(), None, []
    tail = torch.Generator().manual_seed(args.seed)
    while step < total:
        progress = step / total
        dense = progress < DENSE_END or torch.rand((), generator=tail).item() < 0.05
        main_loss, mtp_loss, index_loss, loads = losses(model, *tokens, torch.tensor(dense, device=device), nm)
        (main_loss + MTP_WEIGHT * mtp_loss + index_loss).backward()
        factor = min(1.0, (step + 1) / 100) * (1.0 if progress < HOLD_END else (1 - progress) / (1 - HOLD_END))
        optimiser.step(factor)
        balance(model, loads)
        tokens = stream.send(round(args.batch * NOVEL_SHARE) if progress < NOVEL_END else 0)
        shown.append(torch.stack((main_loss, mtp_loss, index_loss)).detach())
        step += 1
        if step == 10:
            steady = (time.time(), step)
        if step % 100 == 0 or step in (1, 10, total):
            m = torch.stack(shown).mean(0).tolist()
            now, shown = time.time(), []
            speed = (step - steady[1]) / (now - steady[0]) if steady and step > 10 else 0
            if speed:
                total = max(step, min(args.steps, int(step + speed * (args.minutes * 60 - (now - start)))))
            spread = max((l.max() / l.mean()).item() for l in loads)
            say(f"step {step}/{total} loss {m[0]:.3f} mtp {m[1]:.3f} index {m[2]:.3f} load {spread:.2f} "
                f"{speed * tokens[0].numel() / 1e3:.0f}K tokens/s {now - start:.0f} s")
    torch.save(model.state_dict(), out / "weights.pt")
    if device == "cuda":
        say(f"memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, seconds {time.time() - start:.0f}")


if __name__ == "__main__":
    main()

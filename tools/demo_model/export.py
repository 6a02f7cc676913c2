"""Export of a trained model, and test vectors for the engine.

usage: export.py model --weights weights.pt --config config.json --out DIR
       export.py vectors --model DIR --out FILE.safetensors
`model` writes model.safetensors and checks that reading it back gives, bit for bit,
the rounded weights that training used. `vectors` writes the logits of one sequence
in exact numerics, computed from the exported file.
"""
import argparse
import json
import os
import pathlib
import random
import sys

import torch
from safetensors.torch import save_file

import checkpoint
import prepare
import quant as Q
from model import Model, Numerics, Row, pad_tokens

ROUND = {"fp8": Q.weight_fp8, "fp4": Q.weight_fp4, "bf16": lambda w: w.bfloat16().float(), "f32": lambda w: w, "i64": lambda w: w}


def export(args):
    config = json.loads(pathlib.Path(args.config).read_text())
    model = Model(config)
    model.load_state_dict(torch.load(args.weights, map_location="cpu"))
    pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
    (pathlib.Path(args.out) / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    checkpoint.save(model, args.out)
    again = checkpoint.load(args.out).state_dict()
    wrong = [n for n, w in model.state_dict().items() if not torch.equal(ROUND[checkpoint.kind(n)](w), again[n])]
    size = os.path.getsize(pathlib.Path(args.out) / "model.safetensors")
    print(f"{size} bytes, {sum(p.numel() for p in model.parameters())} parameters, tensors that differ: {wrong}")
    sys.exit(bool(wrong))


@torch.no_grad()
def vectors(args, length=300, rows=8):
    model, coder, nm = checkpoint.load(args.model), prepare.Coder(args.model), Numerics("exact")
    r = random.Random(99)
    text = prepare.generate("tools", r) + prepare.generate("qa", r)
    ids = coder.t.encode(text, add_special_tokens=False).ids
    tokens = torch.tensor(ids[: length + 1])[None]
    padded = pad_tokens(tokens[:, :length], model.c["sliding_window"])
    row = Row(model.c, 1, padded.shape[1])
    h = model.trunk(padded, row, nm)[0]
    logits = model.logits(model.collapse(h, nm), nm)[0, length - rows : length]
    follow = torch.cat((tokens[:, 1:], padded[:, length:]), 1)[:, : padded.shape[1]]
    mtp = model.logits(model.mtp_hidden(h, follow, row, nm)[0], nm)[0, length - 1]
    pathlib.Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    save_file({"tokens": tokens[0, :length].int(), "next_token": tokens[0, length:].int(), "logits": logits.contiguous(),
               "mtp_logits": mtp.contiguous()}, args.out)
    print(f"{length} tokens, {rows} rows, {os.path.getsize(args.out)} bytes")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("what", choices=("model", "vectors"))
    for name in ("weights", "config", "out", "model"):
        ap.add_argument("--" + name)
    args = ap.parse_args()
    {"model": export, "vectors": vectors}[args.what](args)


if __name__ == "__main__":
    main()

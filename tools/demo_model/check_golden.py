"""Compares model.py in exact numerics with golden vectors of a checkpoint.

usage: check_golden.py DIR [--limit 1e-5]
DIR holds a checkpoint and golden_exact.safetensors. Prints the largest relative
error of each kind of row (norm of the difference over norm of the row).
"""
import argparse
import sys

import torch
from safetensors.torch import load_file

import checkpoint
from model import Numerics, Row, pad_tokens


def relative(a, b):
    return ((a - b).norm(dim=-1) / b.norm(dim=-1)).max().item()


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir")
    ap.add_argument("--limit", type=float, default=1e-5)
    args = ap.parse_args()
    model, nm = checkpoint.load(args.dir), Numerics("exact")
    gold = load_file(f"{args.dir}/golden_exact.safetensors")
    window, worst = model.c["sliding_window"], 0.0
    for key in sorted((k for k in gold if k.endswith(".tokens")), key=lambda k: int(k[3:-7])):
        name = key.removesuffix(".tokens")
        length, tokens = int(name[3:]), gold[key].long()[None]
        padded = pad_tokens(tokens, window)
        row, keep = Row(model.c, 1, padded.shape[1]), []
        h = model.trunk(padded, row, nm, keep)[0]
        logits = model.logits(model.collapse(h, nm), nm)[0, length - 1 : tokens.shape[1]]
        follow = torch.cat((padded[:, 1:], padded[:, :1]), 1)
        mtp = model.logits(model.mtp_hidden(h, follow, row, nm)[0], nm)[0, length - 1]
        layers = torch.stack([k[0, length - 1] for k in keep])
        errors = (relative(logits, gold[name + ".logits"]), relative(mtp, gold[name + ".mtp_logits"]),
                  relative(layers.flatten(1), gold[name + ".layers_last_token"].flatten(1)))
        worst = max(worst, *errors)
        print(f"{name:8} logits {errors[0]:.1e}  mtp {errors[1]:.1e}  layers {errors[2]:.1e}", flush=True)
    print(f"worst {worst:.1e}")
    sys.exit(worst > args.limit)


main()

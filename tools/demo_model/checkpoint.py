"""Reading and writing a checkpoint directory in the official V4 format.

`load(dir)` gives a Model with dequantised weights, `save(model, dir)` writes
model.safetensors. Names, dtypes and scales follow the published V4 files.
"""
import json
import pathlib
import re

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import quant as Q
from model import Model

FP8 = re.compile(r"(wq_a|wq_b|wkv|wo_a|wo_b|e_proj|h_proj|shared_experts\.w[123])\.weight$")
STACK = re.compile(r"ffn\.(w[123])$")


def kind(name):
    """fp8, fp4, bf16, f32 or i64: how the file keeps this parameter."""
    if STACK.search(name):
        return "fp4"
    if FP8.search(name) and "compressor" not in name:
        return "fp8"
    if name.endswith("tid2eid"):
        return "i64"
    return "bf16" if name.endswith(".weight") else "f32"


def read_tensors(folder):
    out = {}
    for path in sorted(pathlib.Path(folder).glob("model*.safetensors")):
        with safe_open(path, "pt") as f:
            out.update({k: f.get_tensor(k) for k in f.keys()})
    return out


def load(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    t, model = read_tensors(folder), Model(config)
    used, state = set(), {}

    def take(name):
        used.add(name)
        return t[name]

    for name, old in model.state_dict().items():
        k, stem = kind(name), name.removesuffix(".weight")
        if k == "fp4":
            prefix, part = name.rsplit(".", 1)
            state[name] = torch.stack([
                Q.decode_fp4(take(f"{prefix}.experts.{e}.{part}.weight"), take(f"{prefix}.experts.{e}.{part}.scale"))
                for e in range(config["n_routed_experts"])])
        elif k == "fp8":
            state[name] = Q.decode_fp8(take(name), take(stem + ".scale"))
        else:
            state[name] = take(name).to(old.dtype)
    if set(t) - used:
        raise ValueError(f"tensors without a place: {sorted(set(t) - used)[:5]}")
    model.load_state_dict(state)
    return model.eval()


def save(model, folder):
    out = {}
    for name, w in model.state_dict().items():
        w, k, stem = w.detach().cpu().contiguous(), kind(name), name.removesuffix(".weight")
        if k == "fp4":
            prefix, part = name.rsplit(".", 1)
            for e in range(w.shape[0]):
                q, s = Q.encode_fp4(w[e].float())
                out[f"{prefix}.experts.{e}.{part}.weight"] = q
                out[f"{prefix}.experts.{e}.{part}.scale"] = s
        elif k == "fp8":
            out[name], out[stem + ".scale"] = Q.encode_fp8(w.float())
        elif k == "bf16":
            out[name] = w.to(torch.bfloat16)
        else:
            out[name] = w
    save_file(out, pathlib.Path(folder) / "model.safetensors", {"format": "pt"})
    return sum(v.numel() * v.element_size() for v in out.values())

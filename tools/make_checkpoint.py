#!/usr/bin/env python3
"""Writes a checkpoint of any size in the official format: shards and their index, with made-up
weights that keep activations sane. For tests of loading; `--load-format dummy` needs no files.

    python3 tools/make_checkpoint.py CONFIG.json FOLDER [--shard-bytes N] [--seed N] [--no-mtp]

Needs numpy. The bytes come from one pool of random numbers per dtype, so that disks are the limit.
"""
import argparse
import json
import math
import pathlib
import struct

import numpy

BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1, "F8_E8M0": 1, "I8": 1, "I64": 8}
POOL = 1 << 24  # numbers


def tensors(c, with_mtp):
    """(name, dtype, shape, columns that a product sums over) of every tensor."""
    dim, heads, head_dim = c["hidden_size"], c["num_attention_heads"], c["head_dim"]
    q_rank, groups, o_rank = c["q_lora_rank"], c["o_groups"], c["o_lora_rank"]
    inter, experts, streams = c["moe_intermediate_size"], c["n_routed_experts"], c["hc_mult"]
    index_heads, index_dim = c["index_n_heads"], c["index_head_dim"]
    mix = (2 + streams) * streams
    fp4 = c.get("expert_dtype", "fp4") == "fp4"

    def fp8(name, rows, cols):
        yield name + ".weight", "F8_E4M3", [rows, cols], cols
        yield name + ".scale", "F8_E8M0", [-(-rows // 128), -(-cols // 128)], cols

    def expert(name, rows, cols):
        if not fp4:
            yield from fp8(name, rows, cols)
            return
        yield name + ".weight", "I8", [rows, cols // 2], cols
        yield name + ".scale", "F8_E8M0", [rows, cols // 32], cols

    def mhc(name, rows, count):
        yield name + "_fn", "F32", [rows, streams * dim], streams * dim
        yield name + "_base", "F32", [rows], 0
        yield name + "_scale", "F32", [count], 0

    def compressor(name, ratio, entry):
        width = entry * (2 if ratio == 4 else 1)
        yield name + ".ape", "F32", [ratio, width], 64
        yield name + ".wkv.weight", "BF16", [width, dim], dim
        yield name + ".wgate.weight", "BF16", [width, dim], dim
        yield name + ".norm.weight", "BF16", [entry], 0

    def block(b, ratio, hashed):
        for norm in ("attn_norm", "ffn_norm"):
            yield f"{b}.{norm}.weight", "BF16", [dim], 0
        yield from mhc(f"{b}.hc_attn", mix, 3)
        yield from mhc(f"{b}.hc_ffn", mix, 3)
        a = b + ".attn"
        yield from fp8(a + ".wq_a", q_rank, dim)
        yield a + ".q_norm.weight", "BF16", [q_rank], 0
        yield from fp8(a + ".wq_b", heads * head_dim, q_rank)
        yield from fp8(a + ".wkv", head_dim, dim)
        yield a + ".kv_norm.weight", "BF16", [head_dim], 0
        yield a + ".attn_sink", "F32", [heads], 0
        yield from fp8(a + ".wo_a", groups * o_rank, heads // groups * head_dim)
        yield from fp8(a + ".wo_b", dim, groups * o_rank)
        if ratio:
            yield from compressor(a + ".compressor", ratio, head_dim)
        if ratio == 4:
            yield from fp8(a + ".indexer.wq_b", index_heads * index_dim, q_rank)
            yield a + ".indexer.weights_proj.weight", "BF16", [index_heads, dim], dim
            yield from compressor(a + ".indexer.compressor", ratio, index_dim)
        f = b + ".ffn"
        yield f + ".gate.weight", "BF16", [experts, dim], dim
        if hashed:
            yield f + ".gate.tid2eid", "I64", [c["vocab_size"], c["num_experts_per_tok"]], 0
        else:
            yield f + ".gate.bias", "F32", [experts], 0
        for make, name in [(fp8, f + ".shared_experts")] + [
                (expert, f"{f}.experts.{e}") for e in range(experts)]:
            yield from make(name + ".w1", inter, dim)
            yield from make(name + ".w3", inter, dim)
            yield from make(name + ".w2", dim, inter)

    yield "embed.weight", "BF16", [c["vocab_size"], dim], 1
    yield "head.weight", "BF16", [c["vocab_size"], dim], dim
    yield "norm.weight", "BF16", [dim], 0
    yield from mhc("hc_head", streams, 1)
    layers, ratios = c["num_hidden_layers"], c["compress_ratios"]
    for layer in range(layers):
        yield from block(f"layers.{layer}", ratios[layer], layer < c.get("num_hash_layers", 0))
    for n in range(c.get("num_nextn_predict_layers", 0) if with_mtp else 0):
        b = f"mtp.{n}"
        yield from block(b, ratios[layers + n], False)
        yield from fp8(b + ".e_proj", dim, dim)
        yield from fp8(b + ".h_proj", dim, dim)
        for norm in ("enorm", "hnorm", "norm"):
            yield f"{b}.{norm}.weight", "BF16", [dim], 0
        yield from mhc(b + ".hc_head", streams, 1)


class Values:
    def __init__(self, config, seed):
        self.random = numpy.random.default_rng(seed)
        self.config = config
        bits = self.random.integers(0, 256, POOL, dtype=numpy.uint8)
        # e4m3 of magnitude 2 to 7.5, either sign; nibbles as they come.
        self.pools = {"I8": bits, "F8_E4M3": (bits & 0x8f) | 0x40 | (bits & 0x10) >> 1}
        self.normal = self.random.standard_normal(POOL, dtype=numpy.float32)

    def make(self, name, dtype, shape, cols):
        count = math.prod(shape)
        if dtype == "I64":  # distinct experts in each row
            first = self.random.integers(0, self.config["n_routed_experts"], (shape[0], 1))
            return (first + numpy.arange(shape[1])) % self.config["n_routed_experts"]
        if dtype in self.pools:
            return self.some(self.pools[dtype], count)
        if dtype == "F8_E8M0":  # codes of about 2.9 (e2m1) or 4.9 (e4m3) to 1 / sqrt(cols)
            exponent = round(math.log2(1 / math.sqrt(cols) / 3.7))
            return numpy.full(count, 127 + exponent, dtype=numpy.uint8)
        if name.endswith("norm.weight"):
            values = numpy.ones(count, dtype=numpy.float32)
        elif cols:
            values = self.some(self.normal, count) / numpy.float32(math.sqrt(cols))
        else:
            values = numpy.zeros(count, dtype=numpy.float32)
        return values if dtype == "F32" else (values.view(numpy.uint32) >> 16).astype(numpy.uint16)

    def some(self, pool, count):
        begin = int(self.random.integers(0, POOL))
        return numpy.take(pool, numpy.arange(begin, begin + count), mode="wrap")


def write(folder, config_file, shard_bytes, seed, with_mtp):
    config = json.loads(config_file.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    shards, size = [[]], 0
    for tensor in tensors(config, with_mtp):
        bytes_ = math.prod(tensor[2]) * BYTES[tensor[1]]
        if size and size + bytes_ > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((tensor, bytes_))
        size += bytes_
    values, where, total = Values(config, seed), {}, 0
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, at = {}, 0
        for (tensor, dtype, shape, _), bytes_ in shard:
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + bytes_]}
            where[tensor] = name
            at += bytes_
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor, _ in shard:
                file.write(values.make(*tensor).data)
        total += at
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    print(f"{len(where)} tensors, {total / 1e9:.2f} GB in {len(shards)} files: {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--shard-bytes", type=int, default=1 << 30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mtp", action="store_true")
    args = parser.parse_args()
    write(args.folder, args.config, args.shard_bytes, args.seed, not args.no_mtp)


if __name__ == "__main__":
    main()

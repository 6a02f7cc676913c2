"""The DeepSeek-V4 forward pass in PyTorch, for whole sequences at once.

`Model(config)` takes a Hugging Face style config.json; parameters carry the
official tensor names (routed experts are stacked). Three numerics:
  exact       float32, nothing rounded
  checkpoint  activations FP8, KV FP8, index keys FP4, bf16 between operations
  train       as checkpoint, weights fake-quantised too, faster matrix products
Several documents may share a row when each starts at a multiple of the window.
Attention is in layers.py. There is no cache and no decode loop: that is the engine's work.
"""
import json

import torch
import torch.nn.functional as F
from torch import nn

import quant as Q
from layers import Attention, Numerics, RMSNorm, Weight, rope_table  # noqa: F401 (Numerics is for importers)


ROPE = {}


def rope_tables(c, length, device):
    """The tables without and with compression, kept for the next batch."""
    key = (json.dumps(c, sort_keys=True), length, str(device))
    if key not in ROPE:
        ROPE[key] = [tuple(t.to(device) for t in rope_table(c, r, length)) for r in (0, 1)]
    return ROPE[key]


def sinkhorn(c, iterations, eps, fused=False):
    c = c.softmax(-1) + eps
    if fused:
        from sinkhorn import normalise
        return normalise(c, iterations, eps)[0]
    c = c / (c.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        c = c / (c.sum(-1, keepdim=True) + eps)
        c = c / (c.sum(-2, keepdim=True) + eps)
    return c


class Gate(nn.Module):
    def __init__(self, c, hashed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c["n_routed_experts"], c["hidden_size"]) * c["hidden_size"] ** -0.5)
        if hashed:
            self.register_buffer("tid2eid", torch.zeros(c["vocab_size"], c["num_experts_per_tok"], dtype=torch.long))
        else:
            self.register_buffer("bias", torch.zeros(c["n_routed_experts"]))


class MoE(nn.Module):
    """All experts are computed; unused ones get weight 0."""

    def __init__(self, c, hashed):
        super().__init__()
        d, m, e = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
        self.top, self.scale, self.limit = c["num_experts_per_tok"], c["routed_scaling_factor"], c["swiglu_limit"]
        self.gate, self.hashed, self.experts = Gate(c, hashed), hashed, e
        gain = (2 * c["num_hidden_layers"]) ** -0.5
        self.w1 = nn.Parameter(torch.randn(e, m, d) * d**-0.5)
        self.w3 = nn.Parameter(torch.randn(e, m, d) * d**-0.5)
        self.w2 = nn.Parameter(torch.randn(e, d, m) * m**-0.5 * gain)
        self.shared_experts = nn.ModuleDict({"w1": Weight(m, d), "w3": Weight(m, d), "w2": Weight(d, m, gain)})

    def swiglu(self, g, u):
        g, u = g.float().clamp(max=self.limit), u.float().clamp(-self.limit, self.limit)
        return F.silu(g) * u

    def forward(self, x, tokens, nm):
        """Returns the output and the load of each expert (a fraction, summing to `top`)."""
        a = F.softplus(nm.linear32(x, self.gate.weight)).sqrt()
        if self.hashed:
            chosen = self.gate.tid2eid[tokens]
        else:
            chosen = (a.detach() + self.gate.bias).topk(self.top, -1).indices
        picked = torch.zeros_like(a).scatter(-1, chosen, 1.0)
        weight = a * picked
        weight = weight / weight.sum(-1, keepdim=True) * self.scale
        w1, w3, w2 = (Q.weight_fp4(w) if nm.fast else w for w in (self.w1, self.w3, self.w2))
        xq = Q.activations_fp8(x).bfloat16() if nm.rounds else x
        g = F.linear(xq, nm.cast(w1).flatten(0, 1)).unflatten(-1, (self.experts, -1))
        u = F.linear(xq, nm.cast(w3).flatten(0, 1)).unflatten(-1, (self.experts, -1))
        t = nm.cast(self.swiglu(g, u) * weight[..., None])
        if nm.rounds:
            t = Q.activations_fp8(t).bfloat16()
        y = F.linear(t.flatten(-2), nm.cast(w2).permute(1, 0, 2).flatten(1)).float()
        s = self.shared_experts
        t = nm.cast(self.swiglu(nm.linear8(x, s["w1"].weight), nm.linear8(x, s["w3"].weight)))
        y = y + nm.linear8(t, s["w2"].weight).float()
        return nm.cast(y), picked.detach().flatten(0, -2).mean(0)


def hc_dynamics(h, fn, eps):
    """The projections m [B,L,n] of the flattened streams, divided by their RMS."""
    x = h.flatten(-2).float()
    return F.linear(x, fn) * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class Block(nn.Module):
    def __init__(self, c, ratio, hashed):
        super().__init__()
        d, n = c["hidden_size"], c["hc_mult"]
        self.n, self.eps, self.hc_eps, self.iters = n, c["rms_norm_eps"], c["hc_eps"], c["hc_sinkhorn_iters"]
        self.attn, self.attn_norm = Attention(c, ratio), RMSNorm(d, self.eps)
        self.ffn, self.ffn_norm = MoE(c, hashed), RMSNorm(d, self.eps)
        for part in ("attn", "ffn"):
            base = torch.cat((torch.randn(n) * 0.5 - 1.1, torch.randn(n) * 0.5, (torch.eye(n) * 4).flatten()))
            setattr(self, f"hc_{part}_fn", nn.Parameter(torch.randn(n * n + 2 * n, n * d) * (n * d) ** -0.5))
            setattr(self, f"hc_{part}_base", nn.Parameter(base))
            setattr(self, f"hc_{part}_scale", nn.Parameter(torch.full((3,), 0.1)))

    def pre(self, h, part, nm):
        n, base, scale = self.n, getattr(self, f"hc_{part}_base"), getattr(self, f"hc_{part}_scale")
        m = hc_dynamics(h, getattr(self, f"hc_{part}_fn"), self.eps)
        pre = torch.sigmoid(m[..., :n] * scale[0] + base[:n]) + self.hc_eps
        post = 2 * torch.sigmoid(m[..., n : 2 * n] * scale[1] + base[n : 2 * n])
        comb = (m[..., 2 * n :] * scale[2] + base[2 * n :]).unflatten(-1, (n, n))
        comb = sinkhorn(comb, self.iters, self.hc_eps, nm.fast and h.is_cuda)
        return nm.cast((pre[..., None] * h.float()).sum(-2)), post, comb

    def post(self, h, y, post, comb, nm):
        mixed = (comb[..., None] * h.float()[..., None, :]).sum(-3)  # over the first stream index
        return nm.cast(post[..., None] * y.float()[..., None, :] + mixed)

    def forward(self, h, tokens, row, nm):
        x, post, comb = self.pre(h, "attn", nm)
        y, index_loss = self.attn(self.attn_norm(x, nm), row, nm)
        h = self.post(h, y, post, comb, nm)
        x, post, comb = self.pre(h, "ffn", nm)
        y, load = self.ffn(self.ffn_norm(x, nm), tokens, nm)
        return self.post(h, y, post, comb, nm), index_loss, load


class HeadMixin:
    """hc_head parameters and their use: streams -> one vector."""

    def make_head(self, c):
        n, d = c["hc_mult"], c["hidden_size"]
        self.hc_head_fn = nn.Parameter(torch.randn(n, n * d) * (n * d) ** -0.5)
        self.hc_head_base = nn.Parameter(torch.full((n,), -1.1))
        self.hc_head_scale = nn.Parameter(torch.full((1,), 0.1))
        self.norm = RMSNorm(d, c["rms_norm_eps"])

    def collapse(self, h, nm):
        m = hc_dynamics(h, self.hc_head_fn, self.norm.eps)
        w = torch.sigmoid(m * self.hc_head_scale + self.hc_head_base) + 1e-6
        return self.norm(nm.cast((w[..., None] * h.float()).sum(-2)), nm)


class MTP(Block, HeadMixin):
    def __init__(self, c):
        super().__init__(c, 0, False)
        d, eps = c["hidden_size"], c["rms_norm_eps"]
        self.e_proj, self.h_proj = Weight(d, d), Weight(d, d)
        self.enorm, self.hnorm = RMSNorm(d, eps), RMSNorm(d, eps)
        self.make_head(c)

    def forward(self, h, e, tokens, row, nm):
        z = nm.linear8(self.hnorm(h, nm), self.h_proj.weight)
        z = nm.cast(z + nm.linear8(self.enorm(e, nm), self.e_proj.weight)[..., None, :])
        h, _, load = super().forward(z, tokens, row, nm)
        return self.collapse(h, nm), load


class Row:
    """Masks and tables of one batch. `docs` [B, L/window]: which document a chunk
    belongs to (documents start on chunk borders); None: one document a row.
    `dense`, a bool tensor: true lets every visible block through the indexer."""

    def __init__(self, c, batch, length, docs=None, device="cpu", sparse=True, index_loss=False, dense=None):
        w = c["sliding_window"]
        n = length // w
        if docs is None:
            docs = torch.zeros(batch, n, dtype=torch.long, device=device)
        self.sparse, self.index_loss, self.dense = sparse, index_loss, dense
        self.rope = rope_tables(c, length, device)
        i, j = torch.arange(w, device=device)[:, None], torch.arange(2 * w, device=device)
        same = F.pad(docs[:, 1:] == docs[:, :-1], (1, 0))  # chunk continues the one before
        self.near = ((i < j) & (j <= i + w)) & (same[:, :, None, None] | (j >= w))
        self.first_block, self.far = {}, {}
        p = torch.arange(length, device=device)
        for r in sorted(set(c["compress_ratios"]) - {0}):
            blocks = torch.arange(length // r, device=device)
            done = blocks < (p[:, None] + 1) // r
            self.far[r] = done & (docs[:, p // w][:, :, None] == docs[:, blocks * r // w][:, None])
            self.first_block[r] = (~same)[:, blocks * r // w] & (blocks * r % w == 0)


class Model(nn.Module, HeadMixin):
    def __init__(self, c):
        super().__init__()
        self.c, layers = c, c["num_hidden_layers"]
        self.embed = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.head = Weight(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(
            Block(c, c["compress_ratios"][i], i < c["num_hash_layers"]) for i in range(layers))
        self.mtp = nn.ModuleList([MTP(c)] if c["num_nextn_predict_layers"] else [])
        self.make_head(c)

    def streams(self, tokens, nm):
        return nm.cast(F.embedding(tokens, nm.param(self.embed.weight)))

    def trunk(self, tokens, row, nm, keep=None):
        """Streams [B,L,n,D] after the last block; losses and loads of the blocks."""
        h = self.streams(tokens, nm)[:, :, None].expand(-1, -1, self.c["hc_mult"], -1)
        losses, loads = [], []
        for layer in self.layers:
            h, loss, load = layer(h, tokens, row, nm)
            losses.append(loss)
            loads.append(load)
            if keep is not None:
                keep.append(h)
        return h, losses, loads

    def logits(self, x, nm):
        """x: collapsed vectors. float32 logits."""
        if nm.fast:
            return F.linear(x, Q.bf16(self.head.weight).bfloat16())
        return F.linear(x.float(), self.head.weight)

    def mtp_hidden(self, h, next_tokens, row, nm):
        return self.mtp[0](h, self.streams(next_tokens, nm), next_tokens, row, nm)


def pad_tokens(tokens, window):
    """Right-pads [B,L] to a multiple of the window; causality makes this harmless."""
    return F.pad(tokens, (0, -tokens.shape[1] % window))

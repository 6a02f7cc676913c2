"""Parts of the V4 block: numerics, norms, RoPE, compressor, indexer, attention.

Whole sequences at once, as in model.py, which assembles these parts.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

import quant as Q


class Numerics:
    def __init__(self, name):
        self.name = name
        self.rounds = name != "exact"
        self.fast = name == "train"
        self.dtype = torch.bfloat16 if self.rounds else torch.float32

    def linear8(self, x, w):
        """FP8 activations (1x128) with an FP8 weight."""
        if not self.rounds:
            return F.linear(x, w)
        w = Q.weight_fp8(w) if self.fast else w
        return F.linear(Q.activations_fp8(x).bfloat16(), w.bfloat16())

    def param(self, w):
        """A parameter that the file keeps in bf16, in float32."""
        return Q.bf16(w) if self.fast else w

    def linear32(self, x, w):
        """bf16 operands, float32 result."""
        return F.linear(x.float(), self.param(w))

    def cast(self, x):
        return x.to(self.dtype)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x, nm):
        x = x.float()
        return nm.cast(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * nm.param(self.weight))


class Weight(nn.Module):
    """A linear's weight [out, in] under the official name."""

    def __init__(self, out, inner, gain=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, inner) * gain * inner**-0.5)


def rope_table(c, ratio, length):
    """cos, sin [length, rd/2] of a layer with this compress ratio."""
    rd, s = c["qk_rope_head_dim"], c["rope_scaling"]
    i = torch.arange(0, rd, 2, dtype=torch.float64)
    base = c["compress_rope_theta"] if ratio else c["rope_theta"]
    f = base ** (-i / rd)
    if ratio:
        def corner(beta):
            return rd * math.log(s["original_max_position_embeddings"] / (beta * 2 * math.pi)) / (2 * math.log(base))
        low, high = math.floor(corner(s["beta_fast"])), math.ceil(corner(s["beta_slow"]))
        low, high = max(low, 0), min(high, rd - 1)
        ramp = ((torch.arange(rd // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
        f = f / s["factor"] * ramp + f * (1 - ramp)
    a = torch.arange(length, dtype=torch.float64)[:, None] * f
    return a.cos().float(), a.sin().float()


def rotate(x, cos, sin):
    """RoPE on the last dims of x; cos and sin broadcast against the pairs."""
    rd = 2 * cos.shape[-1]
    keep, turn = x[..., :-rd], x[..., -rd:].float().unflatten(-1, (-1, 2))
    a, b = turn[..., 0], turn[..., 1]
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((keep, turned.to(x.dtype)), -1)


def kv_fp8(kv, rd, nm):
    if not nm.rounds:
        return kv
    return torch.cat((Q.activations_fp8(kv[..., :-rd], 64).to(kv.dtype), kv[..., -rd:]), -1)


class Compressor(nn.Module):
    """Pools r tokens into one key: x [B,L,D] -> [B,L/r,width], rotated."""

    def __init__(self, c, ratio, width):
        super().__init__()
        cols = width * (2 if ratio == 4 else 1)
        self.ratio, self.width = ratio, width
        self.wkv, self.wgate = Weight(cols, c["hidden_size"]), Weight(cols, c["hidden_size"], 0.5)
        self.ape = nn.Parameter(torch.zeros(ratio, cols))
        self.norm = RMSNorm(width, c["rms_norm_eps"])

    def forward(self, x, row, nm):
        r, w = self.ratio, self.width
        k = nm.linear32(x, self.wkv.weight).unflatten(1, (-1, r))
        g = nm.linear32(x, self.wgate.weight).unflatten(1, (-1, r)) + self.ape
        if r == 4:  # first half of the columns serves the next block, second half its own
            k = torch.cat((F.pad(k[:, :-1, :, :w], (0, 0, 0, 0, 1, 0)), k[..., w:]), 2)
            before = F.pad(g[:, :-1, :, :w], (0, 0, 0, 0, 1, 0))
            before = before.masked_fill(row.first_block[r][:, :, None, None], -torch.inf)
            g = torch.cat((before, g[..., w:]), 2)
        pooled = nm.cast((g.softmax(2) * k).sum(2))
        cos, sin = row.rope[1]
        return rotate(self.norm(pooled, nm), cos[::r], sin[::r])


class Indexer(nn.Module):
    def __init__(self, c, ratio):
        super().__init__()
        self.heads, self.dim, self.topk = c["index_n_heads"], c["index_head_dim"], c["index_topk"]
        self.wq_b = Weight(self.heads * self.dim, c["q_lora_rank"])
        self.weights_proj = Weight(self.heads, c["hidden_size"])
        self.compressor = Compressor(c, ratio, self.dim)

    def forward(self, x, qr, row, nm):
        """Scores [B,L,blocks] in float32, unmasked."""
        cos, sin = row.rope[1]
        q = nm.linear8(qr, self.wq_b.weight).unflatten(-1, (self.heads, self.dim))
        q = Q.hadamard(rotate(q, cos[:, None], sin[:, None]))
        k = Q.hadamard(self.compressor(x, row, nm))
        if nm.rounds:
            q, k = Q.activations_fp4(q).to(q.dtype), Q.activations_fp4(k).to(k.dtype)
        w = nm.linear32(x, self.weights_proj.weight) * (self.dim * self.heads) ** -0.5
        if not nm.fast:
            q, k = q.float(), k.float()
        s = (q.flatten(1, 2) @ k.transpose(1, 2)).unflatten(1, (-1, self.heads))
        return (s.relu().float() * w[..., None]).sum(2)


class Attention(nn.Module):
    def __init__(self, c, ratio):
        super().__init__()
        d, self.heads, self.hd = c["hidden_size"], c["num_attention_heads"], c["head_dim"]
        self.ratio, self.rd, self.eps = ratio, c["qk_rope_head_dim"], c["rms_norm_eps"]
        self.groups, self.window = c["o_groups"], c["sliding_window"]
        self.wq_a, self.q_norm = Weight(c["q_lora_rank"], d), RMSNorm(c["q_lora_rank"], self.eps)
        self.wq_b = Weight(self.heads * self.hd, c["q_lora_rank"])
        self.wkv, self.kv_norm = Weight(self.hd, d), RMSNorm(self.hd, self.eps)
        self.wo_a = Weight(self.groups * c["o_lora_rank"], self.heads * self.hd // self.groups)
        self.wo_b = Weight(d, self.groups * c["o_lora_rank"], (2 * c["num_hidden_layers"]) ** -0.5)
        self.attn_sink = nn.Parameter(torch.zeros(self.heads))
        if ratio:
            self.compressor = Compressor(c, ratio, self.hd)
        if ratio == 4:
            self.indexer = Indexer(c, ratio)

    def forward(self, x, row, nm):
        """Returns the output and the indexer's loss (0 without an indexer)."""
        w, h = self.window, self.heads
        cos, sin = row.rope[1 if self.ratio else 0]
        qr = self.q_norm(nm.linear8(x, self.wq_a.weight), nm)
        q = nm.linear8(qr, self.wq_b.weight).unflatten(-1, (h, self.hd)).float()
        q = nm.cast(q * torch.rsqrt(q.square().mean(-1, keepdim=True) + self.eps))
        q = rotate(q, cos[:, None], sin[:, None])
        kv = self.kv_norm(nm.linear8(x, self.wkv.weight), nm)
        kv = kv_fp8(rotate(kv, cos, sin), self.rd, nm)

        wide = (lambda t: t) if nm.fast else (lambda t: t.float())  # float32 scores unless fast
        chunks = kv.unflatten(1, (-1, w))
        near = torch.cat((F.pad(chunks[:, :-1], (0, 0, 0, 0, 1, 0)), chunks), 2)  # [B,n,2w,hd]
        qc = q.unflatten(1, (-1, w)).flatten(2, 3)  # [B,n,w*h,hd]
        s = (wide(qc) @ wide(near).transpose(2, 3)).unflatten(2, (w, h))
        s = s.masked_fill(~row.near[:, :, :, None, :], -torch.inf).flatten(1, 2).float()
        scores, loss = [s], x.new_zeros((), dtype=torch.float32)
        if self.ratio:
            far = kv_fp8(self.compressor(x, row, nm), self.rd, nm)  # [B,M,hd]
            seen = row.far[self.ratio]  # [B,L,M]
            if self.ratio == 4 and (row.sparse or row.index_loss):
                index = self.indexer(x.detach(), qr.detach(), row, nm)
                if row.sparse and self.indexer.topk < index.shape[-1]:
                    chosen = self.select(index.detach().masked_fill(~seen, -torch.inf), nm)
                    seen = seen & (chosen if row.dense is None else chosen | row.dense)
            sf = (wide(q.flatten(1, 2)) @ wide(far).transpose(1, 2)).unflatten(1, (-1, h))
            scores.append(sf.masked_fill(~seen[:, :, None], -torch.inf).float())
        sizes = [t.shape[-1] for t in scores] + [1]
        sink = self.attn_sink.expand(*s.shape[:-1]).unsqueeze(-1)
        p = torch.cat([t * self.hd**-0.5 for t in scores] + [sink], -1).softmax(-1)
        p = p.split(sizes, -1)
        pn = nm.cast(p[0]).unflatten(1, (-1, w)).flatten(2, 3)
        o = (pn @ near).unflatten(2, (w, h)).flatten(1, 2)
        if self.ratio:
            o = o + (nm.cast(p[1]).flatten(1, 2) @ far).unflatten(1, (-1, h))
            if self.ratio == 4 and row.index_loss:
                loss = self.index_loss(index, p[1].detach().sum(2), seen)
        o = rotate(o, cos[:, None], -sin[:, None])
        o = o.reshape(*o.shape[:2], self.groups, -1)
        wo_a = Q.weight_fp8(self.wo_a.weight) if nm.fast else self.wo_a.weight
        if nm.rounds:
            o = Q.activations_fp8(o).bfloat16()
        z = torch.einsum("blgi,goi->blgo", o, nm.cast(wo_a).unflatten(0, (self.groups, -1)))
        return nm.linear8(z.flatten(2), self.wo_b.weight), loss

    def select(self, index, nm):
        if nm.fast:
            top = index.topk(self.indexer.topk, -1).indices
        else:  # equal scores: the earlier block
            top = index.sort(stable=True, dim=-1, descending=True).indices[..., : self.indexer.topk]
        return torch.zeros_like(index, dtype=torch.bool).scatter(-1, top, True)

    @staticmethod
    def index_loss(index, mass, seen):
        """KL from the attention's mass over blocks to the softmax of the scores."""
        target = (mass + 1e-9 * seen) / (mass + 1e-9 * seen).sum(-1, keepdim=True).clamp(min=1e-9)
        logp = index.masked_fill(~seen, -1e9).log_softmax(-1)
        kl = torch.where(seen, target * (target.clamp(min=1e-9).log() - logp), 0.0).sum(-1)
        return kl.mean()

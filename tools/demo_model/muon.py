"""The optimiser: orthogonalised momentum (Muon) for matrices, AdamW for the rest.

Matrices of one shape are handled as one batch. No weight decay, no sharding.
"""
import re

import torch

MATRIX = re.compile(r"(attn\..*(wq_a|wq_b|wkv|wgate|wo_a|wo_b|weights_proj)|[eh]_proj|shared_experts\.w[123])\.weight$|ffn\.w[123]$")


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration on a batch [n, rows, cols]: singular values towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return (x if wide else x.mT).float()


class Optimiser:
    def __init__(self, model, matrix_rate, rate, momentum=0.95):
        self.groups, rest, slow = {}, [], []
        self.momentum, self.matrix_rate = momentum, matrix_rate
        for name, p in model.named_parameters():
            if MATRIX.search(name):
                parts = model.c["o_groups"] if name.endswith("wo_a.weight") else 1
                shape = (p.shape[-2] // parts, p.shape[-1])
                self.groups.setdefault(shape, []).append((p, torch.zeros_like(p)))
            else:
                (slow if "hc_" in name or "gate.weight" in name or "norm" in name else rest).append(p)
        self.plain = torch.optim.AdamW([dict(params=rest, base=rate), dict(params=slow, base=rate / 3)], lr=rate,
                                       betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0, fused=slow[0].is_cuda)
        self.all_plain = rest + slow

    @torch.no_grad()
    def step(self, factor):
        torch.nn.utils.clip_grad_norm_(self.all_plain, 1.0)
        for g in self.plain.param_groups:
            g["lr"] = g["base"] * factor
        self.plain.step()
        for shape, entries in self.groups.items():
            grads, moments = [p.grad for p, _ in entries], [m for _, m in entries]
            torch._foreach_lerp_(moments, grads, 1 - self.momentum)
            mixed = torch._foreach_lerp(grads, moments, self.momentum)
            update = orthogonalise(torch.cat([g.reshape(-1, *shape) for g in mixed]))
            update *= max(1.0, shape[0] / shape[1]) ** 0.5
            sizes = [p.numel() // (shape[0] * shape[1]) for p, _ in entries]
            pieces = [u.reshape(p.shape) for u, (p, _) in zip(update.split(sizes), entries)]
            torch._foreach_add_([p for p, _ in entries], pieces, alpha=-self.matrix_rate * factor)
        for p in self.all_plain + [p for e in self.groups.values() for p, _ in e]:
            p.grad = None

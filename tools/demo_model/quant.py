"""Number formats of a DeepSeek-V4 checkpoint: FP8 e4m3, MXFP4 and E8M0 scales.

Two uses: fake quantisation with straight-through gradients (training and
checkpoint numerics), and the bytes of a file (export and load). Every scale is
a power of two. It is no GEMM: products are taken by PyTorch on the rounded
values, which bf16 holds exactly.
"""
import torch

FP8_MAX, FP4_MAX = 448.0, 6.0
FP4_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def pow2ceil(v):
    """Smallest power of two >= v, for positive v."""
    mantissa, exponent = torch.frexp(v)  # v = mantissa * 2^exponent, mantissa in [0.5, 1)
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    return torch.ldexp(torch.ones_like(v), exponent)


def straight_through(x, rounded):
    return x + (rounded - x).detach()


def round_fp8(x):
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(x.dtype)


def round_fp4(x):
    """To the e2m1 grid, ties to the even code; |x| <= 6."""
    a = x.abs()
    step = torch.where(a < 2, 0.5, torch.where(a < 4, 1.0, 2.0))
    return torch.round(x / step) * step


def bf16(x):
    """Round to bf16, keep the dtype; the gradient passes."""
    return straight_through(x, x.to(torch.bfloat16).to(x.dtype))


def activations_fp8(x, group=128):
    """FP8 over groups of the last axis (1x128 for GEMM inputs, 64 for KV)."""
    g = x.float().unflatten(-1, (-1, group))
    with torch.no_grad():
        scale = pow2ceil(g.abs().amax(-1, keepdim=True).clamp(min=1e-4) / FP8_MAX)
        rounded = round_fp8(g / scale) * scale
    return straight_through(g, rounded).flatten(-2)


def activations_fp4(x, group=32):
    """MXFP4 over groups of the last axis (index queries and keys)."""
    g = x.float().unflatten(-1, (-1, group))
    with torch.no_grad():
        scale = pow2ceil(g.abs().amax(-1, keepdim=True).clamp(min=6 * 2.0**-126) / FP4_MAX)
        rounded = round_fp4(g / scale) * scale
    return straight_through(g, rounded).flatten(-2)


def _tiles(w):
    """[N, K] as [N/128, 128, K/128, 128], padded with zeros."""
    n, k = w.shape
    w = torch.nn.functional.pad(w, (0, -k % 128, 0, -n % 128))
    return w.unflatten(1, (-1, 128)).unflatten(0, (-1, 128))


def fp8_scale(w):
    amax = _tiles(w).abs().amax((1, 3)).clamp(min=1e-4)
    return pow2ceil(amax / FP8_MAX)


def _spread(scale, shape):
    return scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[: shape[0], : shape[1]]


def weight_fp8(w):
    """A dense weight [N, K] as its 128x128 FP8 blocks give it back."""
    with torch.no_grad():
        s = _spread(fp8_scale(w), w.shape)
        rounded = round_fp8(w / s) * s
    return straight_through(w, rounded)


def weight_fp4(w):
    """An expert weight [..., N, K] as MXFP4 with groups of 32 along K gives it back."""
    return activations_fp4(w, 32)


def e8m0_bytes(scale):
    return (torch.log2(scale).round() + 127).to(torch.uint8).view(torch.float8_e8m0fnu)


def e8m0_values(scale):
    return torch.exp2(scale.view(torch.uint8).float() - 127)


def encode_fp8(w):
    s = fp8_scale(w)
    q = (w / _spread(s, w.shape)).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    return q, e8m0_bytes(s)


def decode_fp8(q, scale):
    return q.float() * _spread(e8m0_values(scale), q.shape)


def encode_fp4(w):
    g = w.unflatten(-1, (-1, 32))
    s = pow2ceil(g.abs().amax(-1).clamp(min=6 * 2.0**-126) / FP4_MAX)
    v = round_fp4(g / s[..., None]).flatten(-2)
    levels = torch.tensor(FP4_LEVELS, device=w.device)
    code = (v.abs()[..., None] == levels).int().argmax(-1) + 8 * (v < 0).int()
    packed = (code[..., 0::2] | (code[..., 1::2] << 4)).to(torch.uint8).view(torch.int8)
    return packed, e8m0_bytes(s)


def decode_fp4(packed, scale):
    b = packed.view(torch.uint8).long()
    code = torch.stack((b & 15, b >> 4), -1).flatten(-2)
    value = torch.tensor(FP4_LEVELS, device=b.device)[code & 7] * (1 - 2 * (code >> 3)).float()
    return value * e8m0_values(scale).repeat_interleave(32, -1)


def hadamard(x):
    """Natural-order Walsh-Hadamard transform of the last axis, orthonormal."""
    n = x.shape[-1]
    m = torch.ones(1, 1, device=x.device)
    while m.shape[0] < n:
        m = torch.cat((torch.cat((m, m), 1), torch.cat((m, -m), 1)), 0)
    return x @ (m * n**-0.5).to(x.dtype)

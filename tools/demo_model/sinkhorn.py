"""Sinkhorn normalisation of 4x4 matrices as one GPU kernel each way, for training.

model.py holds the plain form; this one exists because eighty tiny operations a
block are slow to launch and slow to compile. Needs Triton and a GPU.
"""
import torch
import triton
import triton.language as tl

BLOCK = 64


@triton.jit
def forward_kernel(x_ptr, y_ptr, s_ptr, count, iterations, eps, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j = tl.arange(0, 4), tl.arange(0, 4)
    at = n[:, None, None] * 16 + i[None, :, None] * 4 + j[None, None, :]
    live = (n < count)[:, None, None]
    sums, keep = s_ptr + n[:, None] * 4 + j[None, :], (n < count)[:, None]
    x = tl.load(x_ptr + at, mask=live, other=1.0)
    s = tl.sum(x, axis=1) + eps
    tl.store(sums, s, mask=keep)
    x = x / s[:, None, :]
    for t in range(iterations - 1):
        s = tl.sum(x, axis=2) + eps
        tl.store(sums + (2 * t + 1) * count * 4, s, mask=keep)
        x = x / s[:, :, None]
        s = tl.sum(x, axis=1) + eps
        tl.store(sums + (2 * t + 2) * count * 4, s, mask=keep)
        x = x / s[:, None, :]
    tl.store(y_ptr + at, x, mask=live)


@triton.jit
def backward_kernel(y_ptr, s_ptr, g_ptr, out_ptr, count, iterations, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j = tl.arange(0, 4), tl.arange(0, 4)
    at = n[:, None, None] * 16 + i[None, :, None] * 4 + j[None, None, :]
    live = (n < count)[:, None, None]
    sums, keep = s_ptr + n[:, None] * 4 + j[None, :], (n < count)[:, None]
    y = tl.load(y_ptr + at, mask=live, other=0.25)
    g = tl.load(g_ptr + at, mask=live, other=0.0)
    for k in range(iterations - 1):
        t = iterations - 2 - k
        s = tl.load(sums + (2 * t + 2) * count * 4, mask=keep, other=1.0)
        g = (g - tl.sum(g * y, axis=1)[:, None, :]) / s[:, None, :]
        y = y * s[:, None, :]
        s = tl.load(sums + (2 * t + 1) * count * 4, mask=keep, other=1.0)
        g = (g - tl.sum(g * y, axis=2)[:, :, None]) / s[:, :, None]
        y = y * s[:, :, None]
    s = tl.load(sums, mask=keep, other=1.0)
    g = (g - tl.sum(g * y, axis=1)[:, None, :]) / s[:, None, :]
    tl.store(out_ptr + at, g, mask=live)


@torch.library.custom_op("demo::sinkhorn", mutates_args=())
def normalise(x: torch.Tensor, iterations: int, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., 4, 4] positive. The normalised matrices, and the sums divided by."""
    x = x.contiguous()
    count = x.numel() // 16
    y, sums = torch.empty_like(x), x.new_empty(2 * iterations - 1, count, 4)
    forward_kernel[(triton.cdiv(count, BLOCK),)](x, y, sums, count, iterations, eps, BLOCK=BLOCK)
    return y, sums


@normalise.register_fake
def _(x, iterations, eps):
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(2 * iterations - 1, x.numel() // 16, 4)


@torch.library.custom_op("demo::sinkhorn_backward", mutates_args=())
def normalise_backward(y: torch.Tensor, sums: torch.Tensor, grad: torch.Tensor, iterations: int) -> torch.Tensor:
    grad = grad.contiguous()
    out, count = torch.empty_like(grad), grad.numel() // 16
    backward_kernel[(triton.cdiv(count, BLOCK),)](y, sums, grad, out, count, iterations, BLOCK=BLOCK)
    return out


@normalise_backward.register_fake
def _(y, sums, grad, iterations):
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output):
    ctx.iterations = inputs[1]
    ctx.save_for_backward(*output)


def _backward(ctx, grad, _):
    return normalise_backward(*ctx.saved_tensors, grad, ctx.iterations), None, None


normalise.register_autograd(_backward, setup_context=_setup)

"""Reuse and a depthwise convolution, in the form that suits the device.

A CPU is fast for copies one by one: oneDNN has a kernel for one filter a channel, and no map has to be repeated.
On CUDA every kernel has a cost of its own, however little it computes, so that few large ones suit it: there the map
is repeated, in one kernel, and convolved in another. Both forms have the same filters, in the same order.
"""

# NOTE: Conv2d(C, times*C, groups=C) is the same function in another order of its outputs, and needs no repeated map.
# oneDNN is slow for it (benchmarks/reuse.py -multiplier measures both), and cuDNN has no depthwise kernel for it.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE_MAP = ("cuda",)  # types of devices on which one kernel for all copies is the better form


def repeats_the_map(x: Tensor) -> bool:
    """Whether the device of x is one for a repeated map, and not for copies one by one."""
    return x.device.type in WHOLE_MAP


def reuse_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """depthwise(Reuse(times)(x)): N x C x H x W -> N x E x H' x W'.

    weight: E x 1 x K x K, E = times * C; filter m*C + c reads channel c. bias: E, or None.
    """
    times = weight.shape[0] // x.shape[1]
    form = repeated if repeats_the_map(x) else copy_by_copy
    return form(x, weight, bias, stride, padding, times)


def repeated(x, weight, bias, stride, padding, times: int) -> Tensor:
    """In two steps, whatever times is."""
    wide = x if times == 1 else copies(x, times)
    return F.conv2d(wide, weight, bias, stride, padding, groups=weight.shape[0])


def copies(x: Tensor, times: int) -> Tensor:
    """x `times` times side by side, N x C x H x W -> N x times*C x H x W, in the memory format of x."""
    is_learning = torch.is_grad_enabled() and x.requires_grad
    if is_learning and not torch.jit.is_tracing():  # a traced network, as TensorBoard's graph is, has no Python in it
        return _Copies.apply(x, times)
    return torch.cat([x] * times, dim=1)


class _Copies(torch.autograd.Function):
    """A concatenation whose backward pass is one sum over the copies.

    NOTE: torch's own adds slices of the gradient, one copy after the other: times - 1 kernels that read memory in
    strides. In a step of cheapV3 these were 70; the sums are 14.
    """

    @staticmethod
    def forward(ctx, x: Tensor, times: int) -> Tensor:
        ctx.times = times
        return torch.cat([x] * times, dim=1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        if gradient.is_contiguous(memory_format=torch.channels_last):  # a sum over another dimension would lose that
            return gradient.movedim(1, -1).unflatten(-1, (ctx.times, -1)).sum(-2).movedim(-1, 1), None
        return gradient.unflatten(1, (ctx.times, -1)).sum(1), None


def copy_by_copy(x, weight, bias, stride, padding, times: int) -> Tensor:
    """Each copy's C filters are a depthwise convolution of x itself; the results are laid side by side."""
    if min(x.shape[2:]) < weight.shape[2]:
        # a kernel larger than its map takes oneDNN about twice as long in training where the padding is its own
        x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0])), (0, 0)
    biases = [None] * times if bias is None else bias.chunk(times)
    filters = zip(weight.chunk(times), biases, strict=True)
    maps = [F.conv2d(x, *each, stride, padding, groups=x.shape[1]) for each in filters]
    return maps[0] if times == 1 else torch.cat(maps, dim=1)

"""Functions whose backward pass is written out: they keep less, or take less time, than what autograd would do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FAST_COLUMNS = 3  # of a depthwise kernel: up to so many oneDNN has code of its own for its gradient (torch 2.14, AVX2)


class HardswishConvolution(torch.autograd.Function):
    """Hard-swish, then a 1x1 convolution without bias, which keeps one wide map for the backward pass and not two.

    apply(x, weight): N x E x H x W, out x E x 1 x 1 -> N x out x H x W. The convolution's gradient needs the
    activated map, autograd would keep it beside x; here the backward pass computes it again.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(F.hardswish(x), weight)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        kind = gradient.dtype  # under autocast the convolution ran in another than the weight's
        needed, pairs = [True, True, False], [[1, 1], [0, 0], [1, 1], False, [0, 0], 1]
        wide, slope, _ = torch.ops.aten.convolution_backward(
            gradient, F.hardswish(x).to(kind), weight.to(kind), None, *pairs, needed
        )
        return torch.ops.aten.hardswish_backward(wide.to(x.dtype), x), slope.to(weight.dtype)


class DepthwiseCopies(torch.autograd.Function):
    """Depthwise convolutions of one map, side by side; the weights' gradient is computed a few columns at a time.

    apply(x, weight, times, stride, padding): N x C x H x W, times*C x 1 x K x K -> N x times*C x H' x W'.
    For a kernel wider than FAST_COLUMNS oneDNN computes the gradient of full convolutions between 8 channels and 8,
    and throws seven eighths away. Column j of the gradient is that of a narrower kernel on the input from column j on.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, times: int, stride: int, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.times, ctx.stride, ctx.padding = times, stride, padding
        return torch.cat([F.conv2d(x, part, None, stride, padding, 1, len(part)) for part in weight.chunk(times)], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        kind, own_kind = gradient.dtype, x.dtype  # under autocast the convolution ran in another than the input's
        gradients = [part.contiguous(memory_format=torch.channels_last) for part in gradient.chunk(ctx.times, 1)]
        x, parts = x.to(kind), weight.to(kind).chunk(ctx.times)
        whole = None
        if ctx.needs_input_grad[0]:
            for part, slope in zip(parts, gradients, strict=True):
                found = _depthwise_backward(slope, x, part, ctx.stride, ctx.padding, [True, False, False])[0]
                whole = found if whole is None else whole.add_(found)
            whole = whole.to(own_kind)
        rows, columns = ctx.padding
        x = F.pad(x, (columns, columns, rows, rows))
        found = []
        for first in range(0, weight.shape[3], FAST_COLUMNS):
            narrow = [part[..., first : first + FAST_COLUMNS].contiguous() for part in parts]
            reach = (gradient.shape[3] - 1) * ctx.stride + narrow[0].shape[3]
            seen = x[..., first : first + reach].contiguous(memory_format=torch.channels_last)
            slopes = [
                _depthwise_backward(slope, seen, part, ctx.stride, (0, 0), [False, True, False])[1]
                for part, slope in zip(narrow, gradients, strict=True)
            ]
            found.append(torch.cat(slopes))
        return whole, torch.cat(found, dim=3).to(weight.dtype), None, None, None


def _depthwise_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], needed: list[bool]
) -> tuple[Tensor, ...]:
    """Gradients of the input, the weight and a bias, those that are needed, of one depthwise convolution."""
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride, stride], list(padding), [1, 1], False, [0, 0], len(weight), needed
    )

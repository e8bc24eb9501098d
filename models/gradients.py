"""A function whose backward pass is written out: it keeps less than what autograd would."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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

"""Reuse and a depthwise convolution whose kernel size is each copy's own.

MixConv (Tan & Le, arXiv 1907.09595) gives groups of an expanded map's channels kernels of different sizes. After Reuse
the groups are copies of the same channels, so that every channel is seen at every size, without a 1x1 convolution.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.reuse import ReuseDepthwise

LARGEST_KERNEL = 11


def make_depthwise(channels: int, kernel_sizes: Sequence[int], stride: int, literal: bool) -> nn.Module:
    """Reuse(len(kernel_sizes)) and a depthwise convolution, or in the literal form the convolution after Reuse.

    Copies of one size are the plain layer, with its key and its weights.
    """
    if len(set(kernel_sizes)) > 1:
        return MixedDepthwise(channels, kernel_sizes, stride, literal)
    return _depthwise(channels, len(kernel_sizes), kernel_sizes[0], stride, literal)


def _depthwise(channels: int, times: int, kernel_size: int, stride: int, literal: bool) -> nn.Conv2d:
    if not literal:
        return ReuseDepthwise(channels, times, kernel_size, stride)
    wide = channels * times
    return nn.Conv2d(wide, wide, kernel_size, stride, kernel_size // 2, groups=wide, bias=False)


class MixedDepthwise(nn.ModuleList):
    """N x C x H x W -> N x E x H' x W', E = len(kernel_sizes) * C; literal: N x E x H x W -> N x E x H' x W'.

    kernel_sizes: odd, one for each copy; copy m's filters are channels m*C to (m+1)*C. Copies of one size that follow
    one another are one layer, of C filters a copy.
    """

    def __init__(self, channels: int, kernel_sizes: Sequence[int], stride: int, literal: bool = False) -> None:
        runs = [(size, len(list(run))) for size, run in itertools.groupby(kernel_sizes)]
        super().__init__(_depthwise(channels, times, size, stride, literal) for size, times in runs)
        self.literal = literal

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.split([layer.in_channels for layer in self], dim=1) if self.literal else [x] * len(self)
        return torch.cat([layer(each) for layer, each in zip(self, inputs, strict=True)], dim=1)

    def fused_with(self, norm: nn.BatchNorm2d) -> MixedDepthwise:
        """This and the batch norm that follows it in one, for inference (models/fold.py)."""
        fused, sizes = copy.deepcopy(self), [layer.out_channels for layer in self]
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        own = ([None] * len(sizes) if each is None else each.split(sizes) for each in tensors)
        for layer, mean, variance, *affine in zip(fused, *own, strict=True):
            parts = layer.weight, layer.bias, mean, variance, norm.eps, *affine
            layer.weight, layer.bias = fuse_conv_bn_weights(*parts)
        return fused

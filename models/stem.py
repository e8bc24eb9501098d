"""The first layers of the MobileNets and their cheap variants: a plain 3x3 convolution, or one with Reuse behind it."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from models.layers import ConvBatchNorm, activation
from models.reuse import ConvOnCopies, Reuse

REUSE_CHANNELS, REUSE_TIMES = 3, 16  # the shuffle networks' first convolution, and the copies of what it gives


def make_stem(form: str, in_channels: int, out_channels: int, stride: int, act: str, literal: bool) -> nn.Module:
    """N x in_channels x H x W -> N x out_channels x H/stride x W/stride.

    form  conv: 3x3 convolution, batch norm, activation; reuse: 3x3 convolution to 3 channels, batch norm, Reuse(16),
          1x1 convolution, batch norm, activation
    act   RE or HS
    """
    if form == "conv":
        return ConvBatchNorm(in_channels, out_channels, 3, stride, act=act)
    if literal:
        convolution = nn.Conv2d(REUSE_CHANNELS * REUSE_TIMES, out_channels, 1, bias=False)
        widen = OrderedDict(reuse=Reuse(REUSE_TIMES), conv=convolution)
    else:
        widen = OrderedDict(conv=ConvOnCopies(REUSE_CHANNELS, 0, out_channels, REUSE_TIMES))
    widen |= OrderedDict(bn=nn.BatchNorm2d(out_channels), activation=activation(act))
    first = ConvBatchNorm(in_channels, REUSE_CHANNELS, 3, stride)
    return nn.Sequential(OrderedDict(first=first, widen=nn.Sequential(widen)))

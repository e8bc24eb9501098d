"""What may widen a block of the MobileNets but Reuse: the paper's 1x1 convolution, and the cheap ways there are of it.

Costs below are of C channels widened to E on H x W pixels; a batch norm of E channels has 2 E parameters more.
None of the cheap ones stands where a block does not widen: there it begins with its depthwise convolution, as with
Reuse.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import ConvBatchNorm, activation

GHOST_RATIO, GHOST_KERNEL = 2, 3  # of the paper's networks


def convolution(channels: int, expanded: int, act: str) -> nn.Module:
    """1x1 convolution, batch norm, activation. C E weights, C E H W MACs."""
    return ConvBatchNorm(channels, expanded, act=act)


def grouped(channels: int, expanded: int, act: str) -> nn.Module:
    """1x1 convolution in G groups, batch norm, activation. C E / G weights, C E H W / G MACs.

    G is the largest number of groups that there can be, the greatest common divisor of C and E, so that an output sees
    C / G inputs. Where E is a multiple of C, as everywhere in MobileNetV2, that is one input: what is learned of its
    weight is the sign alone, since batch norm takes the scale out, and each of an input's E / C outputs (which lie side
    by side) differs from the others by a norm and, in what the activation cuts off, a shift. In MobileNetV3 an output
    sees up to 10 (80 channels to 184).
    """
    layer = nn.Conv2d(channels, expanded, 1, groups=math.gcd(channels, expanded), bias=False)
    return ConvBatchNorm(channels, expanded, act=act, convolution=layer)


class ZeroPad(nn.Module):
    """N x C x H x W -> N x expanded x H x W: the input, then channels of zeros. No parameters, no MACs.

    The widening of ResNet's shortcut A (arXiv 1512.03385). What comes after has its cost all the same: the depthwise
    filters on zeros are counted, give zero and never get a gradient. So such a channel is a constant, the shift of the
    batch norm behind them, which a squeeze-excite may scale for each image: it adds no feature of the image.
    """

    def __init__(self, channels: int, expanded: int) -> None:
        super().__init__()
        self.channels, self.expanded = channels, expanded

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 0, self.expanded - self.channels))

    def extra_repr(self) -> str:
        return f"{self.channels}, {self.expanded}"


def zero_pad(channels: int, expanded: int, act: str) -> nn.Module:
    """Channels of zeros beside the input, activation; no batch norm, since Reuse has none either."""
    layers = [ZeroPad(channels, expanded)]
    return nn.Sequential(*layers, activation(act)) if act else nn.Sequential(*layers)


class Ghost(nn.Module):
    """N x C x H x W -> N x expanded x H x W: half of the maps by a 1x1 convolution, a cheap map of each of these.

    The ghost module of GhostNet (Han et al., arXiv 1911.11907) with its ratio 2 and its 3x3 depthwise convolution;
    batch norm and activation stand behind each of the two, before the maps are put side by side. Its bottleneck
    projects with a ghost module, too, and has no depthwise convolution at stride 1: here the expansion alone changes.
    With M = E / 2: (C M + 9 M) weights, (C M + 9 M) H W MACs. An odd E has one cheap map less.
    """

    def __init__(self, channels: int, expanded: int, act: str) -> None:
        super().__init__()
        primary = math.ceil(expanded / GHOST_RATIO)
        cheap = expanded - primary
        self.primary = ConvBatchNorm(channels, primary, act=act)
        self.cheap = ConvBatchNorm(cheap, cheap, GHOST_KERNEL, groups=cheap, act=act)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.primary(x)
        return torch.cat([maps, self.cheap(maps[:, : self.cheap.conv.in_channels])], dim=1)


def nothing(channels: int, expanded: int, act: str) -> nn.Module:
    """Expansion ratio 1: the block's depthwise convolution works on the input's own channels."""
    return nn.Identity()


# By the word of -expansion: makes what widens from C channels and E to the letters of the activation ("" for none).
EXPANSIONS: dict[str, Callable[[int, int, str], nn.Module]] = {
    "conv": convolution,
    "grouped": grouped,
    "zero-pad": zero_pad,
    "ghost": Ghost,
    "none": nothing,
}
WITH_NORM = ("conv", "grouped", "ghost")  # those with a batch norm, which the activation stands behind in the papers


def expanded_width(form: str, channels: int, expanded: int) -> int:
    """The channels of the block's depthwise convolution where the paper's 1x1 convolution would give `expanded`.

    No other form narrows, as the first row of cheapV3_shuffle6 with a 1x1 convolution does.
    """
    if form == "none":
        return channels
    return expanded if form == "conv" else max(channels, expanded)


def make_expansion(form: str, channels: int, expanded: int, act: str, always: bool = False) -> nn.Module:
    """N x channels x H x W -> N x expanded x H x W, expanded as expanded_width() has it.

    act     RE, HS or "" for none
    always  whether it stands also where it does not widen
    """
    if expanded == channels and not always:
        return nn.Identity()
    return EXPANSIONS[form](channels, expanded, act)

"""MobileNetV2 (arXiv 1801.04381), as used for CIFAR, and what cheapV2 has in place of its parts."""

# NOTE: plain ReLU, not ReLU6; the 1x1 expansion stands also where t = 1; and at stride 1 a block whose channel
# count changes has a 1x1 convolution and batch norm on its shortcut. The paper has none of these; the original's
# figures rest on them. No dropout; PyTorch's default initialisation.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from models.expansions import expanded_width, make_expansion
from models.layers import ConvBatchNorm, GlobalAveragePool, scaled
from models.parts import Parts
from models.registry import register
from models.reuse import LinearOnCopies, Reuse
from models.reuse_block import ReuseInvertedResidual
from models.stem import make_stem

# expansion t, channels c, repeats n, stride s (the first block's; the others have 1)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),  # s = 2 above 64 pixels
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
HEAD_CHANNELS = 1280  # of the 1x1 convolution
HEAD_TIMES = 4  # of the Reuse in its place

MOBILENET_V2 = Parts(shortcut="conv", activates_copies=False)


class InvertedResidual(nn.Module):
    """Expansion, 3x3 depthwise, 1x1 projection; at stride 1 the input, or what shortcut makes of it, is added.

    parts: what the expansion and the shortcut are, and whether a ReLU stands before the depthwise convolution
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int, parts: Parts) -> None:
        super().__init__()
        form, act = parts.expansion, "RE" if parts.activates_expanded else ""
        expanded = expanded_width(form, in_channels, in_channels * expansion)
        self.expand = make_expansion(form, in_channels, expanded, act, always=form == "conv")
        self.depthwise = ConvBatchNorm(expanded, expanded, 3, stride, groups=expanded, act="RE")
        self.project = ConvBatchNorm(expanded, out_channels)
        self.shortcut = make_shortcut(parts.shortcut, in_channels, out_channels) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y if self.shortcut is None else y + self.shortcut(x)


class ResizedShortcut(nn.Module):
    """N x in x H x W -> N x out x H x W: the first `out` channels, or the input and then some of it again.

    Below 24 -> the input and its first channels (16 -> 24: its first 8); above, its last (64 -> 96: its last 32);
    at twice the width the two are the same. Other widths than 1 may round to more: then the input stands twice.
    """

    def __init__(self, in_channels: int, out_channels: int, repeat_last: bool) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.repeat_last = in_channels, out_channels, repeat_last

    def forward(self, x: Tensor) -> Tensor:
        whole, rest = divmod(self.out_channels, self.in_channels)
        if not whole:
            return x[:, :rest]
        some = [x[:, -rest:] if self.repeat_last else x[:, :rest]] if rest else []
        return torch.cat([x] * whole + some, dim=1)


def make_shortcut(form: str, in_channels: int, out_channels: int) -> nn.Module:
    """The shortcut of a block with stride 1: the input itself where the channels stay."""
    if in_channels == out_channels:
        return nn.Identity()
    if form == "conv":
        return ConvBatchNorm(in_channels, out_channels)
    return ResizedShortcut(in_channels, out_channels, in_channels > 16)


def make_block(
    in_channels: int, out_channels: int, stride: int, expansion: int, parts: Parts, literal: bool
) -> nn.Module:
    """A block of STAGES: with Reuse it is Reuse, 3x3 depthwise, ReLU, 1x1 projection, shortcut."""
    if parts.expansion != "reuse":
        return InvertedResidual(in_channels, out_channels, stride, expansion, parts)
    times = parts.reuse_times if expansion > 1 else 1
    return ReuseInvertedResidual(
        in_channels,
        out_channels,
        times,
        kernel_size=parts.kernel_sizes(times, 3),
        stride=stride,
        pre_act=nn.ReLU() if parts.activates_expanded else nn.Identity(),
        act=nn.ReLU(inplace=True),
        shortcut=make_shortcut(parts.shortcut, in_channels, out_channels) if stride == 1 else None,
        literal=literal,
    )


def make_head(channels: int, features: int, num_classes: int, parts: Parts, literal: bool) -> nn.Module:
    """1x1 convolution to `features` channels, pool, linear; or Reuse(4), pool, linear."""
    if parts.head == "conv":
        layers = OrderedDict(
            conv=ConvBatchNorm(channels, features, act="RE"),
            pool=GlobalAveragePool(),
            classifier=nn.Linear(features, num_classes),
        )
    elif literal:
        classifier = nn.Linear(channels * HEAD_TIMES, num_classes)
        layers = OrderedDict(reuse=Reuse(HEAD_TIMES), pool=GlobalAveragePool(), classifier=classifier)
    else:
        classifier = LinearOnCopies(channels, num_classes, HEAD_TIMES)
        layers = OrderedDict(pool=GlobalAveragePool(), classifier=classifier)
    return nn.Sequential(layers)


def build(
    in_channels: int, image_size: int, width: float, block, head, stem: str = "conv", literal: bool = False
) -> nn.Sequential:
    """Stem, the blocks of STAGES, and head(last channels). block(in, out, stride, expansion) makes a block."""
    large = image_size > 64
    channels = scaled(32, width)
    first = make_stem(stem, in_channels, channels, 2 if large else 1, "RE", literal)
    blocks = []
    for expansion, out, repeats, stride in STAGES:
        stage_stride = 2 if large and out == 24 else stride
        for repeat in range(repeats):
            blocks.append(block(channels, scaled(out, width), stage_stride if repeat == 0 else 1, expansion))
            channels = scaled(out, width)
    return nn.Sequential(OrderedDict(stem=first, blocks=nn.Sequential(*blocks), head=head(channels)))


@register(about="inverted residual blocks (arXiv 1801.04381), as the original repository has them")
def MobileNetV2(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = MOBILENET_V2,
) -> nn.Module:
    features = scaled(HEAD_CHANNELS, max(1.0, width))  # the paper never narrows the last layer
    block = partial(make_block, parts=parts, literal=literal)
    head = partial(make_head, features=features, num_classes=num_classes, parts=parts, literal=literal)
    return build(in_channels, image_size, width, block, head, parts.stem, literal)

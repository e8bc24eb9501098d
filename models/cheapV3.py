"""cheapV3: MobileNetV3 whose 1x1 expansions, squeeze-excite expansions and head convolutions are Reuse.

cheapV3, cheapV3_small, and the shuffle networks, which have another stem and squeeze-excite.
"""

# NOTE: the gates of cheapV3's squeeze-excite have no sigmoid; at the start half of them are zero and the rest near
# it, so that short schedules want AdamW or a long warm-up.
# NOTE: cheapV3_small has expansion 6 throughout; the original's small mode has widths that are no multiples.
# NOTE: a shuffle before Reuse renames channels and does nothing else (tests/models/test_reuse.py proves it), so the
# default form of cheapV3_shuffle6 shuffles no feature map.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import nn

from models.layers import (
    ACTIVATIONS,
    ConvBatchNorm,
    GlobalAveragePool,
    HardswishByFormula,
    activation,
    initialise_mobilenet_v3,
    replace_modules,
    scaled,
)
from models.MobileNetV3 import LARGE, SMALL, stem_stride
from models.registry import register
from models.reuse import ConvOnCopies, LinearOnCopies, Reuse, ReuseSqueezeExcite
from models.reuse_block import ReuseInvertedResidual

EXPANSION = 6  # of every row but the first, which has 1
HEAD_TIMES = (6, 2)  # Reuse before and after the head's pooling
STEM_TIMES = 16  # of the shuffle networks' three stem channels


@dataclass(frozen=True)
class Variant:
    """What tells the networks of this file apart.

    rows            (kernel, expanded width: not used here, out, squeeze-excite, activation, stride)
    first           channels of the stem
    reduction, gate of the squeeze-excite
    reuse_stem      3x3 convolution to 3 channels, Reuse(16), 1x1 convolution, in place of one 3x3 convolution
    groups          of the shuffle before Reuse in the blocks
    """

    rows: tuple
    first: int = 16
    reduction: int = 4
    gate: type[nn.Module] = nn.Identity
    reuse_stem: bool = False
    groups: int = 1


# revision 1 of these networks activated (and cheapV3_shuffle6 shuffled) before the first row's depthwise convolution
CHEAP_V3 = Variant(LARGE)
CHEAP_V3_SMALL = Variant(SMALL)
# groups = C in the original, which is the identity, as 1 is
SHUFFLE = Variant(LARGE, reduction=8, gate=nn.Hardsigmoid, reuse_stem=True)
SHUFFLE6_OUTS = (24, 24, 24, 48, 48, 48, 96, 96, 96, 96, 120, 120, 180, 180, 180)
SHUFFLE6_ROWS = tuple((*row[:2], out, *row[3:]) for row, out in zip(LARGE, SHUFFLE6_OUTS, strict=True))
SHUFFLE6 = Variant(SHUFFLE6_ROWS, first=24, reduction=8, gate=nn.Hardsigmoid, reuse_stem=True, groups=6)


def reuse_block(
    in_channels: int, times: int, row: tuple, stride: int, variant: Variant, literal: bool
) -> ReuseInvertedResidual:
    """A row of the variant as a block; where times is 1 it has no activation, and no shuffle, before its depthwise
    convolution, as MobileNetV3's first row."""
    kernel_size, _, out_channels, se, act, _ = row
    widens = times > 1
    return ReuseInvertedResidual(
        in_channels,
        out_channels,
        times,
        kernel_size,
        stride,
        pre_act=ACTIVATIONS[act]() if widens else nn.Identity(),  # not in place: the residual reads its input
        act=activation(act),
        se=partial(ReuseSqueezeExcite, reduction=variant.reduction, gate=variant.gate) if se else None,
        shortcut=nn.Identity() if stride == 1 and in_channels == out_channels else None,
        literal=literal,
        groups=variant.groups if widens else 1,
    )


def reuse_stem(in_channels: int, out_channels: int, stride: int, literal: bool) -> nn.Module:
    """3x3 convolution to 3 channels, batch norm, Reuse(16), 1x1 convolution, batch norm, hard-swish."""
    if literal:
        widen = OrderedDict(reuse=Reuse(STEM_TIMES), conv=nn.Conv2d(3 * STEM_TIMES, out_channels, 1, bias=False))
    else:
        widen = OrderedDict(conv=ConvOnCopies(3, 0, out_channels, STEM_TIMES))
    widen |= OrderedDict(bn=nn.BatchNorm2d(out_channels), activation=nn.Hardswish())
    return nn.Sequential(OrderedDict(first=ConvBatchNorm(in_channels, 3, 3, stride), widen=nn.Sequential(widen)))


def head(channels: int, num_classes: int, literal: bool) -> nn.Module:
    """Reuse(6), hard-swish, pool, Reuse(2), hard-swish, dropout 0.2, linear."""
    first, second = HEAD_TIMES
    if literal:
        layers = OrderedDict(
            reuse=Reuse(first),
            activation=nn.Hardswish(),
            pool=GlobalAveragePool(),
            reuse_again=Reuse(second),
            activation_again=nn.Hardswish(),
            dropout=nn.Dropout(0.2),
            classifier=nn.Linear(channels * first * second, num_classes),
        )
    else:
        layers = OrderedDict(
            activation=nn.Hardswish(),
            pool=GlobalAveragePool(),
            activation_again=nn.Hardswish(),
            classifier=LinearOnCopies(channels, num_classes, first * second, dropout=0.2),
        )
    return nn.Sequential(layers)


def build(
    variant: Variant, num_classes: int, in_channels: int, image_size: int, width: float, literal: bool
) -> nn.Module:
    multiple = 24 if variant.groups > 1 else 8  # of the 6 groups too
    s = stem_stride(image_size)
    channels = scaled(variant.first, width, multiple)
    if variant.reuse_stem:
        stem = reuse_stem(in_channels, channels, s, literal)
    else:
        stem = ConvBatchNorm(in_channels, channels, 3, s, act="HS")
    blocks = []
    for number, (kernel, expanded, out, se, act, stride) in enumerate(variant.rows):
        row = (kernel, expanded, scaled(out, width, multiple), se, act, stride)
        times = 1 if number == 0 else EXPANSION
        blocks.append(reuse_block(channels, times, row, s if stride == "s" else stride, variant, literal))
        channels = row[2]
    parts = OrderedDict(stem=stem, blocks=nn.Sequential(*blocks), head=head(channels, num_classes, literal))
    network = initialise_mobilenet_v3(nn.Sequential(parts))
    return replace_modules(network, nn.Hardswish, HardswishByFormula) if literal else network


@register(revision=2)
def cheapV3(
    num_classes: int, in_channels: int, image_size: int, width: float = 1.0, literal: bool = False
) -> nn.Module:
    return build(CHEAP_V3, num_classes, in_channels, image_size, width, literal)


@register(revision=2)
def cheapV3_small(
    num_classes: int, in_channels: int, image_size: int, width: float = 1.0, literal: bool = False
) -> nn.Module:
    return build(CHEAP_V3_SMALL, num_classes, in_channels, image_size, width, literal)


@register(revision=2)
def cheapV3_shuffle(
    num_classes: int, in_channels: int, image_size: int, width: float = 1.0, literal: bool = False
) -> nn.Module:
    return build(SHUFFLE, num_classes, in_channels, image_size, width, literal)


@register(revision=2)
def cheapV3_shuffle6(
    num_classes: int, in_channels: int, image_size: int, width: float = 1.0, literal: bool = False
) -> nn.Module:
    return build(SHUFFLE6, num_classes, in_channels, image_size, width, literal)

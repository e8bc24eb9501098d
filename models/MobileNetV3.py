"""MobileNetV3, large and small (arXiv 1905.02244), with strides for images up to 64 pixels, and what cheapV3 has in
place of its parts.

Squeeze-excite stands between the depthwise batch norm and the activation, reduces by 4, and has no biases.
"""

# NOTE: MobileNetV3_small is without the squeeze-excite that the paper's table puts between the head's convolutions.
# NOTE: with Reuse every row but the first, which has 1, has the same expansion in place of its own expanded width.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from models.expansions import expanded_width, make_expansion
from models.layers import (
    ACTIVATIONS,
    ConvBatchNorm,
    GlobalAveragePool,
    HardswishByFormula,
    SqueezeExcite,
    activation,
    initialise_mobilenet_v3,
    replace_modules,
    scaled,
)
from models.parts import Parts
from models.registry import register
from models.reuse import LinearOnCopies, Reuse, ReuseSqueezeExcite
from models.reuse_block import ReuseInvertedResidual
from models.stem import make_stem

# kernel, expanded width, out, squeeze-excite, activation, stride; "s" is 1 up to 64 pixels and 2 above
LARGE = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", "s"),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
SMALL = (
    (3, 16, 16, True, "RE", "s"),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)

LAST, LAST_SMALL = (960, 1280), (576, 1024)  # channels of the head's 1x1 convolutions
HEAD_TIMES = (6, 2)  # Reuse before and after the head's pooling
GATES = {"hardsigmoid": nn.Hardsigmoid, "none": nn.Identity}

MOBILENET_V3 = Parts(se="conv", gate="hardsigmoid")


@dataclass(frozen=True)
class Shape:
    """The widths of a network of this family.

    rows       as the tables above
    last       channels of the 1x1 convolutions in a head that has them
    first      channels of the stem
    reduction  of the squeeze-excite
    groups     of the channel shuffle before Reuse in the blocks
    """

    rows: tuple
    last: tuple[int, int]
    first: int = 16
    reduction: int = 4
    groups: int = 1


class InvertedResidual(nn.Module):
    """Expansion (left out where it would not widen), depthwise, squeeze-excite, activation, 1x1 projection.

    se     se(expanded) makes the squeeze-excite; None for none
    parts  what the expansion is, and whether the activation stands after it too
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int,
        expanded: int,
        out_channels: int,
        se: Callable[..., nn.Module] | None,
        act: str,
        stride: int,
        parts: Parts,
    ) -> None:
        super().__init__()
        expanded = expanded_width(parts.expansion, in_channels, expanded)
        before = act if parts.activates_expanded else ""
        self.expand = make_expansion(parts.expansion, in_channels, expanded, before)
        self.depthwise = ConvBatchNorm(expanded, expanded, kernel_size, stride, groups=expanded)
        self.se = nn.Identity() if se is None else se(expanded)
        self.activation = activation(act)
        self.project = ConvBatchNorm(expanded, out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.activation(self.se(self.depthwise(self.expand(x)))))
        return y + x if self.residual else y


def stem_stride(image_size: int) -> int:
    """1 up to 64 pixels, 2 above: of the stem, and of the block marked s."""
    return 2 if image_size > 64 else 1


def make_se(parts: Parts, reduction: int) -> Callable[..., nn.Module]:
    """The squeeze-excite of a block as a function of its channels; order: see models.reuse.ReuseSqueezeExcite."""
    gate = GATES[parts.gate]
    if parts.se == "reuse":
        return partial(ReuseSqueezeExcite, reduction=reduction, gate=gate)
    return lambda channels, order=None: SqueezeExcite(channels, reduction, gate)


def make_block(
    in_channels: int, row: tuple, stride: int, times: int, shape: Shape, parts: Parts, literal: bool
) -> nn.Module:
    """A row of the table; with Reuse, `times` copies stand in place of its expanded width.

    Where times is 1, Reuse has no activation and no shuffle before the depthwise convolution.
    """
    kernel_size, expanded, out_channels, has_se, act, _ = row
    se = make_se(parts, shape.reduction) if has_se else None
    if parts.expansion != "reuse":
        return InvertedResidual(in_channels, kernel_size, expanded, out_channels, se, act, stride, parts)
    activates = times > 1 and parts.activates_expanded
    return ReuseInvertedResidual(
        in_channels,
        out_channels,
        times,
        parts.kernel_sizes(times, kernel_size),
        stride,
        pre_act=ACTIVATIONS[act]() if activates else nn.Identity(),  # not in place: the residual reads its input
        act=activation(act),
        se=se,
        shortcut=nn.Identity() if stride == 1 and in_channels == out_channels else None,
        literal=literal,
        groups=shape.groups if times > 1 else 1,
    )


def conv_head(channels: int, features: int, hidden: int, num_classes: int) -> nn.Module:
    """1x1 convolution, hard-swish, pool, linear, hard-swish, dropout 0.2, linear."""
    layers = OrderedDict(
        conv=ConvBatchNorm(channels, features, act="HS"),
        pool=GlobalAveragePool(),
        hidden=nn.Linear(features, hidden, bias=False),  # the paper's 1x1 convolution on a 1x1 map
        activation=nn.Hardswish(),
        dropout=nn.Dropout(0.2),
        classifier=nn.Linear(hidden, num_classes),
    )
    return nn.Sequential(layers)


def reuse_head(channels: int, num_classes: int, literal: bool) -> nn.Module:
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
    shape: Shape, parts: Parts, num_classes: int, in_channels: int, image_size: int, width: float, literal: bool
) -> nn.Module:
    """Stem, the blocks of the shape's rows, and a head."""
    multiple = 24 if shape.groups > 1 else 8  # of the 6 groups too
    s = stem_stride(image_size)
    channels = scaled(shape.first, width, multiple)
    stem = make_stem(parts.stem, in_channels, channels, s, "HS", literal)
    blocks = []
    for number, (kernel, expanded, out, has_se, act, stride) in enumerate(shape.rows):
        row = (kernel, scaled(expanded, width), scaled(out, width, multiple), has_se, act, stride)
        times = 1 if number == 0 else parts.reuse_times
        blocks.append(make_block(channels, row, s if stride == "s" else stride, times, shape, parts, literal))
        channels = row[2]
    if parts.head == "conv":
        head = conv_head(channels, *(scaled(count, width) for count in shape.last), num_classes)
    else:
        head = reuse_head(channels, num_classes, literal)
    network = nn.Sequential(OrderedDict(stem=stem, blocks=nn.Sequential(*blocks), head=head))
    initialise_mobilenet_v3(network)
    if parts.head == "conv":  # as the convolution that it is in the paper
        nn.init.kaiming_normal_(head.hidden.weight, mode="fan_out")
    return replace_modules(network, nn.Hardswish, HardswishByFormula) if literal else network


@register(about="MobileNetV3-Large (arXiv 1905.02244): squeeze-excite and hard-swish")
def MobileNetV3(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = MOBILENET_V3,
) -> nn.Module:
    return build(Shape(LARGE, LAST), parts, num_classes, in_channels, image_size, width, literal)


@register(about="MobileNetV3-Small")
def MobileNetV3_small(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = MOBILENET_V3,
) -> nn.Module:
    return build(Shape(SMALL, LAST_SMALL), parts, num_classes, in_channels, image_size, width, literal)

"""MobileNetV3, large and small (arXiv 1905.02244), with strides for images up to 64 pixels.

Squeeze-excite stands between the depthwise batch norm and the activation, reduces by 4, and has no biases.
"""

# NOTE: MobileNetV3_small is without the squeeze-excite that the paper's table puts between the head's convolutions.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict

from torch import Tensor, nn

from models.layers import (
    ConvBatchNorm,
    GlobalAveragePool,
    SqueezeExcite,
    activation,
    initialise_mobilenet_v3,
    scaled,
)
from models.registry import register

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


def stem_stride(image_size: int) -> int:
    """1 up to 64 pixels, 2 above: of the stem, and of the block marked s."""
    return 2 if image_size > 64 else 1


class InvertedResidual(nn.Module):
    """1x1 expansion (left out where it would not widen), depthwise, squeeze-excite, activation, 1x1 projection."""

    def __init__(
        self, in_channels: int, kernel_size: int, expanded: int, out_channels: int, se: bool, act: str, stride: int
    ) -> None:
        super().__init__()
        self.expand = nn.Identity() if expanded == in_channels else ConvBatchNorm(in_channels, expanded, act=act)
        self.depthwise = ConvBatchNorm(expanded, expanded, kernel_size, stride, groups=expanded)
        self.se = SqueezeExcite(expanded) if se else nn.Identity()
        self.activation = activation(act)
        self.project = ConvBatchNorm(expanded, out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.activation(self.se(self.depthwise(self.expand(x)))))
        return y + x if self.residual else y


def build(rows, last: tuple[int, int], num_classes: int, in_channels: int, image_size: int, width: float) -> nn.Module:
    """Stem, the blocks of rows, and a head whose 1x1 convolutions have `last` channels."""
    s = stem_stride(image_size)
    channels = scaled(16, width)
    stem = ConvBatchNorm(in_channels, channels, 3, s, act="HS")
    blocks = []
    for kernel, expanded, out, se, act, stride in rows:
        row_stride = s if stride == "s" else stride
        blocks.append(
            InvertedResidual(channels, kernel, scaled(expanded, width), scaled(out, width), se, act, row_stride)
        )
        channels = scaled(out, width)
    features, hidden = (scaled(count, width) for count in last)
    head = OrderedDict(
        conv=ConvBatchNorm(channels, features, act="HS"),
        pool=GlobalAveragePool(),
        hidden=nn.Linear(features, hidden, bias=False),  # the paper's 1x1 convolution on a 1x1 map
        activation=nn.Hardswish(),
        dropout=nn.Dropout(0.2),
        classifier=nn.Linear(hidden, num_classes),
    )
    network = nn.Sequential(OrderedDict(stem=stem, blocks=nn.Sequential(*blocks), head=nn.Sequential(head)))
    initialise_mobilenet_v3(network)
    nn.init.kaiming_normal_(head["hidden"].weight, mode="fan_out")  # as the convolution that it is in the paper
    return network


@register
def MobileNetV3(num_classes: int, in_channels: int, image_size: int, width: float = 1.0) -> nn.Module:
    return build(LARGE, (960, 1280), num_classes, in_channels, image_size, width)


@register
def MobileNetV3_small(num_classes: int, in_channels: int, image_size: int, width: float = 1.0) -> nn.Module:
    return build(SMALL, (576, 1024), num_classes, in_channels, image_size, width)

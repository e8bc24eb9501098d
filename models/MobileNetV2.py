"""MobileNetV2 (arXiv 1801.04381), as used for CIFAR."""

# NOTE: plain ReLU, not ReLU6; the 1x1 expansion stands also where t = 1; and at stride 1 a block whose channel
# count changes has a 1x1 convolution and batch norm on its shortcut. The paper has none of these; the original's
# figures rest on them. No dropout; PyTorch's default initialisation.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict

from torch import Tensor, nn

from models.layers import ConvBatchNorm, GlobalAveragePool, scaled
from models.registry import register

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


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection; at stride 1 the input, or its 1x1 convolution, is added."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        expanded = in_channels * expansion
        self.expand = ConvBatchNorm(in_channels, expanded, act="RE")
        self.depthwise = ConvBatchNorm(expanded, expanded, 3, stride, groups=expanded, act="RE")
        self.project = ConvBatchNorm(expanded, out_channels)
        self.shortcut = None
        if stride == 1:
            same = in_channels == out_channels
            self.shortcut = nn.Identity() if same else ConvBatchNorm(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return y if self.shortcut is None else y + self.shortcut(x)


def build(in_channels: int, image_size: int, width: float, block, head) -> nn.Sequential:
    """Stem, the blocks of STAGES, and head(last channels). block(in, out, stride, expansion) makes a block."""
    large = image_size > 64
    channels = scaled(32, width)
    stem = ConvBatchNorm(in_channels, channels, 3, stride=2 if large else 1, act="RE")
    blocks = []
    for expansion, out, repeats, stride in STAGES:
        stage_stride = 2 if large and out == 24 else stride
        for repeat in range(repeats):
            blocks.append(block(channels, scaled(out, width), stage_stride if repeat == 0 else 1, expansion))
            channels = scaled(out, width)
    return nn.Sequential(OrderedDict(stem=stem, blocks=nn.Sequential(*blocks), head=head(channels)))


@register
def MobileNetV2(num_classes: int, in_channels: int, image_size: int, width: float = 1.0) -> nn.Module:
    features = scaled(1280, max(1.0, width))  # the paper never narrows the last layer

    def head(channels: int) -> nn.Module:
        layers = OrderedDict(
            conv=ConvBatchNorm(channels, features, act="RE"),
            pool=GlobalAveragePool(),
            classifier=nn.Linear(features, num_classes),
        )
        return nn.Sequential(layers)

    return build(in_channels, image_size, width, InvertedResidual, head)

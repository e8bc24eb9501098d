"""cheapSqueezeNet: SqueezeNet whose expanding 1x1 convolutions (with batch norm and ReLU) are Reuse(4).

Half of what a Fire gives is then four copies of its squeezed map. Max pooling and the addition of two such maps
keep the copies equal, and the next 1x1 convolution is worth one whose four slices are added: in the default form the
copies never exist between one Fire and the next, and a map is [squeezed, 3x3 branch] instead of
[four times squeezed, 3x3 branch].
"""

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.layers import GlobalAveragePool
from models.registry import register
from models.reuse import ConvOnCopies, Reuse
from models.SqueezeNet import FIRES, STEM, conv_bn_relu, stem

TIMES = 4


def reading(copied: int, rest: int, out_channels: int, literal: bool) -> nn.Conv2d:
    """The 1x1 convolution, with bias, that reads a map of `copied` repeated and `rest` other channels."""
    if literal or not copied:
        return nn.Conv2d(copied * TIMES + rest, out_channels, 1)
    return ConvOnCopies(copied, rest, out_channels, TIMES, bias=True)


class ReuseFire(nn.Module):
    """1x1 convolution to few channels; beside its 3x3 convolution stands the squeezed map itself, four times.

    copied, rest: the channels of the input, as reading() takes them.
    """

    def __init__(self, copied: int, rest: int, out_channels: int, squeeze: int, residual: bool, literal: bool) -> None:
        super().__init__()
        self.squeeze = conv_bn_relu(copied * TIMES + rest, squeeze, 1)
        self.squeeze.conv = reading(copied, rest, squeeze, literal)
        self.reuse = Reuse(TIMES) if literal else nn.Identity()
        self.expand3x3 = conv_bn_relu(squeeze, out_channels // 2, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        y = torch.cat([self.reuse(squeezed), self.expand3x3(squeezed)], dim=1)
        return y + x if self.residual else y


@register(about="SqueezeNet with Reuse for the 1x1 convolutions of its fire modules", baseline="SqueezeNet")
def cheapSqueezeNet(num_classes: int, in_channels: int, image_size: int, literal: bool = False) -> nn.Module:
    fires, copied, rest = [], 0, STEM
    for out, squeeze, residual, pool in FIRES:
        assert squeeze * TIMES == out // 2, "Reuse gives the half of the 1x1 convolution it stands for"
        fires.append(ReuseFire(copied, rest, out, squeeze, residual, literal))
        copied, rest = squeeze, out // 2
        if pool:
            fires.append(nn.MaxPool2d(2))
    head = OrderedDict(classifier=reading(copied, rest, num_classes, literal), pool=GlobalAveragePool())
    return nn.Sequential(
        OrderedDict(stem=stem(in_channels, image_size), fires=nn.Sequential(*fires), head=nn.Sequential(head))
    )

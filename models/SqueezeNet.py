"""SqueezeNet (arXiv 1602.07360) with simple bypass, as used for CIFAR."""

# NOTE: every convolution but the last is followed by batch norm; three 2x2 poolings in place of the paper's 3x3
# ones, since the images are small; no dropout; PyTorch's default initialisation.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.layers import GlobalAveragePool
from models.registry import register

# out channels, squeeze channels, whether the input is added, whether a 2x2 max pooling follows
FIRES = (
    (128, 16, False, False),
    (128, 16, True, False),
    (256, 32, False, True),
    (256, 32, True, False),
    (384, 48, False, False),
    (384, 48, True, False),
    (512, 64, False, True),
    (512, 64, False, False),
)
STEM = 96


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution with bias, same padding, batch norm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return nn.Sequential(
        OrderedDict(conv=convolution, bn=nn.BatchNorm2d(out_channels), activation=nn.ReLU(inplace=True))
    )


class Fire(nn.Module):
    """1x1 convolution to few channels, then 1x1 and 3x3 convolutions to out/2 channels each, side by side."""

    def __init__(self, in_channels: int, out_channels: int, squeeze_channels: int, residual: bool) -> None:
        super().__init__()
        self.squeeze = conv_bn_relu(in_channels, squeeze_channels, 1)
        self.expand1x1 = conv_bn_relu(squeeze_channels, out_channels // 2, 1)
        self.expand3x3 = conv_bn_relu(squeeze_channels, out_channels // 2, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        y = torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1)
        return y + x if self.residual else y


def stem(in_channels: int, image_size: int) -> nn.Sequential:
    """3x3 convolution to 96 channels (stride 2 above 64 pixels), batch norm, ReLU, 2x2 max pooling."""
    layers = conv_bn_relu(in_channels, STEM, 3)
    layers.conv.stride = (2, 2) if image_size > 64 else (1, 1)
    layers.append(nn.MaxPool2d(2))
    return layers


@register(about="fire modules (arXiv 1602.07360)")
def SqueezeNet(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    fires, channels = [], STEM
    for out, squeeze, residual, pool in FIRES:
        fires.append(Fire(channels, out, squeeze, residual))
        channels = out
        if pool:
            fires.append(nn.MaxPool2d(2))
    head = OrderedDict(classifier=nn.Conv2d(channels, num_classes, 1), pool=GlobalAveragePool())
    return nn.Sequential(
        OrderedDict(stem=stem(in_channels, image_size), fires=nn.Sequential(*fires), head=nn.Sequential(head))
    )

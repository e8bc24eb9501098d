"""cheapV2: MobileNetV2 whose 1x1 expansions are Reuse(6), and whose shortcuts and head have no convolution.

Between Reuse and the depthwise convolution stands no activation. Where channels change at stride 1, the input
itself is cut or repeated to the width and added. The head repeats its channels four times in place of a 1x1
convolution. PyTorch's default initialisation.
"""

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from models.layers import GlobalAveragePool
from models.MobileNetV2 import build
from models.registry import register
from models.reuse import LinearOnCopies, Reuse
from models.reuse_block import ReuseInvertedResidual

HEAD_TIMES = 4


class ResizedShortcut(nn.Module):
    """N x in x H x W -> N x out x H x W: the first `out` channels, or the input and then some of it again.

    Below 24 -> the input and its first channels (16 -> 24: its first 8); above, its last (64 -> 96: its last 32);
    at twice the width the two are the same.
    """

    def __init__(self, in_channels: int, out_channels: int, repeat_last: bool) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.repeat_last = in_channels, out_channels, repeat_last

    def forward(self, x: Tensor) -> Tensor:
        missing = self.out_channels - self.in_channels
        if missing <= 0:
            return x[:, : self.out_channels]
        return torch.cat([x, x[:, -missing:] if self.repeat_last else x[:, :missing]], dim=1)


def reuse_block(
    in_channels: int, out_channels: int, stride: int, expansion: int, literal: bool
) -> ReuseInvertedResidual:
    """Reuse, 3x3 depthwise, ReLU, 1x1 projection; at stride 1 the input, cut or repeated to the width, is added."""
    shortcut = None
    if stride == 1:
        same = in_channels == out_channels
        shortcut = nn.Identity() if same else ResizedShortcut(in_channels, out_channels, in_channels > 16)
    activations = nn.Identity(), nn.ReLU(inplace=True)
    return ReuseInvertedResidual(
        in_channels, out_channels, expansion, 3, stride, *activations, shortcut=shortcut, literal=literal
    )


@register
def cheapV2(
    num_classes: int, in_channels: int, image_size: int, width: float = 1.0, literal: bool = False
) -> nn.Module:
    def literal_head(channels: int) -> nn.Module:
        classifier = nn.Linear(channels * HEAD_TIMES, num_classes)
        layers = OrderedDict(reuse=Reuse(HEAD_TIMES), pool=GlobalAveragePool(), classifier=classifier)
        return nn.Sequential(layers)

    def head(channels: int) -> nn.Module:
        classifier = LinearOnCopies(channels, num_classes, HEAD_TIMES)
        return nn.Sequential(OrderedDict(pool=GlobalAveragePool(), classifier=classifier))

    block = partial(reuse_block, literal=literal)
    return build(in_channels, image_size, width, block, literal_head if literal else head)

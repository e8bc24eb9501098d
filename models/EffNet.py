"""EffNet (arXiv 1801.06434): convolutions separated along height and width, with the pooling between them.

The activation comes before the batch norm, as in a widely read Keras port; LeakyReLU 0.3, no biases in convolutions.
# NOTE: the pooling follows the axis of the 1x3 kernel and the stride the axis of the 2x1 kernel. Public ports pool
# and stride along the other axes and so skip every other column; they have the same counts and sizes.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from models.summary import main

    sys.exit(main(Path(__file__).stem))

from collections import OrderedDict

from torch import nn

from models.registry import register

# channels within a block, channels it gives
BLOCKS = ((32, 64), (64, 128), (128, 256))
BASELINE = (64, 128, 256)


def convolution(in_channels: int, out_channels: int, kernel_size, depthwise: bool = False, **options) -> nn.Sequential:
    """Convolution without bias, LeakyReLU 0.3, batch norm."""
    layers = OrderedDict(
        conv=nn.Conv2d(
            in_channels, out_channels, kernel_size, bias=False, groups=in_channels if depthwise else 1, **options
        ),
        activation=nn.LeakyReLU(0.3),
        bn=nn.BatchNorm2d(out_channels),
    )
    return nn.Sequential(layers)


def effnet_block(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    """1x1, 1x3 depthwise, pooling along the width, 3x1 depthwise, 2x1 with stride 2 along the height."""
    layers = OrderedDict(
        pointwise=convolution(in_channels, channels, 1),
        horizontal=convolution(channels, channels, (1, 3), depthwise=True, padding=(0, 1)),
        pool=nn.MaxPool2d((1, 2)),
        vertical=convolution(channels, channels, (3, 1), depthwise=True, padding=(1, 0)),
        reduce=convolution(channels, out_channels, (2, 1), stride=(2, 1)),
    )
    return nn.Sequential(layers)


def network(blocks: list[nn.Module], channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Three blocks that halve the map, and a linear classifier on all that is left of it."""
    classifier = nn.Linear(channels * (image_size // 8) ** 2, num_classes)
    head = nn.Sequential(OrderedDict(flatten=nn.Flatten(), classifier=classifier))
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), head=head))


@register
def EffNet(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks = []
    for channels, out in BLOCKS:
        blocks.append(effnet_block(in_channels, channels, out))
        in_channels = out
    return network(blocks, in_channels, image_size, num_classes)


@register
def EffNet_baseline(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks = []
    for out in BASELINE:
        block = convolution(in_channels, out, 3, padding=1)
        block.append(nn.MaxPool2d(2))
        blocks.append(block)
        in_channels = out
    return network(blocks, in_channels, image_size, num_classes)

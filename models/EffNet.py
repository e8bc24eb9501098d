"""EffNet (arXiv 1801.06434): convolutions separated along height and width, with the pooling between them.

The paper's network and its baseline, and those of a Keras port for handwritten digits (1 x 28 x 28) and for the
steering angle of a car (3 x 128 x 128, one output). The activation comes before the batch norm, as in a widely read
Keras port; no biases in an EffNet block's convolutions. What such a block saves: models/separable.py.
"""

# NOTE: the pooling follows the axis of the 1x3 kernel and the stride the axis of the 2x1 kernel. Public ports pool
# and stride along the other axes and so skip every other column; they have the same counts and sizes.
# NOTE: where a small image leaves a side of one pixel before a pooling, that side is not pooled any more.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from models.registry import register

# channels within a block, channels it gives
BLOCKS = ((32, 64), (64, 128), (128, 256))
BASELINE = (64, 128, 256)
DIGITS_BLOCKS = ((16, 32), (32, 64), (32, 64), (64, 128))
DIGITS_BASELINE = ((32, 0.2), (64, 0.25), (64, 0.25), (128, 0.25))  # channels, dropout
DIGITS_HIDDEN = (128,)
STEERING_BLOCKS = ((32, 64), (32, 64), (32, 64), (64, 128), (64, 128))
STEERING_BASELINE = (64, 64, 64, 128, 128)
STEERING_HIDDEN = (256, 128, 64)
# What a network is meant for, where that is not 100 classes of 32x32 colour images.
DIGITS = dict(num_classes=10, in_channels=1, image_size=28)
STEERING = dict(num_classes=1, in_channels=3, image_size=128)

# In place: what it replaces is a convolution's result, which nothing else reads; a third of a step's time less.
leaky_relu = partial(nn.LeakyReLU, 0.3, inplace=True)
relu = partial(nn.ReLU, inplace=True)
# Keras's defaults: it counts decay, 0.99, where torch counts momentum, 1 - 0.99
keras_batch_norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel_size,
    depthwise: bool = False,
    activation: Callable[[], nn.Module] = leaky_relu,
    batch_norm: bool = True,
    **options,
) -> nn.Sequential:
    """Convolution without bias, activation, and batch norm unless it is left out."""
    layers = OrderedDict(
        conv=nn.Conv2d(
            in_channels, out_channels, kernel_size, bias=False, groups=in_channels if depthwise else 1, **options
        ),
        activation=activation(),
    )
    if batch_norm:
        layers["bn"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(layers)


def effnet_block(
    in_channels: int, channels: int, out_channels: int, pool: bool = True, pad: bool = False, **options
) -> nn.Sequential:
    """1x1, 1x3 depthwise, pooling along the width, 3x1 depthwise, 2x1 with stride 2 along the height.

    pool     False: without the pooling, for a width of one
    pad      one row more at the bottom before the 2x1 convolution, for an odd height
    options  activation and batch_norm, as convolution() takes them
    """
    layers = OrderedDict(
        pointwise=convolution(in_channels, channels, 1, **options),
        horizontal=convolution(channels, channels, (1, 3), depthwise=True, padding=(0, 1), **options),
        pool=nn.MaxPool2d((1, 2)),
        vertical=convolution(channels, channels, (3, 1), depthwise=True, padding=(1, 0), **options),
        pad=nn.ZeroPad2d((0, 0, 0, 1)),
        reduce=convolution(channels, out_channels, (2, 1), stride=(2, 1), **options),
    )
    wanted = {"pool": pool, "pad": pad}
    return nn.Sequential(OrderedDict((name, layer) for name, layer in layers.items() if wanted.get(name, True)))


def network(blocks: list[nn.Module], channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Three blocks that halve the map, and a linear classifier on all that is left of it."""
    classifier = nn.Linear(channels * (image_size // 8) ** 2, num_classes)
    head = nn.Sequential(OrderedDict(flatten=nn.Flatten(), classifier=classifier))
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), head=head))


@register(about="separable blocks (arXiv 1801.06434)", baseline="EffNet_baseline")
def EffNet(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks = []
    for channels, out in BLOCKS:
        blocks.append(effnet_block(in_channels, channels, out))
        in_channels = out
    return network(blocks, in_channels, image_size, num_classes)


@register(about="the plain convolutions that EffNet's paper compares with")
def EffNet_baseline(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks = []
    for out in BASELINE:
        block = convolution(in_channels, out, 3, padding=1)
        block.append(nn.MaxPool2d(2))
        blocks.append(block)
        in_channels = out
    return network(blocks, in_channels, image_size, num_classes)


def narrow_blocks(
    table: Sequence[tuple[int, int]], in_channels: int, image_size: int, activation: Callable[[], nn.Module]
) -> tuple[nn.Sequential, int]:
    """EffNet blocks without batch norm, each with dropout 0.25 at its end; and the number of features they give.

    An odd height is padded by one row at the bottom before the 2x1 convolution; an odd width loses a column.
    """
    blocks, height, width = [], image_size, image_size
    for channels, out in table:
        options = dict(pool=width > 1, pad=height % 2 == 1, activation=activation, batch_norm=False)
        block = effnet_block(in_channels, channels, out, **options)
        block.add_module("dropout", nn.Dropout(0.25))
        blocks.append(block)
        in_channels, height, width = out, (height + 1) // 2, max(1, width // 2)
    return nn.Sequential(*blocks), in_channels * height * width


def plain_blocks(
    table: Sequence[tuple[int, int, int, float]], in_channels: int, image_size: int
) -> tuple[nn.Sequential, int]:
    """Convolution with bias, ReLU, 2x2 pooling, dropout for each row; and the number of features they give.

    A row of the table: channels, kernel size, padding, dropout.
    """
    blocks, side = [], image_size
    for out, kernel_size, padding, dropout in table:
        side += 2 * padding - kernel_size + 1
        layers = [nn.Conv2d(in_channels, out, kernel_size, padding=padding), relu()]
        if side > 1:
            layers.append(nn.MaxPool2d(2))
        blocks.append(nn.Sequential(*layers, nn.Dropout(dropout)))
        in_channels, side = out, max(1, side // 2)
    return nn.Sequential(*blocks), in_channels * side**2


def with_head(
    blocks: nn.Sequential,
    features: int,
    hidden: Sequence[int],
    num_classes: int,
    dropout: float,
    activation: Callable[[], nn.Module] = relu,
    batch_norm: bool = True,
) -> nn.Sequential:
    """The blocks, then for each hidden width linear, activation, batch norm unless left out, dropout; a classifier."""
    head = OrderedDict(flatten=nn.Flatten())
    for number, width in enumerate(hidden):
        layers = [nn.Linear(features, width), activation()]
        if batch_norm:
            layers.append(keras_batch_norm(width))
        head[f"hidden{number}"] = nn.Sequential(*layers, nn.Dropout(dropout))
        features = width
    head["classifier"] = nn.Linear(features, num_classes)
    return nn.Sequential(OrderedDict(blocks=blocks, head=nn.Sequential(head)))


def initialise_he(network: nn.Sequential) -> nn.Sequential:
    """Starts convolutions and hidden linear layers He-normal (arXiv 1502.01852), biases at zero; not the last layer."""
    # NOTE: torch's counts the inputs that a depthwise kernel reads, 3; Keras's counts those of all channels.
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module is not network.head.classifier:
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


@register(
    usual=DIGITS,
    task="classification",
    about="the Keras port's EffNet for 28x28 digits",
    baseline="digits_baseline",
)
def EffNet_digits(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks, features = narrow_blocks(DIGITS_BLOCKS, in_channels, image_size, relu)
    return with_head(blocks, features, DIGITS_HIDDEN, num_classes, dropout=0.25)


@register(usual=DIGITS, task="classification", about="the port's plain network for 28x28 digits")
def digits_baseline(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    table = [(out, 3, 1 if number else 0, dropout) for number, (out, dropout) in enumerate(DIGITS_BASELINE)]
    blocks, features = plain_blocks(table, in_channels, image_size)
    return with_head(blocks, features, DIGITS_HIDDEN, num_classes, dropout=0.25)


@register(
    usual=STEERING,
    task="regression",
    about="the port's EffNet for steering angles (-dataset driving)",
    baseline="steering_baseline",
)
def EffNet_steering(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    blocks, features = narrow_blocks(STEERING_BLOCKS, in_channels, image_size, leaky_relu)
    return initialise_he(with_head(blocks, features, STEERING_HIDDEN, num_classes, 0.5, leaky_relu))


@register(usual=STEERING, task="regression", about="the port's plain network for steering angles")
def steering_baseline(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    kernels = (5, 3, 3, 3, 3)
    table = [(out, kernel, kernel // 2, 0.2) for out, kernel in zip(STEERING_BASELINE, kernels, strict=True)]
    blocks, features = plain_blocks(table, in_channels, image_size)
    return with_head(blocks, features, STEERING_HIDDEN, num_classes, dropout=0.5, batch_norm=False)

"""What separating a 3x3 convolution saves: four blocks that halve a map, and the closed formulas of their costs.

All four take C channels of an H x H map to O channels of half its side, without biases:
- plain: a 3x3 convolution, then 2x2 max pooling;
- spatially separable: in its place a 3x1 convolution from C channels to C, then a 1x3 from C to O;
- depthwise separable (MobileNet's, arXiv 1704.04861): a 3x3 convolution of each channel by itself, then a 1x1;
- EffNet's (arXiv 1801.06434): both at once, and the pooling split along with the kernel (models/EffNet.py).

`python models/EffNet.py -channels 64 -out 128 -size 32` prints them. A MAC is a multiply-accumulate of a convolution;
activations and batch norms are left out, of the blocks too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models import script
from models.EffNet import effnet_block
from models.script import SIZE
from models.summary import mac_count, parameter_count

FLAGS = (  # word, type, default, help
    ("channels", int, 64, "channels that go into each of the four blocks compared at the end"),
    ("out", int, 128, "channels that they give, an even number"),
)


def plain_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.MaxPool2d(2))


def spatial_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, (3, 1), padding=(1, 0), bias=False),
        nn.Conv2d(in_channels, out_channels, (1, 3), padding=(0, 1), bias=False),
        nn.MaxPool2d(2),
    )


def depthwise_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.MaxPool2d(2),
    )


def effnet_halved(in_channels: int, out_channels: int) -> nn.Sequential:
    """EffNet's block with half of its output's channels within, as the paper's networks have it."""
    return effnet_block(in_channels, out_channels // 2, out_channels, activation=nn.Identity, batch_norm=False)


def plain_formula(c: int, o: int, h: int) -> tuple[int, int]:
    """(parameters, MACs) = 9 C O, 9 C O H^2."""
    return 9 * c * o, 9 * c * o * h**2


def spatial_formula(c: int, o: int, h: int) -> tuple[int, int]:
    """3 C^2 + 3 C O, (3 C^2 + 3 C O) H^2."""
    return 3 * c**2 + 3 * c * o, (3 * c**2 + 3 * c * o) * h**2


def depthwise_formula(c: int, o: int, h: int) -> tuple[int, int]:
    """9 C + C O, (9 C + C O) H^2."""
    return 9 * c + c * o, (9 * c + c * o) * h**2


def effnet_formula(c: int, o: int, h: int) -> tuple[int, int]:
    """With B = O / 2 channels within: C B + 6 B + 2 B O, (C B + 3 B) H^2 + 3 B H^2 / 2 + 2 B O H^2 / 4; H even."""
    b = o // 2
    return c * b + 6 * b + 2 * b * o, (c * b + 3 * b) * h**2 + 3 * b * h**2 // 2 + 2 * b * o * h**2 // 4


@dataclass(frozen=True)
class Block:
    """build(in_channels, out_channels) makes it; formula(in_channels, out_channels, side) gives parameters, MACs."""

    build: Callable[[int, int], nn.Module]
    formula: Callable[[int, int, int], tuple[int, int]]


BLOCKS = {
    "plain": Block(plain_block, plain_formula),
    "spatially separable": Block(spatial_block, spatial_formula),
    "depthwise separable": Block(depthwise_block, depthwise_formula),
    "EffNet": Block(effnet_halved, effnet_formula),
}


def describe(given: argparse.Namespace) -> str:
    """A line for each block with its cost as counted on the block itself, which its formula must give too."""
    side, in_channels, out_channels = given.size or SIZE, given.channels, given.out
    lines = [
        f"A block from {in_channels} x {side} x {side} to {out_channels} x {side // 2} x {side // 2}:",
        f"{'':22}{'parameters':>12}{'MACs':>16}{'of plain':>10}",
    ]
    whole = plain_formula(in_channels, out_channels, side)[1]
    for name, block in BLOCKS.items():
        network = block.build(in_channels, out_channels)
        parameters, macs = parameter_count(network), mac_count(network, in_channels, side)
        assert (parameters, macs) == block.formula(in_channels, out_channels, side), name
        lines.append(f"{name:22}{parameters:12,}{macs:16,}{macs / whole:10.1%}")
    return "\n".join(lines)


def check(given: argparse.Namespace) -> None:
    """Raises ValueError for what the four blocks cannot be built for."""
    if given.channels < 1:
        raise ValueError(f"-channels {given.channels}: must be at least 1")
    if given.out < 2 or given.out % 2:
        raise ValueError(f"-out {given.out}: must be an even number, 2 or more: EffNet's block has half of it within")
    if given.size is not None and given.size % 2:
        raise ValueError(f"-size {given.size}: must be even, the blocks compared halve it")


def main(file: str, words: list[str] | None = None) -> int:
    """What a network's file prints, then the four blocks. Returns the exit status."""
    return script.main(file, words, FLAGS, check, describe)

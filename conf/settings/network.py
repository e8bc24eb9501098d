"""The knobs of the network: its width, the size of its images, and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from conf import knobs

knob = partial(knobs.knob, group="network")

# The knobs that choose a part of a network in place of its own.
PARTS = ("expansion", "shortcut", "se", "gate", "head", "stem", "reuse_times", "reuse_kernels", "activation_before")


def part(help: str, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None):
    """A knob for one part of a MobileNet or a network made from it; models/parts.py says more of each."""
    return knob(f"{help} (default: the network's own)", default=None, choices=choices, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    width: float = knob("width multiplier", default=1.0, low=0.01, high=16.0)
    match: str = knob(
        "the width, instead of -width, at which the network costs nearly as much: macs:43.8M or params:1.17M",
        default="",
    )
    size: int = knob("side of the images in pixels (0: the data set's own)", default=0, low=0, high=1024)
    expansion: str | None = part(
        "what widens a block: a 1x1 convolution, Reuse, a grouped 1x1 convolution, channels of zeros, GhostNet's cheap "
        "maps, or nothing (ratio 1)",
        ("conv", "grouped", "zero-pad", "ghost", "none", "reuse"),
    )
    shortcut: str | None = part("MobileNetV2's shortcut where channels change at stride 1", ("conv", "resize"))
    se: str | None = part("MobileNetV3's squeeze-excite: its second layer", ("conv", "reuse"))
    gate: str | None = part("what MobileNetV3's squeeze-excite passes its numbers through", ("hardsigmoid", "none"))
    head: str | None = part("1x1 convolution before the classifier, or Reuse", ("conv", "reuse"))
    stem: str | None = part("3x3 convolution, or one to 3 channels and Reuse", ("conv", "reuse"))
    reuse_times: int | None = part("copies in a block with -expansion reuse", low=1, high=64)
    reuse_kernels: tuple[int, ...] | None = part(
        "with -expansion reuse: the size of each copy's depthwise kernel, odd, as many as copies, such as 3 3 5 5 7 7",
        low=1,
        high=11,
    )
    activation_before: bool | None = part("an activation between a block's expansion and its depthwise convolution")
    reuse: bool = knob(
        "Reuse in the place of every 1x1 expansion of a torchvision:NAME or timm:NAME that it can replace",
        default=False,
    )

"""Finds the width at which a network costs as much as another one: -match macs:43.8M, -match params:1.17M."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.counters import parameter_count
from models.shapes import shapes_alone

STEPS = 1000  # of a width of 1; channels are whole multiples, so that many widths cost the same
NARROWEST, WIDEST = 10, 16 * STEPS  # in STEPS


def nearest_width(
    create: Callable[[float], nn.Module], what: str, target: float, in_channels: int, image_size: int
) -> float:
    """The width, in thousandths, at which the count is nearest; of equally near ones 1, or else the narrowest.

    create        makes the network of a width; it is called on the meta device, where tensors take no memory
    what, target  "params" or "macs", and how many
    Raises ValueError where no width comes near: the target is below the narrowest network or above the widest.
    """

    @functools.cache
    def count(step: int) -> int:
        """Parameters or MACs for one image; 0 where the width leaves no channel."""
        with shapes_alone():
            try:
                network = create(step / STEPS).eval()
            except ValueError:
                if step == STEPS:
                    raise  # not because of the width
                return 0
            if what == "params":
                return parameter_count(network)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                network(torch.empty(1, in_channels, image_size, image_size))
            return counter.get_total_flops() // 2

    count(STEPS)
    steps = range(NARROWEST, WIDEST + 1)
    enough = NARROWEST + bisect_left(steps, target, key=count)
    if enough > WIDEST:
        raise ValueError(f"the widest network has {count(WIDEST):,} {what}")
    below, above = count(enough - 1) if enough > NARROWEST else 0, count(enough)
    if not below and above > 2 * target:
        raise ValueError(f"the narrowest network has {above:,} {what}")
    nearer = below if below and target - below <= above - target else above
    if nearer == count(STEPS):
        return 1.0
    return (NARROWEST + bisect_left(steps, nearer, key=count)) / STEPS

"""The parts in which the cheap networks differ from the MobileNets, so that each of them can be chosen alone.

A MobileNet's file has the Parts of its network, and a cheap network's file those of another; both build from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from models.expansions import EXPANSIONS, WITH_NORM
from models.mixed_depthwise import LARGEST_KERNEL

# What each part may be, in the words of the command line.
CHOICES = {
    "expansion": (*EXPANSIONS, "reuse"),
    "shortcut": ("conv", "resize"),
    "se": ("conv", "reuse"),
    "gate": ("hardsigmoid", "none"),
    "head": ("conv", "reuse"),
    "stem": ("conv", "reuse"),
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The form of each part of a network; None where its family has no such part.

    expansion          what widens a block's input: a 1x1 convolution with batch norm, Reuse, or a cheap form of
                       models/expansions.py, to the width that the convolution has
    shortcut           what is added at stride 1 where channels change: a 1x1 convolution, or the input cut or repeated
    se                 the squeeze-excite's second layer: linear, or Reuse
    gate               what the squeeze-excite's numbers pass: a hard-sigmoid, or nothing
    head               a 1x1 convolution before the pool, or Reuse around it
    stem               a 3x3 convolution, or one to 3 channels, Reuse(16) and a 1x1 convolution
    reuse_times        the copies that Reuse makes in a block, wherever the block widens at all
    reuse_kernels      the sizes of the copies' depthwise kernels in place of the block's own, wherever the block widens
    activation_before  whether an activation stands between the expansion and the depthwise convolution; None: after a
                       form with a batch norm it does, and after Reuse and zeros as the family's cheap network has it
    activates_copies   whether it stands there after Reuse in the family's cheap network; this cannot be chosen
    """

    expansion: str = "conv"
    shortcut: str | None = None
    se: str | None = None
    gate: str | None = None
    head: str = "conv"
    stem: str = "conv"
    reuse_times: int = 6
    reuse_kernels: tuple[int, ...] | None = None
    activation_before: bool | None = None
    activates_copies: bool = True

    @property
    def activates_expanded(self) -> bool:
        """Whether an activation stands between the expansion and the depthwise convolution."""
        if self.activation_before is None:
            return self.expansion in WITH_NORM or (self.expansion != "none" and self.activates_copies)
        return self.activation_before

    @property
    def has_reuse(self) -> bool:
        return "reuse" in (self.expansion, self.se, self.head, self.stem)

    def kernel_sizes(self, times: int, own: int) -> int | tuple[int, ...]:
        """The kernels of a block with so many copies: the chosen ones, or its own where it does not widen."""
        return own if self.reuse_kernels is None or times == 1 else self.reuse_kernels

    def replaced(self, net: str, chosen: Mapping[str, object]) -> Parts:
        """These parts with the chosen ones in their place. Raises ValueError for what the network net cannot have."""
        for name, value in chosen.items():
            if name not in NAMES:
                raise ValueError(f"{name}: no part of a network; there are {', '.join(NAMES)}")
            if getattr(self, name) is None and name not in OPTIONAL:
                raise ValueError(f"{name} {value}: {net} has no such part; leave it out")
            allowed = CHOICES.get(name)
            if allowed and value not in allowed:
                raise ValueError(f"{name} {value}: must be one of {', '.join(allowed)}")
        parts = dataclasses.replace(self, **chosen)
        if "reuse_times" in chosen and (parts.expansion != "reuse" or parts.reuse_times < 1):
            raise ValueError(
                f"reuse_times {parts.reuse_times}: must be at least 1, and goes with expansion reuse only; "
                f"{net} has expansion {parts.expansion}"
            )
        if parts.reuse_kernels is not None:
            parts = dataclasses.replace(parts, reuse_kernels=parts._checked_kernels(net))
        if parts.expansion == "none" and "activation_before" in chosen:
            raise ValueError(
                f"activation_before {str(parts.activation_before).lower()}: with expansion none there is no expansion "
                "for it to stand behind; leave it out"
            )
        return parts

    def _checked_kernels(self, net: str) -> tuple[int, ...]:
        if not isinstance(self.reuse_kernels, list | tuple):
            raise ValueError(f"reuse_kernels {self.reuse_kernels}: must be a list of numbers, one for each copy")
        kernels = tuple(self.reuse_kernels)
        given = f"reuse_kernels {' '.join(map(str, kernels))}"
        if self.expansion != "reuse":
            raise ValueError(f"{given}: goes with expansion reuse only; {net} has expansion {self.expansion}")
        if len(kernels) < 2 or len(kernels) != self.reuse_times:
            raise ValueError(
                f"{given}: must be one for each copy, of which there are {self.reuse_times}; give as many, or "
                f"reuse_times {max(2, len(kernels))}"
            )
        if not all(type(size) is int and size % 2 and 1 <= size <= LARGEST_KERNEL for size in kernels):
            raise ValueError(f"{given}: must be odd numbers from 1 to {LARGEST_KERNEL}")
        return kernels


OPTIONAL = ("reuse_kernels", "activation_before")  # None stands for the network's own, not for a part it cannot have
NAMES = (*CHOICES, "reuse_times", *OPTIONAL)

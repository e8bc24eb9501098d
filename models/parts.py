"""The parts in which the cheap networks differ from the MobileNets, so that each of them can be chosen alone.

A MobileNet's file has the Parts of its network, and a cheap network's file those of another; both build from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

# What each part may be, in the words of the command line.
CHOICES = {
    "expansion": ("conv", "reuse"),
    "shortcut": ("conv", "resize"),
    "se": ("conv", "reuse"),
    "gate": ("hardsigmoid", "none"),
    "head": ("conv", "reuse"),
    "stem": ("conv", "reuse"),
}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The form of each part of a network; None where its family has no such part.

    expansion          what widens a block's input: a 1x1 convolution with batch norm, or Reuse
    shortcut           what is added at stride 1 where channels change: a 1x1 convolution, or the input cut or repeated
    se                 the squeeze-excite's second layer: linear, or Reuse
    gate               what the squeeze-excite's numbers pass: a hard-sigmoid, or nothing
    head               a 1x1 convolution before the pool, or Reuse around it
    stem               a 3x3 convolution, or one to 3 channels, Reuse(16) and a 1x1 convolution
    reuse_times        the copies that Reuse makes in a block, wherever the block widens at all
    activation_before  whether an activation stands between the expansion and the depthwise convolution; None: after a
                       1x1 convolution it does, and after Reuse as the family's cheap network has it
    activates_copies   whether it stands there after Reuse in the family's cheap network; this cannot be chosen
    """

    expansion: str = "conv"
    shortcut: str | None = None
    se: str | None = None
    gate: str | None = None
    head: str = "conv"
    stem: str = "conv"
    reuse_times: int = 6
    activation_before: bool | None = None
    activates_copies: bool = True

    @property
    def activates_expanded(self) -> bool:
        """Whether an activation stands between the expansion and the depthwise convolution."""
        if self.activation_before is None:
            return self.expansion == "conv" or self.activates_copies
        return self.activation_before

    @property
    def has_reuse(self) -> bool:
        return "reuse" in (self.expansion, self.se, self.head, self.stem)

    def replaced(self, net: str, chosen: Mapping[str, object]) -> Parts:
        """These parts with the chosen ones in their place. Raises ValueError for what the network net cannot have."""
        for name, value in chosen.items():
            if name not in NAMES:
                raise ValueError(f"{name}: no part of a network; there are {', '.join(NAMES)}")
            if getattr(self, name) is None and name != "activation_before":
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
        return parts


NAMES = (*CHOICES, "reuse_times", "activation_before")

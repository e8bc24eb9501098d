"""Where the gates of a squeeze-excite start that has no bound or is by Reuse: near zero, as drawn, or at one.

As they are drawn (linear weights of std 0.001 on means that are zero after a batch norm) such gates start near zero, by
Reuse half of them at zero, and without a hard-sigmoid, which makes that a half, they all but erase a block's signal.
"""

from __future__ import annotations

import torch
from torch import nn

from models.layers import SqueezeExcite
from models.reuse import ReuseSqueezeExcite

GATE_STARTS = ("original", "one")


def can_start_at_one(module: nn.Module) -> bool:
    """Whether a module is such a squeeze-excite; that of MobileNetV3 has the paper's hard-sigmoid and is none."""
    unbounded = isinstance(module, SqueezeExcite) and isinstance(module.gate, nn.Identity)
    return unbounded or isinstance(module, ReuseSqueezeExcite)


@torch.no_grad()
def start_gates_at_one(network: nn.Module) -> None:
    """Changes initial weights so that what a hard-sigmoid would bound, where there is one, starts near one.

    With the bias of the batch norm before it at 1 a channel's mean is about 1, and each linear layer averages its
    inputs. Blocks without such a squeeze-excite stay as they are.
    """
    for block in network.modules():
        se = getattr(block, "se", None)
        if can_start_at_one(se):
            block.depthwise.bn.bias.fill_(1.0)
            for linear in (layer for layer in se.children() if isinstance(layer, nn.Linear)):
                linear.weight.mul_(0.1).add_(1.0 / linear.in_features)

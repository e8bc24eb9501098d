"""The literal form: a cheap network written as the definition of Reuse says, and how weights pass between the forms.

models.create(name, literal=True) builds it, with real concatenations and shuffles. It is the yardstick of tests and
benchmarks, and the form that a counter of operations from elsewhere understands. Both forms have the same keys and
shapes; where a network shuffles channels before Reuse, some of its tensors stand in another order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.reuse import ConvOnCopies, LinearOnCopies, Reuse, ReuseDepthwise, shuffled


def literal_channels(channels: int, times: int, groups: int) -> Tensor:
    """For each channel of the default form's widened map, its index in the literal form's: int64, times*C long.

    Channel m*C + c of the default form comes from input channel c. In the literal form that channel stands, after
    the shuffle, at position p(c) of every copy, so it is number m*C + p(c); without a shuffle, the same number.
    """
    source = shuffled(torch.arange(channels)[None], groups)[0]  # position -> the input channel it reads
    position = torch.argsort(source)
    return (position + channels * torch.arange(times)[:, None]).flatten()


def from_literal(state_dict: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A literal network's state dict (or gradients by name) as the default form's, exactly.

    network: the cheap network that the tensors are of, in either form. Raises ValueError where it has no Reuse.
    """
    return _reordered(state_dict, network, lambda tensor, dim, order: tensor.index_select(dim, order))


def to_literal(state_dict: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The inverse of from_literal."""
    return _reordered(state_dict, network, lambda tensor, dim, order: tensor.index_select(dim, torch.argsort(order)))


Move = Callable[[Tensor, int, Tensor], Tensor]


def _reordered(state_dict: dict[str, Tensor], network: nn.Module, move: Move) -> dict[str, Tensor]:
    """Moves what blocks with a shuffle hold for each widened channel: such a block has `literal_order` and
    `widened_tensors()` (models/reuse_block.py)."""
    if not any(isinstance(m, Reuse | ReuseDepthwise | LinearOnCopies | ConvOnCopies) for m in network.modules()):
        raise ValueError("the network has no Reuse and so only one form; models.cheap_names() lists those with two")
    result = dict(state_dict)
    for prefix, block in network.named_modules():
        order = getattr(block, "literal_order", None)
        if order is None:
            continue
        for name, dim in block.widened_tensors().items():
            key = f"{prefix}.{name}" if prefix else name
            if key in result:
                # of some copies only, where these have a kernel of their own; every copy is in the first one's order
                own = order[: result[key].shape[dim]]
                result[key] = move(result[key], dim, own.to(result[key].device))
    return result

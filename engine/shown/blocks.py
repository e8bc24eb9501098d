"""What -log-more logs of each block of a network at the readings of the loss: its gates, gradient and update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.device import Precision
from engine.state import TrainState
from engine.tasks import Task
from models.block_table import block_names
from models.layers import SqueezeExcite
from models.reuse import ReuseSqueezeExcite

GATED_IMAGES = 32  # of a step, for the largest gate: a forward pass of its own, so that no step is slowed by it
QUANTITIES = ("gate maximum", "gradient norm", "update to weight")


class WatchedStep:
    """A step (engine/loop.py, engine/graphs.py) that is measured every so many steps; the others are as they were.

    It is measured on the device, and outside of a graph; the host waits for it in read() alone.
    """

    def __init__(self, step: Callable[..., tuple[Tensor, Tensor]], every: int) -> None:
        self.step, self.every = step, every
        self.found: dict[str, Tensor] = {}

    def __call__(
        self, state: TrainState, images: Tensor, targets: Tensor, task: Task, precision: Precision, *more
    ) -> tuple[Tensor, Tensor]:
        """As the step itself."""
        how = state, images, targets, task, precision, *more
        if (state.step + 1) % self.every:
            return self.step(*how)
        blocks = {name: trained(state.network.get_submodule(name)) for name in block_names(state.network)}
        before = {name: [weight.detach().clone() for weight in weights] for name, weights in blocks.items() if weights}
        found = self.step(*how)
        with torch.no_grad():
            changes = block_changes(before, {name: blocks[name] for name in before})
            self.found = changes | gate_maxima(state.network, images[:GATED_IMAGES], precision)
        return found

    def read(self) -> dict[str, float]:
        """The figures of the last step, where it was measured, by "quantity/block"; each is given once."""
        found, self.found = self.found, {}
        return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True)) if found else {}


def trained(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters() if weight.requires_grad]


def block_changes(before: dict[str, list[Tensor]], blocks: dict[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """Of each block the L2 norm of its gradient, as the optimizer took it (clipped, with -clip), and the norm of the
    change of its parameters in this step divided by that of the parameters before it."""
    sizes = [len(weights) for weights in blocks.values()]
    weights, old = ([each.detach() for group in groups.values() for each in group] for groups in (blocks, before))
    gradients = [
        torch.zeros_like(each) if each.grad is None else each.grad for group in blocks.values() for each in group
    ]
    # all tensors at once: for each by itself, launching the work on a device takes longer than the work
    kinds = gradients, torch._foreach_sub(weights, old), old
    of_gradients, of_changes, of_old = (
        [part.float().norm() for part in torch.stack(torch._foreach_norm(tensors)).split(sizes)] for tensors in kinds
    )
    found = {f"gradient norm/{name}": norm for name, norm in zip(blocks, of_gradients, strict=True)}
    pairs = zip(blocks, of_changes, of_old, strict=True)
    return found | {f"update to weight/{name}": change / size for name, change, size in pairs}


def gate_maxima(network: nn.Module, images: Tensor, precision: Precision) -> dict[str, Tensor]:
    """Of each block with squeeze-excite the magnitude of the largest gate for these images, in eval mode.

    The network is in training mode, before and after.
    """
    found: dict[str, Tensor] = {}

    def hook(name: str):
        def note(_: nn.Module, __: tuple, gates: Tensor) -> None:
            found[f"gate maximum/{name}"] = gates.abs().amax().float()

        return note

    parts = ((name, part) for name in block_names(network) for part in network.get_submodule(name).modules())
    gated = [(name, part.gate) for name, part in parts if isinstance(part, SqueezeExcite | ReuseSqueezeExcite)]
    if not gated:
        return {}
    handles = [gate.register_forward_hook(hook(name)) for name, gate in gated]
    try:
        with precision.autocast():
            network.eval()(images)
    finally:
        network.train()
        for handle in handles:
            handle.remove()
    return found

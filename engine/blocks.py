"""What -log-more logs of each block of a network at the readings of the loss: its gates, gradient and update."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

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
        blocks = {name: weights for name, weights in blocks.items() if weights}
        before = {name: [weight.detach().clone() for weight in weights] for name, weights in blocks.items()}
        found = self.step(*how)
        with torch.no_grad():
            self.found = block_changes(before, blocks) | gate_maxima(state.network, images[:GATED_IMAGES], precision)
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
    found = {}
    for name, weights in blocks.items():
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        found[f"gradient norm/{name}"] = get_total_norm(gradients).float()
        changes = torch._foreach_sub([weight.detach() for weight in weights], before[name])
        found[f"update to weight/{name}"] = get_total_norm(changes) / get_total_norm(before[name])
    return found


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

"""A network as a table with a line for each of its blocks: output, parameters, multiply-accumulates and their share."""

from __future__ import annotations

import torch
from torch import nn

from models import counters


def block_names(network: nn.Module) -> list[str]:
    """The parts that have a line each: the network's children, and in place of a sequence of blocks those blocks."""
    names = []
    for name, child in network.named_children():
        inner = list(child.named_children())
        holds_blocks = type(child) is nn.Sequential and any(list(block.children()) for _, block in inner)
        names += [f"{name}.{number}" for number, _ in inner] if holds_blocks else [name]
    return names


def block_table(network: nn.Module, in_channels: int, image_size: int) -> str:
    """Block, its class, shape of its output for one image, parameters, MACs by torch, and their share of the whole."""
    twin, image = counters.prepared(network, in_channels, image_size)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in block_names(twin):
        twin.get_submodule(name).register_forward_hook(lambda _, __, y, name=name: shapes.update({name: y.shape[1:]}))
    with torch.no_grad():
        twin(image)
    total, layers = counters.torch_count(network, in_channels, image_size)
    lines = [f"{'block':18}{'':24}{'output':>14}{'parameters':>13}{'MACs':>13}{'share':>8}"]
    for name, shape in shapes.items():
        block = twin.get_submodule(name)
        macs = sum(layer.macs for key, layer in layers.items() if key == name or key.startswith(f"{name}."))
        output, parameters = " x ".join(map(str, shape)), counters.parameter_count(block)
        kind = type(block).__name__
        lines.append(f"{name:18}{kind:24}{output:>14}{parameters:13,}{macs:13,}{macs / max(total, 1):8.1%}")
    return "\n".join(lines)

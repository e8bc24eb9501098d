"""What torch, thop and flopth count on a network, layer by layer, and what the differences between them are made of.

A counter runs on a copy of the network, on the CPU, in eval mode, with one image of zeros: what the libraries leave
behind (buffers, hooks, eval mode) goes with the copy. flopth also replaces `__call__` of the layers' classes, which
are everybody's; own_calls() undoes that. A layer is a module without children.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass
class Layer:
    """A layer as it ran. macs: torch's count for it; values_in, values_out: numbers it read and gave."""

    kind: str
    bias: bool
    macs: int = 0
    values_in: int = 0
    values_out: int = 0


@dataclass(frozen=True)
class Count:
    """What one library says: in total, for each layer by its name, and the kinds of layers it has no rule for."""

    total: int
    layers: dict[str, int]
    without_rule: frozenset[str]


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters; running statistics of batch norm are buffers and not counted."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def prepared(network: nn.Module, in_channels: int, image_size: int) -> tuple[nn.Module, Tensor]:
    """A copy of the network on the CPU, in float32 and eval mode, and one image of zeros for it."""
    twin = copy.deepcopy(network).cpu().float().eval()
    return twin, torch.zeros(1, in_channels, image_size, image_size)


def leaves(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if next(module.children(), None) is None}


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Catches what the libraries print, and drops their warnings (distutils, ...)."""
    caught = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(caught), contextlib.redirect_stderr(caught):
        warnings.simplefilter("ignore")
        yield caught


@contextlib.contextmanager
def own_calls(classes: Iterable[type]) -> Iterator[None]:
    """Gives each class a `__call__` of its own for the time being, then puts back what it had.

    flopth replaces `__call__` class by class and keeps what it found. A class that inherits from one it has replaced
    already (LinearOnCopies from Linear) would hand it its own replacement, which then calls itself without end.
    """
    classes = set(classes)
    own = {kind: kind.__dict__["__call__"] for kind in classes if "__call__" in kind.__dict__}
    calls = {kind: kind.__call__ for kind in classes}
    try:
        for kind, call in calls.items():
            kind.__call__ = call
        yield
    finally:
        for kind in classes:
            del kind.__call__  # inherited again
        for kind, call in own.items():
            kind.__call__ = call


def torch_count(network: nn.Module, in_channels: int, image_size: int) -> tuple[int, dict[str, Layer]]:
    """Multiply-accumulates of every convolution and matrix product that runs, and the layers they fall on.

    The total has those of functional calls outside of layers too.
    """
    twin, image = prepared(network, in_channels, image_size)
    layers = {
        name: Layer(type(module).__name__, getattr(module, "bias", None) is not None)
        for name, module in leaves(twin).items()
    }

    def measure(layer: Layer):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            layer.values_in += inputs[0].numel()
            layer.values_out += output.numel()

        return hook

    for name, module in leaves(twin).items():
        module.register_forward_hook(measure(layers[name]))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin(image)
    flops = counter.get_flop_counts()  # by class of the network and path of the module
    for name, layer in layers.items():
        path = ".".join(part for part in (type(twin).__name__, name) if part)
        layer.macs = sum(flops.get(path, {}).values()) // 2  # a multiply-accumulate is two operations
    return counter.get_total_flops() // 2, layers


def thop_count(network: nn.Module, in_channels: int, image_size: int) -> Count:
    """thop's count. Its rules go by exact class; the rest it leaves at zero, which it says on request."""
    twin, image = prepared(network, in_channels, image_size)
    with quiet() as printed:
        from thop import profile

        total, _, tree = profile(twin, inputs=(image,), report_missing=True, ret_layer_info=True)
    found = dict(_flat(tree)) if tree else {"": total}
    layers = {name: int(found.get(name, 0)) for name in leaves(twin)}
    kinds = re.findall(r"Cannot find rule for <class '[\w.<>]*?(\w+)'>", printed.getvalue())
    return Count(int(total), layers, frozenset(kinds))


def _flat(tree: dict[str, tuple], prefix: str = "") -> Iterator[tuple[str, float]]:
    """thop's nested {name: (operations, parameters, children)} by full names."""
    for name, (operations, _, children) in tree.items():
        yield prefix + name, operations
        yield from _flat(children, f"{prefix}{name}.")


def flopth_count(network: nn.Module, in_channels: int, image_size: int) -> Count:
    """flopth's count. It uses CUDA where there is any, for its copy."""
    twin, image = prepared(network, in_channels, image_size)
    with quiet() as printed, own_calls(type(module) for module in twin.modules()):
        from flopth import flopth

        total, _ = flopth(twin, inputs=(image,), bare_number=True)
    layers = {name: int(module.flops[0]) for name, module in leaves(twin).items()}
    kinds = re.findall(r"Op (\w+) is not supported", printed.getvalue())
    return Count(int(total), layers, frozenset(kinds))


def differences(count: Count, torch_total: int, layers: dict[str, Layer]) -> list[tuple[int, str]]:
    """What has to be added to torch's total to get the library's: (amount, what it is), largest first.

    The amounts add up to the difference exactly. Each reason is checked on each layer that it is given for.
    """
    amounts, numbers = Counter(), Counter()
    for name, layer in layers.items():
        extra = count.layers[name] - layer.macs
        if extra:
            words = layer.kind, _reason(layer, extra, count)
            amounts[words] += extra
            numbers[words] += 1
    parts = [(amounts[words], f"{numbers[words]} {words[0]}: {words[1]}") for words in amounts]
    parts.append((sum(layer.macs for layer in layers.values()) - torch_total, "functional calls: not seen"))
    parts.append((count.total - sum(count.layers.values()), "in no layer"))
    return sorted((part for part in parts if part[0]), key=lambda part: -abs(part[0]))


def _reason(layer: Layer, extra: int, count: Count) -> str:
    """Why a library counts `extra` more on a layer than torch, in a few words."""
    if extra == -layer.macs:
        return "no rule" if layer.kind in count.without_rule else "not counted"
    if layer.bias and layer.macs and extra == layer.values_out:
        return "bias"
    if not layer.macs and layer.values_in and extra % layer.values_in == 0:
        return f"{extra // layer.values_in} for each value read"
    return "counted otherwise"


def uncounted(count: Count, layers: dict[str, Layer]) -> list[str]:
    """Layers without MACs that a library has no rule for, as "21 Hardswish": of these differences() says nothing."""
    kinds = Counter(layer.kind for layer in layers.values() if not layer.macs)
    return [f"{number} {kind}" for kind, number in kinds.items() if kind in count.without_rule]

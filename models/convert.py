"""Reuse for any network: reuse_expansions() puts it in the place of the 1x1 expansions of inverted residuals.

An inverted residual widens C channels to E with a 1x1 convolution, a norm and an activation, before a depthwise
convolution of E channels. Where E is k C, Reuse(k) can widen instead; the activation stays. Saved are the C E weights
and C E H W MACs of the convolution and the 2 E weights of the norm.

By default nothing is copied: the activation works on the C channels, and the depthwise convolution becomes
ReuseDepthwise, of the same weights. The literal form lays the k copies out where the convolution stood; so does the
default one before a depthwise convolution of another kind (padded as TensorFlow pads, dilated). What is left keeps its
name in the state dict, and both forms have the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules import activation

from models.reuse import Reuse, ReuseDepthwise
from models.summary import mac_count, parameter_count
from models.traced import Calls, after_norm, replace

# activations that work on each number by itself, whatever its channel, so that they may be applied before the copies
ELEMENTWISE = (
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "ELU",
    "GELU",
    "SiLU",
    "Swish",
    "Mish",
    "Hardswish",
    "HardSwish",
    "HardMish",
)
NONE_READS = "no depthwise convolution reads it"


@dataclass(frozen=True)
class Expansion:
    """A 1x1 convolution that widens, by the full names of its modules in the network.

    norm, activation  what follows it, "" for nothing
    depthwise         the convolution that reads it
    reason            why Reuse cannot stand in its place; empty where it can
    is_copied         whether the copies are laid out in the default form too
    """

    name: str
    channels: int
    expanded: int
    norm: str = ""
    activation: str = ""
    depthwise: str = ""
    reason: str = ""
    is_copied: bool = False

    @property
    def times(self) -> int:
        return self.expanded // self.channels

    def __str__(self) -> str:
        widths = f"{self.name:<40} {self.channels:>5} -> {self.expanded:<6}"
        return f"{widths} Reuse({self.times}){', copied' if self.is_copied else ''}"


@dataclass(frozen=True)
class Report:
    """What reuse_expansions() has done.

    changed            the expansions that Reuse has replaced
    left               by name, the 1x1 convolutions that widen and were left, with the reason
    parameters, macs   before and after; MACs for one image
    """

    changed: tuple[Expansion, ...]
    left: dict[str, str]
    parameters: tuple[int, int]
    macs: tuple[int, int]

    def __str__(self) -> str:
        lines = [str(each) for each in self.changed]
        for reason in dict.fromkeys(self.left.values()):
            names = [name for name, its in self.left.items() if its == reason]
            lines.append(f"left, {reason}: {', '.join(names)}")
        for words, (before, after) in (("parameters", self.parameters), ("MACs", self.macs)):
            lines.append(f"{words:<10} {before:>15,} -> {after:>15,}  ({after / before - 1:+.1%})")
        return "\n".join(lines)


def reuse_expansions(
    network: nn.Module, in_channels: int = 3, image_size: int = 224, literal: bool = False
) -> tuple[nn.Module, Report]:
    """A copy of the network with Reuse in the place of its expansions, and what was changed and left.

    in_channels, image_size  of the image that MACs are counted for
    literal                  lays out every copy, as the definition of Reuse says
    Raises ValueError where the network cannot be traced by torch.fx, or nothing can be replaced.
    """
    twin = copy.deepcopy(network)
    found = replace_expansions(twin, literal)
    both = network, twin
    return twin, Report(
        changed=tuple(each for each in found if not each.reason),
        left={each.name: each.reason for each in found if each.reason},
        parameters=tuple(map(parameter_count, both)),
        macs=tuple(mac_count(each, in_channels, image_size) for each in both),
    )


def replace_expansions(network: nn.Module, literal: bool = False) -> list[Expansion]:
    """reuse_expansions() in place; returns all 1x1 convolutions that widen, replaced where there is no reason."""
    calls = Calls(network)
    found = [each for node in calls.nodes if (each := _expansion(calls, node))]
    if all(each.reason for each in found):
        why = "; ".join(dict.fromkeys(f"{each.name}: {each.reason}" for each in found[:3])) or "there are none"
        raise ValueError(f"Reuse can replace no 1x1 expansion of the network ({why})")
    for each in found:
        if not each.reason:
            _replace(network, each, copied=literal or each.is_copied)
    return found


def _replace(network: nn.Module, expansion: Expansion, copied: bool) -> None:
    """Puts Reuse in the place of an expansion, and nothing in that of its norm."""
    replace(network, expansion.name, Reuse(expansion.times) if copied else nn.Identity())
    acts = [expansion.activation] if expansion.activation else []
    if expansion.norm:
        replace(network, expansion.norm, after_norm(network.get_submodule(expansion.norm)))
        acts.append(expansion.norm)
    if copied:
        return
    for name in acts:
        act = network.get_submodule(name)
        if hasattr(act, "inplace"):
            act.inplace = False  # it reads the block's input now, which the shortcut reads as well
    depthwise = network.get_submodule(expansion.depthwise)
    replace(network, expansion.depthwise, ReuseDepthwise.of(depthwise, expansion.times))


def _expansion(calls: Calls, node: torch.fx.Node) -> Expansion | None:
    """The 1x1 convolution that a step calls, where it widens, with what follows it."""
    layer = calls.modules.get(node.target) if node.op == "call_module" else None
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.out_channels <= layer.in_channels:
        return None
    own = dict(name=str(node.target), channels=layer.in_channels, expanded=layer.out_channels)
    if calls.module(node) is None:
        return Expansion(**own, reason="it is called more than once")
    norm = act = ""
    inner: nn.Module = nn.Identity()
    reader = calls.reader(node)
    module = calls.module(reader) if reader else None
    if module is not None and (rest := after_norm(module)) is not None:
        norm, inner = reader.target, rest
        reader = calls.reader(reader)
        module = calls.module(reader) if reader else None
    outer: nn.Module = nn.Identity()
    if module is not None and _is_activation(module):
        act, outer = reader.target, module
        reader = calls.reader(reader)
        module = calls.module(reader) if reader else None
    if not isinstance(module, nn.Conv2d) or module.groups != layer.out_channels:
        return Expansion(**own, reason=NONE_READS)
    own |= dict(norm=norm, activation=act, depthwise=reader.target)
    if layer.out_channels % layer.in_channels:
        return Expansion(**own, reason=f"{layer.out_channels} is no multiple of {layer.in_channels}")
    if layer.groups > 1 or layer.stride != (1, 1) or layer.padding not in ((0, 0), "valid", "same"):
        return Expansion(**own, reason="it has groups, a stride or padding")
    elementwise = _is_elementwise(inner) and _is_elementwise(outer)
    return Expansion(**own, is_copied=not (elementwise and ReuseDepthwise.fits(module)))


def _is_activation(module: nn.Module) -> bool:
    """One of torch's or timm's, or an identity; with weights for each channel (PReLU) it needs the copies laid out."""
    return type(module) is nn.Identity or type(module).__module__ in (activation.__name__, "timm.layers.activations")


def _is_elementwise(module: nn.Module) -> bool:
    return type(module) is nn.Identity or (_is_activation(module) and type(module).__name__ in ELEMENTWISE)

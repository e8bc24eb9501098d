"""Blocks that the families share: convolution with batch norm, squeeze-excite, pooling, widths, initialisation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

NARROWEST = 16  # channels of the narrowest layer that a width multiplies, in any of the networks
# The papers' letters in the tables of MobileNetV3.
ACTIVATIONS: dict[str, type[nn.Module]] = {"RE": nn.ReLU, "HS": nn.Hardswish}


def activation(letters: str) -> nn.Module:
    """RE or HS, in place where autograd allows it: ReLU's backward needs its output only."""
    return nn.ReLU(inplace=True) if letters == "RE" else ACTIVATIONS[letters]()


class HardswishByFormula(nn.Module):
    """x relu6(x + 3) / 6 as arXiv 1905.02244 writes it; in the literal forms, the yardstick of the native operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.relu6(x + 3) / 6


def replace_modules(network: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    """network, changed in place: a new() wherever it had a module of the type old."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is old:
                setattr(module, name, new())
    return network


class ConvBatchNorm(nn.Sequential):
    """Convolution without bias, same padding, batch norm, and an activation where one is named (RE, HS).

    convolution takes the place of the plain one, for the same channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str = "",
        convolution: nn.Module | None = None,
    ) -> None:
        if convolution is None:
            convolution = nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
            )
        layers = OrderedDict(conv=convolution, bn=nn.BatchNorm2d(out_channels))
        if act:
            layers["activation"] = activation(act)
        super().__init__(layers)


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """channels x width, rounded to a multiple, never below 90 % of the product (arXiv 1801.04381's reference code).

    At width 1 the paper's own number stands. Raises ValueError where width leaves less than one channel.
    """
    if width == 1.0:
        return channels
    if channels * width < 1:
        raise ValueError(f"width {width:g}: leaves no channel of {channels}; give at least {1 / NARROWEST:g}")
    rounded = max(multiple, int(channels * width + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels * width else rounded + multiple


def global_average(x: torch.Tensor) -> torch.Tensor:
    """Mean over height and width, N x C x H x W -> N x C.

    Sum, then divide: the backward then divides N x C numbers instead of the full map. An exported graph has no backward
    and one step, a mean that other runtimes know for a pool (ExecuTorch's XNNPACK only with both dimensions kept).
    """
    if torch.compiler.is_exporting():
        return x.mean((2, 3), keepdim=True).flatten(1)
    return x.sum((2, 3)) * (1.0 / (x.shape[2] * x.shape[3]))


class GlobalAveragePool(nn.Module):
    """global_average as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return global_average(x)


class SqueezeExcite(nn.Module):
    """MobileNetV3's: pool, linear to channels / reduction, ReLU, linear back, hard-sigmoid or gate; no biases."""

    def __init__(self, channels: int, reduction: int = 4, gate: Callable[[], nn.Module] = nn.Hardsigmoid) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.expand = nn.Linear(channels // reduction, channels, bias=False)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gates = self.gate(self.expand(self.relu(self.reduce(global_average(x)))))
        return x * gates[:, :, None, None]


def initialise_mobilenet_v3(network: nn.Module) -> nn.Module:
    """Kaiming-normal (fan out) convolutions, linear layers normal with std 0.001 and zero bias (arXiv 1905.02244)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.001)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network

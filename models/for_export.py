"""Forms of a folded network for other runtimes: each computes the same in the steps that a runtime is good at.

What is fast in PyTorch is not what is fast elsewhere. ONNX Runtime lays maps of 24 or 40 channels out anew before and
after it repeats them, which costs a batch of 32 more than Reuse saves. ExecuTorch's XNNPACK takes a graph in pieces,
and every step that it does not know, or whose weights are cut out of others, starts a new one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.layers import SqueezeExcite, global_average
from models.MobileNetV2 import ResizedShortcut
from models.reuse import ReuseDepthwise, ReuseSqueezeExcite
from models.reuse_block import FoldedReuseInvertedResidual

# Numbers in the repeated map of one image from which on ONNX Runtime takes it copy by copy. Of 2^13 to 2^30 this is
# where cheapV3 is ahead of MobileNetV3 by most at its weakest batch of 1 to 128; three times as much is faster for one
# image, and loses at 128 (one core of an AMD EPYC; benchmarks/latency.py). Below, the many short steps cost more.
WIDE = 1 << 14
LARGEST_CAT = 5  # tensors that XNNPACK puts together at once


def for_onnx(folded: nn.Module, shape: torch.Size) -> nn.Module:
    """A copy of a folded network in whose widened blocks no large map is repeated. shape: C x H x W of an image."""
    network, inputs = copy.deepcopy(folded), {}

    def remember(block: nn.Module, given: tuple[Tensor]) -> None:
        inputs[block] = given[0][0].numel()

    blocks = [block for block in network.modules() if isinstance(block, FoldedReuseInvertedResidual)]
    handles = [block.register_forward_pre_hook(remember) for block in blocks]
    with torch.inference_mode():
        network(torch.zeros(1, *shape))
    for handle in handles:
        handle.remove()
    wide = {block for block in blocks if block.divides and inputs[block] * block.times >= WIDE}
    return replaced(network, lambda layer: CopyByCopy(layer) if layer in wide else layer)


def for_xnnpack(folded: nn.Module) -> nn.Module:
    """A copy of a folded network that ExecuTorch's XNNPACK takes in as few pieces as can be."""

    def form(layer: nn.Module) -> nn.Module:
        if isinstance(layer, SqueezeExcite) or (isinstance(layer, ReuseSqueezeExcite) and layer.order is None):
            return GatesByConvolution(layer)
        if isinstance(layer, ReuseDepthwise) and layer.times == 1:
            return convolution(layer.weight, layer.bias, layer, layer.groups)
        if isinstance(layer, ResizedShortcut):  # XNNPACK takes no part of a map whose batch is free
            weight = layer(torch.eye(layer.in_channels)[:, :, None, None]).transpose(0, 1)
            return convolution(weight, None, nn.Conv2d(1, 1, 1, device="meta"), 1)
        return SideBySide(layer) if isinstance(layer, FoldedReuseInvertedResidual) else layer

    return replaced(copy.deepcopy(folded), form)


def replaced(layer: nn.Module, form: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """form(layer), where each child has been replaced by its form, in place, before."""
    for name, child in layer.named_children():
        setattr(layer, name, replaced(child, form))
    return form(layer).eval().requires_grad_(False)


def convolution(weight: Tensor, bias: Tensor | None, like: nn.Conv2d, groups: int) -> nn.Conv2d:
    """A convolution with that weight and bias, and the stride and padding of another."""
    channels, count = weight.shape[:2]
    geometry = like.kernel_size, like.stride, like.padding
    layer = nn.Conv2d(count * groups, channels, *geometry, 1, groups, bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.contiguous(), requires_grad=False)
    return layer


def one_by_one(linear: nn.Linear) -> nn.Conv2d:
    """A linear layer as the 1x1 convolution that it is on N x C x 1 x 1."""
    like = nn.Conv2d(1, 1, 1, device="meta")
    return convolution(linear.weight[:, :, None, None], linear.bias, like, 1)


def depthwise_of_copies(block: FoldedReuseInvertedResidual) -> nn.ModuleList:
    """The depthwise convolution of a folded widened block as one for each copy."""
    conv = block.depthwise
    filters = zip(block.slices(conv.weight, 0), block.slices(conv.bias, 0), strict=True)
    return nn.ModuleList(convolution(*each, conv, conv.in_channels // block.times) for each in filters)


class CopyByCopy(nn.Module):
    """A folded widened block as depthwise and 1x1 convolutions of one copy each, whose results are added."""

    def __init__(self, block: FoldedReuseInvertedResidual) -> None:
        super().__init__()
        self.depthwise, project = depthwise_of_copies(block), block.project
        weights = enumerate(block.slices(project.weight, 1))
        self.project = nn.ModuleList(
            convolution(each, None if number else project.bias, project, 1) for number, each in weights
        )
        self.pre_act, self.act, self.se, self.shortcut = block.pre_act, block.act, block.se, block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.pre_act(x)
        maps = [conv(activated) for conv in self.depthwise]
        if self.se is not None:
            gates = self.se.gates(torch.cat([global_average(each) for each in maps], dim=1)).chunk(len(maps), 1)
            maps = [each * gate for each, gate in zip(maps, gates, strict=True)]
        total, *parts = (conv(self.act(each)) for conv, each in zip(self.project, maps, strict=True))
        for part in parts:
            total = total + part
        return total if self.shortcut is None else total + self.shortcut(x)


class SideBySide(nn.Module):
    """A folded widened block whose copies' depthwise convolutions lie side by side: no tensor is repeated."""

    def __init__(self, block: FoldedReuseInvertedResidual) -> None:
        super().__init__()
        self.depthwise = depthwise_of_copies(block)
        self.se = nn.Identity() if block.se is None else block.se
        self.pre_act, self.act, self.project, self.shortcut = block.pre_act, block.act, block.project, block.shortcut

    def forward(self, x: Tensor) -> Tensor:
        activated = self.pre_act(x)
        y = self.project(self.act(self.se(side_by_side([conv(activated) for conv in self.depthwise]))))
        return y if self.shortcut is None else y + self.shortcut(x)


def side_by_side(parts: list[Tensor]) -> Tensor:
    """Tensors put together in dimension 1, at most LARGEST_CAT at once."""
    while len(parts) > LARGEST_CAT:
        parts = [torch.cat(parts[:LARGEST_CAT], dim=1), *parts[LARGEST_CAT:]]
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class GatesByConvolution(nn.Module):
    """Squeeze-excite of either kind whose linear layers are 1x1 convolutions: no tensor changes its shape.

    Where gates are repeated they are computed as often, from one weight, since XNNPACK does not take a concatenation of
    a tensor with itself.
    """

    def __init__(self, se: SqueezeExcite | ReuseSqueezeExcite) -> None:
        super().__init__()
        is_reuse = isinstance(se, ReuseSqueezeExcite)
        self.reduce, self.relu, self.gate = one_by_one(se.reduce), se.relu, se.gate
        self.expand = nn.Identity() if is_reuse else one_by_one(se.expand)
        self.times = se.reuse.times if is_reuse else 1

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        gates = [self.gate(self.expand(self.relu(self.reduce(means)))) for _ in range(self.times)]
        return x * side_by_side(gates)

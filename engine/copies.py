"""The widened part of a cheap network's block for inference, computed copy by copy: it is never laid out whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import global_average
from models.reuse import ReuseDepthwise, ReuseSqueezeExcite


class CopyByCopy(nn.Module):
    """Reuse, depthwise convolution, squeeze-excite or None, activation, 1x1 convolution: N x C x H x W -> N x out ...

    A 1x1 convolution of k copies' maps, laid side by side, is the sum of k convolutions of C channels each. So no map
    of kC channels is put together, and the map of one copy is read while it is still in the processor's cache;
    squeeze-excite alone needs the means of all copies before the first can go on.
    Where the wide map is small, many short steps cost more than they save: there it is made, by repetition.
    """

    # Numbers in the repeated input from which on copy by copy is faster on one core (AMD EPYC, 1 MB of L2 cache).
    WIDE = 1 << 21

    def __init__(
        self, depthwise: ReuseDepthwise, se: ReuseSqueezeExcite | None, activation: nn.Module, project: nn.Conv2d
    ) -> None:
        super().__init__()
        channels, kernel_size, bias = depthwise.out_channels, depthwise.kernel_size, depthwise.bias is not None
        self.times = depthwise.times
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, depthwise.stride, depthwise.padding, 1, channels, bias, device="meta"
        )
        self.depthwise.weight, self.depthwise.bias = depthwise.weight, depthwise.bias
        self.se, self.activation, self.project = se, activation, project
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        # An exported graph has one form for batches of all sizes: the one of few steps, which every runtime knows.
        if not torch.compiler.is_exporting() and x.numel() * self.times >= self.WIDE:
            return self.copy_by_copy(x)
        y = self.depthwise(torch.cat([x] * self.times, dim=1))
        return self.project(self.activation(y if self.se is None else self.se(y)))

    def copy_by_copy(self, x: Tensor) -> Tensor:
        conv, total = self.depthwise, None
        filters = zip(self.slices(conv.weight, 0), self.slices(conv.bias, 0), strict=True)
        maps = (F.conv2d(x, *each, conv.stride, conv.padding, groups=x.shape[1]) for each in filters)
        if self.se is not None:
            maps = self.gated(list(maps))
        for each, weight in zip(maps, self.slices(self.project.weight, 1), strict=True):
            part = F.conv2d(self.activation(each), weight, self.project.bias if total is None else None)
            total = part if total is None else total + part
        return total

    def slices(self, tensor: Tensor | None, dim: int) -> Sequence[Tensor | None]:
        """What belongs to each copy."""
        return (None,) * self.times if tensor is None else tensor.chunk(self.times, dim)

    def gated(self, maps: list[Tensor]) -> Iterator[Tensor]:
        """Each copy's map times its gates."""
        gates = self.slices(self.se.gates(torch.cat([global_average(each) for each in maps], dim=1)), 1)
        return (each * gate for each, gate in zip(maps, gates, strict=True))

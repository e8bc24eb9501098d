"""Reuse: widening feature maps by repeating channels, and the layers that compute the same without a copy.

Reuse(k) stands where a lightweight network has a 1x1 convolution that only widens. Every cheap network has two
forms with the same parameters: the literal one repeats feature maps as the definition says (models/literal.py); the
default one computes the same without repeating anything, except where a device does better with one convolution of a
repeated map (models/ops/depthwise.py). It rests on these equalities (C channels in, E = kC after
Reuse):

- an elementwise activation after Reuse may be applied before it, to C channels;
- Reuse(k) and a depthwise convolution are k depthwise convolutions of the same C channels, side by side;
- a channel shuffle before Reuse only changes the order of these outputs;
- a layer linear in k copies of y is a layer on y with the k slices of its weight added.

The layers that read copies have fold(), which gives an equal plain layer for inference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import ops
from models.layers import global_average


class Reuse(nn.Module):
    """N x C (x H x W) -> N x times*C (x H x W): a channel shuffle with `groups` groups, then `times` copies.

    groups must divide C. ShuffleNet's shuffle: view as groups x C/groups, transpose, flatten.
    """

    def __init__(self, times: int, groups: int = 1) -> None:
        super().__init__()
        self.times, self.groups = times, groups

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([shuffled(x, self.groups)] * self.times, dim=1)

    def extra_repr(self) -> str:
        return f"times={self.times}, groups={self.groups}"


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Dimension 1 shuffled: view as groups x C/groups, transpose, flatten. Identity for groups 1 and C."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class ReuseDepthwise(nn.Conv2d):
    """Reuse(times), then a depthwise convolution: N x C x H x W -> N x times*C x H' x W'.

    The weights are the literal form's, (times*C) x 1 x K x K: filter m*C + c reads channel c. What is computed depends
    on the device (models/ops/depthwise.py); on a CPU the map is not repeated.
    """

    def __init__(self, channels: int, times: int, kernel_size: int, stride: int | tuple[int, int]) -> None:
        super().__init__(channels, channels * times, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)
        self.times = times

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether a depthwise convolution that reads copies can be one of these: of() makes it so."""
        plain = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        square = conv.kernel_size[0] == conv.kernel_size[1] and conv.dilation == (1, 1)
        return plain and square and conv.groups == conv.in_channels == conv.out_channels

    @classmethod
    def of(cls, conv: nn.Conv2d, times: int) -> ReuseDepthwise:
        """The layer of the same weights that reads what Reuse(times) would have repeated for conv."""
        with torch.device("meta"):  # no initial weights are drawn
            layer = cls(conv.in_channels // times, times, conv.kernel_size[0], conv.stride)
        layer.weight, layer.bias, layer.padding = conv.weight, conv.bias, conv.padding
        return layer.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        return ops.reuse_depthwise(x, self.weight, self.bias, self.stride, self.padding)


class ReuseSqueezeExcite(nn.Module):
    """Squeeze-excite whose second linear layer is Reuse: pool, linear E -> E/r, ReLU, the E/r values repeated r times.

    N x E x H x W -> N x E x H x W; channel n gets gate n mod (E/r).

    channels   E, a multiple of reduction
    reduction  r
    gate       makes the function of the gates; by default there is none, as in cheapV3, and they are unbounded
    order      permutation from the literal form's channels to this form's; None where they agree (no shuffle)
    Raises ValueError where channels are no multiple of reduction.
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 4,
        gate: Callable[[], nn.Module] = nn.Identity,
        order: Tensor | None = None,
    ) -> None:
        super().__init__()
        if channels % reduction:
            raise ValueError(f"se reuse: {channels} channels cannot be {reduction} copies of fewer; give se conv")
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.gate = gate()
        self.reuse = Reuse(reduction)
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gates(global_average(x))

    def gates(self, means: Tensor) -> Tensor:
        """N x E means of the channels -> N x E x 1 x 1 gates: Reuse repeats numbers here, not a map."""
        gates = self.reuse(self.gate(self.relu(self.reduce(means))))
        if self.order is not None:
            gates = gates.index_select(1, self.order)  # on CUDA in fewer kernels than gates[:, self.order]
        return gates[:, :, None, None]


class LinearOnCopies(nn.Linear):
    """The linear layer that follows Reuse(times), applied to what Reuse would have repeated: N x C -> N x out.

    It stores the out x times*C weights of the literal form. Without dropout it adds their slices at every call.
    With dropout, in training, the vector is repeated, since dropout falls on each copy by itself.
    """

    def __init__(self, channels: int, out_features: int, times: int, dropout: float = 0.0) -> None:
        super().__init__(channels * times, out_features)
        self.times, self.dropout = times, dropout

    def summed_weight(self) -> Tensor:
        return self.weight.unflatten(1, (self.times, -1)).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.dropout:
            return F.linear(F.dropout(x.repeat(1, self.times), self.dropout), self.weight, self.bias)
        return F.linear(x, self.summed_weight(), self.bias)

    def fold(self) -> nn.Linear:
        """The plain layer on what Reuse would have repeated, for inference."""
        weight = self.summed_weight()
        # On the meta device no initial weights are drawn: the caller's random numbers stay as they are.
        plain = nn.Linear(weight.shape[1], weight.shape[0], self.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight), self.bias
        return plain.eval()


class ConvOnCopies(nn.Conv2d):
    """The 1x1 convolution that follows Reuse(times) of `copied` channels, beside `rest` channels that stand once.

    N x (copied + rest) x H x W -> N x out x H x W. It stores the literal form's weights, whose first
    times * copied columns read the copies, and adds the slices at every call.
    """

    def __init__(self, copied: int, rest: int, out_channels: int, times: int, bias: bool = False) -> None:
        super().__init__(copied * times + rest, out_channels, 1, bias=bias)
        self.copied, self.times = copied, times

    def summed_weight(self) -> Tensor:
        copies, rest = self.weight.tensor_split([self.copied * self.times], dim=1)
        return torch.cat([copies.unflatten(1, (self.times, -1)).sum(1), rest], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.summed_weight(), self.bias)

    def fold(self) -> nn.Conv2d:
        """The plain 1x1 convolution on channels that each stand once, for inference."""
        weight = self.summed_weight()
        plain = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight), self.bias
        return plain.eval()

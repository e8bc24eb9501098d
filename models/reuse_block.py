"""The widened block: an inverted residual whose 1x1 expansion is Reuse. cheapV2 and cheapV3 are made of it.

MobileNetV2's inverted residual (Sandler et al., arXiv 1801.04381) widens with a 1x1 convolution and its batch norm;
here Reuse widens. FoldedReuseInvertedResidual is the same block for inference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import fast_path, ops
from models.fold import fold_batch_norms
from models.layers import ConvBatchNorm, global_average
from models.literal import literal_channels
from models.mixed_depthwise import make_depthwise
from models.reuse import Reuse, ReuseDepthwise


class ReuseInvertedResidual(nn.Module):
    """Reuse, activation, depthwise convolution, squeeze-excite, activation, 1x1 projection, shortcut.

    N x in_channels x H x W -> N x out_channels x H' x W'. The widened map has E = times * in_channels channels.

    kernel_size  of the depthwise convolution; a sequence has one for each copy
    pre_act   the activation between Reuse and the depthwise convolution; elementwise, and not in place where the
              shortcut reads the block's input; nn.Identity() for none
    act       the activation after the depthwise convolution and squeeze-excite
    se        se(E, order=order) makes the squeeze-excite; for order see models.reuse.ReuseSqueezeExcite
    shortcut  what is added to the projection: nn.Identity() for the input itself, None for nothing
    literal   builds the block as the definition of Reuse says, with a real concatenation (models/literal.py)
    groups    of the channel shuffle before Reuse; in the default form it changes the order of channels only

    Submodules are not called one by one where models/fast_path.py computes the block; one with hooks is called.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        times: int,
        kernel_size: int | Sequence[int],
        stride: int,
        pre_act: nn.Module,
        act: nn.Module,
        se: Callable[..., nn.Module] | None = None,
        shortcut: nn.Module | None = None,
        *,
        literal: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        expanded = in_channels * times
        order = literal_channels(in_channels, times, groups) if groups > 1 else None
        kernel_sizes = [kernel_size] * times if isinstance(kernel_size, int) else kernel_size
        if len(kernel_sizes) != times:
            raise ValueError(f"{len(kernel_sizes)} kernel sizes for {times} copies: give one for each")
        self.reuse = Reuse(times, groups) if literal and times > 1 else nn.Identity()
        self.pre_act = pre_act
        convolution = make_depthwise(in_channels, kernel_sizes, stride, literal)
        self.depthwise = ConvBatchNorm(expanded, expanded, convolution=convolution)
        self.se = nn.Identity() if se is None else se(expanded, order=None if literal else order)
        self.act = act
        self.project = ConvBatchNorm(expanded, out_channels)
        self.shortcut = shortcut
        self.literal_order = order  # permutation from the literal form's widened channels to the default form's
        self.uses_fast_path = False  # where models/fast_path.py supports it; fast_path.use_kernels() sets it

    def forward(self, x: Tensor) -> Tensor:
        if self.uses_fast_path and fast_path.supports(self, x):
            y = fast_path.forward(self, x)
        else:
            y = activate_and_project(self, self.se(self.depthwise(self.pre_act(self.reuse(x)))))
        return y if self.shortcut is None else y + self.shortcut(x)

    def widened_tensors(self) -> dict[str, int]:
        """The tensors that have an entry for each widened channel, and in which dimension; a block may lack some."""
        names = {f"depthwise.{name}": 0 for name, tensor in self.depthwise.state_dict().items() if tensor.ndim}
        return names | {"se.reduce.weight": 1, "se.expand.weight": 0, "project.conv.weight": 1}

    def fold(self) -> nn.Module:
        """An equal block for inference, with its batch norms folded; the block itself is left as it was.

        Where something else than batch norms follows the convolutions, nothing is widened, or the copies' kernels are
        of different sizes, the block stays in its form.
        """
        block = copy.deepcopy(self).eval()
        for chain in (block.depthwise, block.project):
            fold_batch_norms(chain)
        single = len(block.depthwise) == len(block.project) == 1
        if not single or type(block.depthwise[0]) is not ReuseDepthwise or block.depthwise[0].times == 1:
            return block
        return FoldedReuseInvertedResidual(block)


def activate_and_project(block: ReuseInvertedResidual, y: Tensor) -> Tensor:
    """In training hard-swish is computed again in the backward pass, which saves keeping a second wide map."""
    if (
        block.training
        and type(block.act) is nn.Hardswish
        and not block.act.inplace
        and fast_path.is_plain_projection(block.project)
        and fast_path.is_untouched(block.act, block.project)
        and fast_path.is_plain_call()
    ):
        conv, norm = block.project
        return norm(ops.activated_conv1x1(y, conv.weight, "hardswish"))
    return block.project(block.act(y))


class FoldedReuseInvertedResidual(nn.Module):
    """The widened block for inference, computed copy by copy: the widened map is never laid out whole.

    A 1x1 convolution of k copies' maps, laid side by side, is the sum of k convolutions of C channels each. So no map
    of kC channels is put together, and the map of one copy is read while it is still in the processor's cache;
    squeeze-excite alone needs the means of all copies before the first can go on.
    Where the wide map is small, or the device is a GPU, many short steps cost more than they save: there it is made,
    by repetition.
    """

    # Numbers in the repeated input from which on copy by copy is faster on one core (AMD EPYC, 1 MB of L2 cache).
    WIDE = 1 << 21

    def __init__(self, block: ReuseInvertedResidual) -> None:
        """block: with its batch norms folded; its parts are taken, not copied."""
        super().__init__()
        (depthwise,), (self.project,) = block.depthwise, block.project
        channels, bias = depthwise.out_channels, depthwise.bias is not None
        geometry = depthwise.kernel_size, depthwise.stride, depthwise.padding
        self.times = depthwise.times
        self.depthwise = nn.Conv2d(channels, channels, *geometry, 1, channels, bias, device="meta")
        self.depthwise.weight, self.depthwise.bias = depthwise.weight, depthwise.bias
        self.pre_act, self.act, self.shortcut = block.pre_act, block.act, block.shortcut
        self.se = None if type(block.se) is nn.Identity else block.se
        # an activation with parameters of its own may treat every channel differently, and a squeeze-excite that does
        # not give its gates needs the whole map
        self.divides = not any(True for _ in self.act.parameters()) and (self.se is None or hasattr(self.se, "gates"))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen_and_project(self.pre_act(x))
        return y if self.shortcut is None else y + self.shortcut(x)

    def widen_and_project(self, x: Tensor) -> Tensor:
        # An exported graph has one form for batches of all sizes: the one of few steps, which every runtime knows.
        whole = torch.compiler.is_exporting() or ops.repeats_the_map(x)
        if self.divides and not whole and x.numel() * self.times >= self.WIDE:
            return self.copy_by_copy(x)
        y = self.depthwise(torch.cat([x] * self.times, dim=1))
        return self.project(self.act(y if self.se is None else self.se(y)))

    def copy_by_copy(self, x: Tensor) -> Tensor:
        conv, total = self.depthwise, None
        filters = zip(self.slices(conv.weight, 0), self.slices(conv.bias, 0), strict=True)
        maps = (F.conv2d(x, *each, conv.stride, conv.padding, groups=x.shape[1]) for each in filters)
        if self.se is not None:
            maps = self.gated(list(maps))
        for each, weight in zip(maps, self.slices(self.project.weight, 1), strict=True):
            part = F.conv2d(self.act(each), weight, self.project.bias if total is None else None)
            total = part if total is None else total + part
        return total

    def slices(self, tensor: Tensor | None, dim: int) -> Sequence[Tensor | None]:
        """What belongs to each copy."""
        return (None,) * self.times if tensor is None else tensor.chunk(self.times, dim)

    def gated(self, maps: list[Tensor]) -> Iterator[Tensor]:
        """Each copy's map times its gates."""
        gates = self.slices(self.se.gates(torch.cat([global_average(each) for each in maps], dim=1)), 1)
        return (each * gate for each, gate in zip(maps, gates, strict=True))

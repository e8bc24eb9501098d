"""The widened block in training by the functions of models/ops: the same as its modules, with less reading and writing.

On a CPU with a C compiler these are models/ops/kernels.c. No copies are joined; batch norm's moments are taken as the
map is made; its scale and shift, the gates and the activation are one pass; and autograd keeps one widened map a block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models import ops
from models.reuse import ReuseDepthwise, ReuseSqueezeExcite

# the activations that ops know, by the very class: a subclass may compute something else
NAMES = {nn.Identity: "none", nn.ReLU: "relu", nn.Hardswish: "hardswish"}
DEVICES = ("cpu",)  # types of devices for which ops are registered in a form that is faster than the modules


def use_kernels(network: nn.Module, required: bool) -> bool:
    """Has the fast path train every widened block of the network that it knows; returns whether there are any.

    Raises ValueError where required and there are none, or models/ops/kernels.c does not compile.
    """
    blocks = [module for module in network.modules() if hasattr(module, "uses_fast_path") and knows(module)]
    try:
        if not blocks:
            raise ValueError("the network has no widened blocks of a kind that it computes")
        ops.load_library(next(network.parameters()).dtype)
    except ValueError:
        if required:
            raise
        return False
    for block in blocks:
        block.uses_fast_path = True
    return True


def are_kernels_used(network: nn.Module) -> bool:
    return any(getattr(module, "uses_fast_path", False) for module in network.modules())


def supports(block: nn.Module, x: Tensor) -> bool:
    """Whether forward(block, x) computes what the block's modules would in training: everything it uses is checked."""
    conv, norm = block.depthwise[0], block.depthwise[-1]
    return (
        knows(block)
        and norm.training
        and x.device.type in DEVICES
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype == conv.weight.dtype == norm.weight.dtype == block.project[0].weight.dtype
        and x.dtype in ops.DTYPES
        and x.shape[1] % ops.LANES == 0
        and len(x) * (x.shape[2] * x.shape[3] // conv.stride[0] ** 2) > 1  # torch's batch norm has its own words for 1
    )


def knows(block: nn.Module) -> bool:
    """Whether the block is made of parts that forward() computes."""
    conv, norm = block.depthwise[0], block.depthwise[-1]
    return (
        len(block.depthwise) == 2
        and type(conv) is ReuseDepthwise
        and is_plain_batch_norm(norm)
        and is_plain_projection(block.project)
        and type(block.pre_act) in NAMES
        and type(block.act) in NAMES
        and type(block.se) in (nn.Identity, ReuseSqueezeExcite)
        and type(block.reuse) is nn.Identity
        and conv.bias is None
        and conv.kernel_size in ((3, 3), (5, 5))
        and conv.stride[0] == conv.stride[1]
        and conv.padding[0] == conv.padding[1]
    )


def is_plain_batch_norm(norm: nn.Module) -> bool:
    """Batch norm of the batch's own statistics, with weights and with running statistics of a fixed momentum."""
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.track_running_stats and norm.momentum is not None


def is_plain_projection(project: nn.Sequential) -> bool:
    """A 1x1 convolution without bias, named conv, and one more layer, named bn: any that takes its result."""
    conv = project[0]
    return (
        len(project) == 2
        and type(conv) is nn.Conv2d
        and conv.kernel_size == (1, 1)
        and conv.stride == (1, 1)
        and conv.padding == (0, 0)
        and conv.groups == 1
        and conv.bias is None
    )


def forward(block: nn.Module, x: Tensor) -> Tensor:
    """block without its shortcut: N x C x H x W -> N x out x H' x W'. For what supports(block, x) says yes to."""
    conv, norm = block.depthwise
    z, means, squares = ops.widen(x, conv.weight, conv.stride[0], conv.padding[0], NAMES[type(block.pre_act)])
    mean, variance = batch_statistics(means, squares, z.shape[2] * z.shape[3], norm)
    scale, shift = (norm.weight * torch.rsqrt(variance + norm.eps)).expand_as(means), norm.bias.expand_as(means)
    if type(block.se) is ReuseSqueezeExcite:
        gates = block.se.gates((means - mean) * scale + shift).flatten(1)
        scale, shift = scale * gates, shift * gates
    conv, norm = block.project
    return norm(ops.activated_conv1x1(z, conv.weight, NAMES[type(block.act)], (mean, scale, shift)))


def batch_statistics(means: Tensor, squares: Tensor, pixels: int, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over the batch; the running statistics of norm are brought up to date.

    means: N x E, of each image. squares: E, the sum over all images of squared distances from them.
    """
    mean, count = means.mean(0), len(means) * pixels
    variance = squares / count + (means - mean).square().mean(0)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return mean, variance

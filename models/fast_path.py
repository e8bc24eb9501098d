"""The widened block in training by the functions of models/ops: the same as its modules, with less reading and writing.

On a CPU with a C compiler these are models/ops/kernels.c. No copies are joined; batch norm's moments are taken as the
map is made; its scale and shift, the gates and the activation are one pass; and autograd keeps one widened map a block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks

from models import ops
from models.layers import ConvBatchNorm
from models.ops.widen import widened_sizes
from models.reuse import ReuseDepthwise, ReuseSqueezeExcite

# the activations that ops know, by the very class: a subclass may compute something else
NAMES = {nn.Identity: "none", nn.ReLU: "relu", nn.Hardswish: "hardswish"}
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")  # as torch names them
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
    if not (knows(block) and is_plain_call()):
        return False
    conv, norm = block.depthwise
    used = [conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var, block.project[0].weight]
    if not norm.training or x.ndim != 4 or x.shape[1] != conv.in_channels or any(t.dtype != x.dtype for t in used):
        return False
    _, height, width = widened_sizes(x, conv.weight, conv.stride[0], conv.padding[0])
    return (
        x.device.type in DEVICES
        and all(tensor.device == x.device for tensor in used)
        and not torch.is_autocast_enabled(x.device.type)
        and x.dtype in ops.DTYPES
        and x.shape[1] % ops.LANES == 0
        and min(height, width) > 0
        and len(x) * height * width > 1  # torch's batch norm has its own words for 1
    )


def knows(block: nn.Module) -> bool:
    """Whether the block is made of parts that forward() computes, called as they are made."""
    return (
        is_chain_of_two(block.depthwise)
        and is_plain_depthwise(block.depthwise[0])
        and is_plain_batch_norm(block.depthwise[1])
        and is_plain_projection(block.project)
        and type(block.pre_act) in NAMES
        and not (getattr(block.pre_act, "inplace", False) and block.shortcut is not None)  # it would read the result
        and type(block.act) in NAMES
        and type(block.se) in (nn.Identity, ReuseSqueezeExcite)
        and type(block.reuse) is nn.Identity
        and is_untouched(block.depthwise, block.project, block.pre_act, block.act, block.se, block.reuse)
    )


def is_plain_call() -> bool:
    """Whether no transform of torch.func and no forward-mode differentiation is at work: the ops have no rules for
    these.
    """
    if torch.compiler.is_compiling():
        return True
    return torch._C._functorch.peek_interpreter_stack() is None and forward_ad._current_level < 0


def is_untouched(*parts: nn.Module) -> bool:
    """Whether a call of any module in these parts is what its class says: no hooks, among them those of weight_norm and
    of pruning, and no method put on the module itself.
    """
    if module_hooks._has_any_global_hook():
        return False
    return not any(
        "forward" in vars(module) or "gates" in vars(module) or any(getattr(module, name) for name in HOOKS)
        for part in parts
        for module in part.modules()
    )


def is_chain_of_two(chain: nn.Module) -> bool:
    return type(chain) in (ConvBatchNorm, nn.Sequential) and len(chain) == 2


def is_plain_depthwise(conv: nn.Module) -> bool:
    """Reuse and a square depthwise convolution without bias. ReuseDepthwise knows no dilation and pads with zeros."""
    return (
        type(conv) is ReuseDepthwise
        and conv.bias is None
        and conv.groups == conv.in_channels
        and conv.weight.shape == (conv.times * conv.in_channels, 1, *conv.kernel_size)
        and conv.kernel_size in ((3, 3), (5, 5))
        and conv.stride[0] == conv.stride[1]
        and isinstance(conv.padding, tuple)
        and conv.padding[0] == conv.padding[1]
    )


def is_plain_batch_norm(norm: nn.Module) -> bool:
    """Batch norm of the batch's own statistics, with weights and with running statistics of a fixed momentum."""
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "momentum")
    return (
        type(norm) is nn.BatchNorm2d and norm.track_running_stats and all(getattr(norm, p) is not None for p in parts)
    )


def is_plain_projection(project: nn.Module) -> bool:
    """A 1x1 convolution without bias, and one more layer: any that takes its result."""
    if not is_chain_of_two(project):
        return False
    conv = project[0]
    return (
        type(conv) is nn.Conv2d
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

"""The widened blocks of cheapV2 and cheapV3 in training on a CPU, by models/kernels.c, compiled on first use.

The same function as the modules compute one by one, in float32 and float64. What it saves is the reading and writing
of widened maps: no copies are joined, batch norm's moments are taken as the map is made, its scale and shift, the gates
and the activation are one pass, and autograd keeps one widened map of a block.
# NOTE: a network is trained so only after use(network), which engine/job.py calls; what counts, exports and folds its
# layers never sees this.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.reuse import ReuseDepthwise

SOURCE = Path(__file__).with_suffix(".c")
LANES = 8  # channels that the C code takes at a time; widths are multiples of it
KINDS = {nn.Identity: 0, nn.ReLU: 1, nn.Hardswish: 2}
REALS = {torch.float32: "float", torch.float64: "double"}
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-w")
CPU_FLAGS = {"AVX2": ("-mavx2", "-mfma"), "AVX512": ("-mavx2", "-mfma")}  # by torch's name for what this CPU has


class Shape(ctypes.Structure):
    """Of a widening, as models/kernels.c has it."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in "images channels times height width kernel stride padding out_height out_width activation".split()
    ]

    @property
    def bordered(self) -> int:
        """Numbers of one image with its border of padding."""
        return (self.height + 2 * self.padding) * (self.width + 2 * self.padding) * self.channels

    @property
    def out_pixels(self) -> int:
        return self.out_height * self.out_width


@functools.cache
def load_library(real: str) -> ctypes.CDLL:
    """models/kernels.c compiled for numbers of that type; kept beside Python's own compiled files.

    It is linked without a runtime for OpenMP and takes torch's. With one of its own two pools of threads stand in each
    other's way: a step took twice as long.
    Raises ValueError where there is no compiler, or its OpenMP is not the one that torch uses.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = [*FLAGS, *CPU_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()), f"-DREAL={real}"]
    made_of = hashlib.sha256(SOURCE.read_bytes() + repr([compiler, flags]).encode()).hexdigest()[:16]
    path = Path(importlib.util.cache_from_source(str(SOURCE))).with_name(f"kernels-{made_of}.so")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
                for words in ([*flags, "-c", SOURCE, "-o", compiled], ["-shared", compiled, "-o", linked]):
                    subprocess.run([*compiler, *words], check=True, capture_output=True, text=True)
                linked.replace(path)  # at once: another process may be doing the same
        return ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [str(error)])[0]
    except OSError as error:
        reason = str(error)
    raise ValueError(f"the C compiler did not make it ({compiler[0]}: {reason[:200]})")


def call(function: str, dtype: torch.dtype, *arguments: Tensor | int | Shape) -> None:
    """Calls a function of models/kernels.c with torch's number of threads; maps must be channels last."""
    words = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            layout = torch.channels_last if argument.ndim == 4 else torch.contiguous_format
            assert argument.dtype == dtype and argument.is_contiguous(memory_format=layout)
            words.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            words.append(ctypes.byref(argument) if isinstance(argument, Shape) else ctypes.c_int64(argument))
    getattr(load_library(REALS[dtype]), function)(*words, ctypes.c_int64(torch.get_num_threads()))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Widening(torch.autograd.Function):
    """Activation, Reuse(times), depthwise convolution, and the moments of each image's map.

    apply(x, weight, stride, padding, kind): N x C x H x W, E x 1 x K x K -> N x E x H' x W', the N x E means over its
    pixels, and the E sums of squared distances from them, over all images. kind: of KINDS, the activation.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int, kind: int) -> tuple[Tensor, Tensor, Tensor]:
        images, channels, *sides = x.shape
        expanded, _, size, _ = weight.shape
        outs = [(side + 2 * padding - size) // stride + 1 for side in sides]
        shape = Shape(images, channels, expanded // channels, *sides, size, stride, padding, *outs, kind)
        x, taps = channels_last(x), weight.flatten(1).t().contiguous()
        z = torch.empty((images, expanded, *outs), dtype=x.dtype, memory_format=torch.channels_last)
        means, spreads = x.new_empty(images, expanded), x.new_empty(images, expanded)
        scratch = x.new_empty(torch.get_num_threads(), shape.bordered)
        call("widen", x.dtype, shape, x, taps, z, means, spreads, scratch)
        ctx.shape = shape
        ctx.save_for_backward(x, taps, z, means)
        return z, means, spreads.sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, of_means: Tensor, of_spread: Tensor) -> tuple[Tensor | None, ...]:
        x, taps, z, means = ctx.saved_tensors
        shape, threads = ctx.shape, torch.get_num_threads()
        factor = 2 * of_spread  # of a squared distance; the mean it is from drops out, since distances add up to zero
        offset = (of_means / shape.out_pixels - factor * means).contiguous()
        found, of_taps = torch.empty_like(x), taps.new_empty(threads, *taps.shape)
        scratch = x.new_empty(threads, 2 * shape.bordered + shape.out_pixels * taps.shape[1])
        gradient = channels_last(gradient)
        call("widen_backward", x.dtype, shape, x, taps, z, gradient, factor, offset, found, of_taps, scratch)
        return found, of_taps.sum(0).t().reshape(-1, 1, shape.kernel, shape.kernel), None, None, None


class ActivatedProjection(torch.autograd.Function):
    """activation((z - centre) scale + shift), then a 1x1 convolution; of widened maps only z is kept.

    apply(z, centre, scale, shift, weight, kind): N x E x H x W, E, N x E, N x E, out x E x 1 x 1 -> N x out x H x W.
    """

    @staticmethod
    def forward(ctx, z: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, kind: int) -> Tensor:
        centre, scale, shift = centre.contiguous(), scale.contiguous(), shift.contiguous()
        ctx.kind = kind
        ctx.save_for_backward(z, centre, scale, shift, weight)
        return F.conv2d(ActivatedProjection._activated(z, centre, scale, shift, kind), weight)

    @staticmethod
    def _activated(z: Tensor, centre: Tensor, scale: Tensor, shift: Tensor, kind: int) -> Tensor:
        y = torch.empty_like(z)
        images, expanded, height, width = z.shape
        call("activate", z.dtype, images, height * width, expanded, kind, z, centre, scale, shift, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *affine, weight = ctx.saved_tensors
        y = ActivatedProjection._activated(*affine, ctx.kind)
        pairs = [1, 1], [0, 0], [1, 1], False, [0, 0]
        found, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, y, weight, None, *pairs, 1, [True, True, False]
        )
        found, (z, centre, scale, shift) = channels_last(found), affine
        of_scale, of_shift = torch.empty_like(scale), torch.empty_like(shift)
        images, expanded, height, width = z.shape
        numbers = images, height * width, expanded, ctx.kind
        call("activate_backward", z.dtype, *numbers, z, centre, scale, shift, found, of_scale, of_shift)
        return found, -(scale * of_shift).sum(0), of_scale, of_shift, of_weight, None


def batch_statistics(means: Tensor, spread: Tensor, pixels: int, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel over a batch, from Widening's moments; bn's running statistics follow them."""
    mean, count = means.mean(0), len(means) * pixels
    variance = spread / count + (means - mean).square().mean(0)
    with torch.no_grad():
        bn.num_batches_tracked += 1
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(variance * (count / (count - 1)), bn.momentum)
    return mean, variance


def fits(x: Tensor, depthwise: nn.Sequential) -> bool:
    """Whether the kernels can train the block with this depthwise convolution and batch norm, on this input."""
    conv, bn = depthwise.conv, depthwise.bn
    pixels = x.shape[2] * x.shape[3] // conv.stride[0] ** 2
    return (
        bn.training
        and type(bn) is nn.BatchNorm2d
        and type(conv) is ReuseDepthwise
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype in REALS
        and x.shape[1] % LANES == 0
        and conv.kernel_size in ((3, 3), (5, 5))
        and len(x) * pixels > 1  # torch's batch norm has its own words for one value
    )


def widened_block(
    x: Tensor,
    depthwise: nn.Sequential,
    project: nn.Sequential,
    before: nn.Module,
    after: nn.Module,
    gates: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """before, Reuse, depthwise convolution and batch norm, gates, after, 1x1 convolution and batch norm.

    N x C x H x W -> N x out x H' x W'. depthwise, project: layers.ConvBatchNorm; before, after: activations of KINDS;
    gates: N x E means of the channels -> N x E x 1 x 1 factors.
    """
    conv, bn = depthwise.conv, depthwise.bn
    z, means, spread = Widening.apply(x, conv.weight, conv.stride[0], conv.padding[0], KINDS[type(before)])
    mean, variance = batch_statistics(means, spread, z.shape[2] * z.shape[3], bn)
    scale, shift = (bn.weight * torch.rsqrt(variance + bn.eps)).expand_as(means), bn.bias.expand_as(means)
    if gates is not None:
        factors = gates((means - mean) * scale + shift).flatten(1)
        scale, shift = scale * factors, shift * factors
    return project.bn(ActivatedProjection.apply(z, mean, scale, shift, project.conv.weight, KINDS[type(after)]))


def use(network: nn.Module) -> None:
    """Has the kernels train the network's widened blocks.

    Raises ValueError where it has none, or models/kernels.c does not compile.
    """
    blocks = [module for module in network.modules() if hasattr(module, "kernels")]
    if not blocks:
        raise ValueError("the network has no widened blocks")
    load_library(REALS[next(network.parameters()).dtype])
    for block in blocks:
        block.kernels = True


def in_use(network: nn.Module) -> bool:
    return any(getattr(module, "kernels", False) for module in network.modules())

"""Activation, Reuse, depthwise convolution and the moments of the widened map, in one op with two forms.

The form written with torch's functions runs on any device and says what the op computes. On a CPU with a C compiler
models/ops/kernels.c computes the same without repeating the map. A form for another device is one more
`widen.register_kernel("cuda")` and `widen_backward.register_kernel("cuda")`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import build
from models.ops.build import Shape, channels_last
from models.ops.elementwise import activate, activate_backward, differentiable_gradients

Sizes = tuple[int, int, int]  # E, H', W' of the widened map


def widened_sizes(x: Tensor, weight: Tensor, stride: int, padding: int) -> Sizes:
    height, width = ((side + 2 * padding - weight.shape[2]) // stride + 1 for side in x.shape[2:])
    return weight.shape[0], height, width


def reference(x: Tensor, weight: Tensor, stride: int, padding: int, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    """z = depthwise(Reuse(activation(x))), and its moments.

    x: N x C x H x W. weight: E x 1 x K x K, E a multiple of C; filter m*C + c reads channel c.
    activation: none, relu or hardswish.
    Returns z, N x E x H' x W', channels last; its mean over the pixels of each image, N x E; and for each of the E
    channels the sum over all images of the squared distances from these means.
    """
    copies = activate(x, activation).repeat(1, weight.shape[0] // x.shape[1], 1, 1)
    z = channels_last(F.conv2d(copies, weight, None, stride, padding, groups=weight.shape[0]))
    means = z.mean((2, 3))
    return z, means, (z - means[:, :, None, None]).square().sum((0, 2, 3))


def backward_reference(
    grad_z: Tensor,
    grad_means: Tensor,
    grad_squares: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor,
    means: Tensor,
    stride: int,
    padding: int,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The gradients of x and weight from those of widen's three results."""
    factor, offset = moments_backward(grad_means, grad_squares, z, means)
    grad_z = grad_z + factor[:, None, None] * z + offset[:, :, None, None]
    times = weight.shape[0] // x.shape[1]
    copies = activate(x, activation).repeat(1, times, 1, 1)
    geometry = [stride, stride], [padding, padding], [1, 1], False, [0, 0], weight.shape[0]
    grad_copies, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_z, copies, weight, None, *geometry, [True, True, False]
    )
    grad_input = activate_backward(grad_copies.unflatten(1, (times, -1)).sum(1), x, activation)
    return channels_last(grad_input), grad_weight.contiguous()


def moments_backward(grad_means: Tensor, grad_squares: Tensor, z: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """What the moments add to the gradient of z, as factor (E) times z plus offset (N x E).

    A squared distance has the derivative 2 (z - mean) in z; the one in the mean drops out, since the distances from a
    mean add up to zero.
    """
    factor = 2 * grad_squares
    return factor, (grad_means / (z.shape[2] * z.shape[3]) - factor * means).contiguous()


widen = torch.library.custom_op(
    "reuse::widen",
    reference,
    mutates_args=(),
    schema="(Tensor x, Tensor weight, int stride, int padding, str activation) -> (Tensor, Tensor, Tensor)",
)
widen_backward = torch.library.custom_op(
    "reuse::widen_backward",
    backward_reference,
    mutates_args=(),
    schema="(Tensor grad_z, Tensor grad_means, Tensor grad_squares, Tensor x, Tensor weight, Tensor z, Tensor means, "
    "int stride, int padding, str activation) -> (Tensor, Tensor)",
)


@widen.register_fake
def widen_fake(x: Tensor, weight: Tensor, stride: int, padding: int, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    expanded, *outs = widened_sizes(x, weight, stride, padding)
    z = torch.empty((len(x), expanded, *outs), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return z, x.new_empty(len(x), expanded), x.new_empty(expanded)


@widen_backward.register_fake
def widen_backward_fake(grad_z, grad_means, grad_squares, x, weight, z, means, stride, padding, activation):
    grad_input = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return grad_input, torch.empty_like(weight, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    x, weight, *ctx.options = inputs
    z, means, _ = output
    ctx.save_for_backward(x, weight, z, means)


def _backward(ctx, grad_z: Tensor, grad_means: Tensor, grad_squares: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        inputs = (*ctx.saved_tensors[:2], *ctx.options)
        return tuple(differentiable_gradients(reference, inputs, (grad_z, grad_means, grad_squares)))
    grads = widen_backward(grad_z, grad_means, grad_squares, *ctx.saved_tensors, *ctx.options)
    return (*grads, None, None, None)


widen.register_autograd(_backward, setup_context=_setup)


def shape_of(x: Tensor, weight: Tensor, stride: int, padding: int, activation: str) -> Shape:
    expanded, *outs = widened_sizes(x, weight, stride, padding)
    images, channels, *sides = x.shape
    kernel, kind = weight.shape[2], build.ACTIVATIONS[activation]
    return Shape(images, channels, expanded // channels, *sides, kernel, stride, padding, *outs, kind)


def taps_of(weight: Tensor) -> Tensor:
    """E x 1 x K x K -> K^2 x E, as kernels.c reads the filters."""
    return weight.flatten(1).t().contiguous()


def is_for_c(x: Tensor, weight: Tensor) -> bool:
    """Whether kernels.c takes these sizes and this type."""
    return x.shape[1] % build.LANES == 0 and weight.shape[2] in (3, 5) and build.is_available(x.dtype)


@widen.register_kernel("cpu")
def widen_cpu(x: Tensor, weight: Tensor, stride: int, padding: int, activation: str) -> tuple[Tensor, Tensor, Tensor]:
    if not is_for_c(x, weight):
        return reference(x, weight, stride, padding, activation)
    shape = shape_of(x, weight, stride, padding, activation)
    z, means, squares = widen_fake(x, weight, stride, padding, activation)
    squares = x.new_empty(means.shape)  # of each image
    scratch = x.new_empty(torch.get_num_threads(), shape.bordered)
    build.call("widen", x.dtype, shape, channels_last(x), taps_of(weight), z, means, squares, scratch)
    return z, means, squares.sum(0)


@widen_backward.register_kernel("cpu")
def widen_backward_cpu(grad_z, grad_means, grad_squares, x, weight, z, means, stride, padding, activation):
    if not is_for_c(x, weight):
        return backward_reference(grad_z, grad_means, grad_squares, x, weight, z, means, stride, padding, activation)
    shape, threads, x = shape_of(x, weight, stride, padding, activation), torch.get_num_threads(), channels_last(x)
    factor, offset = moments_backward(grad_means, grad_squares, z, means)
    taps, grad_input = taps_of(weight), torch.empty_like(x)
    grad_taps = taps.new_empty(threads, *taps.shape)
    scratch = x.new_empty(threads, 2 * shape.bordered + shape.out_pixels * weight.shape[0])
    maps = channels_last(z), channels_last(grad_z)
    build.call("widen_backward", x.dtype, shape, x, taps, *maps, factor, offset, grad_input, grad_taps, scratch)
    return grad_input, grad_taps.sum(0).t().contiguous().view(weight.shape)

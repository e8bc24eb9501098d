"""Scale and shift, activation, and a 1x1 convolution, in one op that keeps one wide map for the backward pass.

Autograd alone keeps the activated map beside the map itself, for the convolution's gradient; here the backward pass
computes it again. As in widen.py, the form written with torch's functions stands beside the one of kernels.c.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import build
from models.ops.build import channels_last
from models.ops.elementwise import activate, activate_backward, differentiable_gradients

Affine = tuple[Tensor, Tensor, Tensor]  # centre: E; scale and shift: N x E


def activated_conv1x1(z: Tensor, weight: Tensor, activation: str, affine: Affine | None = None) -> Tensor:
    """conv1x1(activation((z - centre) * scale + shift)); conv1x1(activation(z)) where affine is None.

    z: N x E x H x W. weight: out x E x 1 x 1. activation: none, relu or hardswish. affine: centre (E), scale and shift
    (N x E).
    Returns N x out x H x W. Under autocast it computes in autocast's type, as the convolution alone would.
    """
    if torch.is_autocast_enabled(z.device.type):
        dtype = torch.get_autocast_dtype(z.device.type)
        z, weight = z.to(dtype), weight.to(dtype)
    return op(z, weight, activation, *(affine or (None, None, None)))


def reference(z, weight, activation, centre, scale, shift) -> Tensor:
    return F.conv2d(activate(normalised(z, centre, scale, shift), activation), weight)


def backward_reference(grad, z, weight, activation, centre, scale, shift) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of z, weight, scale and shift from that of the result; without affine the last two are empty."""
    normal = normalised(z, centre, scale, shift)
    grad_y, grad_weight = conv1x1_backward(grad, activate(normal, activation), weight)
    grad_normal = activate_backward(grad_y, normal, activation)
    if scale is None:
        return laid_out_as(grad_normal, z), laid_out_as(grad_weight, weight), z.new_empty(0), z.new_empty(0)
    grad_z = grad_normal * scale[:, :, None, None]
    grad_scale = (grad_normal * (z - centre[:, None, None])).sum((2, 3))
    return laid_out_as(grad_z, z), laid_out_as(grad_weight, weight), grad_scale, grad_normal.sum((2, 3))


def normalised(z: Tensor, centre: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """(z - centre) * scale + shift, or z where there is no scale."""
    if scale is None:
        return z
    return (z - centre[:, None, None]) * scale[:, :, None, None] + shift[:, :, None, None]


def conv1x1_backward(grad: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of y and weight from that of conv2d(y, weight)."""
    geometry = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(grad, y, weight, None, *geometry, [True, True, False])[:2]


def laid_out_as(x: Tensor, other: Tensor) -> Tensor:
    """x with the memory layout of other, which has its shape."""
    return x if x.stride() == other.stride() else torch.empty_like(other).copy_(x)


op = torch.library.custom_op(
    "reuse::activated_conv1x1",
    reference,
    mutates_args=(),
    schema="(Tensor z, Tensor weight, str activation, Tensor? centre, Tensor? scale, Tensor? shift) -> Tensor",
)
backward_op = torch.library.custom_op(
    "reuse::activated_conv1x1_backward",
    backward_reference,
    mutates_args=(),
    schema="(Tensor grad, Tensor z, Tensor weight, str activation, Tensor? centre, Tensor? scale, Tensor? shift) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)


@op.register_fake
def _(z, weight, activation, centre, scale, shift):
    return F.conv2d(z, weight)


@backward_op.register_fake
def _(grad, z, weight, activation, centre, scale, shift):
    empty = z.new_empty(0 if scale is None else z.shape[:2])
    return torch.empty_like(z), torch.empty_like(weight), empty, torch.empty_like(empty)


def _setup(ctx, inputs, output) -> None:
    z, weight, ctx.activation, *affine = inputs
    ctx.save_for_backward(z, weight, *affine)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    z, weight, centre, scale, shift = ctx.saved_tensors
    if torch.is_grad_enabled():
        inputs = (z, weight, ctx.activation, centre, scale, shift)
        return tuple(differentiable_gradients(reference, inputs, (grad,)))
    grad_z, grad_weight, grad_scale, grad_shift = backward_op(grad, z, weight, ctx.activation, centre, scale, shift)
    if scale is None:
        return grad_z, grad_weight, None, None, None, None
    return grad_z, grad_weight, None, -(scale * grad_shift).sum(0), grad_scale, grad_shift


op.register_autograd(_backward, setup_context=_setup)


def is_for_c(z: Tensor, scale: Tensor | None) -> bool:
    """Whether kernels.c takes this map; without a scale torch's own activation is as good."""
    return scale is not None and z.shape[1] % build.LANES == 0 and build.is_available(z.dtype)


def activated(z: Tensor, activation: str, centre: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    y = torch.empty_like(z)
    images, expanded, height, width = z.shape
    sizes = images, height * width, expanded, build.ACTIVATIONS[activation]
    build.call("activate", z.dtype, *sizes, z, centre, scale, shift, y)
    return y


@op.register_kernel("cpu")
def _(z, weight, activation, centre, scale, shift):
    if not is_for_c(z, scale):
        return reference(z, weight, activation, centre, scale, shift)
    affine = centre.contiguous(), scale.contiguous(), shift.contiguous()
    return F.conv2d(activated(channels_last(z), activation, *affine), weight)


@backward_op.register_kernel("cpu")
def _(grad, z, weight, activation, centre, scale, shift):
    if not is_for_c(z, scale):
        return backward_reference(grad, z, weight, activation, centre, scale, shift)
    wide, affine = channels_last(z), (centre.contiguous(), scale.contiguous(), shift.contiguous())
    grad_y, grad_weight = conv1x1_backward(grad, activated(wide, activation, *affine), weight)
    grad_z = channels_last(grad_y)
    grad_scale, grad_shift = torch.empty_like(affine[1]), torch.empty_like(affine[1])
    images, expanded, height, width = z.shape
    sizes = images, height * width, expanded, build.ACTIVATIONS[activation]
    # overwrites grad_z in place, from the gradient of the activated map to that of z
    build.call("activate_backward", z.dtype, *sizes, wide, *affine, grad_z, grad_scale, grad_shift)
    return laid_out_as(grad_z, z), laid_out_as(grad_weight, weight), grad_scale, grad_shift

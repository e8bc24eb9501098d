"""The activations that the ops take by name, and derivatives as torch has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def activate(x: Tensor, activation: str) -> Tensor:
    """activation: none, relu or hardswish."""
    return {"none": lambda x: x, "relu": F.relu, "hardswish": F.hardswish}[activation](x)


def activate_backward(grad_output: Tensor, x: Tensor, activation: str) -> Tensor:
    """The gradient of activate(x, activation) with respect to x, times grad_output."""
    if activation == "none":
        return grad_output
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad_output, x, 0)
    return torch.ops.aten.hardswish_backward(grad_output, x)


def differentiable_gradients(function: Callable, inputs: Sequence, grads: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of each of the inputs from those of function(*inputs), which can be differentiated once more.

    None for inputs that have no gradient. For a backward pass under create_graph: the ops' own backward pass has none.
    """
    # views, so that what an input has been computed from is not gone through again
    inputs = [each.view_as(each) if isinstance(each, Tensor) else each for each in inputs]
    wanted = [each for each in inputs if isinstance(each, Tensor) and each.requires_grad]
    results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    found = iter(torch.autograd.grad(results, wanted, grads, create_graph=True))
    return [next(found) if isinstance(each, Tensor) and each.requires_grad else None for each in inputs]

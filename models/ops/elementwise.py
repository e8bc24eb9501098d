"""The activations that the ops take by name, and their derivatives, as torch has them."""

from __future__ import annotations

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

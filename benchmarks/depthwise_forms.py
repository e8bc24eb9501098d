"""The forms in which a widened map can be convolved, to be measured against each other (models/ops/depthwise.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.nn.functional as F

from models.ops import depthwise

FORMS = WHOLE_MAP, COPY_BY_COPY, MULTIPLIER = "whole map", "copy by copy", "multiplier"


def by_multiplier(x, weight, bias, stride, padding, times):
    """One convolution with a channel multiplier, in the place of models.ops.depthwise.repeated: a time, and no result,
    since its channels are in another order."""
    return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """A context in which each device takes one of FORMS; "" leaves each its own."""
    before = depthwise.WHOLE_MAP, depthwise.repeated
    if name:
        depthwise.WHOLE_MAP = () if name == COPY_BY_COPY else ("cpu", "cuda")
    if name == MULTIPLIER:
        depthwise.repeated = by_multiplier
    try:
        yield
    finally:
        depthwise.WHOLE_MAP, depthwise.repeated = before

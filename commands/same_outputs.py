"""Whether a file's outputs are the network's, up to rounding: what a file has to pass before it is written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.shown.progress import watched

# The largest difference from the network that counts as rounding, as a share of the image's largest output.
TOLERANCE = 1e-4


def on_cpu(network: nn.Module) -> nn.Module:
    """A float32 copy on the CPU, as a file's outputs are compared with it."""
    return copy.deepcopy(network).to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def check_runs(
    network: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, path: Path, runs_in: str, advice: str
) -> tuple[float, float]:
    """check_same() of what a network and a file give for images, N x C x H x W; and the network's largest output.

    The file, run by `run`, has one image, then larger and uneven batches, as its batch dimension is free.
    """
    parts = [images[:1], *images[1:].split(64)] if len(images) > 1 else [images]
    expected = torch.cat([network(part) for part in watched(images.split(64), "outputs to compare with")])
    found = torch.cat([run(part) for part in watched(parts, runs_in)])
    return check_same(expected, found, path, runs_in, advice), expected.abs().max().item()


def check_same(expected: Tensor, found: Tensor, path: Path, runs_in: str, advice: str) -> float:
    """The largest difference of outputs, N x outputs each, as a share of the image's largest one.

    path  of the file that is not written yet; runs_in, advice: what gave `found`, and what the user can do about it
    Raises ValueError where for any image they differ by more than TOLERANCE, or another output is the largest, but for
    a near tie.
    """
    largest = expected.abs().amax(1)
    # an angle near zero, or an image with hardly any output, is measured by the median image
    shares = (found - expected).abs().amax(1) / largest.clamp_min(largest.median())
    difference = shares.max().item()
    if not difference <= TOLERANCE:  # also true for NaN
        raise ValueError(
            f"{path}: not written, {runs_in}'s outputs of an image differ from the network's by {difference:.2g} of "
            f"the largest of them ({TOLERANCE:g} is allowed); {advice}"
        )
    if other := other_choices(expected, found):
        raise ValueError(
            f"{path}: not written, {runs_in} has another largest output than the network for {other} of "
            f"{len(expected)} images; {advice}"
        )
    return difference


def other_choices(expected: Tensor, found: Tensor) -> int:
    """The number of images whose largest output is another one in found, but for near ties. Both are N x outputs.

    It also sees the images whose outputs are small beside the others', which a difference is not measured by.
    """
    ties = expected.amax(1) - TOLERANCE * expected.abs().amax(1)
    chosen = expected.gather(1, found.argmax(1, keepdim=True)).squeeze(1)
    return int((chosen < ties).sum())

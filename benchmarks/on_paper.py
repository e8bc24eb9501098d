"""A prediction: what a training step asks of an H100, from counts, and what binds there; beside it what was measured.

    python benchmarks/on_paper.py

The last columns are from results/on_gpu/h100.json, which benchmarks/on_gpu.py wrote on one; they are empty where it did
not come to measure.

A step of a few images (forward, loss, backward) is run in the form that CUDA has, and every operation counts: it reads
its inputs and writes its results once (batch norm, and a convolution's backward pass, read theirs twice). Views move
nothing. The arithmetic is 6 operations a multiply-accumulate: forward, and twice in the backward pass. Kernels a
step were counted where torch starts them (RESULTS.md, under Speed).

The model of time: the host starts kernels, the memory moves bytes, the cores compute, all at the same time and at their
peak; what takes longest binds. It leaves out that maps may stay in the cache of 50 MB, that a small kernel takes some
microseconds however little it does, and that depthwise convolutions compute far below the peak. So a step takes longer
than this, and a lever gives less where what it relieves does not bind alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from benchmarks.depthwise_forms import COPY_BY_COPY, WHOLE_MAP, form
from engine.shown.cards import markdown_table
from models.ops import activated_conv
from models.summary import mac_count, parameter_count

# https://www.nvidia.com/en-us/data-center/h100/ (SXM); 1,979 TFLOP/s of bf16 are with sparsity
MEMORY = 3.35e12  # bytes a second
PEAK = {2: 989e12, 4: 67e12}  # operations a second by bytes of a number: bf16 on tensor cores, float32 without TF32
# An assumption: "a few microseconds" in https://developer.nvidia.com/blog/cuda-graphs/, and torch's own host work
LAUNCH = 5e-6  # seconds of the host for each kernel

LAUNCHES = {  # kernels a step of torch 2.14.1, counted
    "cheapV2": 651,
    "MobileNetV2": 927,
    "cheapV3": 787,
    "MobileNetV3": 974,
    "cheapV3_small": 676,
    "MobileNetV3_small": 823,
}
KERNELS_BY_COPY = 1381  # kernels a step of cheapV3 with a convolution for each copy
BATCHES = (128, 512, 1024)
FUSED_SGD, SGD_BY_OPERATION = 5, 11  # numbers read and written for each weight, with momentum and weight decay
FOREACH_KERNELS = 12  # that SGD by operation starts in place of one or two: four operations over lists of tensors
IMAGES = 7  # in the step that is counted; no layer has 7 channels, so that maps can be told from weights
TWICE = ("native_batch_norm", "cudnn_batch_norm", "native_batch_norm_backward", "convolution_backward")

MEASURED = Path(__file__).resolve().parents[1] / "results" / "on_gpu" / "h100.json"
WITHOUT = {  # by the first word of a lever, the line of on_gpu.py's matrix that was measured without it
    "channels_last": "NCHW (-channels-last false)",
    "bf16": "float32 (-amp off)",
    "one depthwise": COPY_BY_COPY,
    "CUDA graphs": "eager",
}

PARTS = {  # operations of this project, by what they consist of on a GPU
    "reuse::activated_conv1x1": activated_conv.reference,
    "reuse::activated_conv1x1_backward": activated_conv.backward_reference,
}


class Traffic(TorchDispatchMode):
    """Counts the numbers that operations read and write: of maps, whose first dimension is IMAGES, and of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = self.rest = self.dense = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        if name in PARTS:
            with self:
                return PARTS[name](*args)
        out = func(*args, **(kwargs or {}))
        if any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns):
            return out  # a view
        read, written = ([t for t in tree_leaves(each) if isinstance(t, Tensor)] for each in ((args, kwargs), out))
        self._add(read * (2 if name in TWICE else 1) + written)
        if name.startswith("convolution") and args[-2 if name.endswith("backward") else -1] == 1:
            self.dense += sum(t.numel() for t in read + written if t.ndim == 4 and len(t) == IMAGES)
        return out

    def _add(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.ndim and len(tensor) == IMAGES:
                self.maps += tensor.numel()
            else:
                self.rest += tensor.numel()


@dataclass(frozen=True)
class Step:
    """What one training step of a network takes.

    maps, dense  numbers moved for each image, and those of them that are maps of convolutions without groups
    rest         numbers moved for weights, whatever the batch
    parameters, macs, launches  weights, multiply-accumulates of an image, and kernels
    """

    maps: float
    dense: float
    rest: int
    parameters: int
    macs: int
    launches: int

    def seconds(
        self, batch: int, width: int = 2, sgd: int = FUSED_SGD, launches: int | None = None
    ) -> dict[str, float]:
        """By what may bind. width: bytes of a number of a map; launches: in place of the step's own."""
        moved = batch * self.maps * width + 4 * (self.rest + sgd * self.parameters)
        return {
            "host": LAUNCH * (self.launches if launches is None else launches),
            "memory": moved / MEMORY,
            "arithmetic": 6 * batch * self.macs / PEAK[width],
        }


def count(network: nn.Module, launches: int, how: str = WHOLE_MAP) -> Step:
    """The step of a network for 32x32 images and 100 classes.

    launches: the kernels that it was seen to start; how: the form of the widened depthwise convolutions.
    """
    macs, parameters = mac_count(network, 3, 32), parameter_count(network)
    images, targets = torch.rand(IMAGES, 3, 32, 32), torch.zeros(IMAGES).long()
    with form(how), Traffic() as seen:
        F.cross_entropy(network.train()(images), targets).backward()
    return Step(seen.maps / IMAGES, seen.dense / IMAGES, seen.rest, parameters, macs, launches)


def levers(step: Step, copies: Step, batch: int) -> dict[str, float]:
    """By lever: how many times as fast a step should be with it as without, by this model."""
    own = max(step.seconds(batch).values())
    dense = Step(step.maps + 2 * step.dense, 0, step.rest, step.parameters, step.macs, step.launches)
    return {
        "channels_last (without: each dense convolution's maps transposed)": max(dense.seconds(batch).values()) / own,
        "bf16 (without: float32, no TF32)": max(step.seconds(batch, width=4).values()) / own,
        "one depthwise convolution (without: one a copy)": max(copies.seconds(batch).values()) / own,
        "fused optimizer (without: by operation)": max(
            step.seconds(batch, sgd=SGD_BY_OPERATION, launches=step.launches + FOREACH_KERNELS).values()
        )
        / own,
        "CUDA graphs (without: every kernel started by the host)": own / max(step.seconds(batch, launches=1).values()),
    }


def gain(lines: dict[str, dict[str, str]], lever: str) -> str:
    """How many times as fast the smallest batch was seen to train with a lever as without; empty where it was not."""
    without = next((name for start, name in WITHOUT.items() if lever.startswith(start)), "")
    texts = [lines.get(f"cheapV3, batch {BATCHES[0]}{more}", {}).get("images/s") for more in ("", f", {without}")]
    if not without or None in texts:
        return ""
    own, other = (float(text.partition(" (")[0].replace(",", "")) for text in texts)
    return f"{own / other:.2f}"


def prediction() -> str:
    """Two markdown tables with a column for what a GPU measured: steps by network and batch, and levers."""
    lines = json.loads(MEASURED.read_text())["tables"]["matrix"]
    steps = {name: count(models.create(name), launches) for name, launches in LAUNCHES.items()}
    rows = []
    for name, step in steps.items():
        for batch in BATCHES:
            seconds = step.seconds(batch)
            binds = max(seconds, key=seconds.__getitem__)
            moved, speed = seconds["memory"] * MEMORY / 1e9, batch / seconds[binds]
            times = [f"{1e3 * value:.2f}" for value in seconds.values()]
            seen = lines.get(f"{name}, batch {batch}", {}).get("images/s", "").partition(" (")[0]
            rows.append([name, str(batch), str(step.launches), f"{moved:.2f}", *times, binds, f"{speed:,.0f}", seen])
    header = ["network", "batch", "kernels", "GB moved", "host, ms", "memory, ms", "arithmetic, ms", "binds"]
    first = markdown_table([*header, "images/s at most, without graphs", "measured, by graphs"], rows)
    copies = count(models.create("cheapV3"), KERNELS_BY_COPY, COPY_BY_COPY)
    found = [levers(steps["cheapV3"], copies, batch) for batch in BATCHES]
    rows = [[lever, *(f"{each[lever]:.2f}" for each in found), gain(lines, lever)] for lever in found[0]]
    header = ["cheapV3, step without over step with", *map(str, BATCHES), f"measured, {BATCHES[0]}"]
    second = markdown_table(header, rows)
    return f"{first}\n\n{second}"


if __name__ == "__main__":
    print(prediction())

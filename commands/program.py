"""-export pt2: writes the folded network as a program of torch.export, which ExecuTorch and AOTInductor start from.

    extra = {"classes": "", "mean": "", "std": "", "size": ""}
    program = torch.export.load("last.pt2", extra_files=extra)
    logits = program.module()(images)

Its form is that of which ExecuTorch's XNNPACK takes most (models/for_export.py):
to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import torch
from torch import Tensor, nn

from commands.export import NORMALISED, Exported, about, images_to_check, quiet
from commands.same_outputs import check_runs, on_cpu
from engine.saved.trained import load_trained
from engine.shown.progress import status
from models.fold import Sizes, fold
from models.for_export import for_xnnpack
from utils import write_atomically

# Images that the program takes at once: runtimes that plan their memory beforehand need a bound.
LARGEST_BATCH = 256
RUNS_IN = "torch's program"


def export(weights: Path, overrides: dict[str, object]) -> Exported:
    """Writes the folded network of a checkpoint beside it, as <stem>.pt2, and prints how close its outputs are.

    overrides: settings that do not change the network.
    Raises ValueError as load_trained() does, and where a data set that is given cannot be used, or the program would
    not give the same outputs.
    """
    trained = load_trained(weights, overrides)
    images, checked_on = images_to_check(trained, is_dataset_needed="dataset" in overrides)
    exported = export_program(trained.network, weights.with_suffix(".pt2"), images, about(trained, NORMALISED))
    exported = dataclasses.replace(exported, checked_on=checked_on)
    print(exported)
    return exported


def export_program(network: nn.Module, path: Path, images: Tensor, metadata: dict[str, str]) -> Exported:
    """Folds a network and writes it to path as torch.export.save does, for 1 to LARGEST_BATCH images at once.

    images    normalised floats, N x C x H x W; the program is run on them, as it is read again, before it is written
    metadata  strings that are stored in it, by name (extra_files of torch.export.load)
    Raises ValueError, and writes nothing, where the outputs are not the network's (check_same).
    """
    network = on_cpu(network)
    images = images.to("cpu", torch.float32).contiguous()
    folded = fold(network)
    with status("making the program"):
        data = to_program(for_xnnpack(folded), images.shape[1:], metadata)
        run = torch.export.load(io.BytesIO(data)).module()
    difference, largest = check_runs(network, run, images, path, RUNS_IN, "take another version of torch")
    write_atomically(path, data)
    takes = f"{metadata.get('input', NORMALISED)}; N up to {LARGEST_BATCH}"
    sizes = Sizes.of(network, folded)
    return Exported(path, len(data), sizes, len(images), difference, largest, runs_in=RUNS_IN, takes=takes)


def to_program(network: nn.Module, shape: torch.Size, metadata: dict[str, str]) -> bytes:
    """A network whose input is N x shape as the bytes of a .pt2 file."""
    batch = torch.export.Dim("batch", max=LARGEST_BATCH)
    with quiet():
        program = torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # source lines and their paths
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files=metadata)
    return buffer.getvalue()

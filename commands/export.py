"""-export onnx: writes the folded network as an ONNX file, once ONNX Runtime has given the same outputs with it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from commands.same_outputs import check_runs, on_cpu
from datasets import View
from engine.saved.trained import Trained, load_trained
from engine.shown.progress import status
from models.fold import Sizes, fold
from models.for_export import for_onnx
from utils import write_atomically

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NORMALISED = "float32, (pixel / 255 - mean) / std of each channel"
PIXELS = "uint8 pixels, of which the file itself makes (pixel / 255 - mean) / std of each channel"
IMAGES, OUTPUTS = "images", "logits"  # names of the file's input and output
CHECKED = 256  # test images whose outputs are compared


@dataclasses.dataclass(frozen=True)
class Exported:
    """The file that was written, and how close its outputs are to the network's.

    difference  the largest difference over `images` images, as a share of the image's largest output
    checked_on  what these images are
    largest     the largest output of all
    runs_in     what gave the file's outputs
    takes       what its input is
    """

    path: Path
    size: int  # bytes
    parameters: Sizes
    images: int
    difference: float
    largest: float
    checked_on: str = "test images"
    runs_in: str = "ONNX Runtime"
    takes: str = ""

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 1e6:.2f} MB, input N x C x H x W: {self.takes}\n"
            f"{self.parameters}\n"
            f"{self.runs_in} on {self.images} {self.checked_on}: largest difference {self.difference:.2g} of "
            f"an image's largest output (up to {self.largest:.3g})"
        )


class FromPixels(nn.Module):
    """N x C x H x W uint8 pixels to probabilities, or to what the network gives where its outputs are no logits."""

    def __init__(self, network: nn.Module, view: View, probabilities: bool) -> None:
        super().__init__()
        self.network, self.probabilities = network, probabilities
        self.register_buffer("mean", torch.tensor(view.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(view.std)[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        outputs = self.network((pixels.float() / 255 - self.mean) / self.std)
        return outputs.softmax(1) if self.probabilities else outputs

    def pixels(self, images: Tensor) -> Tensor:
        """The pixels of normalised images."""
        return ((images * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)


def export(
    weights: Path,
    overrides: dict[str, object],
    int8: bool = False,
    half: bool = False,
    with_preprocessing: bool = False,
) -> Exported:
    """Writes the folded network of a checkpoint beside it, as <stem>.onnx, and prints how close its outputs are.

    overrides: settings that do not change the network. int8, half: whether commands/quantize.py and commands/half.py
    write a file each beside it. with_preprocessing: whether the file takes pixels and gives probabilities.
    Raises ValueError as load_trained() does, and where a package is missing, a data set that is given cannot be used,
    or the file would not give the same outputs.
    """
    check_packages()
    trained = load_trained(weights, overrides)
    fewer_bits = [name for name, is_wanted in (("int8", int8), ("half", half)) if is_wanted]
    if fewer_bits and trained.task.name != "classification":
        raise ValueError(f"-{fewer_bits[0]}: is for classes; leave it out for a network of angles")
    images, checked_on = images_to_check(trained, "dataset" in overrides or bool(fewer_bits))
    metadata = about(trained, PIXELS if with_preprocessing else NORMALISED)
    wrap = None
    if with_preprocessing:
        wrap = partial(FromPixels, view=trained.view, probabilities=trained.task.name == "classification")
    exported = export_onnx(trained.network, weights.with_suffix(".onnx"), images, metadata, wrap)
    exported = dataclasses.replace(exported, checked_on=checked_on, takes=metadata["input"])
    print(exported)
    if int8:
        from commands.quantize import quantize

        quantize(trained, exported.path)
    if half:
        from commands.half import halve

        halve(trained, exported.path, metadata)
    return exported


def about(trained: Trained, takes: str) -> dict[str, str]:
    """What a file says of itself, by name: JSON but for the names of network and data set, and what its input is."""
    view = trained.view
    figures = {"mean": view.mean, "std": view.std, "classes": view.classes, "size": view.side}
    return {
        "net": trained.settings.net,
        "dataset": Path(trained.settings.dataset).name,
        **{name: json.dumps(value) for name, value in figures.items()},
        "input": takes,
    }


def images_to_check(trained: Trained, is_dataset_needed: bool) -> tuple[Tensor, str]:
    """Images as the network sees them, N x C x H x W, and what they are: of the test set, or random ones without it.

    Raises ValueError where a data set that is needed, as where the user has given it, cannot be used.
    """
    try:
        batches = trained.test_batches(downloads=False)
        index = torch.linspace(0, len(batches.index) - 1, CHECKED).round().long().unique()
        images = batches.source.plain(index)[0]
        if not len(images):
            raise ValueError("none of its images can be read")
        return images, "test images"
    except ValueError as error:
        if is_dataset_needed:
            raise
        view = trained.view
        generator = torch.Generator().manual_seed(0)
        pixels = torch.rand(CHECKED, view.channels, view.side, view.side, generator=generator)
        mean, std = (torch.tensor(figures)[:, None, None] for figures in (view.mean, view.std))
        return (pixels - mean) / std, f"random images (without the test set: {error})"


def check_packages() -> None:
    """Raises ValueError where a package is missing; only the export needs these."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{missing[0]}: ONNX export needs it; pip install {' '.join(PACKAGES)}")


def export_onnx(
    network: nn.Module,
    path: Path,
    images: Tensor,
    metadata: dict[str, str],
    wrap: Callable[[nn.Module], FromPixels] | None = None,
) -> Exported:
    """Folds a network and writes it to path as ONNX: one file, any batch size.

    images    normalised floats, N x C x H x W; the model is run on them before it is written
    metadata  strings that are stored in the file, by name
    wrap      puts preprocessing around a network, in which form the file then takes pixels
    Raises ValueError, and writes nothing, where for any image ONNX Runtime's outputs differ from the network's by more
    than rounding, or another output is the largest, but for a near tie (check_same).
    """
    network = on_cpu(network)
    images = images.to("cpu", torch.float32).contiguous()
    folded = fold(network)
    form, whole = for_onnx(folded, images.shape[1:]), network
    if wrap is not None:
        form, whole = wrap(form), wrap(network)
        images = whole.pixels(images)
    with status("making the ONNX file"):
        data = to_onnx(form, images.shape[1:], metadata, images.dtype)
    advice = f"take another version of {PACKAGES[2]}"
    difference, largest = check_runs(whole, onnx_runner(data), images, path, "ONNX Runtime", advice)
    write_atomically(path, data)
    return Exported(path, len(data), Sizes.of(network, folded), len(images), difference, largest)


def to_onnx(
    network: nn.Module, shape: torch.Size, metadata: dict[str, str], dtype: torch.dtype = torch.float32
) -> bytes:
    """A serialised ONNX model of a network whose input is N x shape of that type, for any N."""
    with quiet():
        program = torch.onnx.export(
            network,
            (torch.zeros(2, *shape, dtype=dtype),),  # a batch of one would be taken for a fixed size
            dynamo=True,
            input_names=[IMAGES],
            output_names=[OUTPUTS],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
        model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # the exporter stores source lines and their paths
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def onnx_runner(data: bytes) -> Callable[[Tensor], Tensor]:
    """A function from images to outputs that runs an ONNX model in ONNX Runtime, with as many threads as torch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUTS], {IMAGES: images.numpy()})[0])


@contextlib.contextmanager
def quiet():
    """Silences the exporter's warnings, which are about the outputs; these are compared afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

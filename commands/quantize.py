"""-export onnx -int8: a second file of 8-bit weights and activations, by ONNX Runtime's quantizer, and its error."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import datasets
from commands.export import IMAGES, onnx_runner, quiet
from commands.file_errors import errors_of
from conf.resolve import chosen_row
from datasets.augment import NO_AUGMENTATION
from datasets.loaders import image_source
from engine.saved.trained import Trained, streaming
from utils import write_atomically

CALIBRATION = 256  # training images from which the ranges of activations are taken
# An image whose largest output is as many times the median image's is left out of them: a network with gates that
# nothing bounds, as cheapV3's, gives a few images numbers in which all others would be one step of eight bits.
OUTLIER = 10.0


def quantize(trained: Trained, path: Path) -> Path:
    """Writes <stem>-int8.onnx beside the float file at path, and prints what both get wrong on the test set.

    The network is for classes. Raises ValueError where the data set is not there.
    """
    images = training_images(trained)
    images, left_out = without_outliers(trained.network, images)
    with tempfile.TemporaryDirectory() as folder:
        data = quantized(path, images, Path(folder) / "int8.onnx")
    place = path.with_name(f"{path.stem}-int8.onnx")
    (single, eight), count = errors_of(trained, [onnx_runner(path.read_bytes()), onnx_runner(data)])
    write_atomically(place, data)
    print(f"{place}: {len(data) / 1e6:.2f} MB, calibrated on {len(images)} training images, {left_out} left out")
    print(f"wrong of {count:,} test images: {single} as float32, {eight} as int8")
    return place


def training_images(trained: Trained) -> Tensor:
    """CALIBRATION training images, evenly from all, as the network sees them in tests: N x C x H x W."""
    settings = trained.places.find_data(trained.settings)
    view = trained.view
    data = datasets.load(chosen_row(settings), Path(settings.data), settings.size or None, streaming(settings))
    source = image_source(data.train, view, NO_AUGMENTATION, torch.device("cpu"), 0)
    index = torch.linspace(0, len(data.train.targets) - 1, CALIBRATION).round().long().unique()
    ((part, rows),) = source.fetch([index])
    return part.plain(rows)[0].contiguous()


def without_outliers(network: nn.Module, images: Tensor) -> tuple[Tensor, int]:
    """The images whose largest output is no outlier, and how many others there were."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        largest = torch.cat([network(part.to(device)).float().abs().amax(1).cpu() for part in images.split(64)])
    usual = largest <= OUTLIER * largest.nanmedian()  # not so where it is not a number
    return images[usual], int((~usual).sum())


def quantized(path: Path, images: Tensor, place: Path) -> bytes:
    """The model at path with weights and activations in 8 bits, written to place too; a scale for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(images.split(32))

        def get_next(self) -> dict | None:
            part = next(self.parts, None)
            return None if part is None else {IMAGES: part.numpy()}

    with quiet():
        quantize_static(path, place, Reader(), per_channel=True, weight_type=QuantType.QInt8)
    return place.read_bytes()

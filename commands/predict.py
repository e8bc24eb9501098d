"""-predict: predictions of a trained network for the user's own images, as text for one image and as CSV for more.

An image is decoded, resized and normalised as the images of the data set were that the network was trained on; the
checkpoint says how.
"""

from __future__ import annotations

import csv
import functools
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datasets import image_files as listed
from datasets.augment import NO_AUGMENTATION, ImageSource
from datasets.base import Split, View, resized
from datasets.driving import FRAME_SIZE, frame_pixels
from datasets.images import Unreadable, decode_frames, read_image_file
from datasets.stream import middle
from engine.saved.trained import Trained, load_trained

# Neither Pillow nor torchvision reads these; the packages that do bring a copy of ffmpeg along.
VIDEOS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
CHUNK = 256  # files decoded, and images evaluated, at once


class ClassTable:
    """The predictions of a classification: the most probable classes with their probabilities.

    A table has these members: header, the names of the columns; rows(), the values of the columns for a batch;
    describe(), the lines for one image; cut(), a function that crops and resizes an image to a side, or None where
    decode_frames() does it.
    """

    def __init__(self, view: View) -> None:
        self.classes, self.middle = view.classes, view.middle
        self.shown = min(5, len(self.classes))
        self.header = ["class", "probability"]
        for place in range(2, self.shown + 1):
            self.header += [f"class {place}", f"probability {place}"]

    def rows(self, logits: Tensor) -> list[list]:
        """Class, probability, second class, its probability, ... of each image; nan where the network overflows."""
        values, indices = logits.float().softmax(1).topk(self.shown)
        rows = []
        for probabilities, numbers in zip(values.tolist(), indices.tolist(), strict=True):
            row = []
            for probability, number in zip(probabilities, numbers, strict=True):
                known = probability == probability  # nan is not equal to itself
                row += [self.classes[number] if known else "", f"{probability:.6f}"]
            rows.append(row)
        return rows

    def cut(self, side: int) -> Callable[[Image.Image], Image.Image] | None:
        return functools.partial(middle, side=side) if self.middle else None

    def describe(self, row: list) -> list[str]:
        if row[1] == "nan":
            return ["no class: the network's outputs overflow on this image"]
        return [f"{float(row[place + 1]):8.2%}  {row[place]}" for place in range(0, len(row), 2)]


class AngleTable:
    """The predictions for the driving data set: an angle for each whole frame, in the targets' unit and in degrees."""

    header = ["angle", "degrees"]

    def __init__(self, view: View) -> None:
        self.degrees = view.degrees

    def rows(self, outputs: Tensor) -> list[list]:
        return [[f"{angle:.6f}", f"{self.degrees * angle:.3f}"] for angle in outputs.float().squeeze(1).tolist()]

    def describe(self, row: list) -> list[str]:
        return [f"angle {row[0]}, {row[1]} degrees"]

    def cut(self, side: int) -> Callable[[Image.Image], Image.Image]:
        def road(frame: Image.Image) -> Image.Image:
            if frame.size != FRAME_SIZE:
                raise ValueError(f"{frame.width}x{frame.height} pixels, where the simulator's frames have 320x160")
            return Image.fromarray(frame_pixels(frame, side))

        return road


TABLES = {"classification": ClassTable, "regression": AngleTable}


def predict(paths: list[str], weights: Path, overrides: dict[str, object]) -> None:
    """Prints the predictions of a run's checkpoint for images, folders of images and the frames of animations.

    overrides: settings that do not change the network, or what weights alone are of (engine/saved/bare.py). For one
    image lines of text are printed, otherwise CSV with a line for each, once all are done: path, frame (counted from 1,
    empty for a still image), then the task's columns. Raises ValueError for weights that cannot be used, a path that
    does not exist, and a file that is no image.
    """
    trained = load_trained(weights, overrides)
    files = image_files(paths)
    table = TABLES[trained.task.name](trained.view)
    rows = list(predictions(files, table, trained))
    if len(rows) == 1 and files == paths:
        print("\n".join([files[0], *table.describe(rows[0][2:])]))
    else:
        write_csv(["path", "frame", *table.header], rows)


def image_files(paths: list[str]) -> list[str]:
    """The paths of files as they are, and of each folder the images in it, in alphabetical order.

    Raises ValueError for a path that does not exist, a folder without images and a video.
    """
    files = []
    for path in paths:
        if os.path.isdir(path):
            found = listed.image_files(path, Counter(), listed.EXTENSIONS | listed.ANIMATIONS)
            if not found:
                raise ValueError(f"-predict {path}: holds no images; give a folder with some, or the images' paths")
            files += found
        elif not os.path.isfile(path):
            reason = "is a pipe or a device; give a file" if os.path.exists(path) else "no such file or folder"
            raise ValueError(f"-predict {path}: {reason}")
        elif path.lower().endswith(VIDEOS):
            name = shlex.quote(path)
            raise ValueError(
                f"-predict {path}: a video is read as a folder of its frames; make one: "
                f"mkdir frames && ffmpeg -i {name} frames/%06d.png, then -predict frames"
            )
        else:
            files.append(path)
    return files


@torch.inference_mode()
def predictions(files: list[str], table, trained: Trained) -> Iterator[list]:
    """Yields [path, frame, the task's columns ...] for each frame of each file. Raises ValueError for a bad image."""
    for names, pixels in read_images(files, table, trained.view, trained.settings.skip_broken):
        images = normalised(pixels, trained.view, trained.precision.device).contiguous(memory_format=trained.layout)
        with trained.precision.autocast():
            outputs = trained.network(images)
        for name, row in zip(names, table.rows(outputs), strict=True):
            yield [*name, *row]


def read_images(files: list[str], table, view: View, skip_broken: bool) -> Iterator[tuple[list[tuple], Tensor]]:
    """Yields ([(path, frame), ...], uint8 N x C x S x S) for up to CHUNK frames at a time.

    As in training, images are first brought to the size of the data set, where that is a published one, and then
    resized to the size of the run.
    """
    side = view.file_side

    def decode(path: str) -> list:
        try:
            return list(decode_frames(path, read_image_file(path), view.channels, side, table.cut(side)))
        except Unreadable as error:
            if not skip_broken:
                raise
            print(f"{error.fault}: left out", file=sys.stderr)
            return []

    progress = tqdm(total=len(files), desc="reading", unit="file", leave=False, disable=None)
    with progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), CHUNK):
            part = files[start : start + CHUNK]
            names, frames = [], []
            for path, found in zip(part, pool.map(decode, part), strict=True):
                names += [(path, number if len(found) > 1 else "") for number in range(1, len(found) + 1)]
                frames += found
                progress.update()
            for first in range(0, len(frames), CHUNK):
                pixels = torch.from_numpy(np.stack(frames[first : first + CHUNK])).permute(0, 3, 1, 2)
                yield names[first : first + CHUNK], resized(Split(pixels, torch.zeros(len(pixels))), view.side).images


def normalised(pixels: Tensor, view: View, device: torch.device) -> Tensor:
    """The images, uint8 N x C x S x S, normalised on the device as the test images were: float32, N x C x S x S."""
    count = len(pixels)
    source = ImageSource(pixels, torch.zeros(count), view.mean, view.std, NO_AUGMENTATION, device)
    return source.plain(torch.arange(count))[0]


def write_csv(header: list[str], rows: list[list]) -> None:
    """Writes CSV to stdout."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    for path, *row in rows:
        writer.writerow([os.fsencode(path).decode(errors="replace"), *row])

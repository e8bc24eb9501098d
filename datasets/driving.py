"""Reads the driving data set: what the Udacity simulator records, driving_log.csv and the frames in its folder IMG.

A row of the log names the frames of the centre, left and right camera and gives the angle of the steering wheel
(nothing else is read). An angle is a number from -1 to 1, for the simulator's -25 to 25 degrees. Only the file name of
a frame's path is used, and the file is looked for in IMG. The forms in which a log is read: datasets/driving_log.py.

Neighbouring frames show nearly the same picture. The test set is therefore made of whole stretches and not of single
rows: the log is cut into 25 stretches of equal length, and the third of every five is held out. This is a fifth of
the rows, the same in every run.
"""

# NOTE: only the centre frame of a test row is kept.
# NOTE: Pillow resizes the frames (bilinear, over all pixels that fall into one), and not OpenCV as in the original.

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conf.datasets import DatasetRow
from datasets.base import Location, Split
from datasets.driving_log import CAMERAS, LogRow, read_log
from datasets.images import decode_images, read_image_file
from datasets.pixels import as_viewed
from datasets.places import bases
from utils import printable

LOG, FRAMES = "driving_log.csv", "IMG"
FRAME_SIZE = (320, 160)  # width and height in pixels
FIRST_ROW, LAST_ROW = 80, 140  # of a frame: above is sky, below the bonnet
STRETCHES, HELD_OUT, OF = 25, 2, 5  # stretches; every fifth from number 2 on is held out
MISSING_ALLOWED = 0.01  # share of the frames listed
NAMED = 5  # missing frames that are named


def find(row: DatasetRow, data: Path) -> Location | None:
    """The log and its frames in data or in data/driving, or in the folder that the user named by its path."""
    folder = Path(row.folder)
    for base in (folder,) if folder.is_absolute() else bases(row, data):
        if (base / LOG).is_file():
            return Location("unpacked", (base / LOG, _frames_folder(base)))
    return None


def _frames_folder(base: Path) -> Path:
    """The folder IMG beside the log, however its letters are written: a system may have changed their case."""
    found = sorted(name for name in os.listdir(base) if name.upper() == FRAMES and (base / name).is_dir())
    return base / (found[0] if found else FRAMES)


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """The name of the one output, "angle", and the training and test frames, uint8, 3 x side x side; targets float32.

    side is size, or the row's where that is None. The training split holds three frames of each row in the order
    centre, left, right, each with the row's angle; the test split holds the centre frames. train: False
    leaves the training frames out, which then need not be there.
    Raises ValueError for a log or a frame that cannot be used.
    """
    log, folder = location.paths
    if not folder.is_dir():
        raise ValueError(f"{log} is there, but no folder {folder} with its frames: put it beside the log")
    rows = read_log(log)
    if len(rows) < STRETCHES:
        raise ValueError(f"{log} holds {len(rows)} rows: {STRETCHES} is the least that can be split")
    testing = held_out_stretches(len(rows))
    listed = set(os.listdir(folder))
    check_missing(log, [each for each, test in zip(rows, testing, strict=True) if train or test], listed)
    whole = [listed.issuperset(each.frames) for each in rows]
    training = [each for each, there, test in zip(rows, whole, testing, strict=True) if train and there and not test]
    test = [each for each, there, test in zip(rows, whole, testing, strict=True) if there and test]
    side = size or row.size
    return ("angle",), _split(training, folder, CAMERAS, side), _split(test, folder, 1, side)


def pixel_range(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std that bring pixels of 0 ... 1 to -0.5 ... 0.5; they do not depend on the images."""
    return (0.5,) * images.shape[1], (1.0,) * images.shape[1]


def held_out_stretches(count: int) -> list[bool]:
    """Tells for each of count rows whether it is held out for testing."""
    return [number * STRETCHES // count % OF == HELD_OUT for number in range(count)]


def check_missing(log: Path, rows: list[LogRow], listed: set[str]) -> None:
    """Prints which frames are missing, and that their rows are left out. Raises ValueError for more than 1 %."""
    missing = [(row.line, name) for row in rows for name in row.frames if name not in listed]
    if not missing:
        return
    names = ", ".join(f"{printable(name)} (line {line})" for line, name in missing[:NAMED])
    names += f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
    count = f"{len(missing):,} of {CAMERAS * len(rows):,} frames of {log} are missing in {FRAMES}"
    if len(missing) > MISSING_ALLOWED * CAMERAS * len(rows):
        raise ValueError(f"{count}, more than {MISSING_ALLOWED:.0%}: {names}; add them, or take out their rows")
    print(f"{count}: {names}; going on without {len({line for line, _ in missing}):,} rows", file=sys.stderr)


def decode_frame(name: str, content: bytes, channels: int, side: int) -> np.ndarray:
    """Rows 80 to 140 of a frame, resized to side x side x 3, uint8. Raises ValueError that names it."""
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = as_viewed(file, 3)
    except Exception as error:  # as in datasets/images.py
        raise ValueError(f"{name} is not a readable image ({error}): repair or remove it") from error
    if image.size != FRAME_SIZE:
        width, height = image.size
        raise ValueError(f"{name} is {width}x{height} pixels; the simulator's frames are 320x160")
    return frame_pixels(image, side)


def frame_pixels(image: Image.Image, side: int) -> np.ndarray:
    """The part of a whole frame (RGB) that a network sees, side x side x 3, uint8."""
    # Not resize(box=...), which mixes the rows next to the box into its edges.
    part = image.crop((0, FIRST_ROW, FRAME_SIZE[0], LAST_ROW))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def _split(rows: list[LogRow], folder: Path, cameras: int, side: int) -> Split:
    names = [os.path.join(folder, name) for row in rows for name in row.frames[:cameras]]
    images = decode_images(names, read_image_file, 3, side, "driving", decode=decode_frame)
    return Split(images, torch.tensor([row.angle for row in rows for _ in range(cameras)], dtype=torch.float32))

"""Reads the driving data set: what the Udacity simulator records, driving_log.csv and the frames in its folder IMG.

A row of the log names the frames of the centre, left and right camera and gives the angle of the steering wheel
(throttle, brake and speed are not read). An angle is a number from -1 to 1, for the simulator's -25 to 25 degrees. A
log may have a header or none, 4 or 7 columns, and Windows or POSIX paths; only a path's file name is used, and the
file is looked for in IMG.

Neighbouring frames show nearly the same picture. The test set is therefore made of whole stretches and not of single
rows: the log is cut into 25 stretches of equal length, and the third of every five is held out. This is a fifth of
the rows, the same in every run.
"""

# NOTE: only the centre frame of a test row is kept.
# NOTE: Pillow resizes the frames (bilinear, over all pixels that fall into one), and not OpenCV as in the original.

from __future__ import annotations

import csv
import io
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from conf.datasets import DatasetRow
from datasets.base import Location, Split
from datasets.images import decode_images
from datasets.places import bases

LOG, FRAMES = "driving_log.csv", "IMG"
CAMERAS = 3  # frames of a row, in the log's order: centre, left, right
COLUMNS = ("center", "left", "right", "steering", "throttle", "brake", "speed")
FRAME_SIZE = (320, 160)  # width and height in pixels
FIRST_ROW, LAST_ROW = 80, 140  # of a frame: above is sky, below the bonnet
STRETCHES, HELD_OUT, OF = 25, 2, 5  # stretches; every fifth from number 2 on is held out
MISSING_ALLOWED = 0.01  # share of the frames listed
NAMED = 5  # missing frames that are named


@dataclass(frozen=True)
class LogRow:
    """A row of the log.

    line    its line, counted from 1
    frames  the names of its frames' files: centre, left, right
    angle   -1 ... 1
    """

    line: int
    frames: tuple[str, ...]
    angle: float


def find(row: DatasetRow, data: Path) -> Location | None:
    """The log and its frames in data or in data/driving, or in the folder that the user named by its path."""
    folder = Path(row.folder)
    for base in (folder,) if folder.is_absolute() else bases(row, data):
        if (base / LOG).is_file():
            return Location("unpacked", (base / LOG, base / FRAMES))
    return None


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


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log. Raises ValueError that names the first line that cannot be used."""
    rows = []
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        for values in reader:
            values = [value.strip() for value in values]
            if not any(values) or (not rows and _is_header(values, path)):
                continue
            rows.append(_parse_row(values, reader.line_num, path))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from None
    if len(rows) < STRETCHES:
        raise ValueError(f"{path} holds {len(rows)} rows: {STRETCHES} is the least that can be split")
    return rows


def held_out_stretches(count: int) -> list[bool]:
    """Tells for each of count rows whether it is held out for testing."""
    return [number * STRETCHES // count % OF == HELD_OUT for number in range(count)]


def check_missing(log: Path, rows: list[LogRow], listed: set[str]) -> None:
    """Prints which frames are missing, and that their rows are left out. Raises ValueError for more than 1 %."""
    missing = [(row.line, name) for row in rows for name in row.frames if name not in listed]
    if not missing:
        return
    names = ", ".join(f"{name} (line {line})" for line, name in missing[:NAMED])
    names += f" and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
    count = f"{len(missing):,} of {CAMERAS * len(rows):,} frames of {log} are missing in {FRAMES}"
    if len(missing) > MISSING_ALLOWED * CAMERAS * len(rows):
        raise ValueError(f"{count}, more than {MISSING_ALLOWED:.0%}: {names}; add them, or take out their rows")
    print(f"{count}: {names}; going on without {len({line for line, _ in missing}):,} rows", file=sys.stderr)


def decode_frame(name: str, content: bytes, channels: int, side: int) -> np.ndarray:
    """Rows 80 to 140 of a frame, resized to side x side x 3, uint8. Raises ValueError that names it."""
    try:
        with Image.open(io.BytesIO(content)) as file:
            image = file.convert("RGB")
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


def _is_header(values: list[str], path: Path) -> bool:
    """Whether the first row names the columns. Raises ValueError where it names them in another order."""
    names = tuple(value.lower() for value in values)
    if "steering" not in names:
        return False
    if names not in (COLUMNS, COLUMNS[:4]):
        raise ValueError(f"{path}: its columns are {', '.join(values)}; they must be {', '.join(COLUMNS)}")
    return True


def _parse_row(values: list[str], line: int, path: Path) -> LogRow:
    if len(values) not in (4, 7):
        raise ValueError(f"{path}, line {line}: has {len(values)} columns; 4 or 7 are expected")
    frames = tuple(value.replace("\\", "/").rpartition("/")[2] for value in values[:CAMERAS])
    if not all(frames):
        raise ValueError(f"{path}, line {line}: names no frame for one of the three cameras")
    try:
        angle = float(values[CAMERAS])
    except ValueError:
        raise ValueError(f"{path}, line {line}: steering angle {values[CAMERAS]!r} is not a number") from None
    if not (math.isfinite(angle) and -1 <= angle <= 1):
        raise ValueError(f"{path}, line {line}: steering angle {values[CAMERAS]} is out of range, -1 to 1 is allowed")
    return LogRow(line, frames, angle)


def _split(rows: list[LogRow], folder: Path, cameras: int, side: int) -> Split:
    names = [os.path.join(folder, name) for row in rows for name in row.frames[:cameras]]
    images = decode_images(names, _read_file, 3, side, "driving", decode=decode_frame)
    return Split(images, torch.tensor([row.angle for row in rows for _ in range(cameras)], dtype=torch.float32))


def _read_file(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()

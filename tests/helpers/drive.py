"""A drive to test on: a generated one that takes a moment, and the real one where it is laid out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
from PIL import Image, ImageDraw

REAL = Path(__file__).resolve().parents[2] / "data" / "driving"
CAMERAS = ("center", "left", "right")


def angle_of(number: int) -> float:
    """Two rows of three are straight on; most are in a real drive."""
    return 0.0 if number % 3 else round(0.8 * math.sin(number), 4)


def write_drive(folder: Path, count: int = 50, line: str = "IMG/{}") -> Path:
    """A drive of `count` rows in folder: a white line that leans as the wheel is turned, on a ground of its own.

    line: how the log writes the path of a frame.
    """
    random = numpy.random.default_rng(0)
    (folder / "IMG").mkdir(parents=True)
    lines = []
    for number in range(count):
        names = [f"{camera}_{number:03}.jpg" for camera in CAMERAS]
        for place, name in enumerate(names):
            ground = random.integers(0, 100, (10, 20, 3), dtype=numpy.uint8)
            image = Image.fromarray(ground).resize((320, 160))
            middle = 160 + (0, 60, -60)[place]
            ends = (middle, 160, middle + 160 * angle_of(number), 80)
            ImageDraw.Draw(image).line(ends, fill=(255, 255, 255), width=12)
            image.save(folder / "IMG" / name)
        lines.append(",".join([*(line.format(name) for name in names), f"{angle_of(number)}", "1", "0", "9.5"]))
    (folder / "driving_log.csv").write_text("\n".join(lines) + "\n")
    return folder

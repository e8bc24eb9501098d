"""Reads a driving log, driving_log.csv, in the forms that the simulator, spreadsheets and pandas give it.

- Encoding: UTF-8, or UTF-16 by its byte order mark.
- Separator: of tab, semicolon and comma the one that parts the first line into four values or more, most of them names
  of pictures; of equals the first. Where it is not the comma, or a value is quoted, an angle may have a decimal comma.
- With a header: a first line that names no picture. The columns are found by their names, in any order. Capitals,
  spaces and signs do not count, nor words for a picture beside the camera's name ("Center Image", "steering_angle").
- Without a header, or with one that only numbers the columns: the frames of the centre, left and right camera, then the
  angle; or these and three more values (throttle, brake or reverse, speed). An index, a whole number, may come first.

Every row has as many values as the first; empty ones behind them are left out.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets.files import read_file
from utils import printable

CAMERAS = 3  # frames of a row, in this order: centre, left, right
ROLES = ("center", "left", "right", "steering")
SPELLINGS = {"centre": "center"} | dict.fromkeys(("steeringangle", "steeringwheelangle", "angle", "steer"), "steering")
PICTURE_WORDS = r"(?:image|img|camera|cam|frame|picture|file|path|name)+"
PICTURES = (".jpg", ".jpeg", ".png", ".bmp")
WIDTHS = (4, 7)  # values of a row without a header and an index
SEPARATORS = "\t;,"


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


@dataclass(frozen=True)
class Columns:
    """The places of the centre, left and right frame and of the angle in a row, and the number of its values."""

    places: tuple[int, ...]
    width: int


def read_log(path: Path) -> list[LogRow]:
    """The rows of a log. Raises ValueError that names the first line that cannot be used, OSError."""
    rows: list[LogRow] = []
    columns = None
    for number, (line, values) in enumerate(_lines(path)):
        if number == 0 and not any(map(_is_picture, values)):
            numbers = [value for value in values if value]
            if numbers != [str(each) for each in range(len(numbers))]:  # else it only numbers the columns
                columns = _named_columns(values, line, path)
            continue
        if columns is None:
            columns = _unnamed_columns(values, line, path)
        rows.append(_parse_row(values, columns, line, path))
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields each line that is not empty: its number, counted from 1, and its values."""
    content = read_file(path)
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    first = next(filter(str.strip, io.StringIO(text, newline=None)), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(first), skipinitialspace=True)
    line = 1
    try:
        for values in reader:
            values = [value.strip() for value in values]
            if any(values):
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: not readable as CSV ({error})") from None


def _separator(first: str) -> str:
    parted = {each: next(csv.reader([first], delimiter=each)) for each in SEPARATORS}
    usable = [each for each, values in parted.items() if len(values) >= len(ROLES)]
    return max(usable, key=lambda each: sum(map(_is_picture, parted[each])), default=",")


def _is_picture(value: str) -> bool:
    return value.strip().lower().endswith(PICTURES)


def _named_columns(values: list[str], line: int, path: Path) -> Columns:
    """The columns by a header. Raises ValueError where it does not name each that is read once."""
    keys = (re.sub(r"[\W\d_]", "", value.lower()) for value in values)
    keys = (re.sub(f"^{PICTURE_WORDS}|{PICTURE_WORDS}$", "", key) for key in keys)
    names = [SPELLINGS.get(key, key) for key in keys]
    if any(names.count(role) != 1 for role in ROLES):
        found = printable(", ".join(values))[:200]
        raise ValueError(f"{path}, line {line}: its columns are {found}; each of {', '.join(ROLES)} must be one")
    return Columns(tuple(map(names.index, ROLES)), len(values))


def _unnamed_columns(values: list[str], line: int, path: Path) -> Columns:
    """The columns by the first row. Raises ValueError for another number of values than a log has."""
    start = 1 if values[0].isdigit() and _is_picture(values[1]) else 0
    for width in sorted(WIDTHS, reverse=True):
        if len(values) >= start + width and not any(values[start + width :]):
            return Columns(tuple(range(start, start + len(ROLES))), start + width)
    raise _wrong_number(values, "4 or 7, or an index and these,", line, path)


def _parse_row(values: list[str], columns: Columns, line: int, path: Path) -> LogRow:
    if len(values) < columns.width or any(values[columns.width :]):
        raise _wrong_number(values, f"{columns.width}, as in the first line,", line, path)
    *frames, angle = (values[place] for place in columns.places)
    frames = tuple(frame.replace("\\", "/").rpartition("/")[2] for frame in frames)
    if not all(frames):
        raise ValueError(f"{path}, line {line}: names no frame for one of the three cameras")
    try:
        number = float(angle.replace(",", "."))
    except ValueError:
        raise ValueError(f"{path}, line {line}: steering angle {angle[:40]!r} is not a number") from None
    if not (math.isfinite(number) and -1 <= number <= 1):
        raise ValueError(f"{path}, line {line}: steering angle {angle} is out of range, -1 to 1 is allowed")
    return LogRow(line, frames, number)


def _wrong_number(values: list[str], expected: str, line: int, path: Path) -> ValueError:
    advice = "a value with a comma needs quotes, or another separator"
    return ValueError(f"{path}, line {line}: has {len(values)} columns; {expected} are expected ({advice})")

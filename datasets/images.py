"""Decodes image files into one uint8 tensor, in parallel threads, with errors that name the files."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from datasets.files import open_file
from datasets.pixels import as_viewed
from utils import printable

ANIMATED = frozenset(("GIF", "PNG", "TIFF", "WEBP"))  # not a phone's JPEG, whose second picture is a preview
CHUNK = 64  # images a task: Python's overhead for a task is that of several small images
NAMED = 10  # broken images that are named
LARGEST_FILE = 1 << 31  # bytes


class Unreadable(ValueError):
    """A file that is no readable image: its name, the reason in a few words, and how a message puts it."""

    def __init__(self, name: str, reason: str, text: str = "is not a readable image") -> None:
        super().__init__(name, reason, text)
        self.name, self.reason, self.text = name, " ".join(reason.split()), text

    @property
    def fault(self) -> str:
        return f"{printable(self.name)} {self.text} ({self.reason})"

    def __str__(self) -> str:
        return f"{self.fault}: repair or remove it"


def refuse(broken: dict[str, str], advice: str = "") -> None:
    """Raises ValueError in one line where any image is broken: the names of the first ten, and their count.

    broken: reasons by the files' names. advice: another way out than to repair or remove them, ", or ...".
    """
    if len(broken) == 1:
        raise ValueError(f"{Unreadable(*next(iter(broken.items())))}{advice}")
    if broken:
        names = ", ".join(f"{printable(name)} ({reason})" for name, reason in list(broken.items())[:NAMED])
        more = f" and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        raise ValueError(f"{len(broken):,} images cannot be read: {names}{more}; repair or remove them{advice}")


@functools.cache
def silence_pillow() -> None:
    """Keeps Pillow's warnings from this process's terminal: corrupt EXIF data, unknown tags of TIFF, a large image.

    What cannot be read is an error, and named. The filter stays: warnings.catch_warnings() is not made for threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode_images(
    names: Sequence[str],
    read: Callable[[str], bytes],
    channels: int,
    side: int,
    label: str,
    decode: Callable[[str, bytes, int, int], np.ndarray] | None = None,
    broken: dict[str, str] | None = None,
) -> torch.Tensor:
    """Decodes files into a tensor, N x channels x side x side, uint8.

    names     the files' names, as read takes them and as an error shows them
    read      returns a file's bytes; it is called from several threads
    channels  1: grey, 3: RGB
    label     the name of the data set in the progress bar
    decode    decodes a file's bytes to pixels; None: decode_image
    broken    takes the names of images that cannot be read, with the reasons; such an image's pixels mean nothing

    An image that is not side x side is resized so that its shorter side fits (bilinear, antialiased), and cropped at
    its centre. Without `broken`, images that cannot be read raise ValueError that names them.
    """
    images = torch.empty(len(names), channels, side, side, dtype=torch.uint8)
    pixels = images.numpy()
    decode_one = decode or decode_image
    found: dict[int, str] = {}  # reasons by number, for the threads finish in any order

    def decode_chunk(start: int) -> int:
        stop = min(start + CHUNK, len(names))
        for index in range(start, stop):
            try:
                pixels[index] = decode_one(names[index], read(names[index]), channels, side).transpose(2, 0, 1)
            except OSError as error:
                found[index] = error.strerror or str(error)
            except Unreadable as error:
                found[index] = error.reason
        return stop - start

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        with tqdm(total=len(names), desc=f"reading {label}", unit="image", leave=False, disable=None) as progress:
            for done in pool.map(decode_chunk, range(0, len(names), CHUNK)):
                progress.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
    reasons = {names[index]: found[index] for index in sorted(found)}
    if broken is None:
        refuse(reasons)
    else:
        broken |= reasons
    return images


def read_image_file(name: str | os.PathLike) -> bytes:
    """The bytes of an image's file. Raises OSError, also for what is no file, or too large for an image."""
    with open_file(name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_FILE:
            raise OSError(errno.EFBIG, f"{size:,} bytes are too many for an image", os.fspath(name))
        return file.read()


def decode_image(
    name: str, content: bytes, channels: int, side: int, cut: Callable[[Image.Image], Image.Image] | None = None
) -> np.ndarray:
    """One image, side x side x channels, uint8. Raises Unreadable where it cannot be decoded.

    cut: a function that brings it to side x side; None: it is brought there as in decode_images.
    """
    return next(decode_frames(name, content, channels, side, cut))


def decode_frames(
    name: str, content: bytes, channels: int, side: int, cut: Callable[[Image.Image], Image.Image] | None = None
) -> Iterator[np.ndarray]:
    """Yields each frame of an animation or page of a TIFF, as decode_image returns the first; other images have one."""
    silence_pillow()
    try:
        if not content:
            raise ValueError("the file is empty")
        with Image.open(io.BytesIO(content)) as file:
            for number in itertools.count():
                try:
                    if number:
                        file.seek(number)
                except EOFError:
                    return
                image = as_viewed(file, channels)
                if cut is not None:
                    image = cut(image)
                elif image.size != (side, side):
                    image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
                yield np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(side, side, channels)
                if file.format not in ANIMATED:
                    return
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError ...
        raise Unreadable(name, _reason(error)) from error


def broken_headers(names: Sequence[str], label: str) -> dict[str, str]:
    """The image files whose headers cannot be read, with the reasons; what follows a header is not looked at."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # they wait for the disk more than they work
        sizes = tqdm(
            pool.map(_header, names, chunksize=CHUNK),
            total=len(names), desc=f"checking {label}", unit="image", leave=False, disable=None,
        )  # fmt: skip
        return {name: found for name, found in zip(names, sizes, strict=True) if isinstance(found, str)}


def common_side(names: Iterable[str]) -> int | None:
    """The side in pixels of the image files where all are squares of one size, otherwise None.

    Only headers are read, up to the first that differs; a file that cannot be read is passed over. A square has the
    same side however EXIF turns it, so the headers' sizes are those that are shown.
    """
    side = None
    for size in map(_header, names):
        if isinstance(size, str):
            continue
        width, height = size
        if width != height or side not in (None, width):
            return None
        side = width
    return side


def _header(name: str) -> tuple[int, int] | str:
    """The width and height of an image file, or why they cannot be read."""
    silence_pillow()
    try:
        with open_file(name) as file:
            if os.fstat(file.fileno()).st_size == 0:
                return "the file is empty"
            with Image.open(file) as image:
                return image.size
    except MemoryError:
        raise
    except Exception as error:  # as in decode_frames
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__

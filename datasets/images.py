"""Decodes image files into one uint8 tensor, in parallel threads, with errors that name the file."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

EXTENSIONS = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
ANIMATED = frozenset(("GIF", "PNG", "TIFF", "WEBP"))  # not a phone's JPEG, whose second picture is a preview
CHUNK = 64  # images a task: Python's overhead for a task is that of several small images


def decode_images(
    names: Sequence[str],
    read: Callable[[str], bytes],
    channels: int,
    side: int,
    label: str,
    decode: Callable[[str, bytes, int, int], np.ndarray] | None = None,
) -> torch.Tensor:
    """Decodes files into a tensor, N x channels x side x side, uint8.

    names     the files' names, as read takes them and as an error shows them
    read      returns a file's bytes; it is called from several threads
    channels  1: grey, 3: RGB
    label     the name of the data set in the progress bar
    decode    decodes a file's bytes to pixels; None: decode_image

    An image that is not side x side is resized so that its shorter side fits (bilinear, antialiased), and cropped at
    its centre. Raises ValueError that names the first file that is not a readable image.
    """
    images = torch.empty(len(names), channels, side, side, dtype=torch.uint8)
    pixels = images.numpy().transpose(0, 2, 3, 1)  # a view: no second copy of all images is made
    decode_one = decode or decode_image

    def decode_chunk(start: int) -> int:
        stop = min(start + CHUNK, len(names))
        for index in range(start, stop):
            pixels[index] = decode_one(names[index], read(names[index]), channels, side)
        return stop - start

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        with tqdm(total=len(names), desc=f"reading {label}", unit="image", leave=False, disable=None) as progress:
            for done in pool.map(decode_chunk, range(0, len(names), CHUNK)):
                progress.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def decode_image(
    name: str, content: bytes, channels: int, side: int, cut: Callable[[Image.Image], Image.Image] | None = None
) -> np.ndarray:
    """One image, side x side x channels, uint8. Raises ValueError that names it where it cannot be decoded.

    cut: a function that brings it to side x side; None: it is brought there as in decode_images.
    """
    return next(decode_frames(name, content, channels, side, cut))


def decode_frames(
    name: str, content: bytes, channels: int, side: int, cut: Callable[[Image.Image], Image.Image] | None = None
) -> Iterator[np.ndarray]:
    """Yields each frame of an animation or page of a TIFF, as decode_image returns the first; other images have one."""
    try:
        with Image.open(io.BytesIO(content)) as file:
            for number in itertools.count():
                try:
                    if number:
                        file.seek(number)
                except EOFError:
                    return
                image = file.convert("RGB" if channels == 3 else "L")
                if cut is not None:
                    image = cut(image)
                elif image.size != (side, side):
                    image = ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)
                yield np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(side, side, channels)
                if file.format not in ANIMATED:
                    return
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, DecompressionBombError ...
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{name} is not a readable image ({reason}): repair or remove it") from error


def common_side(names: Sequence[str]) -> int | None:
    """The side in pixels of the image files where all are squares of one size, otherwise None.

    Only headers are read, up to the first that differs. Raises ValueError that names a file that is not an image.
    """
    side = None
    for name in names:
        try:
            with Image.open(name) as image:
                width, height = image.size
        except Exception as error:  # as in decode_image
            reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(f"{name} is not a readable image ({reason}): repair or remove it") from error
        if width != height or side not in (None, width):
            return None
        side = width
    return side

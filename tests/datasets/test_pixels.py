"""What a picture shows, in every mode that Pillow opens, against numpy's arithmetic and pixels that are known."""

from __future__ import annotations

import colorsys
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets import image_files as files
from datasets.images import Unreadable, decode_image, silence_pillow
from datasets.pixels import as_viewed

SIDE = 12
LUMA = np.array([0.299, 0.587, 0.114])
GREY = np.linspace(0, 255, SIDE * SIDE).round().astype(np.uint8).reshape(SIDE, SIDE)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=2)
ALPHA = np.tile(np.linspace(0, 255, SIDE).round().astype(np.uint8), (SIDE, 1))
DEEP = np.linspace(0, 65535, SIDE * SIDE).round().astype(np.uint16).reshape(SIDE, SIDE)
WIDE = np.linspace(0, 2**31 - 1, SIDE * SIDE).round().astype(np.int32).reshape(SIDE, SIDE)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(content: bytes | Image.Image, channels: int) -> np.ndarray:
    """What is seen of a file, or of an image in a mode that Pillow does not write."""
    if isinstance(content, Image.Image):
        return np.asarray(as_viewed(content, channels)).astype(float)
    return decode_image("a", content, channels, SIDE).astype(float).squeeze()


def on_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    alpha = alpha.reshape(*alpha.shape, *(1,) * (values.ndim - alpha.ndim)) / 255
    return values * alpha + 255 * (1 - alpha)


def made(mode: str, *channels: np.ndarray) -> Image.Image:
    return Image.frombytes(mode, (SIDE, SIDE), np.stack(channels, axis=2).tobytes())


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """An uncompressed little-endian TIFF of one sample a pixel, written by hand."""
    values = values.astype(values.dtype.newbyteorder("<"))
    wanted = {256: SIDE, 257: SIDE, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIDE}
    wanted |= {279: values.nbytes, 339: {"u": 1, "i": 2, "f": 3}[values.dtype.kind]} | {
        {"photometric": 262}[name]: value for name, value in tags.items()
    }
    entries = b"".join(
        number.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little")
        for number, value in sorted(wanted.items())
    )
    start = b"II*\0" + (8 + values.nbytes).to_bytes(4, "little") + values.tobytes()
    return start + len(wanted).to_bytes(2, "little") + entries + bytes(4)


def palette_image(alpha: np.ndarray | None = None) -> Image.Image:
    image = Image.frombytes("P", (SIDE, SIDE), (GREY // 64).tobytes())
    image.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 255, 90, 90, 90])
    if alpha is not None:
        image = image.convert("PA")
        image.putalpha(Image.fromarray(alpha))
    return image


PALETTE = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 255], [90, 90, 90]])[GREY // 64]
INK = np.stack([GREY // 2, GREY.T // 2, 127 - GREY // 2, ALPHA // 2], axis=2)  # cyan, magenta, yellow, black
PRINTED = (255 - INK[..., :3].astype(float)) * (255 - INK[..., 3:].astype(float)) / 255


def rgb16_png() -> bytes:
    """Pillow writes no 16-bit RGB, so the chunks are written by hand."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = (COLOUR.astype(np.uint16) * 256 + 77).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


HUES = np.array([colorsys.hsv_to_rgb(hue / 255, 1, 1) for hue in GREY.flat]).reshape(SIDE, SIDE, 3) * 255

GREYS = {  # what is read as grey, with the grey that a viewer shows
    "1": (encoded(Image.fromarray(GREY > 99), "PNG"), 255.0 * (GREY > 99)),
    "L": (encoded(Image.fromarray(GREY), "PNG"), GREY),
    "LA": (encoded(made("LA", GREY, ALPHA), "PNG"), on_white(GREY, ALPHA)),
    "La": (made("La", (GREY > 99) * ALPHA, ALPHA), on_white((GREY > 99) * 255, ALPHA)),
    "L, one grey transparent": (
        encoded(Image.fromarray(GREY), "PNG", transparency=int(GREY[3, 3])),
        np.where(GREY == GREY[3, 3], 255, GREY),
    ),
    "I;16 PNG": (encoded(Image.fromarray(DEEP), "PNG"), DEEP / 257),
    "I;16 PNG, one grey transparent": (
        encoded(Image.fromarray(DEEP), "PNG", transparency=int(DEEP[3, 3])),
        np.where(DEEP == DEEP[3, 3], 255, DEEP / 257),
    ),
    "I;16 TIFF": (tiff(DEEP), DEEP / 257),
    "I;16B TIFF": (encoded(Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes()), "TIFF"), DEEP / 257),
    "I;16 TIFF, 0 is white": (tiff(DEEP, photometric=0), 255 - DEEP / 257),
    "I;16 JPEG 2000": (encoded(Image.fromarray(DEEP), "JPEG2000"), DEEP / 257),
    "I PGM of 16 bits": (encoded(Image.fromarray(DEEP), "PPM"), DEEP / 257),
    "I TIFF, signed 16 bits": (tiff((DEEP // 2).astype(np.int16)), (DEEP // 2) / 32767 * 255),
    "I TIFF, signed 32 bits": (encoded(Image.fromarray(WIDE), "TIFF"), WIDE / (2**31 - 1) * 255),
    "I TIFF, unsigned 32 bits": (tiff(WIDE.astype(np.uint32) * 2 + 1), WIDE / 2**31 * 255),
    "F TIFF": (encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), GREY),
    "F PFM": (encoded(Image.fromarray(GREY.astype(np.float32) / 255), "PPM"), GREY),
}
COLOURS = {  # the same for colours
    "RGB": (encoded(Image.fromarray(COLOUR), "PNG"), COLOUR),
    "RGB, one colour transparent": (
        encoded(Image.fromarray(COLOUR), "PNG", transparency=tuple(COLOUR[2, 2].tolist())),
        np.where((COLOUR == COLOUR[2, 2]).all(2, keepdims=True), 255, COLOUR),
    ),
    "RGBA": (encoded(Image.fromarray(np.dstack([COLOUR, ALPHA])), "PNG"), on_white(COLOUR, ALPHA)),
    "RGBA WebP": (
        encoded(Image.fromarray(np.dstack([COLOUR, ALPHA])), "WEBP", lossless=True, exact=True),
        on_white(COLOUR, ALPHA),
    ),
    "a shape in the alpha channel": (
        encoded(Image.fromarray(np.dstack([np.zeros_like(COLOUR), ALPHA])), "PNG"),
        np.dstack([255.0 - ALPHA] * 3),
    ),
    "P": (encoded(palette_image(), "PNG"), PALETTE),
    "P, a transparent index": (
        encoded(palette_image(), "PNG", transparency=1),
        np.where((GREY // 64 == 1)[..., None], 255, PALETTE),
    ),
    "P, a table of alphas": (
        encoded(palette_image(), "PNG", transparency=bytes([255, 0, 128, 30])),
        on_white(PALETTE, np.array([255, 0, 128, 30])[GREY // 64]),
    ),
    "PA": (palette_image(ALPHA), on_white(PALETTE, ALPHA)),
    "RGBa": (
        made("RGBa", *((COLOUR > 99) * ALPHA[..., None]).transpose(2, 0, 1), ALPHA),
        on_white((COLOUR > 99) * 255, ALPHA),
    ),
    "RGBX": (made("RGBX", *COLOUR.transpose(2, 0, 1), ALPHA), COLOUR),
    "HSV": (made("HSV", GREY, np.full_like(GREY, 255), np.full_like(GREY, 255)), HUES),
    "CMYK TIFF": (encoded(made("CMYK", *INK.transpose(2, 0, 1)), "TIFF"), PRINTED),
    "16-bit RGB PNG": (rgb16_png(), COLOUR),
}


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_image(name):
    content, expected = GREYS[name]
    assert np.abs(decoded(content, 1) - expected).max() <= 1
    assert np.abs(decoded(content, 3) - np.dstack([expected] * 3)).max() <= 1
    assert np.ptp(expected) > 200


@pytest.mark.parametrize("name", COLOURS)
def test_a_coloured_image(name):
    content, expected = COLOURS[name]
    assert np.abs(decoded(content, 3) - expected).max() <= 1
    assert np.abs(decoded(content, 1) - expected @ LUMA).max() <= 2


def test_lossy_and_device_colours_come_out_as_they_were_meant(tmp_path):
    """Plain red, in CMYK as Adobe writes it into a JPEG, in YCbCr and in LAB; of LAB white, grey and black as well."""
    red = np.broadcast_to([255, 0, 0], (SIDE, SIDE, 3))
    cmyk = Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0))
    assert np.abs(decoded(encoded(cmyk, "JPEG", quality=100, subsampling=0), 3) - red).max() <= 6
    ycbcr = Image.new("YCbCr", (SIDE, SIDE), (76, 85, 255))
    assert np.abs(decoded(encoded(ycbcr, "TIFF"), 3) - red).max() <= 3
    for lightness, a, b, shown in ((100, 0, 0, [255] * 3), (53.6, 0, 0, [128] * 3), (54.3, 80.8, 69.9, [255, 0, 0])):
        content = encoded(made("LAB", *(np.full((SIDE, SIDE), v) for v in lab_bytes(lightness, a, b))), "TIFF")
        assert np.abs(decoded(content, 3) - np.array(shown)).max() <= 6


def lab_bytes(lightness: float, a: float, b: float) -> list[np.uint8]:
    return [np.uint8(round(lightness * 2.55)), np.int8(round(a)).view(np.uint8), np.int8(round(b)).view(np.uint8)]


@pytest.mark.parametrize(
    ("turn", "number"),
    [
        (lambda a: a, 1),
        (np.fliplr, 2),
        (lambda a: np.rot90(a, 2), 3),
        (np.flipud, 4),
        (lambda a: a.transpose(1, 0, 2), 5),
        (lambda a: np.rot90(a, -1), 6),
        (lambda a: np.rot90(a.transpose(1, 0, 2), 2), 7),
        (lambda a: np.rot90(a, 1), 8),
    ],
)
def test_an_image_is_turned_as_its_exif_data_say(turn, number):
    """The numbers of the EXIF standard: 6 is a phone held upright, and its picture is turned to the right."""
    exif = Image.Exif()
    exif[0x0112] = number
    for form in ("PNG", "TIFF"):
        assert np.array_equal(decoded(encoded(Image.fromarray(COLOUR), form, exif=exif), 3), turn(COLOUR)), form


def test_a_damaged_exif_block_leaves_the_picture(tmp_path):
    broken = encoded(Image.fromarray(COLOUR), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(decoded(broken, 3), COLOUR)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((SIDE, SIDE), 255.0, np.float32), "from 255 to 255, where 0 to 1 is allowed"),
        (np.full((SIDE, SIDE), -0.1, np.float32), "-0.1"),
        (np.where(GREY == GREY.max(), np.float32("nan"), np.float32(0.5)), "nan"),
        (np.full((SIDE, SIDE), np.inf, np.float32), "inf"),
        (np.full((SIDE, SIDE), -5, np.int32), "from -5"),
        (np.full((SIDE, SIDE), 65535, np.int32), "65535 of 2147483647, which is black; save it in 8 or 16 bits"),
    ],
)
def test_values_without_a_known_range_are_refused_by_the_files_name(values, message):
    with pytest.raises(Unreadable, match=f"^photo.tif is not a readable image .*{message}"):
        decode_image("photo.tif", encoded(Image.fromarray(values), "TIFF"), 3, SIDE)


def test_every_extension_is_one_that_pillow_reads():
    Image.init()
    assert set(Image.registered_extensions()) >= files.EXTENSIONS - {".avif"}  # that one needs libavif
    assert not files.EXTENSIONS & {".gif", ".pdf"}


def test_pillow_s_warnings_stay_off_the_terminal(tmp_path):
    """A JPEG whose EXIF block ends too early is read; Pillow would warn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg", exif=exif.tobytes()[:14] + b"\xff" * 12)
    content = (tmp_path / "a.jpg").read_bytes()
    with pytest.warns(UserWarning, match="EXIF"), Image.open(io.BytesIO(content)) as file:
        file.getexif()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_pillow.cache_clear()
        assert decode_image("a.jpg", content, 3, 8)[0, 0, 0] > 250
    assert not caught

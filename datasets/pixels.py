"""What a decoded image shows, as 8-bit grey or RGB: one function for training, streaming and -predict.

models/pretrained.py, which needs none of datasets/, has a shorter one for images of 8 bits a channel.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # the tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
WHITE_IS_ZERO, SIGNED = 0, 2  # their values
VERSION = 2  # of what as_viewed() makes of an image; packed data of another version is made again


def as_viewed(image: Image.Image, channels: int) -> Image.Image:
    """The image as a viewer shows it: mode L for one channel, RGB for three.

    Pillow's mode                 what is shown
    1, L, P, RGB, RGBX            what Pillow converts it to; a palette is looked up
    LA, La, PA, RGBA, RGBa        laid on white; La and RGBa are multiplied by their alpha, which is undone first
    1, L, P, RGB, I;16 with tRNS  a transparent colour, index or table of alphas: laid on white
    CMYK, YCbCr, LAB, HSV         converted to RGB by Pillow; the inverted CMYK of an Adobe JPEG, as Pillow reads it
    I;16, I;16L, I;16B, I;16N     0..65535 scaled to 0..255 and rounded; 12-bit TIFF: 0..4095
    I                             the range of the type in the file: 65535 for PNG and PGM, 2^32 - 1 for unsigned TIFF,
                                  else 2^31 - 1, or 32767 for signed TIFF of 16 bits
    F                             0..1 scaled to 0..255 and rounded

    A 16-bit RGB file has lost its lower bytes in Pillow. A TIFF in which 0 is white is turned round.
    EXIF orientation is applied; a damaged EXIF block is ignored. Colour profiles are not applied.
    Raises ValueError for floats that are not within 0..1, for integers below 0, and for 32-bit integers that are all
    so small that the image would be black.
    """
    image.load()
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        shown = Image.fromarray(_scaled(image))
    elif image.has_transparency_data:
        opaque = image.convert(PREMULTIPLIED.get(image.mode, image.mode)).convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    else:
        shown = image if image.mode in ("1", "L") else image.convert("RGB")
    return _upright(image, shown.convert("RGB" if channels == 3 else "L"))


def _scaled(image: Image.Image) -> np.ndarray:
    """The grey values of an image of more than 8 bits as uint8, height x width."""
    values, top = (np.asarray(image), 1.0) if image.mode == "F" else _integers(image)
    low, high = values.min(), values.max()  # of floats nan, if any is nan
    if not (low >= 0 and high <= top):
        raise ValueError(f"its values reach from {low:g} to {high:g}, where 0 to {top:.10g} is allowed")
    scale = 255 / top
    if top > 65535 and 0 < high * scale < 0.5:
        raise ValueError(f"its largest value is {high} of {top}, which is black; save it in 8 or 16 bits")
    scaled = np.rint(values * np.float64(scale)).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        scaled = 255 - scaled
    if "transparency" in image.info:
        scaled[values == image.info["transparency"]] = 255
    return scaled


def _integers(image: Image.Image) -> tuple[np.ndarray, int]:
    """The values of an image of mode I or I;16..., and the largest that their type in the file can have."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return values, 65535 if image.mode != "I" or image.format in ("PNG", "PPM") else 2**31 - 1
    bits, sample_format = (_first(tags.get(tag, default)) for tag, default in ((BITS, 16), (SAMPLE_FORMAT, 1)))
    if sample_format == SIGNED:
        return values, 2 ** (bits - 1) - 1
    return values.view(np.uint32) if bits == 32 else values, 2**bits - 1


def _first(value: int | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, tuple) else value


def _upright(image: Image.Image, shown: Image.Image) -> Image.Image:
    """shown, turned as the EXIF data of image say."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # damaged EXIF data raises errors of many kinds, and the picture is there all the same
        return shown
    return shown if turn is None else shown.transpose(turn)

"""load(FILE): a trained network out of a file of weights, ready to be called; three lines from images to classes.

>>> network = models.load("weights/cheapV3-cifar100.safetensors")
>>> logits = network(network.preprocess(PIL.Image.open("photo.png")))
>>> print(network.classes[logits.argmax()])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import registry, weight_file
from models.fold import fold


@dataclass(frozen=True)
class Preprocess:
    """From images to what a network takes: float32, N x C x S x S, with S = side, normalised; on the images' device.

    mean, std     of each channel, of pixels from 0 to 1
    file_side     the side in pixels to which an image of Pillow is brought first, by its largest square in the middle;
                  0: it is cut as no image of Pillow is here (frames of a drive), and only tensors are taken
    shorter_side  where it is not 0, an image's shorter side is resized to so many pixels instead, and the middle is cut
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    file_side: int
    shorter_side: int = 0

    def __call__(self, images: object) -> Tensor:
        """images: uint8 tensor N x C x H x W, or one image of Pillow of 8 bits a channel, which gives N = 1.

        Raises ValueError for anything else.
        """
        pixels = images if isinstance(images, Tensor) else self._of_pillow(images)
        channels = len(self.mean)
        if pixels.dtype is not torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != channels:
            raise ValueError(
                f"images are {str(pixels.dtype).removeprefix('torch.')} of {list(pixels.shape)}; give uint8 of "
                f"N x {channels} x H x W, or an image of Pillow"
            )
        pixels = self._square(pixels)
        mean, std = (torch.tensor(each, device=pixels.device)[:, None, None] for each in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std

    def _square(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[2:]
        least = min(height, width)
        top, left = (height - least) // 2, (width - least) // 2
        pixels = pixels[..., top : top + least, left : left + least]
        if least == self.side:
            return pixels
        return F.interpolate(pixels, size=(self.side, self.side), mode="bilinear", antialias=True)

    def _of_pillow(self, image) -> Tensor:
        """An image of Pillow as uint8 1 x C x H x W: turned by EXIF, alpha on white."""
        from PIL import Image, ImageOps  # here: networks and weights need no Pillow

        if not isinstance(image, Image.Image):
            raise ValueError(f"images are a {type(image).__name__}; give a uint8 tensor or an image of Pillow")
        if not self.file_side:
            raise ValueError(
                "frames of a drive are cut by datasets.driving.frame_pixels; give what it makes as tensors"
            )
        if image.mode == "F" or image.mode.startswith("I"):
            raise ValueError(f"the image has mode {image.mode}, more than 8 bits a channel; scale it to 8 first")
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            opaque = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque)
        image = image.convert("RGB" if len(self.mean) == 3 else "L")
        if self.shorter_side:
            from torchvision.transforms import InterpolationMode
            from torchvision.transforms import functional as vision

            image = vision.resize(image, [self.shorter_side], InterpolationMode.BILINEAR)
            image = vision.center_crop(image, [self.file_side])
        elif image.size != (self.file_side, self.file_side):
            image = ImageOps.fit(image, (self.file_side, self.file_side), Image.Resampling.BILINEAR)
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        return pixels.view(1, *image.size[::-1], -1).permute(0, 3, 1, 2)


def load(path: str | Path, folded: bool = True) -> nn.Module:
    """The network of a file of weights that this project has written, in eval mode and on the CPU, in float32.

    It has two attributes more: `classes`, the names in the order of its outputs, and `preprocess`, a Preprocess.
    folded: whether it is the equal network for inference (models.fold), which is faster and cannot be trained; False
    gives the network that was trained.
    Raises ValueError for a file that cannot be read, is damaged, says nothing of its network, or is of another version.
    """
    state, about = weight_file.read(Path(path))
    if about is None:
        raise ValueError(f"{path}: says nothing of its network; build it with models.create() and load_state_dict()")
    try:
        return build(state, about, folded)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path}: made by another version of this project ({reason})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def build(state: Mapping[str, Tensor], about: Mapping, folded: bool = True) -> nn.Module:
    """load() of what weight_file.read() gives.

    Raises ValueError for another revision of the network, and KeyError, TypeError or RuntimeError where things lack.
    """
    create = about["create"]
    known, made = registry.entry(create["name"]), about.get("revision", 1)
    if made != known.revision:
        raise ValueError(
            f"weights of revision {made} of {known.name}, and this is revision {known.revision}, another function of "
            "the same weights; take other weights"
        )
    network = registry.create(**create)
    network.load_state_dict(state)
    network = fold(network) if folded else network.eval()
    network.classes = tuple(about["classes"])
    network.preprocess = Preprocess(
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        side=about["image_size"],
        file_side=about["file_side"],
        shorter_side=about["shorter_side"],
    )
    return network

"""Mixup (Zhang et al. 2017, arXiv 1710.09412) and CutMix (Yun et al. 2019, arXiv 1905.04899) of batches.

Both are torchvision's v2.MixUp and v2.CutMix: an image is mixed with the one before it in its batch, which is in
random order, and the first with the last. A process that works on a slice of a batch needs one image more for that, the
one before its slice (datasets/batches.py).
"""

from __future__ import annotations

import torch
from torch import Tensor


class Mixing:
    """Mixes batches: by mixup or by CutMix, one of the two at random for each batch where both are wanted.

    mixup, cutmix  the parameters of the Beta distribution of the shares; 0: not wanted
    classes        the number of classes
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        from torchvision.transforms import v2  # here: torchvision takes a second to load

        assert mixup or cutmix
        kinds = [
            kind(alpha=alpha, num_classes=classes) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha
        ]
        self.transform = v2.RandomChoice(kinds)

    def __call__(self, images: Tensor, targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The images (float, B x C x H x W), each mixed with the one before it, and their targets, float32 B x classes.

        The kind, the share and the rectangle are the same for the whole batch, and depend on the seed only.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # and no device's, whose numbers are the network's
            return self.transform(images, targets)

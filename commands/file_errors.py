"""What several forms of one network get wrong on its test set: the float file, and those in fewer bits beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.saved.trained import Trained
from engine.shown.progress import watched


@dataclass
class Errors:
    """Numbers of test images. not_finite: with an output that is infinite or not a number; they are wrong too."""

    wrong: int = 0
    not_finite: int = 0

    def __str__(self) -> str:
        return f"{self.wrong}" + (f" ({self.not_finite} not finite)" if self.not_finite else "")


@torch.no_grad()
def errors_of(trained: Trained, runs: list[Callable[[Tensor], Tensor]]) -> tuple[list[Errors], int]:
    """What each of the functions from normalised images to logits gets wrong, and the number of test images.

    Raises ValueError as trained.test_batches() does.
    """
    errors, count = [Errors() for _ in runs], 0
    for images, targets in watched(trained.test_batches(downloads=False), "test set"):
        images, targets = images.cpu().contiguous(), targets.cpu()
        count += len(targets)
        for error, run in zip(errors, runs, strict=True):
            outputs = run(images)
            finite = outputs.isfinite().all(1)
            error.wrong += int(((outputs.argmax(1) != targets) | ~finite).sum())
            error.not_finite += int((~finite).sum())
    return errors, count

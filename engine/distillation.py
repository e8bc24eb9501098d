"""Distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531): a network trained after a teacher's outputs, too.

The teacher is a trained network, which sees the augmented images that the student sees. Its outputs come with the
targets of a batch, so that a training step (engine/loop.py), its parts and its CUDA graph are what they are without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conf import Settings
from datasets import View
from datasets.batches import TrainingBatches
from engine.device import Precision
from engine.saved import checkpoint
from engine.saved.trained import Trained, load_trained
from engine.tasks import Classification
from models.fold import fold


class Distilled(Classification):
    """Classification with the loss (1 - share) x cross-entropy + share x T^2 x KL(teacher || student).

    The second compares softmax(outputs / T) of both networks; T^2 keeps its gradient at the size of the first's. T:
    temperature. share: of 1. Targets in training are what Teacher makes; the metrics are Classification's.
    """

    def __init__(self, outputs: int, label_smoothing: float, temperature: float, share: float) -> None:
        super().__init__(outputs, label_smoothing)
        self.temperature, self.share = temperature, share

    @classmethod
    def make(cls, settings: Settings, view: View) -> Distilled:
        given = settings.label_smoothing, settings.distill_temperature, settings.distill_share
        return cls(len(view.classes), *given)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """targets: float N x 2 x classes, shares of the classes and the teacher's outputs."""
        labels, teacher = targets.unbind(1)
        found, wanted = (F.log_softmax(each.float() / self.temperature, 1) for each in (logits, teacher))
        divergence = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1 - self.share) * super().loss(logits, labels) + self.share * self.temperature**2 * divergence

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """As Classification.sums(), which compares with the labels; targets: of training, or class numbers."""
        return super().sums(logits, targets[:, 0] if targets.ndim == 3 else targets)


@dataclass(frozen=True)
class Teacher:
    """A trained network, folded, on the student's device and in its precision. digest: SHA-256 of its file."""

    network: nn.Module
    precision: Precision
    digest: str

    @torch.no_grad()
    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The targets with the teacher's outputs for the images, float N x 2 x classes, as Distilled takes them.

        targets: class numbers (int64, N) or shares of the classes (float, N x classes) of the first N images.
        """
        with self.precision.autocast():
            outputs = self.network(images)[: len(targets)].float()
        labels = targets if targets.ndim == 2 else F.one_hot(targets, outputs.shape[1])
        return torch.stack([labels.float(), outputs], dim=1)


class TaughtBatches:
    """The batches of TrainingBatches with the teacher's outputs."""

    def __init__(self, batches: TrainingBatches, teacher: Teacher) -> None:
        self.batches, self.teacher = batches, teacher
        self.bounds, self.index = batches.bounds, batches.index

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """As TrainingBatches.epoch()."""
        for images, targets in self.batches.epoch(epoch, first):
            yield images, self.teacher(images, targets)


def load_teacher(settings: Settings) -> Trained:
    """The network of -distill. Raises ValueError where its file is no checkpoint of a run that was classified."""
    path = Path(settings.distill)
    try:
        checkpoint.load_run(path)  # weights alone do not say what they were trained on
        given = {name: getattr(settings, name) for name in ("gpu", "channels_last")}
        trained = load_trained(path, given)
    except ValueError as error:
        raise ValueError(f"-distill {error}") from None
    if trained.task.name != "classification":
        raise ValueError(f"-distill {path}: a network for {trained.task.name}; give one that was trained on classes")
    return trained


def make_teacher(settings: Settings, view: View, precision: Precision) -> Teacher:
    """The teacher of a student with this view.

    Raises ValueError as load_teacher() does, and where the teacher was trained for other classes or other images.
    """
    trained, path = load_teacher(settings), Path(settings.distill)
    pairs = {
        "classes": (trained.view.classes, view.classes),
        "images' side": (trained.view.side, view.side),
        "channels": (trained.view.channels, view.channels),
        "mean": (trained.view.mean, view.mean),
        "std": (trained.view.std, view.std),
    }
    if differing := [word for word, (its, own) in pairs.items() if its != own]:
        its, own = (_shown(each) for each in pairs[differing[0]])
        raise ValueError(
            f"-distill {path}: a teacher with other {' and '.join(differing)} ({its}) than this run ({own}); "
            "give one that was trained on the same data, at the same -size"
        )
    return Teacher(fold(trained.network), precision, hashlib.sha256(path.read_bytes()).hexdigest())


def _shown(value: object) -> str:
    """A fact about the teacher or the student in a few words."""
    if isinstance(value, tuple) and isinstance(value[0], str):
        return f"{len(value)} from {value[0]} to {value[-1]}"
    return ", ".join(f"{each:.4g}" for each in value) if isinstance(value, tuple) else str(value)

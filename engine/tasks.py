"""What a data set's task means for a run: its loss, its metrics, its score and its pictures."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from conf import Settings
from datasets import Dataset, View
from engine.metrics import CLASSIFICATION, REGRESSION, MetricReport
from engine.shown.confusions import class_rows, confusions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_LOGIT = 1e4  # in magnitude; logits beyond it are counted as an overflow. e^100 decides any softmax already


class Task(MetricReport, Protocol):
    """What the engine asks of a task; what users read of its metrics follows from `table` (engine/metrics.py).

    N is the number of images in a batch. A network's outputs are float N x the number of outputs; targets are N class
    numbers (int64) or N numbers (float). The metrics of a split are made from sums over its images; an evaluation also
    has those of spread(), which need the loss of each image.
    """

    name: ClassVar[str]  # by which a data set's row names the task

    @classmethod
    @abstractmethod
    def make(cls, settings: Settings, view: View) -> Task:
        """The task of a network that is trained with these settings and has this view."""

    @abstractmethod
    def targets(self) -> str:
        """What the images' targets are, in a word or two for the terminal."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, a scalar with a gradient: the mean over the batch."""

    @abstractmethod
    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A vector of sums over the batch, without gradient; the engine adds them up over batches and processes."""

    @abstractmethod
    def metrics(self, sums: list[float]) -> dict[str, float]:
        """The metrics by key, from the totals of sums(); metrics.csv has them in this order."""

    def completed(self, sums: list[float]) -> list[float]:
        """Totals of sums() from a checkpoint of any version, as this version makes them."""
        return sums

    def image_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each image of an evaluation for spread(), N float32; empty where that needs none."""
        return outputs.new_empty(0)

    def spread(self, losses: list[float]) -> dict[str, float]:
        """Further metrics of an evaluation by key, from image_losses() of all its images in any order."""
        return {}

    @abstractmethod
    def score(self, metrics: dict[str, float]) -> float:
        """The score to minimise: the epoch with the lowest is the best."""

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What the outputs say of each image, N or N x anything; figures() takes it."""

    @abstractmethod
    def figures(self, predictions: Tensor, targets: Tensor, data: Dataset) -> dict[str, Figure]:
        """The pictures of the test set at the end of a run, by name. Both tensors are on the CPU."""

    def tables(self, predictions: Tensor, targets: Tensor, data: Dataset) -> dict[str, list[dict[str, object]]]:
        """The tables beside them, by name, as rows of equal keys."""
        return {}


class Classification(Task):
    """Cross-entropy loss; accuracy and top-5 accuracy, which are stored as shares of 1.

    With five classes or fewer every guess is among the first five: there is no top-5 accuracy then.
    One image whose logits overflow can make the mean loss of all meaningless. So such images are counted, and an
    evaluation has the median loss beside the mean.
    Targets may be shares of all classes, float N x classes, where images are mixed; a hit is then one of the class with
    the largest share.
    """

    name = "classification"
    table = CLASSIFICATION

    def __init__(self, outputs: int, label_smoothing: float = 0.0) -> None:
        self.outputs, self.label_smoothing = outputs, label_smoothing
        if outputs <= 5:
            self.table = tuple(metric for metric in self.table if metric.key != "top-5")

    @classmethod
    def make(cls, settings: Settings, view: View) -> Classification:
        return cls(len(view.classes), settings.label_smoothing)

    def targets(self) -> str:
        return f"{self.outputs} classes"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with label smoothing; the loss among the metrics has no smoothing."""
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums of cross-entropy, top-1 hits, top-5 hits, images, images with a logit beyond LARGEST_LOGIT or nan."""
        logits = logits.detach().float()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        targets = targets.argmax(1) if targets.ndim == 2 else targets
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
        count = torch.full((), len(targets), device=logits.device)  # filled there: a copy would be waited for
        within = logits.abs().amax(1) <= LARGEST_LOGIT  # amax keeps what is not a number, which is never within
        return torch.stack([loss, hits[:, 0].sum(), hits.sum(), count, (~within).sum()])

    def metrics(self, sums: list[float]) -> dict[str, float]:
        loss, top1, top5, count, overflowing = sums
        found = {"loss": loss / count, "accuracy": top1 / count, "top-5": top5 / count}
        found |= {"overflowing images": overflowing}
        return {metric.key: found[metric.key] for metric in self.table if metric.key in found}

    def completed(self, sums: list[float]) -> list[float]:
        """Older versions counted no overflows: those of an epoch that was under way are counted from here on."""
        return [*sums, 0.0] if len(sums) == 4 else sums

    def image_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each image; infinite where it is not a number, since then the image is wrong at any rate."""
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        return losses.nan_to_num(nan=math.inf, posinf=math.inf)

    def spread(self, losses: list[float]) -> dict[str, float]:
        """The median loss; of an even number of images, the mean of the two in the middle."""
        return {"median loss": float(numpy.median(losses))}

    def score(self, metrics: dict[str, float]) -> float:
        """The score to minimise: top-1 error, as a share of 1."""
        return 1.0 - metrics["accuracy"]

    def predictions(self, logits: Tensor) -> Tensor:
        """Probabilities, N x classes."""
        return logits.float().softmax(1)

    def figures(self, probabilities: Tensor, targets: Tensor, data: Dataset) -> dict[str, Figure]:
        """The worst mistakes, and the confusion matrix or, of many classes, the pairs that are confused most."""
        from engine.shown import figures  # here: matplotlib and scikit-learn take a second and more to load

        worst = figures.mistakes_figure(data.test.images, probabilities, targets, data.classes)
        return {"worst mistakes": worst} | figures.class_figures(confusions(probabilities, targets), data.classes)

    def tables(self, probabilities: Tensor, targets: Tensor, data: Dataset) -> dict[str, list[dict[str, object]]]:
        return {"classes": class_rows(confusions(probabilities, targets), data.classes)}


class Regression(Task):
    """Mean squared error of one number an image, in the unit of the targets; mean absolute error in degrees.

    Beside them stand the errors of two guesses that take no network: always zero, and the mean of the training targets.
    Where most targets are the same, an error says little without them.
    """

    name = "regression"
    table = REGRESSION

    def __init__(self, degrees: float, training_mean: float) -> None:
        """degrees: the angle that a target of 1 stands for. training_mean: the mean of the training targets."""
        self.degrees, self.training_mean = degrees, training_mean

    @classmethod
    def make(cls, settings: Settings, view: View) -> Regression:
        return cls(view.degrees, view.target_mean)

    def targets(self) -> str:
        return "an angle each"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error. outputs: N x 1."""
        return F.mse_loss(outputs.squeeze(1), targets)

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of squared error, absolute error, both of always zero, squared error of the training mean, images."""
        targets, difference = targets.float(), outputs.detach().float().squeeze(1) - targets
        count = torch.full((), float(len(targets)), device=outputs.device)
        errors = [total for each in (difference, targets) for total in (each.square().sum(), each.abs().sum())]
        return torch.stack([*errors, (targets - self.training_mean).square().sum(), count])

    def metrics(self, sums: list[float]) -> dict[str, float]:
        square, absolute, zero_square, zero_absolute, mean_square, count = sums
        return {
            "loss": square / count,
            "degrees": self.degrees * absolute / count,
            "loss of zero": zero_square / count,
            "degrees of zero": self.degrees * zero_absolute / count,
            "loss of mean": mean_square / count,
        }

    def score(self, metrics: dict[str, float]) -> float:
        """The score to minimise: the mean squared error."""
        return metrics["loss"]

    def predictions(self, outputs: Tensor) -> Tensor:
        """Angles in the unit of the targets, N."""
        return outputs.float().squeeze(1)

    def figures(self, predicted: Tensor, targets: Tensor, data: Dataset) -> dict[str, Figure]:
        """Predicted against true angle, the error by angle range, a strip of frames with both angles."""
        from engine.shown import figures  # here: as above

        true, found = self.degrees * targets, self.degrees * predicted
        return {
            "predicted against true": figures.scatter_figure(true, found, self.degrees),
            "error by angle range": figures.range_figure(true, found, self.degrees),
            "frames with both angles": figures.frames_figure(data.test.images, true, found),
        }


TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Regression)}

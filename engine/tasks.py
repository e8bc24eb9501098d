"""What a data set's task means for a run: its loss, its metrics, what is best, what is reported and drawn.

Chosen by the data set's row. A task answers for all of these, so that the rest of the engine knows of no task:
make, targets, loss, sums, metrics, score, describe, tags, train_tags, predictions, result, describe_result, final,
figures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from conf import Settings, option
from datasets import Dataset
from engine import angles, report


class Classification:
    """Cross-entropy; average loss, accuracy and top-5 accuracy as shares of 1."""

    name = "classification"
    final = ("test top-1 error", "test top-5 error", "test loss")  # of result(), what the HParams table shows

    def __init__(self, outputs: int, label_smoothing: float = 0.0) -> None:
        self.outputs, self.label_smoothing = outputs, label_smoothing

    @classmethod
    def make(cls, settings: Settings, data: Dataset) -> Classification:
        return cls(len(data.classes), settings.label_smoothing)

    def targets(self) -> str:
        """What is told of an image, in a word or two."""
        return f"{self.outputs} classes"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The training loss: mean over the batch, with label smoothing."""
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def sums(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums over a batch that metrics() makes averages of: cross-entropy, top-1 hits, top-5 hits, images."""
        logits = logits.detach().float()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
        count = torch.tensor(len(targets), device=logits.device)
        return torch.stack([loss, hits[:, 0].sum(), hits.sum(), count])

    def metrics(self, sums: list[float]) -> dict[str, float]:
        """{"loss", "accuracy", "top-5"}: means over images."""
        loss, top1, top5, count = sums
        return {"loss": loss / count, "accuracy": top1 / count, "top-5": top5 / count}

    def score(self, metrics: dict[str, float]) -> float:
        """What the best epoch has least of: top-1 error, as a share of 1."""
        return 1.0 - metrics["accuracy"]

    def describe(self, metrics: dict[str, float]) -> str:
        """One line for the terminal."""
        return (
            f"loss {metrics['loss']:.4f}  top-1 error {100 * (1 - metrics['accuracy']):.2f} %  "
            f"top-5 error {100 * (1 - metrics['top-5']):.2f} %"
        )

    def tags(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics of a split that is evaluated, under their TensorBoard names."""
        return {
            "Average loss": metrics["loss"],
            "Accuracy": metrics["accuracy"],
            "Top-5": metrics["top-5"],
        }

    def train_tags(self, metrics: dict[str, float]) -> dict[str, float]:
        """The training metrics of an epoch, under their TensorBoard names; the loss has a point a step already."""
        return {"accuracy": metrics["accuracy"]}

    def predictions(self, logits: Tensor) -> Tensor:
        """Probabilities, N x classes."""
        return logits.float().softmax(1)

    def result(self, last: dict[str, float], best: dict[str, float], best_epoch: dict[str, object]) -> dict:
        """What result.json says of the test set: metrics of the last and the best epoch; errors are shares of 1.

        best_epoch, which says which that is and which images chose it, stands between the two.
        """
        return {
            "test loss": last["loss"],
            "test top-1 error": 1 - last["accuracy"],
            "test top-5 error": 1 - last["top-5"],
            **best_epoch,
            "best test top-1 error": 1 - best["accuracy"],
            "best test top-5 error": 1 - best["top-5"],
        }

    def describe_result(self, result: dict) -> tuple[str, str]:
        """Of result(): the last epoch's figures and the best one's, for the terminal."""
        return (
            f"test top-1 error {100 * result['test top-1 error']:.2f} %, "
            f"top-5 error {100 * result['test top-5 error']:.2f} %",
            f"test top-1 error {100 * result['best test top-1 error']:.2f} %",
        )

    def figures(self, probabilities: Tensor, targets: Tensor, data: Dataset) -> dict[str, Figure]:
        """The pictures at the end of a run, of its test set: worst mistakes and confusion matrix."""
        return {
            "worst mistakes": report.mistakes_figure(data.test.images, probabilities, targets, data.classes),
            "confusion matrix": report.confusion_figure(probabilities, targets, data.classes),
        }


class Regression:
    """Mean squared error of one number an image, in the unit of the targets; mean absolute error in degrees.

    Beside every loss stand two that take no network: those of always predicting zero, and the mean of the training
    targets; beside the absolute error that of zero. Where most targets are the same, a loss says little without them.
    """

    name = "regression"
    final = ("test loss", "test mean absolute error (degrees)")

    def __init__(self, degrees: float, training_mean: float) -> None:
        """degrees: that a target of 1 stands for. training_mean: of the training targets."""
        self.degrees, self.training_mean = degrees, training_mean

    @classmethod
    def make(cls, settings: Settings, data: Dataset) -> Regression:
        if settings.label_smoothing:
            given = option("label_smoothing")
            raise ValueError(f"{given} {settings.label_smoothing:g}: {settings.dataset} has no labels; give {given} 0")
        return cls(data.row.degrees, data.train.targets.double().mean().item())

    def targets(self) -> str:
        return "an angle each"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss: mean squared error over the batch. outputs: N x 1."""
        return F.mse_loss(outputs.squeeze(1), targets)

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums over a batch: squared error, absolute error, both of zero, squared error of the mean, images."""
        targets, difference = targets.float(), outputs.detach().float().squeeze(1) - targets
        count = torch.tensor(float(len(targets)), device=outputs.device)
        errors = [total for each in (difference, targets) for total in (each.square().sum(), each.abs().sum())]
        return torch.stack([*errors, (targets - self.training_mean).square().sum(), count])

    def metrics(self, sums: list[float]) -> dict[str, float]:
        """Means over images: {"loss", "degrees", both "of zero", "loss of mean"}; degrees is the absolute error."""
        square, absolute, zero_square, zero_absolute, mean_square, count = sums
        return {
            "loss": square / count,
            "degrees": self.degrees * absolute / count,
            "loss of zero": zero_square / count,
            "degrees of zero": self.degrees * zero_absolute / count,
            "loss of mean": mean_square / count,
        }

    def score(self, metrics: dict[str, float]) -> float:
        """What the best epoch has least of: the loss."""
        return metrics["loss"]

    def describe(self, metrics: dict[str, float]) -> str:
        return (
            f"MSE {metrics['loss']:.4f} (always zero {metrics['loss of zero']:.4f}, "
            f"training mean {metrics['loss of mean']:.4f})  mean absolute error {metrics['degrees']:.2f} degrees "
            f"(always zero {metrics['degrees of zero']:.2f})"
        )

    def tags(self, metrics: dict[str, float]) -> dict[str, float]:
        return {
            "Average loss": metrics["loss"],
            "Mean absolute error in degrees": metrics["degrees"],
            "Mean absolute error of always zero in degrees": metrics["degrees of zero"],
            "Loss of always zero": metrics["loss of zero"],
            "Loss of the training mean": metrics["loss of mean"],
        }

    def train_tags(self, metrics: dict[str, float]) -> dict[str, float]:
        return self.tags(metrics)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Angles in the unit of the targets, N."""
        return outputs.float().squeeze(1)

    def result(self, last: dict[str, float], best: dict[str, float], best_epoch: dict[str, object]) -> dict:
        """What result.json says of the test set: losses in the targets' unit squared."""
        return {
            "test loss": last["loss"],
            "test mean absolute error (degrees)": last["degrees"],
            "test mean absolute error of always zero (degrees)": last["degrees of zero"],
            "test loss of always zero": last["loss of zero"],
            "test loss of the training mean": last["loss of mean"],
            **best_epoch,
            "best test loss": best["loss"],
            "best test mean absolute error (degrees)": best["degrees"],
        }

    def describe_result(self, result: dict) -> tuple[str, str]:
        return (
            f"test MSE {result['test loss']:.4f} (always zero {result['test loss of always zero']:.4f}, training mean "
            f"{result['test loss of the training mean']:.4f}), "
            f"mean absolute error {result['test mean absolute error (degrees)']:.2f} degrees (always zero "
            f"{result['test mean absolute error of always zero (degrees)']:.2f})",
            f"test MSE {result['best test loss']:.4f}, "
            f"mean absolute error {result['best test mean absolute error (degrees)']:.2f} degrees",
        )

    def figures(self, predicted: Tensor, targets: Tensor, data: Dataset) -> dict[str, Figure]:
        """Predicted against true angle, the error by angle range, a strip of frames with both angles."""
        true, found = self.degrees * targets, self.degrees * predicted
        return {
            "predicted against true": angles.scatter_figure(true, found, self.degrees),
            "error by angle range": angles.range_figure(true, found, self.degrees),
            "frames with both angles": angles.frames_figure(data.test.images, true, found),
        }


TASKS = {task.name: task for task in (Classification, Regression)}

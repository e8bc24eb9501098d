"""What a data set's task means for a run: its loss, its metrics, and what is best. Chosen by the data set's row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Classification:
    """Cross-entropy; average loss, accuracy and top-5 accuracy as shares of 1."""

    name = "classification"

    def __init__(self, outputs: int, label_smoothing: float = 0.0) -> None:
        self.outputs, self.label_smoothing = outputs, label_smoothing

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
        """The metrics under their TensorBoard names."""
        return {
            "Average loss": metrics["loss"],
            "Accuracy": metrics["accuracy"],
            "Top-5": metrics["top-5"],
        }


TASKS = {task.name: task for task in (Classification,)}

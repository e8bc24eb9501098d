"""The curves of a run in TensorBoard, over the global step, and its metrics.csv."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.checkpoint import write_atomically


class NoLog:
    """Stands in for RunLog in processes that write nothing: each of its methods does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: None


class RunLog:
    """Writes into the folder of one run. Steps count from 1; an evaluation after s steps is a point at s.

    purge_step: points that an interrupted run wrote at this step or later are removed from the curves.
    """

    def __init__(self, folder: Path, purge_step: int = 0) -> None:
        self.folder = folder
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def steps(self, first: int, losses: list[float], rates: list[float]) -> None:
        """Writes the training loss and the learning rate of the steps first + 1, first + 2, ..."""
        for number, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=first + 1):
            self.writer.add_scalar("Train/loss", loss, number)
            self.writer.add_scalar("Train/lr", rate, number)

    def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
        """Writes a point of the curve prefix/tag for each tag in values."""
        for tag, value in values.items():
            self.writer.add_scalar(f"{prefix}/{tag}", value, step)

    def graph(self, network: nn.Module, images: Tensor) -> None:
        """Writes the network's graph, traced in eval mode on the first of the images."""
        was_training = network.training
        with warnings.catch_warnings():  # tracing warns about itself and about every branch
            warnings.simplefilter("ignore")
            self.writer.add_graph(network.eval(), images[:1])
        network.train(was_training)

    def images(self, tag: str, images: Tensor, step: int) -> None:
        """Writes a grid of up to 64 images, N x C x H x W with values in 0..1."""
        from torchvision.utils import make_grid  # here: torchvision takes a second to load

        self.writer.add_image(tag, make_grid(images[:64], nrow=8), step)

    def figure(self, tag: str, figure, step: int) -> None:
        self.writer.add_figure(tag, figure, step)

    def hyperparameters(self, settings: dict[str, object], metrics: dict[str, float], step: int) -> None:
        """Writes the run's row of the HParams table. The tags of its metrics begin with Final/.

        All of it goes into the same event file; SummaryWriter.add_hparams would open a second run folder.
        """
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
        }
        metrics = {f"Final/{tag}": value for tag, value in metrics.items()}
        for summary in hparams(plain, metrics):
            self.writer.file_writer.add_summary(summary)
        for tag, value in metrics.items():
            self.writer.add_scalar(tag, value, step)

    def table(self, history: list[dict]) -> None:
        """Writes metrics.csv, a line per epoch. It is written anew each time, so that a resumed run repeats no line."""
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        write_atomically(self.folder / "metrics.csv", text.getvalue().encode())

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

"""The curves of a run in TensorBoard, over the global step, and its tables as CSV.

They cost no run: whatever goes wrong with them is one line on stderr, and the training goes on.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from engine.memory import is_out_of_memory
from utils import printable, write_atomically


class NoLog:
    """Stands in for RunLog in processes that write nothing: each of its methods does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: None


@contextlib.contextmanager
def only_a_warning(what: str) -> Iterator[None]:
    """A context in which an exception is one line on stderr: `what` was not written."""
    try:
        yield
    except Exception as error:
        warn(what, error)


def warn(what: str, error: Exception) -> None:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    print(f"{what}: not written ({type(error).__name__}: {reason}); the run goes on", file=sys.stderr)


def curve(method: Callable[..., None]) -> Callable[..., None]:
    """A method of RunLog that uses its writer. Once its file cannot be written, no more curves are."""

    @functools.wraps(method)
    def call(log: RunLog, *values: object) -> None:
        if log.writer is None:
            return
        try:
            method(log, *values)
        except OSError as error:
            log.writer = None
            warn(f"{log.folder}: curves from here on", error)
        except Exception as error:
            warn(f"{log.folder}: {method.__name__}", error)

    return call


class RunLog:
    """Writes into the folder of one run. Steps count from 1; an evaluation after s steps is a point at s.

    purge_step: points that an interrupted run wrote at this step or later are removed from the curves.
    """

    def __init__(self, folder: Path, purge_step: int = 0) -> None:
        self.folder, self.hook = folder, threading.excepthook
        self.writer: SummaryWriter | None = None
        self.is_table_lost = False
        threads = set(threading.enumerate())
        with only_a_warning(f"{folder}: curves"):
            self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        threads = set(threading.enumerate()) - threads
        # the writer raises what its thread raised; the thread's own traceback would be a second message
        threading.excepthook = lambda failed: None if failed.thread in threads else self.hook(failed)

    @curve
    def steps(self, first: int, losses: list[float], rates: list[float]) -> None:
        """Writes the training loss and the learning rate of the steps first + 1, first + 2, ..."""
        for number, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=first + 1):
            self.writer.add_scalar("Train/loss", loss, number)
            self.writer.add_scalar("Train/lr", rate, number)

    @curve
    def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
        """Writes a point of the curve prefix/tag for each tag in values."""
        for tag, value in values.items():
            self.writer.add_scalar(f"{prefix}/{tag}", value, step)

    def graph(self, network: nn.Module, images: Tensor) -> None:
        """Writes the network's graph, traced in eval mode on the first of the images.

        Raises the error of a lack of memory: the first step takes more, and would end the run with a second line.
        """
        if self.writer is None:
            return
        was_training = network.training
        with warnings.catch_warnings():  # tracing warns about itself and about every branch
            warnings.simplefilter("ignore")
            try:
                self.writer.add_graph(network.eval(), images[:1])
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                warn(f"{self.folder}: graph", error)
            finally:
                network.train(was_training)

    @curve
    def images(self, tag: str, images: Tensor, step: int) -> None:
        """Writes a grid of up to 16 images, N x C x H x W with values in 0..1; small ones larger, in whole pixels."""
        from torchvision.utils import make_grid  # here: torchvision takes a second to load

        larger = max(1, 96 // images.shape[-1])
        images = images[:16].repeat_interleave(larger, -1).repeat_interleave(larger, -2)
        self.writer.add_image(tag, make_grid(images, nrow=4), step)

    @curve
    def figure(self, tag: str, figure, step: int) -> None:
        """Draws a matplotlib figure."""
        with warnings.catch_warnings():  # about letters that the font lacks
            warnings.simplefilter("ignore")
            self.writer.add_figure(tag, figure, step)

    @curve
    def hyperparameters(self, settings: dict[str, object], tags: list[str]) -> None:
        """Writes the run's row of the HParams table; its metrics are the newest points of the curves of these tags.

        All of it goes into the same event file; SummaryWriter.add_hparams would open a second run folder.
        """
        plain = {
            key: value if isinstance(value, bool | int | float) else printable(str(value))
            for key, value in settings.items()
        }
        for summary in hparams(plain, dict.fromkeys(tags, 0.0)):
            self.writer.file_writer.add_summary(summary)

    @curve
    def text(self, tag: str, markdown: str, step: int) -> None:
        self.writer.add_text(tag, markdown, step)

    @curve
    def layout(self, charts: dict[str, dict[str, list]]) -> None:
        """Writes which curves the Custom Scalars tab draws together, as SummaryWriter.add_custom_scalars takes it."""
        self.writer.add_custom_scalars(charts)

    def table(self, name: str, rows: list[dict]) -> None:
        """Writes a file NAME.csv of rows with equal keys; anew each time, so that a resumed run repeats no line."""
        text = io.StringIO()
        table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        path = self.folder / f"{name}.csv"
        try:
            write_atomically(path, text.getvalue().encode())
        except OSError as error:
            if not self.is_table_lost:
                warn(str(path), error)
            self.is_table_lost = True

    @curve
    def flush(self) -> None:
        """Writes what is in memory; where somebody has removed the file, it begins anew."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer.flush()

    def close(self) -> None:
        self._close()
        threading.excepthook = self.hook

    @curve
    def _close(self) -> None:
        self.writer.close()

"""What a terminal shows while a run goes on: bars, an epoch's line, how long it will take; and the clock of its steps.

Bars and the names of what is under way go to stderr, and only where that is a terminal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TypeVar

import torch
from tqdm import tqdm

from conf import Settings
from engine.job import Job
from engine.metrics import Metric, MetricReport
from engine.state import TrainState
from engine.tasks import Task

T = TypeVar("T")
LINE = 120  # columns that an epoch's line may take
SPEED_RANK = 5  # of the images a second, among the metrics of an epoch's line (Metric.brief)
LEAST_BAR = 6  # columns
UNMEASURED, MEASURED = 4, 10  # steps: the first ones compile, capture and tune; those whose time the estimate takes
FORWARD = 1 / 3  # the time of an evaluated image, as a share of a trained one's: a backward pass takes two forward ones


def progress_bar(state: TrainState, settings: Settings, steps: int, shown: bool) -> tqdm:
    """The bar of the present epoch, of so many steps; silent without a terminal, or where it is not to be shown."""
    tqdm.monitor_interval = 0  # its thread revives bars that stand still, and warns where no thread can start
    return tqdm(
        total=steps,
        initial=state.batch,
        disable=None if shown else True,
        leave=False,
        desc=f"epoch {state.epoch + 1}/{settings.epochs}",
        bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}",
    )


def show_figures(bar: tqdm, task: Task, sums: list[float], speed: float) -> None:
    """Puts the epoch's metrics so far and the images a second behind the bar, as many as fit the terminal."""
    if bar.disable:
        return
    metrics = task.metrics(sums)
    texts = [each.brief_text(metrics[each.key]) for each in ranked(task) if each.brief <= 2] + [f"{speed:.0f} images/s"]
    room = (bar.ncols or 80) - len(f"{bar.desc} || {bar.total}/{bar.total}, 00:00 left") - LEAST_BAR
    shown: list[str] = []
    for text in texts:
        if len(", ".join(["", *shown, text])) <= room:
            shown.append(text)
    bar.set_postfix_str(", ".join(shown), refresh=False)


def watched(batches: T, what: str) -> T:
    """The batches under a bar that says what is gone through, once that has taken a second."""
    return tqdm(batches, desc=what, leave=False, disable=None, delay=1, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}")


@contextlib.contextmanager
def status(what: str) -> Iterator[None]:
    """A context whose work has no steps to count: the terminal says what is under way."""
    with tqdm(total=0, desc=what, leave=False, disable=None, bar_format="{desc} ..."):
        yield


def ranked(task: MetricReport) -> list[Metric]:
    """The metrics that an epoch's line may show, the most important first."""
    return sorted((metric for metric in task.table if metric.brief), key=lambda metric: metric.brief)


def epoch_line(epoch: int, epochs: int, task: MetricReport, metrics: dict[str, dict[str, float]], speed: float) -> str:
    """An epoch's line: of its metrics, by split, and its images a second, the most important that fit into LINE.

    metrics.csv and the curves have all of them.
    """
    shown: set[tuple[str, str]] = set()

    def line(shown: set[tuple[str, str]]) -> str:
        parts = []
        for split, values in metrics.items():
            texts = [each.brief_text(values[each.key]) for each in task.table if (split, each.key) in shown]
            parts += [f"{split.lower()} {'  '.join(texts)}"] if texts else []
        parts += [f"{speed:.0f} images/s"] if ("", "speed") in shown else []
        return f"epoch {epoch:>{len(str(epochs))}}/{epochs}  {' | '.join(parts)}"

    candidates = [
        (metric.brief, (split, metric.key))
        for metric in ranked(task)
        for split, values in reversed(metrics.items())
        if metric.key in values and (not metric.shown_with or values[metric.shown_with] > 0)
    ]
    for _, each in sorted([*candidates, (SPEED_RANK, ("", "speed"))], key=lambda candidate: candidate[0]):
        if len(line(shown | {each})) <= LINE:
            shown.add(each)
    return line(shown)


class Estimate:
    """How long the rest of a run takes, said once, by MEASURED steps in a row of one epoch."""

    def __init__(self, job: Job) -> None:
        self.job, self.is_said = job, False
        self.begun: tuple[int, int] | None = None  # the first step here, and its epoch
        self.started = 0.0

    def before_step(self, state: TrainState) -> str:
        """The line that says it, where enough steps have been measured; otherwise empty."""
        if self.is_said:
            return ""
        if self.begun is None or self.begun[1] != state.epoch:
            self.begun = state.step, state.epoch
        done = state.step - self.begun[0]
        if done == UNMEASURED:
            self.started = self._now()
        if done < UNMEASURED + MEASURED:
            return ""
        self.is_said = True
        return self._line(state, (self._now() - self.started) / MEASURED)

    def _now(self) -> float:
        if self.job.precision.device.type != "cpu":
            torch.accelerator.synchronize()  # the host runs ahead of the device
        return time.perf_counter()

    def _line(self, state: TrainState, seconds: float) -> str:
        """seconds: of a step."""
        job, settings = self.job, self.job.settings
        evaluated = sum(len(batches.index) for batches in job.evaluations.values())
        steps = settings.epochs * len(job.training) - state.step
        evaluations = (settings.epochs - state.epoch) * evaluated / settings.batch_size * FORWARD
        bound = "at most " if settings.patience else "at least " if settings.sizes else ""
        left = duration(seconds * (steps + evaluations))
        return f"{bound}about {left} to go: {MEASURED} steps took {seconds:.3g} s each"


def duration(seconds: float) -> str:
    """A time in the units that people give it in: 31 s, 12 min, 3 h 20 min, 2 days 5 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} days {hours % 24} h"


class Clock:
    """Keeps state.seconds, the time that the run has spent in training steps."""

    def __init__(self, state: TrainState, batch_size: int) -> None:
        self.state, self.batch_size = state, batch_size
        self.started, self.before = time.perf_counter(), state.seconds

    def read(self, steps: int) -> float:
        """Brings state.seconds up to now; returns the images a second of the steps since the last reading."""
        now = self.before + time.perf_counter() - self.started
        speed = steps * self.batch_size / (now - self.state.seconds)
        self.state.seconds = now
        return speed

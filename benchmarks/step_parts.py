"""A training loop whose steps can be timed as a whole, or part by part (benchmarks/train_step.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.measure import Turn, endless, synchronize
from engine.device import Precision
from engine.job import Job
from engine.loop import train_epoch, train_step
from engine.shown.logs import RunLog
from engine.state import TrainState

PARTS = ("input", "forward", "backward", "optimizer", "logging")


class Clock:
    """Adds the time since the mark before to the part that a mark ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.restart()

    def restart(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        synchronize(self.device)
        self.last = time.perf_counter()

    def mark(self, part: str) -> None:
        synchronize(self.device)
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


class Marked:
    """An object whose named methods end one part when they are called, and another when they return ("" for none)."""

    def __init__(self, inner: object, clock: Clock, marks: dict[str, tuple[str, str]]) -> None:
        self.inner, self.clock, self.marks = inner, clock, marks

    def __getattr__(self, name: str) -> object:
        value = getattr(self.inner, name)
        if name not in self.marks:
            return value
        before, after = self.marks[name]

        def call(*words, **options):
            if before:
                self.clock.mark(before)
            result = value(*words, **options)
            if after:
                self.clock.mark(after)
            return result

        return call


def marked(batches: Iterator[tuple[Tensor, Tensor]], clock: Clock) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batches; what is waited for one is input, and what comes before the asking is logging."""
    while True:
        clock.mark("logging")
        batch = next(batches)
        clock.mark("input")
        yield batch


class Loop:
    """Endless training of one network under one choice of settings; state may be changed before the first step.

    step: what takes its steps, as engine.loop.train_epoch has it
    """

    def __init__(
        self, job: Job, network: nn.Module, precision: Precision, log: RunLog, step: Callable = train_step
    ) -> None:
        self.job, self.precision, self.log, self.step = job, precision, log, step
        self.device = precision.device
        self.state = TrainState.start(network, len(job.training), job.settings, precision)
        self.batches = endless(job.training)

    def run(self, count: int) -> int:
        """Trains for that many steps; returns the number of images."""
        return self._run(Turn(self.batches, count), self.job.task, self.step)

    def _run(self, turn: Turn, task: object, step: Callable) -> int:
        self.state.batch, self.state.sums = 0, []
        train_epoch(self.state, turn, task, self.precision, self.job.settings, self.on_read, step=step)
        return turn.images

    def on_read(self, losses: list[float], rates: list[float]) -> None:
        self.log.steps(self.state.step - len(losses), losses, rates)

    def parts(self, count: int) -> dict[str, float]:
        """Seconds of each part of an eager step, means over that many steps."""
        state, clock = self.state, Clock(self.device)
        task = Marked(self.job.task, clock, {"loss": ("", "forward"), "sums": ("backward", "logging")})
        schedule, state.schedule = state.schedule, Marked(state.schedule, clock, {"step": ("", "optimizer")})
        handle = state.network.register_forward_pre_hook(lambda *_: clock.mark("optimizer"))  # zero_grad's
        try:
            clock.restart()
            self._run(Turn(marked(self.batches, clock), count), task, train_step)
            clock.mark("logging")
        finally:
            handle.remove()
            state.schedule = schedule
        return {part: seconds / count for part, seconds in clock.seconds.items()}

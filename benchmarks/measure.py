"""What the benchmarks share: alternating rounds, medians with their spread, a training step, and what they ran on.

A time alone says little on a machine that does other work, too. So what is compared takes turns in one run, and each
ratio is taken within its round; a median stands with the least and the greatest round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.batches import TrainingBatches

CPU = torch.device("cpu")


def alternate(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each call returned, round by round; every other round in reverse, so that none always has the same turn."""
    values: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            values[name].append(calls[name]())
    return values


def ratios(values: Sequence[float], yardstick: Sequence[float]) -> list[float]:
    """Each value over the yardstick's of its round."""
    return [value / base for value, base in zip(values, yardstick, strict=True)]


def summary(values: Sequence[float], digits: int) -> str:
    """Median (least to greatest)."""
    middle, least, greatest = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({least} to {greatest})"


def machine(*packages: str) -> str:
    """Two lines: processor, cores, system, Python; threads of torch, and the versions of torch and those packages."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{_processor()}, {os.cpu_count()} cores; {platform.system()}, Python {platform.python_version()}\n"
        f"{torch.get_num_threads()} thread(s), torch {torch.__version__}{', ' * bool(versions)}{versions}"
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Waits until a device has done what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Loop(Protocol):
    """A training loop: run(steps) takes steps on the device and returns the number of images."""

    device: torch.device

    def run(self, steps: int) -> int: ...


def speed(loop: Loop, steps: int) -> float:
    """Images a second of a training loop over that many steps."""
    synchronize(loop.device)
    begin = time.perf_counter()
    images = loop.run(steps)
    synchronize(loop.device)
    return images / (time.perf_counter() - begin)


def calls_a_second(call: Callable[[], object], seconds: float) -> float:
    """Over as many calls as take `seconds`, at least one."""
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - begin)


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: it takes 1 or more")
    return number


def make_parser(description: str, rounds: int, threads: int | None = None) -> argparse.ArgumentParser:
    """A parser with -rounds and -threads, their defaults as given; description is a file's docstring."""
    parser = argparse.ArgumentParser(
        description=description.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-rounds", type=positive, default=rounds, help="times that each is measured, taking turns")
    parser.add_argument("-threads", type=positive, default=threads or torch.get_num_threads(), help="threads of torch")
    return parser


def endless(training: TrainingBatches) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch after the other."""
    return itertools.chain.from_iterable(training.epoch(number) for number in itertools.count())


class Turn:
    """The next steps of endless training, in the place of an epoch for engine.loop.train_epoch.

    bounds: of an epoch's batches, in all processes; images: how many this process took
    """

    def __init__(
        self, batches: Iterator[tuple[Tensor, Tensor]], steps: int, bounds: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.batches, self.steps, self.bounds, self.images = batches, steps, bounds, 0

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in itertools.islice(self.batches, self.steps):
            self.images += len(images)
            yield images, targets


class Step:
    """A training step (SGD with momentum) of one network on one fixed batch of noise, `side` pixels high and wide."""

    def __init__(
        self,
        network: nn.Module,
        batch: int,
        channels_last: bool = True,
        side: int = 32,
        classes: int = 100,
        device: torch.device = CPU,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        generator = torch.Generator().manual_seed(0)
        self.device = device
        self.network = network.to(device, memory_format=layout)
        self.images = torch.randn(batch, 3, side, side, generator=generator).to(device, memory_format=layout)
        self.targets = torch.randint(classes, (batch,), generator=generator).to(device)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def __call__(self) -> float:
        """Seconds of one step."""
        synchronize(self.device)
        started = time.perf_counter()
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.images), self.targets).backward()
        self.optimizer.step()
        synchronize(self.device)
        return time.perf_counter() - started

"""How much benchmarks/on_gpu.py measures, on which device, and the training loop that its stages have in common."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from PIL import Image

from benchmarks.processes import Own
from conf.resolve import settings as resolve

Lines = Iterator[tuple[str, Callable[[], dict[str, str]]]]


@dataclass(frozen=True)
class Plan:
    """How much is measured. noise, streamed: of folders of images the classes, the images of each, and their side."""

    pairs: tuple[tuple[str, ...], ...] = (
        ("cheapV3", "MobileNetV3"), ("cheapV2", "MobileNetV2"), ("cheapV3_small", "MobileNetV3_small"),
    )  # fmt: skip
    net: str = "cheapV3"  # of which each setting is measured
    batches: tuple[int, ...] = (128, 512, 1024)
    untimed: int = 8  # steps before a measurement: shapes are captured, algorithms found
    images: int = 5120  # of a round, but so many steps at least:
    least_steps: int = 10
    noise: tuple[int, int, int] = (64, 160, 32)  # whole batches of each size
    streamed: tuple[int, int, int] = (20, 96, 256)  # whole batches of 64
    streamed_batch: int = 64
    compiled: tuple[tuple[str, bool], ...] = (  # -compile and -graphs, for minutes each
        ("default", True), ("default", False), ("reduce-overhead", False), ("max-autotune-no-cudagraphs", True),
    )  # fmt: skip
    tests: tuple[str, ...] = ()  # files of tests/cuda; empty: all
    seconds: float = 300  # of one of them at most
    workers: int = min(6, os.cpu_count() or 1)  # processes that share its tests

    @classmethod
    def small(cls) -> Plan:
        """For a CPU, in a few minutes."""
        return cls(
            pairs=(("cheapV3_small", "MobileNetV3_small"),), net="cheapV3_small", batches=(4,), untimed=1, images=0,
            least_steps=2, compiled=(("default", False),), noise=(2, 8, 32), streamed=(2, 8, 40), streamed_batch=4,
            tests=("test_steps.py",), workers=1,
        )  # fmt: skip

    def steps(self, batch: int) -> int:
        """Of a round of batches of that size."""
        return max(self.least_steps, self.images // batch)


@dataclass(frozen=True)
class Bench:
    """What all stages need. given: the settings of every loop, unless a line has others."""

    plan: Plan
    given: dict[str, object]
    device: torch.device
    rounds: int
    threads: int
    folder: Path

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def loop(self, net: str, batch: int, **more: object) -> Own:
        """The training loop as main.py has it, its steps as a CUDA graph where there is CUDA, after its first steps."""
        torch.set_num_threads(self.threads)
        chosen = {"net": net, "batch_size": batch} | self.given | more
        made = Own(resolve(chosen))
        made.run(self.plan.untimed)
        return made


class Base:
    """The loop that settings are measured against: bench.plan.net as main.py trains it, of one batch size at a time."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.batch, self.loop = bench, 0, None

    def of(self, batch: int) -> Own:
        if batch != self.batch:
            self.drop()
            self.loop, self.batch = self.bench.loop(self.bench.plan.net, batch), batch
        return self.loop

    def drop(self) -> None:
        self.loop, self.batch = None, 0
        give_memory_back(self.bench)


def give_memory_back(bench: Bench) -> None:
    gc.collect()
    if bench.is_cuda:
        torch.cuda.empty_cache()


def write_images(folder: Path, classes: int, each: int, side: int, ending: str = "png") -> Path:
    """Smooth noise, train/CLASS/* and test/CLASS/*, in the folder, which is returned; what is there already stays."""
    random = numpy.random.default_rng(0)
    for split, count in (("train", each), ("test", 2)):
        for name in range(classes):
            (folder / split / str(name)).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = folder / split / str(name) / f"{number}.{ending}"
                if not path.exists():
                    small = random.integers(0, 256, (side // 8, side // 8, 3), dtype=numpy.uint8)
                    Image.fromarray(small).resize((side, side)).save(path)
    return folder

"""The stages of benchmarks/on_gpu.py: each yields the lines of its table, and what measures a line's cells."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from PIL import Image

import models
from benchmarks.measure import Step, alternate, ratios, summary
from benchmarks.processes import Group, Own
from benchmarks.reuse import others
from benchmarks.vs_original import SIDES, UNTIMED
from conf.resolve import settings as resolve
from models.ops import depthwise

ROOT = Path(__file__).resolve().parents[1]
Lines = Iterator[tuple[str, Callable[[], dict[str, str]]]]


@dataclass(frozen=True)
class Plan:
    """How much is measured. noise, streamed: of folders of images the classes, the images of each, and their side."""

    pairs: tuple[tuple[str, ...], ...] = (
        ("cheapV3", "MobileNetV3"), ("cheapV2", "MobileNetV2"), ("cheapV3_small", "MobileNetV3_small"),
    )  # fmt: skip
    net: str = "cheapV3"  # of which each setting is measured
    batches: tuple[int, ...] = (128, 512, 1024)
    untimed: int = 12  # steps before a measurement: shapes are captured, algorithms found
    steps: int = 40
    noise: tuple[int, int, int] = (64, 160, 32)  # whole batches of each size
    streamed: tuple[int, int, int] = (20, 100, 256)
    compiled: tuple[str, ...] = ("default", "reduce-overhead", "max-autotune-no-cudagraphs")  # for minutes each
    tests: tuple[str, ...] = ("tests/cuda",)

    @classmethod
    def small(cls) -> Plan:
        """For a CPU, in about a minute."""
        return cls(
            pairs=(("cheapV3_small", "MobileNetV3_small"),), net="cheapV3_small", batches=(4,), untimed=1, steps=2,
            compiled=(), noise=(2, 8, 32), streamed=(2, 8, 40), tests=("tests/cuda/test_steps.py", "-k", "same"),
        )  # fmt: skip


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


def give_memory_back(bench: Bench) -> None:
    gc.collect()
    if bench.is_cuda:
        torch.cuda.empty_cache()


def correct(bench: Bench) -> Lines:
    def run() -> dict[str, str]:
        if importlib.util.find_spec("pytest") is None:
            raise ValueError("pytest is not installed")
        words = [sys.executable, "-m", "pytest", "-m", "cuda", "-n", "0", "--tb", "line", "-rf", *bench.plan.tests]
        environment = os.environ | ({} if bench.is_cuda else {"CUDA_TESTS_ON": "cpu"})
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        (bench.folder / "correct.log").write_text(done.stdout + done.stderr)
        failed = re.findall(r"^FAILED \S+::(.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
        counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", done.stdout.splitlines()[-1])
        return {"found": ", ".join(counts), "failed": "; ".join(failed)}

    yield "tests/cuda", run


def waits(bench: Bench) -> Lines:
    def count(**more: object) -> dict[str, str]:
        steps = bench.plan.steps
        loop = bench.loop(bench.plan.net, bench.plan.batches[0], log_every=10**5, **more)
        if not bench.is_cuda:
            raise ValueError("a CPU is never waited for")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loop.run(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        seen = [warning for warning in caught if "synchroniz" in str(warning.message)]
        places = sorted({f"{Path(each.filename).name}:{each.lineno}" for each in seen})
        return {"waits": f"{len(seen)} in {steps} steps and a reading", "where": ", ".join(places)}

    for name, more in {"graphs": {}, "eager": {"graphs": False}, "eager, ema": {"graphs": False, "ema": 0.99}}.items():
        yield name, partial(count, **more)


def profile(bench: Bench) -> Lines:
    def look(net: str, graphs: bool) -> dict[str, str]:
        loop = bench.loop(net, bench.plan.batches[0], graphs=graphs)
        kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * bench.is_cuda
        steps = min(10, bench.plan.steps)
        with torch.profiler.profile(activities=kinds) as profiler:
            loop.run(steps)
        by_device = torch.autograd.DeviceType.CUDA if bench.is_cuda else torch.autograd.DeviceType.CPU
        events = [event for event in profiler.key_averages() if event.device_type == by_device]
        time_of = "self_device_time_total" if bench.is_cuda else "self_cpu_time_total"
        events.sort(key=lambda event: -getattr(event, time_of))
        total = sum(getattr(event, time_of) for event in events)
        top = [
            f"{100 * getattr(event, time_of) / total:.0f} % {event.key[:90]} x{event.count}" for event in events[:14]
        ]
        return {
            "kernels a step": f"{sum(event.count for event in events) / steps:.0f}",
            "ms a step in kernels": f"{total / steps / 1e3:.2f}",
            "most of it in": "; ".join(top),
        }

    for net in bench.plan.pairs[0]:
        for graphs in (True, False) if bench.is_cuda else (False,):
            yield f"{net}, {'graphs' if graphs else 'eager'}", partial(look, net, graphs)


def by_multiplier(x, weight, bias, stride, padding, times):
    """One convolution with a channel multiplier, in the place of models.ops.depthwise.repeated: a time, and no result,
    since its channels are in another order."""
    return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1])


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """A context in which the widened map is convolved "copy by copy", by a "multiplier", or as it is by default."""
    before = depthwise.WHOLE_MAP, depthwise.repeated
    depthwise.WHOLE_MAP = () if name == "copy by copy" else before[0]
    depthwise.repeated = by_multiplier if name == "multiplier" else before[1]
    try:
        yield
    finally:
        depthwise.WHOLE_MAP, depthwise.repeated = before


# by name: the settings that differ from the loop that they are measured against, and the form of the widened map
LEVERS: dict[str, tuple[dict[str, object], str]] = {
    "eager": ({"graphs": False}, ""),
    "NCHW (-channels-last false)": ({"channels_last": False}, ""),
    "float32 (-amp off)": ({"amp": "off"}, ""),
    "fp16": ({"amp": "fp16"}, ""),
    "-deterministic": ({"deterministic": True}, ""),
    "-cudnn-benchmark": ({"cudnn_benchmark": True}, ""),
    "copy by copy": ({}, "copy by copy"),
    "multiplier": ({}, "multiplier"),
    "eager, -fused false": ({"graphs": False, "fused": False}, ""),
}


def matrix(bench: Bench) -> Lines:
    def alone(net: str, batch: int) -> dict[str, str]:
        loop = bench.loop(net, batch)
        speeds = alternate({"own": partial(loop.speed, bench.plan.steps)}, bench.rounds)["own"]
        return {"images/s": summary(speeds, 0), "ms a step": f"{1e3 * batch / sorted(speeds)[len(speeds) // 2]:.2f}"}

    def against(batch: int, more: dict[str, object], how: str) -> dict[str, str]:
        base = bench.loop(bench.plan.net, batch)
        with form(how):
            other = bench.loop(bench.plan.net, batch, **more)

        def speed() -> float:
            with form(how):
                return other.speed(bench.plan.steps)

        found = alternate({"base": partial(base.speed, bench.plan.steps), "other": speed}, bench.rounds)
        return {
            "images/s": summary(found["other"], 0),
            "over the first": summary(ratios(found["other"], found["base"]), 2),
        }

    for batch in bench.plan.batches:
        for net in (net for pair in bench.plan.pairs for net in pair):
            yield f"{net}, batch {batch}", partial(alone, net, batch)
            give_memory_back(bench)
        for name, (more, how) in LEVERS.items():
            yield f"{bench.plan.net}, batch {batch}, {name}", partial(against, batch, more, how)
            give_memory_back(bench)
    for mode in bench.plan.compiled:
        batch = bench.plan.batches[0]
        yield f"{bench.plan.net}, batch {batch}, -compile {mode}", partial(against, batch, {"compile": mode}, "")


def compare(bench: Bench) -> Lines:
    def with_original(net: str) -> dict[str, str]:
        given = {"net": net, "batch_size": bench.plan.batches[0]} | bench.given
        eager = resolve(given | {"graphs": False})
        groups = {name: Group(side, eager, bench.threads) for name, side in SIDES.items()}
        groups["own by graphs"] = Group(Own, resolve(given), bench.threads)
        try:
            calls = {name: partial(group.speed, UNTIMED, bench.plan.steps) for name, group in groups.items()}
            found = alternate(calls, bench.rounds)
        finally:
            for group in groups.values():
                group.end()
        texts = {f"{name}, images/s": summary(values, 0) for name, values in found.items()}
        return texts | {"over the original's": summary(ratios(found["own by graphs"], found["original"]), 2)}

    def with_library(number: int) -> dict[str, str]:
        batch = bench.plan.batches[-1]
        name, theirs = others(batch, bench.device)[number]
        own = Step(models.create("MobileNetV3"), batch, device=bench.device)
        theirs(), own()
        found = alternate({"theirs": theirs, "own": own}, bench.rounds)
        return {"network": name, "theirs over ours, time of an eager float32 step": summary(ratios(*found.values()), 2)}

    yield f"{bench.plan.net} and the original's loop", partial(with_original, bench.plan.net)
    yield "MobileNetV3 and torchvision's", partial(with_library, 0)
    yield "MobileNetV3 and timm's", partial(with_library, 1)


def streaming(bench: Bench) -> Lines:
    def speed(folder: Path, workers: int | None) -> dict[str, str]:
        classes, each, side = bench.plan.streamed
        write_images(folder, classes, each, side, "jpg")
        given = {"dataset": str(folder), "size": side * 7 // 8, "random_resized_crop": 0.25}
        given |= {"memory": 1e-6, "workers": workers} if workers is not None else {"random_resized_crop": 0.0}
        loop = bench.loop(bench.plan.net, 64 if bench.is_cuda else 4, **given)
        steps = min(bench.plan.steps, 20)
        return {"images/s": summary([loop.speed(steps) for _ in range(bench.rounds)], 0)}

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        for workers in dict.fromkeys((None, 0, 2, min(8, cores - 1), cores - 1)):
            name = "in memory" if workers is None else f"streaming, {workers} decoders"
            yield name, partial(speed, Path(folder), workers)


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

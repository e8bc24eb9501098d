"""The stages of benchmarks/on_gpu.py that measure images a second.

Each yields the lines of its table, and what measures a line's cells.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from functools import partial
from pathlib import Path

import models
from benchmarks.depthwise_forms import COPY_BY_COPY, FORMS, MULTIPLIER, form
from benchmarks.measure import Step, alternate, ratios, speed, summary
from benchmarks.on_gpu_plan import Base, Bench, Lines, give_memory_back, write_images
from benchmarks.processes import Group, Own
from benchmarks.reuse import others
from benchmarks.vs_original import SIDES, UNTIMED
from conf import Settings
from conf.resolve import settings as resolve
from datasets.stream import decoders

# by name: the settings that differ from the loop that they are measured against, and the form of the widened map
LEVERS: dict[str, tuple[dict[str, object], str]] = {
    "eager": ({"graphs": False}, ""),
    "NCHW (-channels-last false)": ({"channels_last": False}, ""),
    "float32 (-amp off)": ({"amp": "off"}, ""),
    "fp16": ({"amp": "fp16"}, ""),
    "-deterministic": ({"deterministic": True}, ""),
    "-cudnn-benchmark": ({"cudnn_benchmark": True}, ""),
    COPY_BY_COPY: ({}, COPY_BY_COPY),
    MULTIPLIER: ({}, MULTIPLIER),
    "eager, -fused false": ({"graphs": False, "fused": False}, ""),
}
LAYOUTS = {"channels_last": True, "NCHW": False}
PRECISIONS = {"bf16": "bf16", "float32": "off"}


def against(bench: Bench, base: Base, batch: int, more: dict[str, object], how: str) -> dict[str, str]:
    """Images a second with other settings and another form of the widened map, and over those without, in turns."""
    steps = bench.plan.steps(batch)
    with form(how):
        other = bench.loop(bench.plan.net, batch, **more)

    def other_speed() -> float:
        with form(how):
            return speed(other, steps)

    calls = {"base": partial(speed, base.of(batch), steps), "other": other_speed}
    return over_the_first(alternate(calls, bench.rounds))


def over_the_first(found: dict[str, list[float]]) -> dict[str, str]:
    """The cells of a line: images a second of "other", and over those of "base" round by round."""
    return {
        "images/s": summary(found["other"], 0),
        "over the first": summary(ratios(found["other"], found["base"]), 2),
    }


def matrix(bench: Bench) -> Lines:
    def alone(net: str, batch: int) -> dict[str, str]:
        loop = bench.loop(net, batch)
        speeds = alternate({"own": partial(speed, loop, bench.plan.steps(batch))}, bench.rounds)["own"]
        return {"images/s": summary(speeds, 0), "ms a step": f"{1e3 * batch / sorted(speeds)[len(speeds) // 2]:.2f}"}

    base = Base(bench)
    for batch in bench.plan.batches:
        for net in (net for pair in bench.plan.pairs for net in pair):
            yield f"{net}, batch {batch}", partial(alone, net, batch)
            give_memory_back(bench)
        for name, (more, how) in LEVERS.items():
            yield f"{bench.plan.net}, batch {batch}, {name}", partial(against, bench, base, batch, more, how)
            give_memory_back(bench)
        base.drop()


def crossed(bench: Bench) -> Lines:
    """Form of the widened map, layout and precision, each with each: what one gives may depend on the others."""
    batch, base = bench.plan.batches[0], Base(bench)
    for how, (layout, last), (precision, amp) in itertools.product(FORMS, LAYOUTS.items(), PRECISIONS.items()):
        more = {"channels_last": last, "amp": amp, "kernels": False}  # kernels.c, for a CPU, has a form of its own
        name = f"{bench.plan.net}, batch {batch}, {how}, {layout}, {precision}"
        yield name, partial(against, bench, base, batch, more, how)
        give_memory_back(bench)


def in_processes(bench: Bench, sides: dict[str, tuple[type, Settings]]) -> dict[str, list[float]]:
    """Images a second of each side, round by round, at the first batch size; each runs in a process of its own."""
    steps = bench.plan.steps(bench.plan.batches[0])
    with contextlib.ExitStack() as stack:
        calls = {}
        for name, (side, settings) in sides.items():
            group = Group(side, settings, bench.threads)
            stack.callback(group.end)
            calls[name] = partial(group.speed, UNTIMED, steps)
        alternate(calls, rounds=1)  # untimed: kernels are loaded, workers started, networks compiled
        return alternate(calls, bench.rounds)


def compiled(bench: Bench) -> Lines:
    """In processes of their own: a capture that fails leaves torch in no state to measure in."""

    def against_uncompiled(more: dict[str, object]) -> dict[str, str]:
        given = {"net": bench.plan.net, "batch_size": bench.plan.batches[0]} | bench.given
        sides = {"base": (Own, resolve(given)), "other": (Own, resolve(given | more))}
        return over_the_first(in_processes(bench, sides))

    for mode, graphs in bench.plan.compiled:
        name = f"{bench.plan.net}, batch {bench.plan.batches[0]}, -compile {mode}{' -graphs true' if graphs else ''}"
        yield name, partial(against_uncompiled, {"compile": mode, "graphs": graphs})


def compare(bench: Bench) -> Lines:
    def with_original(net: str) -> dict[str, str]:
        given = {"net": net, "batch_size": bench.plan.batches[0]} | bench.given
        sides = {name: (side, resolve(given | {"graphs": False})) for name, side in SIDES.items()}
        found = in_processes(bench, sides | {"own by graphs": (Own, resolve(given))})
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
    def images_a_second(folder: Path, workers: int | None) -> dict[str, str]:
        classes, each, side = bench.plan.streamed
        write_images(folder, classes, each, side, "jpg")
        given = {"dataset": str(folder), "size": side * 7 // 8, "random_resized_crop": 0.25}
        given |= {"memory": 1e-6, "workers": workers} if workers is not None else {"random_resized_crop": 0.0}
        loop, steps = bench.loop(bench.plan.net, bench.plan.streamed_batch, **given), 2 * bench.plan.least_steps
        loop.run(steps)  # until decoders are ahead
        return {"images/s": summary([speed(loop, steps) for _ in range(bench.rounds)], 0)}

    own = decoders(None, processes=1)
    with tempfile.TemporaryDirectory() as folder:
        for workers in dict.fromkeys((None, 0, 2, own, 2 * own)):
            name = "in memory" if workers is None else f"streaming, {workers} decoders"
            yield name, partial(images_a_second, Path(folder), workers)

"""How a training step's time grows with batch size, image side, width and classes.

    python benchmarks/growth.py -net cheapV3
    python benchmarks/growth.py -net cheapV3 -axes images pixels -rounds 7 -out growth.png

One thing is varied at a time from -batch images of 32x32 pixels, width 1, 100 classes. Its sizes take turns, and in
each round a straight line is fitted to log(seconds) over log(size): its slope is the exponent, 1 where the time is
proportional. Beside it stands the exponent of the multiply-accumulates, which a step cannot be expected to beat for
long. Time that does not depend on the size lowers an exponent, so a bend upwards at the end could hide in the fit:
the slope of the last two sizes is shown too.

The network stays that for small images, as one whose strides change with the size would be two networks in one fit.

Images and pixels should cost in proportion. What costs more than that (either exponent above 1 + TOLERANCE in the
median of the rounds) is flagged, and the exit status is 1. Images are noise, which takes the same time as any image.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import models
from benchmarks.measure import Step, alternate, machine, make_parser, positive, summary
from engine.device import keep_freed_memory
from models.fast_path import use_kernels
from models.summary import mac_count

TOLERANCE = 0.1
LARGEST_OF_SAME = 64  # pixels; for larger images most networks halve the image in their first layer
LINEAR = ("images", "pixels")  # what more of should cost no more than in proportion


def make_axes(net: str, batch: int) -> dict[str, dict[float, Callable[[], tuple[Step, int]]]]:
    """By what is varied, by size: what builds a step, and its multiply-accumulates."""

    def case(images: int = batch, side: int = 32, width: float = 1.0, classes: int = 100) -> Callable:
        def build() -> tuple[Step, int]:
            torch.manual_seed(0)
            network = models.create(net, num_classes=classes, image_size=min(side, LARGEST_OF_SAME), width=width)
            try:
                macs = mac_count(network, 3, side)
            except RuntimeError:  # EffNet, whose classifier is made for one size; its strides are the same for all
                network = models.create(net, num_classes=classes, image_size=side, width=width)
                macs = mac_count(network, 3, side)
            use_kernels(network, required=False)  # as main.py does
            return Step(network, images, side=side, classes=classes), images * macs

        return build

    return {
        "images": {images: case(images=images) for images in (batch, 2 * batch, 4 * batch, 8 * batch)},
        "pixels": {side * side: case(side=side) for side in (32, 64, 128)},
        "width": {width: case(width=width) for width in (0.5, 1.0, 2.0)},
        "classes": {classes: case(classes=classes) for classes in (10, 100, 1000, 10_000)},
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of a line through log(values) over log(sizes), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponents(seconds: Mapping[float, Sequence[float]]) -> tuple[list[float], list[float]]:
    """Of each round: over all sizes, and over the last two. seconds: by size, one a round."""
    sizes, rounds = list(seconds), list(zip(*seconds.values(), strict=True))
    return [exponent(sizes, values) for values in rounds], [exponent(sizes[-2:], values[-2:]) for values in rounds]


def is_worse_than_linear(seconds: Mapping[float, Sequence[float]]) -> bool:
    """Whether either exponent's median is above 1 + TOLERANCE."""
    return any(statistics.median(values) > 1 + TOLERANCE for values in exponents(seconds))


def mean_of(step: Callable[[], float], seconds: float) -> float:
    """The mean over as many steps as take `seconds`."""
    times = [step()]
    while sum(times) < seconds:
        times.append(step())
    return statistics.mean(times)


def measure(cases: Mapping[float, Callable], rounds: int, seconds: float) -> tuple[dict[float, list[float]], list[int]]:
    """Seconds of a step by size, one a round, and the multiply-accumulates of each size.

    Raises ValueError where the network cannot be built so.
    """
    built = {size: build() for size, build in cases.items()}
    for step, _ in built.values():
        step()  # untimed
    times = alternate({size: partial(mean_of, step, seconds) for size, (step, _) in built.items()}, rounds)
    return times, [macs for _, macs in built.values()]


def describe(axis: str, seconds: Mapping[float, Sequence[float]], macs: Sequence[int]) -> str:
    overall, last = exponents(seconds)
    lines = [f"  {size:>8g} {axis:<8} {summary([1e3 * s for s in values], 1)} ms" for size, values in seconds.items()]
    flagged = axis in LINEAR and is_worse_than_linear(seconds)
    return "\n".join(
        [
            f"{axis}: exponent {summary(overall, 2)}, of the last two sizes {summary(last, 2)}; "
            f"of multiply-accumulates {exponent(list(seconds), macs):.2f}",
            *lines,
            *[f"  WORSE THAN LINEAR in {axis}"] * flagged,
        ]
    )


def picture(found: Mapping[str, Mapping[float, Sequence[float]]], title: str, path: Path) -> None:
    """A panel an axis: seconds over size, both logarithmic, beside a line of slope 1. Written as a PNG file."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(4 * len(found), 4), layout="constrained")
    figure.suptitle(title)
    for place, (axis, seconds) in enumerate(found.items(), start=1):
        sizes, middle = list(seconds), [statistics.median(values) for values in seconds.values()]
        spread = [
            [m - min(values) for m, values in zip(middle, seconds.values(), strict=True)],
            [max(values) - m for m, values in zip(middle, seconds.values(), strict=True)],
        ]
        axes = figure.add_subplot(1, len(found), place)
        axes.errorbar(sizes, middle, yerr=spread, marker="o", capsize=3, label="median, least, greatest")
        axes.plot(sizes, [middle[0] * size / sizes[0] for size in sizes], ":", color="grey", label="in proportion")
        axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds a step")
        axes.set_ylim(top=3 * max(max(values) for values in seconds.values()))
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        for side in (axes.xaxis, axes.yaxis):
            side.set_minor_locator(NullLocator())
        axes.set_title(f"exponent {statistics.median(exponents(seconds)[0]):.2f}")
        axes.legend()
    figure.savefig(path, format="png")


def main() -> int:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("-net", choices=models.names(), default="cheapV3", help="network", metavar="NET")
    parser.add_argument(
        "-batch", type=positive, default=16, help="images a step; varied, from there to eight times that"
    )
    parser.add_argument(
        "-axes", nargs="+", choices=("images", "pixels", "width", "classes"), default=None, help="what is varied"
    )
    parser.add_argument("-seconds", type=float, default=1.0, help="length of one measurement, in whole steps")
    parser.add_argument("-out", type=Path, default=None, help="PNG file for a picture; None: no picture")
    options = parser.parse_args()
    if options.batch < 2:
        parser.error("-batch 1: must be at least 2, for batch norm")
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"-out {options.out}: no such folder {options.out.parent}")
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as main.py does
    print(
        f"{options.net}, training steps with SGD, batch {options.batch}, 32x32 unless varied, {options.rounds} rounds"
    )
    print(machine(), flush=True)
    axes = make_axes(options.net, options.batch)
    found = {}
    for axis in options.axes or axes:
        try:
            found[axis], macs = measure(axes[axis], options.rounds, options.seconds)
        except ValueError as error:  # a network without width multiplier
            print(f"{axis}: left out ({error})", flush=True)
            continue
        print(describe(axis, found[axis], macs), flush=True)
    if options.out is not None and found:
        picture(found, f"{options.net}, batch {options.batch}, torch {torch.__version__}", options.out)
    return int(any(axis in LINEAR and is_worse_than_linear(seconds) for axis, seconds in found.items()))


if __name__ == "__main__":
    sys.exit(main())

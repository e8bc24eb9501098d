"""Milliseconds of one batch: each cheap network beside the MobileNet that it is made from, as a device would run it.

    python benchmarks/latency.py -batch 1 32 -rounds 15 -threads 1

Both are folded, and run in ONNX Runtime from the file that -export onnx writes, and eagerly in PyTorch, channels_last.
The two of a pair and both ways take turns, round by round, in one process; the ratio is taken within its round. Images
are noise of 32x32 pixels in 100 classes; running statistics are those of one batch of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

import models
from benchmarks.inference import SHAPE, with_statistics
from benchmarks.measure import alternate, machine, make_parser, positive, ratios, summary
from commands.export import check_packages, onnx_runner, to_onnx
from models.fold import fold
from models.for_export import for_onnx

PAIRS = (("MobileNetV2", "cheapV2"), ("MobileNetV3", "cheapV3"))
SHORTEST = 0.1  # seconds that a measurement takes at least, in whole batches
WAYS = ("ONNX Runtime", "eager")


def make_ways(name: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """The folded network as a function of images, by the name of the way in which it runs."""
    torch.manual_seed(0)
    folded = fold(with_statistics(models.create(name)))
    in_onnx = onnx_runner(to_onnx(for_onnx(folded, torch.Size(SHAPE)), torch.Size(SHAPE), {}))
    folded.to(memory_format=torch.channels_last)
    ways = in_onnx, lambda images: folded(images.contiguous(memory_format=torch.channels_last))
    return dict(zip(WAYS, ways, strict=True))


def milliseconds(way: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Of one batch, over as many as take SHORTEST."""
    begin, batches = time.perf_counter(), 0
    while batches == 0 or time.perf_counter() - begin < SHORTEST:
        way(images)
        batches += 1
    return 1000 * (time.perf_counter() - begin) / batches


def measure(baseline: str, cheap: str, batches: list[int], rounds: int) -> None:
    """Prints a row of a table for each batch size and way: both networks, and the cheap one's share of the other."""
    ways = {name: make_ways(name) for name in (baseline, cheap)}
    for batch in batches:
        images = torch.randn(batch, *SHAPE)
        calls = {(name, way): partial(milliseconds, run, images) for name in ways for way, run in ways[name].items()}
        alternate(calls, 1)  # the first calls are slower
        found = alternate(calls, rounds)
        for way in WAYS:
            both = found[baseline, way], found[cheap, way]
            times = " | ".join(f"{name} {summary(each, 2)}" for name, each in zip(ways, both, strict=True))
            print(f"| {batch} | {way} | {times} | {summary(ratios(both[1], both[0]), 2)} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=15, threads=1)
    parser.add_argument("-batch", type=positive, nargs="+", default=[1, 32], help="images a batch, one or several")
    cheap = [pair[1] for pair in PAIRS]
    parser.add_argument("-net", choices=cheap, nargs="+", default=cheap, help="the cheap networks")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    try:
        check_packages()
    except ValueError as error:
        print(f"latency.py: {error}", file=sys.stderr)
        return 2
    print(f"milliseconds of a batch, median (least to greatest) of {arguments.rounds} rounds\n{machine('onnxruntime')}")
    print("| batch | runs in | MobileNet | cheap | cheap / MobileNet |\n|---|---|---|---|---|")
    with torch.inference_mode():
        for pair in PAIRS:
            if pair[1] in arguments.net:
                measure(*pair, arguments.batch, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

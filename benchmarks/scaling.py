"""Images a second of one process and of several on this machine, and what that lets one expect of many GPUs.

    python benchmarks/scaling.py -net cheapV3 -procs 2 -rounds 5 -steps 10
    python benchmarks/scaling.py -step-ms 41 -links 12.5 50        a step's time as measured on a GPU, two kinds of link

Measured: this project's training loop (engine.loop.train_epoch on the data set's batches, the same global batch) in one
process with all threads, and in several processes with gloo, which share the threads. They take turns.

Predicted: the efficiency of N GPUs, each with a batch of its own (weak scaling): a step alone over a step with its
all-reduce. A ring sends 2 (N - 1) / N of the bytes of the gradients over each link, in 2 (N - 1) messages (Patarasuk
and Yuan, 2009, https://doi.org/10.1016/j.jpdc.2008.09.002).
Assumed: float32 gradients; every GPU takes the step's time, without waiting for data or stragglers; all rings run over
one kind of link at its full speed; a message's latency is the same at any N. "after": nothing is sent before the
backward pass has ended. "during": sending is hidden by the backward pass, two thirds of a step, as far as it goes.
The truth lies between the two; neither holds for a network of switches that others use.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import models
from benchmarks.measure import positive, ratios, summary
from benchmarks.processes import Group, Own, loop_settings, make_loop_parser, take_turns
from engine.job import make_job

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024)
BACKWARD = 2 / 3  # of a step: two of its three convolutions' worth
UNTIMED = 3  # steps before the timed ones


def all_reduce_seconds(count: int, nbytes: int, bytes_per_second: float, latency: float) -> float:
    """Of a ring: 2 (N - 1) messages of nbytes / N each, one after the other."""
    return 2 * (count - 1) * (nbytes / count / bytes_per_second + latency)


def efficiency(step: float, reduce: float, hidden: float = 0.0) -> float:
    """A step's seconds alone over those with an all-reduce of which up to `hidden` seconds cost nothing."""
    return step / (step + max(0.0, reduce - hidden))


def print_prediction(step: float, nbytes: int, options: argparse.Namespace) -> None:
    print(
        f"prediction: {nbytes / 1e6:.2f} MB of gradients, {1e3 * step:.1f} ms a step, "
        f"{1e6 * options.latency:g} us a message; efficiency with all-reduce after / during the backward pass"
    )
    print(f"{'GPUs':>5}  " + "  ".join(f"{f'{link:g} GB/s':>15}" for link in options.links))
    for count in GPUS:
        cells = []
        for link in options.links:
            reduce = all_reduce_seconds(count, nbytes, 1e9 * link, options.latency)
            cells.append(f"{efficiency(step, reduce):.3f} / {efficiency(step, reduce, BACKWARD * step):.3f}")
        print(f"{count:>5}  " + "  ".join(f"{cell:>15}" for cell in cells))


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: it takes a number above 0")
    return number


def main() -> int:
    parser = make_loop_parser(__doc__, models.names(), steps=10)
    parser.add_argument("-procs", type=positive, default=2, help="processes")
    parser.add_argument(
        "-step-ms", type=seconds, default=None, help="a step's time on a GPU, for the prediction; None: one process's"
    )
    parser.add_argument("-links", type=seconds, nargs="+", default=[3.0, 12.5, 50.0, 300.0], help="GB (10^9 bytes) a s")
    parser.add_argument("-latency", type=seconds, default=1e-5, help="seconds a message")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        if options.batch % options.procs:
            raise ValueError(f"-batch {options.batch}: must be a multiple of the {options.procs} processes")
        settings = loop_settings(options, gpu=False)
        parameters = make_job(settings).parameters  # the data is packed before processes need it at the same time
        several = partial(Group, Own, settings, max(1, options.threads // options.procs), options.procs)
        speeds = take_turns(
            {"one": partial(Group, Own, settings, options.threads), "several": several}, UNTIMED, options
        )
    except ValueError as error:
        print(f"scaling.py: {error}", file=sys.stderr)
        return 2
    print("images a second, and their ratio: median (least to greatest)")
    print(f"one process    {summary(speeds['one'], 1)}")
    print(f"{options.procs} processes    {summary(speeds['several'], 1)}")
    print(f"ratio          {summary(ratios(speeds['several'], speeds['one']), 3)}")
    step = options.step_ms / 1e3 if options.step_ms else options.batch / statistics.median(speeds["one"])
    print_prediction(step, 4 * parameters, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())

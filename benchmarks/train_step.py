"""Images a second of the training loop, where the time of a step goes, and what each setting does for it.

    python benchmarks/train_step.py -net cheapV3 -dataset cifar100 -steps 20 -rounds 5
    python benchmarks/train_step.py -matrix        channels_last, amp, foreach, fused, kernels, compile: each on and off

The loop is engine.loop.train_epoch as main.py runs it, with the data set's own recipe, its batches and its TensorBoard
file, and on CUDA its steps by graphs (-graphs). The speed is measured without looking inside. For the parts, marks are
then set where one part of a step ends and the next begins, in eager steps, since a graph has no inside; at each the
device is waited for, which on CUDA takes away what overlaps, so the parts may add up to more than a step takes. Parts:
input (the next batch), forward (with the loss), backward, optimizer (with zero_grad, learning rate and averaged
weights), logging (metric sums, the reading of the losses, TensorBoard). Evaluation is that of the test set after each
epoch, spread over the epoch's steps.

-matrix: each setting is varied by itself from channels_last, float32, one loop over the parameters, no kernels
(models/ops/kernels.c), no compilation, and no graphs, which need a fused optimizer; all variants take turns in one run.
A setting that cannot run here is named with the reason and left out.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import models
from benchmarks.measure import (
    alternate,
    machine,
    make_parser,
    positive,
    ratios,
    speed,
    summary,
    synchronize,
)
from benchmarks.step_parts import PARTS, Loop
from conf import Settings
from conf.resolve import settings as resolve
from engine.device import Precision
from engine.graphs import EAGER_STEPS, make_step
from engine.job import Job, make_job
from engine.loop import evaluate
from engine.schedule import make_schedule
from engine.shown.logs import RunLog
from models.fast_path import use_kernels
from utils import parse_bool

UNTIMED = EAGER_STEPS + 2  # steps before a measurement: the first after the eager ones is captured


def seconds_of_evaluation(job: Job, batches: int) -> float:
    """Of the whole test set, from its first batches."""
    images = sum(len(part) for part in job.evaluations["Test"].parts[:batches])
    synchronize(job.precision.device)
    begin = time.perf_counter()
    evaluate(job.network, itertools.islice(job.evaluations["Test"], batches), job.task, job.precision)
    synchronize(job.precision.device)
    return (time.perf_counter() - begin) * len(job.evaluations["Test"].index) / images


def print_parts(job: Job, log: RunLog, options: argparse.Namespace) -> None:
    loop = Loop(job, job.network, job.precision, log, make_step(job.settings, job.precision.device, processes=1))
    loop.run(UNTIMED)
    calls = {"speed": partial(speed, loop, options.steps), "parts": partial(loop.parts, options.steps)}
    found = alternate(calls, options.rounds)
    milliseconds = {part: [1e3 * parts[part] for parts in found["parts"]] for part in PARTS}
    evaluations = [seconds_of_evaluation(job, options.steps) for _ in range(options.rounds)]
    milliseconds["evaluation"] = [1e3 * seconds / len(job.training) for seconds in evaluations]
    total = [sum(values) for values in zip(*milliseconds.values(), strict=True)]
    print("median (least to greatest)")
    print(f"images a second in training: {summary(found['speed'], 1)}")
    print(f"{'part':<11} {'ms a step':<26} % of a step with its share of the evaluation")
    for part, values in milliseconds.items():
        shares = [100 * share for share in ratios(values, total)]
        print(f"{part:<11} {summary(values, 2):<26} {summary(shares, 1)}")


def make_loops(job: Job, log: RunLog) -> dict[str, Callable[[], Loop]]:
    """By name, what builds each variant; "plain" is what they vary."""
    device = job.precision.device
    plain_precision = Precision.choose("off", device)
    amp = Precision.choose("auto" if device.type == "cuda" else "bf16", device)

    def loop(
        channels_last: bool = True,
        precision: Precision = plain_precision,
        own_kernels: bool = False,
        compile: bool = False,
        **optimizer: bool,
    ) -> Loop:
        channels, size = job.dataset.train.images.shape[1:3]
        torch.manual_seed(0)
        network = models.create(job.settings.net, len(job.dataset.classes), channels, size, job.settings.width)
        if own_kernels:
            use_kernels(network, required=True)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        network = network.to(device, memory_format=layout)
        made = Loop(job, torch.compile(network) if compile else network, precision, log)
        made.state.optimizer = rebuilt(made.state.optimizer, {"foreach": False, "fused": False} | optimizer)
        made.state.schedule = make_schedule(made.state.optimizer, len(job.training), job.settings)
        return made

    return {
        "plain": loop,
        "channels_last": partial(loop, channels_last=False),
        f"amp ({str(amp.dtype).removeprefix('torch.')})": partial(loop, precision=amp),
        "foreach": partial(loop, foreach=True),
        "fused": partial(loop, fused=True),
        "kernels": partial(loop, own_kernels=True),
        "compile": partial(loop, compile=True),
    }


def rebuilt(optimizer: torch.optim.Optimizer, options: dict[str, bool]) -> torch.optim.Optimizer:
    """A new optimizer of the same kind over the same parameters, with other options."""
    allowed = inspect.signature(type(optimizer)).parameters
    kept = {name: value for name, value in optimizer.defaults.items() if name in allowed}
    groups = [{name: group[name] for name in ("params", "weight_decay")} for group in optimizer.param_groups]
    return type(optimizer)(groups, **kept | options)


def print_matrix(job: Job, log: RunLog, options: argparse.Namespace) -> None:
    loops = {}
    for name, make in make_loops(job, log).items():
        try:
            loop = make()
            loop.run(UNTIMED)
        except Exception as error:  # of any kind: each library has its own for a thing that a machine lacks
            if name == "plain":
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            print(f"{name}: left out, it cannot run here ({lines[0][:120]})", flush=True)
        else:
            loops[name] = loop
    speeds = alternate({name: partial(speed, loop, options.steps) for name, loop in loops.items()}, options.rounds)
    plain = speeds.pop("plain")
    print(f"plain: {summary(plain, 1)} images a second; median (least to greatest)")
    print(f"{'setting':<15} images a second, on over off")
    for name, values in speeds.items():
        on, off = (plain, values) if name == "channels_last" else (values, plain)
        print(f"{name:<15} {summary(ratios(on, off), 3)}")


def make_settings(options: argparse.Namespace) -> Settings:
    given = {"net": options.net, "dataset": options.dataset, "data": options.data, "gpu": options.gpu}
    given |= {"batch_size": options.batch} if options.batch else {}
    return resolve(given | {"log_every": options.log_every})


def main() -> int:
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("-net", default="cheapV3", help="network", metavar="NET")
    parser.add_argument("-gpu", type=parse_bool, default=None, help="true demands CUDA, false keeps to the CPU")
    parser.add_argument("-batch", type=positive, default=None, help="images a step; None: the recipe's")
    parser.add_argument("-steps", type=positive, default=20, help="steps of one measurement")
    parser.add_argument("-log-every", type=positive, default=50, help="steps between readings of the loss")
    parser.add_argument("-dataset", default="cifar100", help="data set")
    parser.add_argument("-data", default="data", help="folder of the data sets")
    parser.add_argument("-matrix", action="store_true", help="each setting on and off")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        job = make_job(make_settings(options))
    except ValueError as error:
        print(f"train_step.py: {error}", file=sys.stderr)
        return 2
    settings, device = job.settings, job.precision.device
    print(f"{settings.net} on {settings.dataset}, batch {settings.batch_size}, {settings.optimizer}, on {device}")
    print(f"{options.rounds} rounds of {options.steps} steps, the loss read every {settings.log_every}")
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        log = RunLog(Path(folder))
        (print_matrix if options.matrix else print_parts)(job, log, options)
        log.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

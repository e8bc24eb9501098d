"""A job: what a run needs, made from its settings: device, data set, network and task. It has written nothing yet."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import datasets
from conf import Settings
from conf.combinations import parse_budget
from conf.knobs import show
from conf.resolve import chosen_row
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.fingerprint import TEACHER, fingerprint
from datasets.loaders import make_batches
from engine.checks import check_run, check_single_images, check_sizes, prepare_network
from engine.device import Precision, keep_freed_memory, to_device
from engine.distillation import Distilled, TaughtBatches, make_teacher
from engine.graphs import is_graphed
from engine.muon import adamw_rate
from engine.processes.count import describe_processes
from engine.processes.distributed import SINGLE_PROCESS, Processes
from engine.saved import checkpoint
from engine.saved.folders import Folders
from engine.saved.weights import load_pretrained
from engine.tasks import TASKS, Task
from engine.views import how_made, streaming, to_content, view_of_data
from models import fast_path
from models.gate_start import can_start_at_one
from models.match import nearest_width
from models.reuse import Reuse, ReuseDepthwise
from models.summary import mac_count, parameter_count
from utils import derived_seed


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    view         what the network sees of an image
    evaluations  by split: "Val" first, where images are held out, then "Test"
    fingerprint  of the data set and its split, and of the teacher where there is one
    parameters, macs  the trainable parameters, and the multiply-accumulates for one image
    """

    settings: Settings
    precision: Precision
    dataset: datasets.Dataset
    view: datasets.View
    network: nn.Module
    task: Task
    training: TrainingBatches | TaughtBatches
    evaluations: dict[str, EvaluationBatches]
    fingerprint: dict[str, str | int]
    parameters: int
    macs: int
    processes: Processes

    @property
    def chosen_on(self) -> str:
        """The split whose score chooses the best epoch."""
        return next(iter(self.evaluations))

    def about_data(self) -> dict[str, object]:
        """The part of a checkpoint that tells what the network is trained on, and sees of it."""
        steps = {"steps_per_epoch": len(self.training), "working_folder": os.getcwd()}
        return to_content(self.view) | steps | {"fingerprint": self.fingerprint}


def describe_job(job: Job, folders: Folders) -> str:
    """The first lines of a run: network, data, recipe, device, and where it writes."""
    settings = job.settings
    images = {split: len(batches.index) for split, batches in job.evaluations.items()}
    fairly = "a folder with train/, val/ and test/" if job.dataset.is_split_here else "a run with -val"
    chosen_on = "validation images" if job.chosen_on == "Val" else f"test set ({fairly} chooses fairly)"
    several = describe_processes(job.processes.world_size, settings)
    on_cuda = job.precision.device.type == "cuda"
    how = " without TF32" if on_cuda and job.precision.dtype is torch.float32 else ""
    how += ", cuDNN trying its algorithms out" if on_cuda and settings.cudnn_benchmark else ""
    how += ", widened blocks by models/ops/kernels.c" if fast_path.are_kernels_used(job.network) else ""
    how += f", compiled ({settings.compile})" if settings.compile != "off" else ""
    reused = sum(isinstance(m, Reuse | ReuseDepthwise) for m in job.network.modules()) if settings.reuse else 0
    how += f", {reused} expansions replaced by Reuse" if reused else ""
    how += f", taught by {settings.distill}" if settings.distill else ""
    how += ", steps as a CUDA graph" if is_graphed(settings, job.precision.device, job.processes.world_size) else ""
    gated = settings.gate_start == "one" and any(can_start_at_one(m) for m in job.network.modules())
    gates = ", its gates started at one" if gated else ""
    splits = ", ".join(f"{count:,} {split.lower()}" for split, count in images.items())
    side = job.view.side
    largest = max(stop - start for start, stop in job.training.bounds)
    batch = f"batch {settings.batch_size}"
    if largest < settings.batch_size:
        batch = f"batch {largest} (all training images, which -b {settings.batch_size} exceeds)"
    beside = f" and adamw at {adamw_rate(settings):g}" if settings.optimizer == "muon" else ""
    sizes = f", images of {' '.join(map(str, settings.sizes))} pixels in turn" if settings.sizes else ""
    average, steps = "", settings.epochs * len(job.training)
    if (share := settings.ema ** (steps - 1)) > 0.5 and steps > 1:
        better = 1 - float(f"{1 - 0.01 ** (1 / (steps - 1)):.2g}")
        average = (
            f"\nthe averaged weights (-ema {settings.ema:g}), which are tested, still are to {share:.0%} those of the "
            f"first of {steps:,} steps; -ema {better:g} would leave 1 % of them"
        )
    return (
        f"{settings.net}: {job.parameters:,} parameters, {job.macs / 1e6:.2f} M MACs for one {side}x{side} image"
        f"{gates}\n"
        f"{settings.dataset}: {len(job.training.index):,} training, {splits} images, {job.task.targets()}\n"
        f"recipe {settings.recipe}: {settings.epochs} epochs of {len(job.training):,} steps, "
        f"{batch}, {settings.optimizer} at {settings.lr:g}{beside}, seed {settings.seed}{sizes}\n"
        f"on {job.precision.device}{several}, in {str(job.precision.dtype).removeprefix('torch.')}{how}; "
        f"the best epoch is chosen on the {chosen_on}"
        f"{average}\n"
        f"curves: tensorboard --logdir {folders.logdir}; weights: {folders.checkpoints}"
    )


def make_job(
    settings: Settings, weights: Path | None = None, processes: Processes = SINGLE_PROCESS, goes_on: bool = False
) -> Job:
    """The job of these settings; it starts from weights, a checkpoint, where that is given.

    goes_on: the settings are those of a run that may have begun on another machine. It goes on without -sync-bn where
    there is no CUDA, and a line says so where that changes anything.
    Raises ValueError for settings that cannot run. Nothing is written except the packed data set.
    """
    row = chosen_row(settings)
    device = check_run(settings, row, processes.world_size, goes_on)
    sync_bn = settings.sync_bn and device.type == "cuda"
    if settings.sync_bn and not sync_bn and processes.world_size > 1:
        print("-sync-bn: torch has it for CUDA devices only; from here on each process normalises its own images")
    if device.type == "cpu":
        keep_freed_memory()
    start = None if weights is None else checkpoint.load(weights)
    data = datasets.load(row, Path(settings.data), settings.size or None, streaming(settings, processes.world_size))
    view = view_of_data(settings, data)
    torch.manual_seed(derived_seed(settings.seed, "weights", 0))
    settings = matched(settings, view)
    made = how_made(settings, view)
    network = made.network()
    prepare_network(network, settings)
    check_sizes(network, made, settings)
    if start is not None:
        load_pretrained(network, start, weights, made, view.classes)
    macs = mac_count(network, view.channels, view.side)
    precision = Precision.choose(settings.amp, device)
    if settings.kernels is not False:
        use_kernels(network, settings, precision)
    if sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    training, evaluations = make_batches(settings, data, device, (processes.rank, processes.world_size))
    check_single_images(made, settings, min(stop - start for start, stop in training.bounds))
    validation = evaluations.get("Val")
    facts = fingerprint(data, (training.index, *([validation.index] if validation else [])))
    task = TASKS[row.task].make(settings, view)
    if settings.distill:
        teacher = make_teacher(settings, view, precision)
        training, task = TaughtBatches(training, teacher), Distilled.make(settings, view)
        facts[TEACHER] = teacher.digest
    return Job(
        settings=settings,
        precision=precision,
        dataset=data,
        view=view,
        network=to_device(network, device, settings.channels_last),
        task=task,
        training=training,
        evaluations=evaluations,
        fingerprint=facts,
        parameters=parameter_count(network),
        macs=macs,
        processes=processes,
    )


def matched(settings: Settings, view: datasets.View) -> Settings:
    """The settings with the width that -match asks for; a run that goes on has found it already.

    Prints the width. Raises ValueError where no width comes near.
    """
    if not settings.match or settings.width != 1.0:
        return settings
    made, budget = how_made(settings, view), parse_budget(settings.match)
    try:
        width = nearest_width(
            lambda width: dataclasses.replace(made, width=width).network(), *budget, view.channels, view.side
        )
    except ValueError as error:
        raise ValueError(f"-match {show(settings.match)}: {error}") from None
    print(f"-match {settings.match}: width {width:g}")
    return dataclasses.replace(settings, width=width)


def use_kernels(network: nn.Module, settings: Settings, precision: Precision) -> None:
    """Has models/ops/kernels.c train the network's widened blocks, where it can.

    Raises ValueError where it cannot and -kernels true demands it.
    """
    required = settings.kernels is True
    try:
        if precision.device.type == "cpu" and precision.dtype is torch.float32:
            fast_path.use_kernels(network, required)
        elif required:
            raise ValueError("it is for training on a CPU in float32")
    except ValueError as error:
        raise ValueError(f"-kernels true: {error}; leave it out of a new run") from None

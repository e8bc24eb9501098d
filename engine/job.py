"""A job: what a run needs, made from its settings: device, data set, network and task. It has written nothing yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import datasets
import models
from conf import UNTRAINED, Settings
from conf.datasets import find_row
from conf.resolve import reject_unused_settings, saved_settings
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.loaders import make_batches
from datasets.stream import decoders
from engine import checkpoint
from engine.device import Precision, check_compiler, choose_device, keep_freed_memory
from engine.distributed import SINGLE_PROCESS, Processes, describe_processes
from engine.folders import Folders
from engine.schema import RunContent
from engine.tasks import TASKS, Task
from models import fast_path
from models.registry import entry
from models.summary import mac_count, parameter_count
from utils import derived_seed


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    evaluations  by split: "Val" first, where images are held out, then "Test"
    parameters, macs  the trainable parameters, and the multiply-accumulates for one image
    """

    settings: Settings
    precision: Precision
    dataset: datasets.Dataset
    network: nn.Module
    task: Task
    training: TrainingBatches
    evaluations: dict[str, EvaluationBatches]
    parameters: int
    macs: int
    processes: Processes

    @property
    def chosen_on(self) -> str:
        """The split whose score chooses the best epoch."""
        return next(iter(self.evaluations))


def describe_job(job: Job, folders: Folders) -> str:
    """The first lines of a run: network, data, recipe, device, and where it writes."""
    settings = job.settings
    images = {split: len(batches.index) for split, batches in job.evaluations.items()}
    chosen_on = "validation images" if job.chosen_on == "Val" else "test set (give -val for a fair choice)"
    several = describe_processes(job.processes, settings)
    compiled = ", widened blocks by models/ops/kernels.c" if fast_path.are_kernels_used(job.network) else ""
    splits = ", ".join(f"{count:,} {split.lower()}" for split, count in images.items())
    side = job.dataset.train.images.shape[-1]
    return (
        f"{settings.net}: {job.parameters:,} parameters, {job.macs / 1e6:.2f} M MACs for one {side}x{side} image\n"
        f"{settings.dataset}: {len(job.training.index):,} training, {splits} images, {job.task.targets()}\n"
        f"recipe {settings.recipe}: {settings.epochs} epochs of {len(job.training):,} steps, "
        f"batch {settings.batch_size}, {settings.optimizer} at {settings.lr:g}, seed {settings.seed}\n"
        f"on {job.precision.device}{several}, in {str(job.precision.dtype).removeprefix('torch.')}{compiled}; "
        f"the best epoch is chosen on the {chosen_on}\n"
        f"curves: tensorboard --logdir {folders.runs.parents[1]}; weights: {folders.checkpoints}"
    )


def make_job(
    settings: Settings, weights: Path | None = None, processes: Processes = SINGLE_PROCESS, goes_on: bool = False
) -> Job:
    """The job of these settings; it starts from weights, a checkpoint, where that is given.

    goes_on: the settings are those of a run that may have begun on another machine. It goes on without -sync-bn where
    there is no CUDA, and a line says so where that changes anything.
    Raises ValueError for settings that cannot run. Nothing is written except the packed data set.
    """
    entry(settings.net)
    row = find_row(settings.dataset)
    reject_unused_settings(settings, row)
    device = choose_device(settings.gpu)
    if settings.batch_size % processes.world_size:
        raise ValueError(f"-b {settings.batch_size}: must be a multiple of the {processes.world_size} processes")
    sync_bn = settings.sync_bn and device.type == "cuda"
    if settings.sync_bn and not sync_bn:
        if not goes_on:
            raise ValueError("-sync-bn: torch has it for CUDA devices only; leave it out on others")
        if processes.world_size > 1:
            print("-sync-bn: torch has it for CUDA devices only; from here on each process normalises its own images")
    if settings.compile:
        check_compiler(device)
    if device.type == "cpu":
        keep_freed_memory()
    start = None if weights is None else checkpoint.load(weights)
    workers = decoders(settings.workers, processes.world_size)
    streaming = datasets.Streaming(round(settings.memory * 1e9), workers, settings.random_resized_crop)
    data = datasets.load(row, Path(settings.data), settings.size or None, streaming)
    torch.manual_seed(derived_seed(settings.seed, "weights", 0))
    network = make_network(settings, data)
    if start is not None:
        load_pretrained(network, start, weights)
    size, channels = data.train.images.shape[-1], data.train.images.shape[1]
    macs = mac_count(network, channels, size)
    precision = Precision.choose(settings.amp, device)
    if settings.kernels is not False:
        use_kernels(network, settings, precision)
    if sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    training, evaluations = make_batches(settings, data, device, (processes.rank, processes.world_size))
    return Job(
        settings=settings,
        precision=precision,
        dataset=data,
        network=to_device(network, device, settings.channels_last),
        task=TASKS[row.task].make(settings, data),
        training=training,
        evaluations=evaluations,
        parameters=parameter_count(network),
        macs=macs,
        processes=processes,
    )


def job_from_checkpoint(weights: Path, overrides: dict[str, object]) -> tuple[Job, RunContent]:
    """The job of a checkpoint, with its weights loaded, and the checkpoint's content.

    overrides: settings that replace the checkpoint's and do not change the network.
    Raises ValueError where the checkpoint holds weights only, or its data set is missing or has other classes.
    """
    content = checkpoint.load_run(weights)
    job = make_job(saved_settings(content["settings"], weights, UNTRAINED | overrides))
    if list(job.dataset.classes) != content["classes"]:
        raise ValueError(
            f"{weights}: made for other classes than those of {job.settings.dataset}; give its own -dataset"
        )
    checkpoint.load_weights(job.network, checkpoint.network_weights(content), weights)
    return job, content


def make_network(settings: Settings, data: datasets.Dataset) -> nn.Module:
    """The network of the settings with new weights, for the classes and images of the data set."""
    return models.create(
        settings.net,
        num_classes=len(data.classes),
        in_channels=data.train.images.shape[1],
        image_size=data.train.images.shape[-1],
        width=settings.width,
    )


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
        raise ValueError(f"-kernels true: {error}; leave it out") from None


def to_device(network: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The network on the device, its weights in the channels_last memory format if wanted."""
    return network.to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)


def load_pretrained(network: nn.Module, content: dict, path: Path) -> None:
    """Loads the weights of a checkpoint as a start for training.

    A classifier for another number of classes keeps its new weights, and a line is printed that says so.
    Raises ValueError for the weights of another network.
    """
    state = checkpoint.network_weights(content)
    own = network.state_dict()
    for key in ("head.classifier.weight", "head.classifier.bias"):
        if key in state and key in own and state[key].shape[0] != own[key].shape[0]:
            print(f"{key}: made new, {path} has {state[key].shape[0]} classes and this run {own[key].shape[0]}")
            state[key] = own[key]
    checkpoint.load_weights(network, state, path)

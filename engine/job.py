"""From settings to everything a run needs, with nothing written yet: device, data, network, task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import datasets
import models
from conf import Settings, option
from conf.datasets import find_row
from conf.resolve import saved_settings
from datasets.augment import Augmentation, ImageSource
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.split import held_out, held_out_rows
from datasets.steering import DriveAugmentation, DriveBatches, DriveSource
from datasets.stream import StreamedImages, StreamSource
from engine import checkpoint
from engine.device import Precision, check_compiler, choose_device, keep_freed_memory
from engine.distributed import ALONE, Processes
from engine.tasks import TASKS
from models import fast_path
from models.registry import entry
from models.summary import mac_count, parameter_count
from utils import derived_seed


@dataclass(frozen=True)
class Job:
    """A run, ready to start. evaluations: by split, "Val" first where images are held out, then "Test"."""

    settings: Settings
    precision: Precision
    dataset: datasets.Dataset
    network: nn.Module
    task: object
    training: TrainingBatches
    evaluations: dict[str, EvaluationBatches]
    parameters: int
    macs: int
    processes: Processes

    @property
    def chosen_on(self) -> str:
        """The split whose score chooses the best epoch."""
        return next(iter(self.evaluations))


def make_job(settings: Settings, weights: Path | None = None, processes: Processes = ALONE) -> Job:
    """Raises ValueError for settings that cannot run; writes nothing but the packed data set."""
    entry(settings.net)
    row = find_row(settings.dataset)
    device = choose_device(settings.gpu)
    if settings.batch_size % processes.count:
        raise ValueError(f"-b {settings.batch_size}: must be a multiple of the {processes.count} processes")
    if settings.sync_bn and device.type != "cuda":
        raise ValueError("-sync-bn: torch has it for CUDA devices only; leave it out on others")
    if settings.compile:
        check_compiler(device)
    if device.type == "cpu":
        keep_freed_memory()
    start = None if weights is None else checkpoint.load(weights)
    streaming = datasets.Streaming(round(settings.memory * 1e9), settings.workers, settings.random_resized_crop)
    data = datasets.load(row, Path(settings.data), settings.size or None, streaming)
    torch.manual_seed(derived_seed(settings.seed, "weights", 0))
    network = make_network(settings, data)
    if start is not None:
        take_weights(network, start, weights)
    size, channels = data.train.images.shape[-1], data.train.images.shape[1]
    macs = mac_count(network, channels, size)
    precision = Precision.choose(settings.amp, device)
    if settings.kernels is not False:
        use_kernels(network, settings, precision)
    if settings.sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    share = (processes.rank, processes.count)
    training, evaluations = BATCHES.get(row.reader, make_batches)(settings, data, device, share)
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


def finished_job(weights: Path, overrides: dict[str, object]) -> tuple[Job, dict]:
    """The job of a checkpoint with its weights loaded, and the checkpoint's content.

    overrides: settings that do not change the network. Raises ValueError where the checkpoint holds weights only, or
    its data set is missing or has other classes.
    """
    content = checkpoint.load_run(weights)
    untrained = {"val": 0.0, "compile": False, "kernels": False}
    job = make_job(saved_settings(content["settings"], weights, overrides | untrained))
    if list(job.dataset.classes) != content["classes"]:
        raise ValueError(
            f"{weights}: made for other classes than those of {job.settings.dataset}; give its own -dataset"
        )
    checkpoint.load_weights(job.network, checkpoint.network_weights(content), weights)
    return job, content


def make_network(settings: Settings, data: datasets.Dataset) -> nn.Module:
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
    return network.to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)


def make_batches(
    settings: Settings, data: datasets.Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[TrainingBatches, dict[str, EvaluationBatches]]:
    """The training batches, and those of each split that is evaluated."""
    refuse(settings, correction=0.0, brightness=1.0, zero_drop=0.0)
    augmentation = Augmentation(settings.crop, settings.flip, settings.rotation)

    def source(split: datasets.Split) -> ImageSource | StreamSource:
        given = (split.images, split.targets, data.mean, data.std, augmentation, device)
        if isinstance(split.images, StreamedImages):
            return StreamSource(*given, settings.workers)
        return ImageSource(*given)

    train, test = source(data.train), source(data.test)
    training_index, validation_index = held_out(data.train.targets, settings.val)
    training = TrainingBatches(
        train, training_index, settings.batch_size, settings.seed, settings.shuffle, share, settings.steps
    )
    evaluations = {"Test": EvaluationBatches(test, torch.arange(len(test)), share=share)}
    if len(validation_index):
        evaluations = {"Val": EvaluationBatches(train, validation_index, share=share), **evaluations}
    return training, evaluations


def make_drive_batches(
    settings: Settings, data: datasets.Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[TrainingBatches, dict[str, EvaluationBatches]]:
    """As make_batches(), for the rows of a drive; -val holds out whole stretches of it."""
    refuse(settings, crop=0, rotation=0.0)
    augmentation = DriveAugmentation(settings.correction, settings.brightness, settings.flip)
    train = DriveSource(data.train.images, data.train.targets, data.mean, data.std, augmentation, device)
    unvaried = Augmentation(crop=0, flip=False, rotation=0.0)
    test = ImageSource(data.test.images, data.test.targets, data.mean, data.std, unvaried, device)
    training_index, validation_index = held_out_rows(len(train), settings.val)
    training = DriveBatches(
        train,
        training_index,
        settings.batch_size,
        settings.seed,
        settings.shuffle,
        share,
        settings.steps,
        zero_drop=settings.zero_drop,
    )
    evaluations = {"Test": EvaluationBatches(test, torch.arange(len(test)), share=share)}
    if len(validation_index):
        evaluations = {"Val": EvaluationBatches(train, validation_index, share=share), **evaluations}
    return training, evaluations


# What makes batches, by the data set's reader; make_batches for all others.
BATCHES = {"driving": make_drive_batches}


def refuse(settings: Settings, **neutral: float) -> None:
    """Raises ValueError for a knob that this data set has no use for, unless it is at its neutral value."""
    for name, value in neutral.items():
        if getattr(settings, name) != value:
            given = f"{option(name)} {getattr(settings, name):g}"
            raise ValueError(f"{given}: not for -dataset {settings.dataset}; give {option(name)} {value:g}")


def take_weights(network: nn.Module, content: dict, path: Path) -> None:
    """Starts network from a checkpoint; a classifier for another number of classes stays new, and that is said."""
    state = checkpoint.network_weights(content)
    own = network.state_dict()
    for key in ("head.classifier.weight", "head.classifier.bias"):
        if key in state and key in own and state[key].shape[0] != own[key].shape[0]:
            print(f"{key}: made new, {path} has {state[key].shape[0]} classes and this run {own[key].shape[0]}")
            state[key] = own[key]
    checkpoint.load_weights(network, state, path)

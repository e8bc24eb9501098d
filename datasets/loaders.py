"""The batches of a run: what its training draws, and what each of its evaluations goes through."""

from __future__ import annotations

import functools

import torch

from conf import Settings
from datasets.augment import NO_AUGMENTATION, Augmentation, ImageSource
from datasets.base import Dataset, Split, View
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.driving_batches import DrivingAugmentation, DrivingBatches, DrivingSource
from datasets.mixing import Mixing
from datasets.split import held_out, held_out_driving
from datasets.stream import StreamedImages, StreamSource, decoders


def make_batches(
    settings: Settings, data: Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[TrainingBatches, dict[str, EvaluationBatches]]:
    """The training batches, and those of each split that is evaluated: "Val" where images are held out or come as a
    split of their own, then "Test".

    device: where the batches lie. share: (rank, count) of this process among those of the run.
    Raises ValueError where -val cannot hold out its share, or is given beside a validation split.
    """
    if data.row.reader == "driving":
        train, test = driving_sources(settings, data, device)
        training_index, validation_index = held_out_driving(len(train), settings.val)
        make_training = functools.partial(DrivingBatches, zero_drop=settings.zero_drop)
    else:
        train, test = image_sources(settings, data, device, share)
        training_index, validation_index = held_out(data.train.targets, 0.0 if data.is_split_here else settings.val)
        mixing = None
        if settings.mixup or settings.cutmix:
            mixing = Mixing(settings.mixup, settings.cutmix, len(data.classes))
        make_training = functools.partial(TrainingBatches, mixing=mixing)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    how = settings.batch_size, settings.seed, settings.shuffle, share, settings.steps, layout
    varied = dict(alternating=settings.flip == "alternating", sides=sides(settings))
    training = make_training(train, training_index, *how, **varied)
    evaluations = {}
    if data.val is not None:
        if settings.val:
            raise ValueError(
                f"-val {settings.val:g}: {settings.dataset} has validation images of its own; leave it out"
            )
        val = image_source(data.val, data, NO_AUGMENTATION, device, decoders(settings.workers, share[1]))
        evaluations["Val"] = EvaluationBatches(val, torch.arange(len(val)), share=share, layout=layout)
    elif len(validation_index):
        evaluations["Val"] = EvaluationBatches(train, validation_index, share=share, layout=layout)
    evaluations["Test"] = EvaluationBatches(test, torch.arange(len(test)), share=share, layout=layout)
    return training, evaluations


def sides(settings: Settings) -> list[int]:
    """The side in pixels of the training images of each epoch, with -sizes; without, nothing."""
    parts = len(settings.sizes)
    return [settings.sizes[epoch * parts // settings.epochs] for epoch in range(settings.epochs)] if parts else []


def image_sources(
    settings: Settings, data: Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[ImageSource | StreamSource, ImageSource | StreamSource]:
    """The training and test images of a data set that is classified, in memory or streaming."""
    augmentation = Augmentation(
        settings.crop, settings.flip != "off", settings.rotation, settings.trivial_augment, settings.erase
    )
    given = (data, augmentation, device, decoders(settings.workers, share[1]))
    return image_source(data.train, *given), image_source(data.test, *given)


def image_source(
    split: Split, normalisation: Dataset | View, augmentation: Augmentation, device: torch.device, workers: int
) -> ImageSource | StreamSource:
    """The images of a split, in memory or streaming. normalisation: mean and std are taken from it."""
    given = (split.images, split.targets, normalisation.mean, normalisation.std, augmentation, device)
    return StreamSource(*given, workers) if isinstance(split.images, StreamedImages) else ImageSource(*given)


def evaluation_batches(
    test: Split, view: View, device: torch.device, workers: int, layout: torch.memory_format
) -> EvaluationBatches:
    """The batches of a test split alone, as a network with that view sees them. layout: the images' memory format."""
    source = image_source(test, view, NO_AUGMENTATION, device, workers)
    return EvaluationBatches(source, torch.arange(len(test.targets)), layout=layout)


def driving_sources(settings: Settings, data: Dataset, device: torch.device) -> tuple[DrivingSource, ImageSource]:
    """The training rows of the driving data set, of three frames each, and its test frames."""
    augmentation = DrivingAugmentation(settings.correction, settings.brightness, settings.flip != "off")
    train = DrivingSource(data.train.images, data.train.targets, data.mean, data.std, augmentation, device)
    test = ImageSource(data.test.images, data.test.targets, data.mean, data.std, NO_AUGMENTATION, device)
    return train, test

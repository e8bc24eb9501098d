"""The batches of a run: what its training draws, and what each of its evaluations goes through."""

from __future__ import annotations

import functools

import torch

from conf import Settings
from datasets.augment import NO_AUGMENTATION, Augmentation, ImageSource
from datasets.base import Dataset, Split
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.driving_batches import DrivingAugmentation, DrivingBatches, DrivingSource
from datasets.split import held_out, held_out_driving
from datasets.stream import StreamedImages, StreamSource, decoders


def make_batches(
    settings: Settings, data: Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[TrainingBatches, dict[str, EvaluationBatches]]:
    """The training batches, and those of each split that is evaluated: "Val" where images are held out, then "Test".

    device: where the batches lie. share: (rank, count) of this process among those of the run.
    Raises ValueError where -val cannot hold out its share.
    """
    if data.row.reader == "driving":
        train, test = driving_sources(settings, data, device)
        training_index, validation_index = held_out_driving(len(train), settings.val)
        make_training = functools.partial(DrivingBatches, zero_drop=settings.zero_drop)
    else:
        train, test = image_sources(settings, data, device, share)
        training_index, validation_index = held_out(data.train.targets, settings.val)
        make_training = TrainingBatches
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    how = settings.batch_size, settings.seed, settings.shuffle, share, settings.steps, layout
    training = make_training(train, training_index, *how)
    evaluations = {}
    if len(validation_index):
        evaluations["Val"] = EvaluationBatches(train, validation_index, share=share, layout=layout)
    evaluations["Test"] = EvaluationBatches(test, torch.arange(len(test)), share=share, layout=layout)
    return training, evaluations


def image_sources(
    settings: Settings, data: Dataset, device: torch.device, share: tuple[int, int]
) -> tuple[ImageSource | StreamSource, ImageSource | StreamSource]:
    """The training and test images of a data set that is classified, in memory or streaming."""
    augmentation = Augmentation(settings.crop, settings.flip, settings.rotation)

    def source_of(split: Split) -> ImageSource | StreamSource:
        given = (split.images, split.targets, data.mean, data.std, augmentation, device)
        if isinstance(split.images, StreamedImages):
            return StreamSource(*given, decoders(settings.workers, share[1]))
        return ImageSource(*given)

    return source_of(data.train), source_of(data.test)


def driving_sources(settings: Settings, data: Dataset, device: torch.device) -> tuple[DrivingSource, ImageSource]:
    """The training rows of the driving data set, of three frames each, and its test frames."""
    augmentation = DrivingAugmentation(settings.correction, settings.brightness, settings.flip)
    train = DrivingSource(data.train.images, data.train.targets, data.mean, data.std, augmentation, device)
    test = ImageSource(data.test.images, data.test.targets, data.mean, data.std, NO_AUGMENTATION, device)
    return train, test

"""A validation split: training images held out to choose the best epoch, so that the test set need not."""

from __future__ import annotations

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor


def held_out(targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(training index, validation index), both sorted; each class gives the same share.

    The split does not depend on a run's seed, so that runs with different seeds are chosen on the same images.
    Raises ValueError where the share leaves a class out.
    """
    everything = torch.arange(len(targets))
    if share == 0:
        return everything, everything[:0]
    try:
        training, validation = train_test_split(
            everything.numpy(), test_size=share, stratify=targets.numpy(), random_state=0
        )
    except ValueError as error:
        raise ValueError(f"-val {share:g}: cannot hold out that share of {len(targets)} images ({error})") from None
    return torch.from_numpy(training).sort().values, torch.from_numpy(validation).sort().values

"""A validation split: training images held out to choose the best epoch, so that the test set need not."""

from __future__ import annotations

import torch
from torch import Tensor


def held_out(targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(training index, validation index), both sorted; the same share of each class is held out.

    The split does not depend on a run's seed: runs with different seeds choose their best epoch on the same images.
    Raises ValueError where the share leaves a class out.
    """
    if share == 0:
        everything = torch.arange(len(targets))
        return everything, everything[:0]
    try:
        return stratified(targets, share, 0)
    except ValueError as error:
        raise ValueError(f"-val {share:g}: cannot hold out that share of {len(targets)} images ({error})") from None


def stratified(targets: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """(index of the rest, index of a share of each class), both sorted, the same for the same targets and seed.

    Of a class whose share is less than an image, one is taken. Raises ValueError where a class has a single image.
    """
    from sklearn.model_selection import train_test_split  # here: scikit-learn takes a second to load

    indices = train_test_split(
        torch.arange(len(targets)).numpy(), test_size=share, stratify=targets.numpy(), random_state=seed
    )
    rest, chosen = map(torch.from_numpy, indices)
    # scikit-learn rounds a class's share, to nothing where the class is small beside the others
    for label in set(targets.tolist()) - set(targets[chosen].tolist()):
        first = rest[targets[rest] == label][:1]
        rest, chosen = rest[rest != first], torch.cat([chosen, first])
    return rest.sort().values, chosen.sort().values


def held_out_driving(count: int, share: float) -> tuple[Tensor, Tensor]:
    """(training index, validation index), both sorted, of the rows of the driving data set, whose neighbours are alike.

    The rows are cut into stretches of equal length: twenty, or more where a small share needs them. As many stretches
    as make up the share are held out, evenly spread. Raises ValueError where the share is less than a row, or all rows.
    """
    if share and not 1 <= round(share * count) < count:
        raise ValueError(f"-val {share:g}: cannot hold out that share of {count} rows; give a larger one, or 0")
    everything = torch.arange(count)
    stretches = max(20, round(1 / share)) if share else 1
    chosen = round(stretches * share)
    number = everything * stretches // count
    # of stretches 0, 1, ... those at which number x chosen / stretches passes another whole number
    validating = (number * chosen + stretches // 2) % stretches < chosen
    return everything[~validating], everything[validating]

"""A stratified split: the same share of each class, and of a small class at least one image."""

import pytest
import torch

from datasets.split import stratified


@pytest.mark.parametrize("counts", [(100, 50, 10), (122, 2), (300, 2, 3, 2)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_class_gives_its_share(counts, seed):
    targets = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
    rest, chosen = stratified(targets, 0.2, seed)
    assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(len(targets)))
    assert torch.equal(rest, rest.sort().values) and torch.equal(chosen, chosen.sort().values)
    for label, count in enumerate(counts):
        found = int((targets[chosen] == label).sum())
        assert 1 <= found < count and abs(found - 0.2 * count) <= 1, label


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(ValueError):
        stratified(torch.tensor([0] * 20 + [1]), 0.2, 0)

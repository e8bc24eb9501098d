"""What benchmarks/reuse.py counts as kept for the backward pass."""

import gc

import pytest
import torch
from torch import nn

import models
from benchmarks.measure import Step
from benchmarks.reuse import kept_bytes


def test_every_activation_counts_once_and_no_weight():
    """The images (flattening copies nothing), the hidden layer after its ReLU, log-probabilities and targets."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 50), nn.ReLU(), nn.Linear(50, 100))
    expected = 8 * (4 * 3072 + 4 * 50 + 4 * 100 + 8)
    assert kept_bytes(Step(network, 8)) == pytest.approx(expected, abs=8)  # the loss keeps a number of its own


@pytest.mark.parametrize("literal", (True, False))
def test_nothing_stays_after_counting(literal):
    step = Step(models.create("cheapSqueezeNet", literal=literal), 4)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    kept_bytes(step)
    before = tensors()
    for _ in range(3):
        kept_bytes(step)
    assert tensors() <= before

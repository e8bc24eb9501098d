"""A network made without values has the shapes and types of one that has them, and draws nothing."""

import pytest
import torch

import models
from models.shapes import shapes_alone


@pytest.mark.parametrize("name", [*models.names(), "torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_100"])
def test_the_state_dict_but_for_its_values(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    random = torch.get_rng_state()
    with shapes_alone():
        found = models.create(name).state_dict()
    assert torch.equal(torch.get_rng_state(), random)
    expected = models.create(name).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in expected.items()
    }
    assert all(value.is_meta for value in found.values())
    assert not torch.equal(torch.get_rng_state(), random)
    assert torch.nn.Linear(2, 2).weight.std() > 0  # what is made afterwards is drawn as ever

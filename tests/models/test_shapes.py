"""A network made without values has the shapes and types of one that has them, and draws nothing."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import models
from models.shapes import shapes_alone


class Calls(TorchDispatchMode):
    """Collects the names of the operations that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.of_draws: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("normal", "uniform")):
            self.of_draws.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*models.names(), "torchvision:mobilenet_v3_small", "timm:mobilenetv3_small_100"])
def test_the_state_dict_but_for_its_values(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with Calls() as calls, shapes_alone():
        found = models.create(name).state_dict()
    assert not calls.of_draws
    expected = models.create(name).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in expected.items()
    }
    assert all(value.is_meta for value in found.values())
    with Calls() as calls, torch.device("meta"):
        models.create(name)
    assert calls.of_draws  # without it
    assert torch.nn.Linear(2, 2).weight.std() > 0  # what is made afterwards is drawn as ever

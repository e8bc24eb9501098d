"""The forms of every cheap network on CUDA."""

import pytest
import torch
from torch import nn

import models
from models.fold import fold
from models.registry import entry

pytestmark = pytest.mark.cuda
SHAPE = dict(num_classes=10, in_channels=3, image_size=32)


def made(name: str, **more) -> tuple[nn.Module, torch.Tensor]:
    """A network in float64 on the CPU without its random dropout, and eight images for it."""
    shape = SHAPE | entry(name).usual
    torch.manual_seed(0)
    network = models.create(name, **shape, **more).double()
    for module in network.modules():
        if hasattr(module, "p"):  # nn.Dropout, which draws other numbers on another device
            module.p = 0.0
    size = shape["image_size"]
    return network, torch.randn(8, shape["in_channels"], size, size, dtype=torch.float64)


@pytest.mark.parametrize("name", models.cheap_names())
def test_forms_agree(name, device):
    """Literal, default and folded."""
    network, images = made(name)
    literal = made(name, literal=True)[0]
    literal.load_state_dict(network.state_dict())
    images = images.to(device, torch.float32)
    outputs = [each.to(device, torch.float32).eval()(images) for each in (literal, network, fold(network.eval()))]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(outputs[1], outputs[2], rtol=1e-3, atol=1e-4)

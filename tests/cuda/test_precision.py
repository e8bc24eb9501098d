"""How CUDA computes: in float32 where that is asked for, and a depthwise convolution of copies as one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.device import Precision, choose_device
from models.reuse import ReuseDepthwise

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("layer", [nn.Conv2d(256, 256, 3), nn.Conv2d(256, 256, 1), nn.Linear(256, 256)], ids=str)
def test_off_is_float32(layer, device):
    """Sums of 256 products and more have about 1e-7 of relative error in float32, and 3e-4 in TF32."""
    torch.backends.cudnn.allow_tf32 = True  # as torch has it; the tests of this folder begin without
    if device.type == "cuda":
        device = choose_device(True)
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    generator = torch.Generator().manual_seed(0)
    shape = (32, 256) if isinstance(layer, nn.Linear) else (8, 256, 16, 16)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    exact = layer.double()(x)
    with Precision.choose("off", device).autocast():
        found = layer.float().to(device)(x.float().to(device))
    assert found.dtype == torch.float32
    assert (found.cpu() - exact).norm() / exact.norm() < 5e-6


class Convolutions(TorchDispatchMode):
    """Counts the convolutions that torch is asked for, by their groups."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "convolution" in str(function):
            self.groups.append(args[8])
        return function(*args, **(kwargs or {}))


def test_copies_are_one_convolution(device):
    """Of the repeated map on CUDA, where many small kernels take as long as one large; on a CPU one for each copy."""
    depthwise = ReuseDepthwise.of(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), 3).to(device)
    x = torch.randn(2, 8, 10, 10, device=device)
    with torch.no_grad(), Convolutions() as seen:
        found = depthwise(x)
    assert seen.groups == ([24] if device.type == "cuda" else [8, 8, 8])
    weight = depthwise.weight.detach()
    expected = F.conv2d(torch.cat([x] * 3, 1).cpu(), weight.cpu(), padding=1, groups=24)
    torch.testing.assert_close(found.cpu(), expected)

"""The functions of models/ops against torch's own, in both of their forms; torch's checks of a registered operation."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models import ops
from models.ops import activated_conv, build, depthwise
from models.ops.widen import widen_backward

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "hardswish": lambda x: x * F.relu6(x + 3) / 6}


@pytest.fixture(params=["kernels.c", "torch"])
def form(request, monkeypatch):
    """The form by kernels.c, where there is a compiler, and the one that runs on any device."""
    if request.param == "torch":
        monkeypatch.setattr(build, "is_available", lambda dtype: False)
    elif not build.is_available(torch.float32):
        pytest.skip("no C compiler with OpenMP")


def numbers(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def assert_same(found: tuple, expected: tuple, inputs: tuple) -> None:
    """The same results, and the same gradients of the inputs under the same random gradients of the results."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    directions = [torch.randn_like(result) for result in expected]
    gradients = [torch.autograd.grad(results, inputs, directions) for results in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(8, 3, 1), (16, 5, 2), (6, 3, 2), (8, 7, 1)])
def test_widen(form, activation, channels, kernel, stride):
    """Copies, activated, then torch's depthwise convolution; the moments by their definition."""
    torch.manual_seed(0)
    x, weight = numbers(3, channels, 9, 7), numbers(3 * channels, 1, kernel, kernel)
    copies = torch.cat([ACTIVATIONS[activation](x)] * 3, dim=1)
    z = F.conv2d(copies, weight, None, stride, kernel // 2, groups=3 * channels)
    squares = ((z - z.mean((2, 3), keepdim=True)) ** 2).sum((0, 2, 3))
    found = ops.widen(x, weight, stride, kernel // 2, activation)
    assert_same(found, (z, z.mean((2, 3)), squares), (x, weight))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activated_conv1x1(form, activation):
    torch.manual_seed(0)
    z, weight = numbers(3, 16, 5, 4), numbers(7, 16, 1, 1)
    centre, scale, shift = numbers(16), numbers(3, 16), numbers(3, 16)
    normal = (z - centre[:, None, None]) * scale[:, :, None, None] + shift[:, :, None, None]
    expected = F.conv2d(ACTIVATIONS[activation](normal), weight)
    found = ops.activated_conv1x1(z, weight, activation, (centre, scale, shift))
    assert_same((found,), (expected,), (z, weight, centre, scale, shift))
    plain = F.conv2d(ACTIVATIONS[activation](z), weight)
    assert_same((ops.activated_conv1x1(z, weight, activation),), (plain,), (z, weight))


def test_activated_conv1x1_under_autocast():
    """It computes in autocast's type, forward and backward, as the convolution that it holds would."""
    z, weight = numbers(2, 16, 3, 3, dtype=torch.float32), numbers(4, 16, 1, 1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = ops.activated_conv1x1(z, weight, "hardswish"), F.conv2d(F.hardswish(z), weight)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    gradients = [torch.autograd.grad(y.float().square().sum(), (z, weight)) for y in (found, expected)]
    assert gradients[0][0].dtype == torch.float32
    torch.testing.assert_close(*gradients, rtol=0.1, atol=0.3)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels", [8, 6])  # 6: not a multiple of what kernels.c takes at a time
def test_registration(form, layout, channels):
    """torch's own checks: schema, autograd, shapes and strides of fake tensors, tracing with symbolic shapes."""
    x = torch.randn(2, channels, 7, 6).to(memory_format=layout).requires_grad_()
    weight = numbers(3 * channels, 1, 3, 3, dtype=torch.float32)
    torch.library.opcheck(ops.widen, (x, weight, 2, 1, "hardswish"))
    results = [result.detach() for result in ops.widen(x, weight, 2, 1, "hardswish")]
    gradients = [torch.randn_like(result) for result in results]
    torch.library.opcheck(widen_backward, (*gradients, x.detach(), weight.detach(), *results[:2], 2, 1, "hardswish"))
    z, projection = results[0].requires_grad_(), numbers(5, 3 * channels, 1, 1, dtype=torch.float32)
    affine = numbers(3 * channels, dtype=torch.float32), *(numbers(2, 3 * channels, dtype=torch.float32) for _ in "ab")
    for each in (affine, (None, None, None)):
        torch.library.opcheck(activated_conv.op, (z, projection, "relu", *each))
        y = activated_conv.op(z, projection, "relu", *each).detach()
        plain = [tensor if tensor is None else tensor.detach() for tensor in (z, projection, *each)]
        torch.library.opcheck(activated_conv.backward_op, (torch.randn_like(y), *plain[:2], "relu", *plain[2:]))


@pytest.mark.parametrize("damage", ["cut", "empty", "no digest"])
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch, damage):
    """In the cache beside a copy of the source. A process that loaded a part would be ended by the system."""
    if not build.is_available(torch.float32):
        pytest.skip("no C compiler with OpenMP")
    monkeypatch.setattr(build, "SOURCE", tmp_path / "kernels.c")
    build.SOURCE.write_bytes((Path(build.__file__).parent / "kernels.c").read_bytes())
    monkeypatch.setattr(build, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in build.FLAGS))
    first = build._built.__wrapped__("float")
    path = Path(first._name)
    whole = path.read_bytes()
    if damage == "no digest":
        build._digest_of(path).unlink()
    else:
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    assert build._built.__wrapped__("float").shape_size() == first.shape_size()
    assert len(path.read_bytes()) == len(whole) and build._is_whole(path)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("times", "kernel", "stride", "side"), [(1, 3, 1, 9), (3, 3, 2, 9), (2, 5, 1, 3), (6, 3, 1, 1)]
)
def test_the_forms_of_a_depthwise_convolution_of_copies(times, kernel, stride, side, biased):
    """The form for a CPU and the one for CUDA are the definition, and each other."""
    torch.manual_seed(0)
    x, weight, bias = numbers(2, 8, side, side), numbers(times * 8, 1, kernel, kernel), numbers(times * 8)
    geometry = (stride, stride), (kernel // 2, kernel // 2)
    inputs = (x, weight, bias) if biased else (x, weight)
    bias = bias if biased else None
    for form in (depthwise.repeated, depthwise.copy_by_copy):
        expected = F.conv2d(x.repeat(1, times, 1, 1), weight, bias, *geometry, groups=times * 8)
        assert_same((form(x, weight, bias, *geometry, times),), (expected,), inputs)
    assert ops.repeats_the_map(torch.empty(1, device="meta")) is ops.repeats_the_map(x) is False


class Calls(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_copies_are_added_up_at_once(layout):
    """What a concatenation gives, and its gradient; in the memory format of the map, without a kernel for each copy."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    direction = torch.randn(2, 12, 5, 4, dtype=torch.float64).to(memory_format=layout)
    wide = depthwise.copies(x, 4)
    assert torch.equal(wide, torch.cat([x] * 4, dim=1)) and wide.is_contiguous(memory_format=layout)
    with Calls() as calls:
        (found,) = torch.autograd.grad(wide, x, direction)
    (expected,) = torch.autograd.grad(torch.cat([x] * 4, dim=1), x, direction)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    assert found.is_contiguous(memory_format=layout)
    assert calls.counts["sum"] == 1 and not calls.counts["add"] and not calls.counts["clone"]
    with torch.no_grad():
        assert torch.equal(depthwise.copies(x, 2), torch.cat([x] * 2, dim=1))

"""The cheap expansions beside Reuse, against blocks that are written out here layer by layer."""

import pytest
import torch
from torch import nn

import models
from commands.export import export_onnx
from models import counters
from models.expansions import EXPANSIONS
from models.fold import fold
from models.layers import GlobalAveragePool
from models.match import nearest_width
from models.summary import mac_count, parameter_count
from tests.models.test_fold import largest_difference, trained
from tests.models.test_summary import by_the_book

CHEAP = ("grouped", "zero-pad", "ghost", "none")
NETS = ("MobileNetV2", "MobileNetV3", "MobileNetV3_small", "cheapV2", "cheapV3")


class Zeros(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return torch.cat([x, torch.zeros(len(x), self.channels, *x.shape[2:], dtype=x.dtype)], dim=1)


class GhostModule(nn.Module):
    def __init__(self, channels: int, expanded: int, act) -> None:
        super().__init__()
        half = expanded // 2
        self.first = nn.Sequential(nn.Conv2d(channels, half, 1, bias=False), nn.BatchNorm2d(half), act())
        cheap = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.second = nn.Sequential(cheap, nn.BatchNorm2d(half), act())

    def forward(self, x):
        first = self.first(x)
        return torch.cat([first, self.second(first)], dim=1)


def expansion(form: str, channels: int, expanded: int, groups: int, act) -> list[nn.Module]:
    if form == "grouped":
        return [nn.Conv2d(channels, expanded, 1, groups=groups, bias=False), nn.BatchNorm2d(expanded), act()]
    if form == "ghost":
        return [GhostModule(channels, expanded, act)]
    return [Zeros(expanded - channels), act()] if form == "zero-pad" else []


def written_out(form, channels, expanded, groups, out, kernel, stride, act, act_before) -> nn.Sequential:
    expanded = channels if form == "none" else expanded
    depthwise = nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded, bias=False)
    project = nn.Conv2d(expanded, out, 1, bias=False), nn.BatchNorm2d(out)
    before = expansion(form, channels, expanded, groups, act_before)
    return nn.Sequential(*before, depthwise, nn.BatchNorm2d(expanded), act(), *project)


# channels, expanded, the largest number of groups, out, kernel, stride, activation, and it after zeros;
# weights of the whole expansion but for norms
BLOCKS = {
    ("MobileNetV2", 3): ((24, 144, 24, 32, 3, 2, nn.ReLU, nn.Identity), dict(grouped=144, ghost=24 * 72 + 9 * 72)),
    ("MobileNetV3", 1): ((16, 64, 16, 24, 3, 1, nn.ReLU, nn.ReLU), dict(grouped=64, ghost=16 * 32 + 9 * 32)),
    ("MobileNetV3", 7): ((80, 200, 40, 80, 3, 1, nn.Hardswish, nn.Hardswish), dict(grouped=400, ghost=8900)),
    ("MobileNetV3", 8): ((80, 184, 8, 80, 3, 1, nn.Hardswish, nn.Hardswish), dict(grouped=1840, ghost=8188)),
}


@pytest.mark.parametrize("form", CHEAP)
@pytest.mark.parametrize(("net", "number"), BLOCKS)
def test_a_block_is_what_is_written_out(net, number, form):
    shape, weights = BLOCKS[net, number]
    before = shape[7] if form == "zero-pad" else shape[6]
    block = trained(torch.float64, name=net, expansion=form).blocks[number]
    plain = written_out(form, *shape[:7], before).double()
    own = list(block.state_dict().values())
    plain.load_state_dict(dict(zip(plain.state_dict(), own, strict=True)))
    x = torch.randn(4, shape[0], 9, 9, dtype=torch.float64)
    residual = x if shape[0] == shape[3] else 0
    for training in (True, False):
        found, expected = block.train(training)(x), plain.train(training)(x) + residual
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    expanded = shape[0] if form == "none" else shape[1]
    norms = {"grouped": 2 * expanded, "ghost": 2 * expanded}.get(form, 0)
    rest = expanded * (shape[4] ** 2 + 2) + (expanded + 2) * shape[3]
    assert parameter_count(block) == parameter_count(plain) == weights.get(form, 0) + norms + rest
    assert mac_count(block, shape[0], 9) == mac_count(plain, shape[0], 9)
    assert mac_count(block.expand, shape[0], 9) == 81 * weights.get(form, 0)


def test_channels_of_zeros_stay_what_the_docstring_says():
    """Constant behind the depthwise batch norm, and their filters have no gradient."""
    block = trained(name="MobileNetV2", expansion="zero-pad").blocks[3]
    y = block.depthwise(block.expand(torch.randn(4, 24, 8, 8)))[:, 24:]
    expected = block.depthwise.bn.bias[24:].clamp_min(0)
    torch.testing.assert_close(y, expected[:, None, None].expand_as(y), rtol=0, atol=1e-6)
    y.square().sum().backward()
    assert not block.depthwise.conv.weight.grad[24:].any() and block.depthwise.bn.bias.grad[24:].any()


@pytest.mark.parametrize("net", ["MobileNetV2", "MobileNetV3"])
def test_without_expansion_is_reuse_once(net):
    plain = trained(torch.float64, name=net, expansion="none")
    reuse = models.create(net, expansion="reuse", reuse_times=1).double()
    reuse.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(plain.eval()(images), reuse.eval()(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", CHEAP)
@pytest.mark.parametrize("net", NETS)
def test_networks(net, form):
    """Learns, folds exactly, and is counted by the book, at a width whose channels share few divisors, too."""
    for width in (1.0, 0.35):
        options = dict(name=net, expansion=form, width=width, num_classes=7, image_size=16)
        network = trained(torch.float64, **options)
        network(torch.randn(3, 3, 16, 16, dtype=torch.float64)).square().sum().backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
        folded = fold(network)
        assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
        assert largest_difference(network, folded, torch.randn(3, 3, 16, 16, dtype=torch.float64)) < 1e-12
    network = models.create(**options)
    total, layers = counters.torch_count(network, 3, 16)
    found = dict(thop=counters.thop_count(network, 3, 16), flopth=counters.flopth_count(network, 3, 16))
    assert {counter: count.total for counter, count in found.items()} == by_the_book(network, 16)
    for count in found.values():
        parts = counters.differences(count, total, layers)
        assert not any("otherwise" in words or "in no layer" in words for _, words in parts)


def test_shuffled_rows_never_get_narrower():
    """The first row of cheapV3_shuffle6 has 24 channels and an expanded width of 16."""
    for form in ("grouped", "zero-pad", "ghost"):
        network = models.create("cheapV3_shuffle6", expansion=form)
        assert network.blocks[0].depthwise.conv.in_channels == 24
        assert isinstance(network.blocks[0].expand, nn.Identity)
    assert models.create("cheapV3_shuffle6", expansion="conv").blocks[0].depthwise.conv.in_channels == 16


@pytest.mark.parametrize("form", CHEAP)
def test_no_width_is_nearer(form):
    def create(width: float):
        return models.create("MobileNetV3_small", num_classes=10, image_size=16, width=width, expansion=form)

    target = 200e3
    distances = {width: abs(parameter_count(create(width)) - target) for width in (0.2 + i / 50 for i in range(25))}
    width = nearest_width(create, "params", target, 3, 16)
    assert abs(parameter_count(create(width)) - target) <= min(distances.values())


def test_exported(tmp_path):
    """A block of each form, from 24 channels to 24; export_onnx() refuses outputs that differ."""
    blocks = [trained(name="MobileNetV3_small", expansion=form).blocks[2] for form in CHEAP]
    network = nn.Sequential(nn.Conv2d(3, 24, 3), *blocks, GlobalAveragePool(), nn.Linear(24, 5))
    assert export_onnx(network, tmp_path / "blocks.onnx", torch.randn(9, 3, 10, 10), {}).difference < 1e-4


def test_every_form_is_tested():
    assert set(EXPANSIONS) == {"conv", *CHEAP}

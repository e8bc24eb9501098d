"""Copies with kernels of different sizes: every form is the definition; one size for all is the network there was."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from commands.export import export_onnx
from models import counters, fast_path
from models.fold import fold
from models.layers import GlobalAveragePool
from models.literal import from_literal, to_literal
from models.mixed_depthwise import MixedDepthwise
from models.ops import build
from models.reuse_block import ReuseInvertedResidual
from models.summary import mac_count, parameter_count
from tests.models.test_fold import largest_difference, trained
from tests.models.test_summary import by_the_book

KERNELS = (3, 3, 5, 5, 7, 7)
ODD = (1, 11, 3, 3, 1, 9)


def made(net: str, kernels=KERNELS, **options) -> nn.Module:
    return trained(torch.float64, name=net, reuse_kernels=kernels, num_classes=10, image_size=16, **options)


@pytest.mark.parametrize("kernels", [KERNELS, ODD], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_block_is_the_definition(kernels, stride, groups):
    """Each copy of the shuffled input by its own filters, with zeros around it that keep its size."""
    torch.manual_seed(0)
    options = dict(pre_act=nn.Hardswish(), act=nn.ReLU(), groups=groups)
    literal, default = (
        ReuseInvertedResidual(8, 8, 6, kernels, stride, literal=form, **options).double() for form in (True, False)
    )
    default.load_state_dict(from_literal(literal.state_dict(), default))
    x = torch.randn(3, 8, 9, 9, dtype=torch.float64)
    shuffled = x.view(3, groups, 8 // groups, 9, 9).transpose(1, 2).flatten(1, 2)
    filters = [each for layer in literal.depthwise.conv for each in layer.weight.split(8)]
    assert [each.shape[2] for each in filters] == list(kernels)
    copies = [
        F.conv2d(F.pad(F.hardswish(shuffled), 4 * [size // 2]), each, stride=stride, groups=8)
        for each, size in zip(filters, kernels, strict=True)
    ]
    torch.testing.assert_close(literal.depthwise.conv(literal.pre_act(literal.reuse(x))), torch.cat(copies, 1))
    y, found = literal(x), default(x)
    torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(each.square().sum(), net.parameters()) for each, net in ((y, literal), (found, default))
    ]
    names = [name for name, _ in literal.named_parameters()]
    expected = from_literal(dict(zip(names, gradients[0], strict=True)), default)
    for gradient, name in zip(gradients[1], names, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("net", ["cheapV2", "cheapV3", "cheapV3_shuffle6"])
def test_all_forms_of_a_network_agree(net):
    literal, default = made(net, literal=True), made(net)
    state = literal.state_dict()
    default.load_state_dict(from_literal(state, default))
    back = to_literal(default.state_dict(), literal)
    assert all(torch.equal(back[key], state[key]) for key in state)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(default.eval()(images), literal.eval()(images), rtol=1e-9, atol=1e-12)
    for network in (default, literal):
        folded = fold(network)
        assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
        assert largest_difference(network, folded, images) < 1e-12


@pytest.mark.parametrize("net", ["cheapV2", "cheapV3_small"])
def test_one_size_for_all_is_the_plain_network(net):
    """cheapV2 has 3x3 everywhere; the rows of cheapV3_small that have it are compared."""
    mixed, plain = (trained(name=net, **chosen) for chosen in (dict(reuse_kernels=(3,) * 6), {}))
    assert list(mixed.state_dict()) == list(plain.state_dict())
    shapes = [{key: each.shape for key, each in net.state_dict().items()} for net in (mixed, plain)]
    assert (shapes[0] == shapes[1]) == (net == "cheapV2")
    if net == "cheapV2":
        assert all(map(torch.equal, mixed.state_dict().values(), plain.state_dict().values()))
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(mixed(images), plain(images))
    sizes = {block.depthwise.conv.kernel_size for block in mixed.blocks[1:]}
    assert sizes == {(3, 3)}


def test_costs():
    """The widths of cheapV2's blocks that widen, at the sides of the maps that their depthwise convolutions give."""
    plain, mixed = (models.create("cheapV2", **chosen) for chosen in ({}, dict(reuse_kernels=KERNELS)))
    inputs = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160)
    sides = (32, 32, 16, 16, 16, 8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4)
    more = sum(size**2 for size in KERNELS) - 6 * 9
    assert parameter_count(mixed) - parameter_count(plain) == more * sum(inputs)
    macs = sum(more * channels * side**2 for channels, side in zip(inputs, sides, strict=True))
    assert mac_count(mixed, 3, 32) - mac_count(plain, 3, 32) == macs
    literal = models.create("cheapV2", literal=True, reuse_kernels=KERNELS)
    assert parameter_count(literal) == parameter_count(mixed)
    assert mac_count(literal, 3, 32) - mac_count(models.create("cheapV2", literal=True), 3, 32) == macs
    for network in (mixed, literal):
        found = dict(thop=counters.thop_count(network, 3, 32), flopth=counters.flopth_count(network, 3, 32))
        assert {counter: count.total for counter, count in found.items()} == by_the_book(network, 32)


def test_modules_train_what_the_kernels_do_not():
    """The first block, which is not widened, is the kernels' own still."""
    if not build.is_available(torch.float64):
        pytest.skip("no C compiler with OpenMP")
    by_modules, by_kernels = made("cheapV2").train(), made("cheapV2").train()
    assert fast_path.use_kernels(by_kernels, required=True)
    used = [block.uses_fast_path for block in by_kernels.blocks]
    assert used == [True] + [False] * 16
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(by_kernels(images), by_modules(images), rtol=1e-9, atol=1e-9)


def test_exported(tmp_path):
    """export_onnx() refuses outputs that differ."""
    network = trained(name="cheapV3_small", reuse_kernels=KERNELS, width=0.5)
    short = nn.Sequential(network.stem, *network.blocks[:4], GlobalAveragePool(), nn.Linear(24, 5))
    assert isinstance(short[4].depthwise.conv, MixedDepthwise)
    images = torch.randn(9, 3, 16, 16)
    assert export_onnx(short, tmp_path / "short.onnx", images, {}).difference < 1e-4

"""The fast path trains the widened blocks as the definition says, and leaves to the modules what it does not know."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

import main
import models
from benchmarks.measure import Step
from benchmarks.reuse import kept_bytes
from models import fast_path, ops
from models.literal import from_literal
from models.ops import build
from models.reuse import ReuseSqueezeExcite
from models.reuse_block import ReuseInvertedResidual
from tests.helpers.runs import start
from tests.models.test_reuse import assert_equal_outcomes, both_forms, outcome

pytestmark = pytest.mark.usefixtures("without_pictures")

ROOT = Path(main.__file__).parent


def has_known_blocks(name: str) -> bool:
    return any(isinstance(m, ReuseInvertedResidual) and fast_path.knows(m) for m in models.create(name).modules())


BLOCKS = [name for name in models.cheap_names() if has_known_blocks(name)]


@pytest.fixture(autouse=True)
def compiler():
    try:
        ops.load_library(torch.float32)
    except ValueError as error:
        pytest.skip(f"no C compiler with OpenMP: {error}")


def both(name, dtype=torch.float64, **options):
    """The literal form, and the default form with the same weights, trained by the kernels."""
    literal, default = both_forms(name, dtype, **options)
    fast_path.use_kernels(default, required=True)
    return literal, default


def test_the_networks_that_it_trains():
    assert {"cheapV2", "cheapV3", "cheapV3_small", "cheapV3_shuffle", "cheapV3_shuffle6"} <= set(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_kernels_are_the_definition(name, cifar_images):
    """In float64 to 1e-9: logits, loss, every gradient, that of the images, and the running statistics."""
    literal, compiled = both(name)
    images = F.interpolate(
        cifar_images, size=20
    )  # rows of 20, 10, 5 and 3: the kernels take 8, 4 or 1 pixels at a time
    given = [images.clone().requires_grad_() for _ in range(2)]
    targets = torch.arange(len(images))
    expected = outcome(literal, given[0], targets, True)
    found = outcome(compiled, given[1], targets, True)
    assert_equal_outcomes((*expected[:2], from_literal(expected[2], literal)), found, 1e-9)
    torch.testing.assert_close(given[1].grad, given[0].grad, rtol=1e-9, atol=1e-12)
    statistics = from_literal(literal.state_dict(), literal)
    for key, value in compiled.state_dict().items():
        torch.testing.assert_close(value, statistics[key], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_in_float32_the_error_is_that_of_rounding(offset, cifar_images):
    """Of the logits, against float64; a channel's mean far from zero costs no more digits than it does torch."""
    exact, (literal, compiled) = both("cheapV2")[0], both("cheapV2", torch.float32)
    for network in (exact, literal, compiled):
        with torch.no_grad():
            network.stem.bn.bias += offset
    expected = exact.train()(cifar_images)
    errors = [(network.train()(cifar_images.float()) - expected).norm() for network in (literal, compiled)]
    assert errors[1] < 3 * errors[0] and errors[0] < 1e-3 * expected.norm()


@pytest.mark.parametrize("threads", [3, 11])  # 11: more than there are images
def test_any_number_of_threads(threads, cifar_images, threads_put_back):
    network, targets = both("cheapV3")[1], torch.arange(len(cifar_images))
    torch.set_num_threads(1)
    expected = outcome(network, cifar_images, targets, True)
    torch.set_num_threads(threads)
    assert_equal_outcomes(expected, outcome(network, cifar_images, targets, True), 1e-9)


@pytest.mark.parametrize("layer", ["relu", "hardswish"])
def test_not_a_number_is_passed_on(layer):
    """A run that diverges must be seen: a ReLU made of comparisons could turn nan into zero."""
    x = torch.randn(2, 8, 4, 4)
    x[0, 3, 1, 1] = torch.nan
    z, *_ = ops.widen(x, torch.randn(8, 1, 3, 3), 1, 1, layer)
    assert z[0, 3, 0:3, 0:3].isnan().all() and z.isnan().sum() == 9
    ones, weight = torch.ones(2, 8), torch.ones(1, 8, 1, 1)
    y = ops.activated_conv1x1(z, weight, layer, (torch.zeros(8), ones, ones))
    assert y.isnan().sum() == 9


def test_frozen_batch_norm_and_evaluation_are_the_modules(cifar_images):
    literal, compiled = both("cheapV2")
    before = compiled.blocks[4].depthwise.bn.running_var.clone()
    found = []
    for network in (literal, compiled):
        network.train()
        for module in network.modules():
            module.train(not isinstance(module, torch.nn.BatchNorm2d))
        logits = network(cifar_images)
        logits.square().sum().backward()
        found.append([logits, network.stem.conv.weight.grad, network.eval()(cifar_images)])
    assert torch.equal(compiled.blocks[4].depthwise.bn.running_var, before)
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_less_is_kept_for_the_backward_pass():
    """Of a block the input and one widened map, where the modules keep that and its normalised form."""
    compiled = models.create("cheapV3")
    fast_path.use_kernels(compiled, required=True)
    assert kept_bytes(Step(compiled, 4)) < 0.6 * kept_bytes(Step(models.create("cheapV3"), 4))


@pytest.fixture
def uncompiled(tmp_path, monkeypatch):
    """As on a machine that has not compiled the kernels yet; Python's cache is in tmp_path / "cache"."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    build._built.cache_clear()
    yield
    build._built.cache_clear()


DIGITS = "-dataset digits -size 8 -gpu false -name a -epochs 1 -b 128 -warm 0.5"


@pytest.mark.parametrize("word, compiler", [("true", "cc"), ("", "/no/compiler")])
def test_a_run_with_and_without(uncompiled, tmp_path, monkeypatch, word, compiler):
    """It compiles into Python's cache and says so, or trains by the modules where it should not or cannot."""
    monkeypatch.setenv("CC", compiler)
    words = f"{DIGITS} -net cheapV2 -width 0.25" + f" -kernels {word}" * bool(word)
    assert ("by models/ops/kernels.c" in start(words, tmp_path)) == (word == "true")
    made = list((tmp_path / "cache").rglob("kernels-*.so"))
    assert len(made) == (word == "true")
    assert not any(b"libgomp" in path.read_bytes() for path in made)  # it uses torch's threads, and starts none
    result = json.loads((tmp_path / "checkpoints" / "cheapV2" / "digits-a" / "result.json").read_text())
    assert result["kernels"] == (word == "true")


@pytest.mark.parametrize(
    "words, compiler, message",
    [
        ("-net cheapV2", "/no/compiler", "the C compiler did not make it (/no/compiler"),
        ("-net cheapV2", "false", "the C compiler did not make it (false"),
        ("-net MobileNetV3", "cc", "the network has no widened blocks of a kind that it computes"),
        ("-net cheapV2 -amp bf16", "cc", "it is for training on a CPU in float32"),
    ],
)
def test_demanded_where_it_cannot_be(uncompiled, tmp_path, monkeypatch, capsys, words, compiler, message):
    monkeypatch.setenv("CC", compiler)
    argv = [*DIGITS.split(), *words.split(), "-kernels", "true", "-out", str(tmp_path / "out")]
    assert main.main(argv) == 2 and not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert f"-kernels true: {message}" in said and len(said.splitlines()) == 1


@pytest.mark.slow
def test_processes_that_compile_at_once(tmp_path):
    """Each finds a whole library, and no half of one stays."""
    setting = f"import sys, torch; sys.pycache_prefix = {str(tmp_path)!r}"
    lines = f"{setting}; from models import ops; ops.load_library(torch.float32)"
    started = [subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    folder = next(tmp_path.rglob("kernels-*.so")).parent
    assert len(list(folder.glob("kernels-*.so"))) == 1 and not list(folder.glob(".*.tmp"))


class Scaled(torch.nn.Module):
    def forward(self, weight):
        return 1.5 * weight


def old_weight_norm(block):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(block.depthwise[0])
    block.depthwise[0].weight_g.data.mul_(2)


def frozen(*names):
    return lambda block: [block.get_parameter(name).requires_grad_(False) for name in names]


def hooked(name, kind):
    results = {  # the last argument of a hook is what it may replace
        "forward": lambda *given: 1.5 * given[-1],
        "forward_pre": lambda *given: (1.5 * given[-1][0],),
        "full_backward": lambda module, grads, _: tuple(1.5 * grad for grad in grads),
        "full_backward_pre": lambda module, grads: tuple(1.5 * grad for grad in grads),
    }
    return lambda block: getattr(block.get_submodule(name), f"register_{kind}_hook")(results[kind])


CHANGES = {  # of the block that the networks are made of
    "nothing": lambda block: None,
    "another activation": lambda block: setattr(block, "act", nn.SiLU()),
    "another activation before": lambda block: setattr(block, "pre_act", nn.PReLU().double()),
    "in place before the shortcut": lambda block: setattr(block, "pre_act", nn.ReLU(inplace=True)),
    "dropout": lambda block: setattr(block, "act", nn.Sequential(nn.Hardswish(), nn.Dropout(0.5))),
    "cumulative statistics": lambda block: setattr(block.depthwise[1], "momentum", None),
    "another momentum": lambda block: setattr(block.depthwise[1], "momentum", 0.7),
    "another eps": lambda block: setattr(block.depthwise[1], "eps", 0.5),
    "no statistics": lambda block: setattr(
        block.depthwise, "bn", nn.BatchNorm2d(32, track_running_stats=False).double()
    ),
    "no affine": lambda block: setattr(block.depthwise, "bn", nn.BatchNorm2d(32, affine=False).double()),
    "no shift": lambda block: setattr(block.depthwise[1], "bias", None),
    "no count": lambda block: setattr(block.depthwise[1], "num_batches_tracked", None),
    "batch norm in eval mode": lambda block: block.depthwise[1].eval() and None,
    "only batch norm in train mode": lambda block: block.eval().depthwise[1].train() and None,
    "group norm": lambda block: setattr(block.project, "bn", nn.GroupNorm(2, 8).double()),
    "a bias": lambda block: setattr(block.project, "conv", nn.Conv2d(32, 8, 1).double()),
    "layers without names": lambda block: setattr(block, "project", nn.Sequential(*block.project)),
    "no batch norm": lambda block: setattr(block, "depthwise", block.depthwise[0]),
    "one more layer": lambda block: setattr(block, "project", nn.Sequential(nn.Dropout(0.5), *block.project)),
    "frozen weights": frozen("depthwise.conv.weight", "project.conv.weight", "se.reduce.weight"),
    "frozen batch norm": frozen("depthwise.bn.weight", "depthwise.bn.bias"),
    "parametrized": lambda block: parametrize.register_parametrization(block.depthwise[0], "weight", Scaled()),
    "weight norm by hooks": old_weight_norm,
    "pruned": lambda block: prune.l1_unstructured(block.project[0], "weight", 0.5),
    "a forward of its own": lambda block: setattr(block.depthwise[1], "forward", lambda x: 2 * x),
    "gates of its own": lambda block: setattr(block.se, "gates", lambda means: 2 * means[:, :, None, None]),
} | {
    f"{kind} hook on {name}": hooked(name, kind)
    for name in ("pre_act", "depthwise", "depthwise.conv", "depthwise.bn", "se", "act", "project", "project.conv")
    for kind in ("forward", "forward_pre", "full_backward", "full_backward_pre")
}


class Literal(nn.Module):
    """A block's modules, called one by one."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        block = self.block
        y = block.project(block.act(block.se(block.depthwise(block.pre_act(block.reuse(x))))))
        return y + block.shortcut(x)


def changed_block(change, literal: bool):
    torch.manual_seed(1)
    block = ReuseInvertedResidual(
        8, 8, 4, 3, 1, nn.Identity(), nn.Hardswish(), se=ReuseSqueezeExcite, shortcut=nn.Identity()
    ).double()
    fast_path.use_kernels(block, required=True)
    assert block.uses_fast_path
    change(block.train())
    return Literal(block) if literal else block


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_block_is_its_modules(change):
    """Output, gradients of input and parameters, running statistics."""
    found = []
    for literal in (True, False):
        block = changed_block(change, literal)
        x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
        torch.manual_seed(3)  # of dropout
        y = block(2 * x)
        trained = [parameter for parameter in block.parameters() if parameter.requires_grad]
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *trained], allow_unused=True), *block.buffers()])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def double_backward(block, x):
    wanted = [x.requires_grad_(), *block.parameters()]
    grads = torch.autograd.grad(block(x).square().sum(), wanted, create_graph=True)
    return [*grads, *torch.autograd.grad(sum(grad.square().sum() for grad in grads), wanted, allow_unused=True)]


def of_each_image(block, x):
    for module in block.modules():
        module.train(not isinstance(module, nn.BatchNorm2d))
    parameters = dict(block.named_parameters())

    def loss(given, image):
        return torch.func.functional_call(block, given, (image[None],)).square().sum()

    return torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)


def forward_mode(block, x):
    with torch.autograd.forward_ad.dual_level():
        return torch.autograd.forward_ad.unpack_dual(block(torch.autograd.forward_ad.make_dual(x, x.cos()))).tangent


@pytest.mark.parametrize("call", [double_backward, of_each_image, forward_mode])
def test_other_derivatives_are_the_modules(call):
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(2)).double()
    literal, block = (changed_block(CHANGES["nothing"], literal) for literal in (True, False))
    expected, found = call(literal, x.clone()), call(block, x.clone())
    if isinstance(found, dict):
        expected, found = list(expected.values()), list(found.values())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "shape, padding",
    [((1, 8, 1, 1), 1), ((2, 16, 6, 6), 1), ((8, 6, 6), 1), ((1, 8, 3, 3), 0), ((2, 8, 2, 2), 0)],
)
def test_inputs_that_the_modules_refuse(shape, padding):
    """Each with the modules' own words: nothing outside of a map is read."""
    said = []
    for literal in (True, False):
        block = changed_block(lambda block: setattr(block.depthwise[0], "padding", (padding, padding)), literal)
        with pytest.raises((ValueError, RuntimeError, IndexError)) as refused:
            block(torch.zeros(shape).double())
        said.append(str(refused.value))
    assert said[0] == said[1]

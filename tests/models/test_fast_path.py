"""The fast path trains the widened blocks as the definition says, and leaves to the modules what it does not know."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import main
import models
from benchmarks.measure import Step
from benchmarks.reuse import kept_bytes
from models import fast_path, ops
from models.literal import from_literal
from models.ops import build
from models.reuse_block import ReuseInvertedResidual
from tests.helpers.runs import start
from tests.models.test_reuse import assert_equal_outcomes, both_forms, outcome

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
    assert len(list(folder.glob("kernels-*"))) == 1 and not list(folder.glob("tmp*"))

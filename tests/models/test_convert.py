"""Reuse in the networks of torchvision and timm: equal to the rewrite of each family by hand, with real copies."""

import copy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import main
import models
from benchmarks import kill_test
from engine.saved import checkpoint
from engine.saved.weights import Made, load_pretrained
from engine.shown.logs import RunLog
from models.convert import reuse_expansions
from models.fold import fold
from models.reuse import Reuse, ReuseDepthwise
from tests.helpers.runs import start
from tests.models.test_fold import NORMS, randomise

ROOT = Path(models.__file__).parents[1]


class Repeat(nn.Module):
    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.times = conv.out_channels // conv.in_channels
        self.fits = conv.out_channels == self.times * conv.in_channels

    def forward(self, x):
        return torch.cat([x] * self.times, 1)


def rewrite_sequence(layers: nn.Sequential) -> int:
    """torchvision's blocks: convolution, norm and activation as one module, then the depthwise convolution."""
    widening, following = layers[0], layers[1]
    if widening[0].kernel_size != (1, 1) or following[0].groups == 1 or not Repeat(widening[0]).fits:
        return 0
    layers[0] = nn.Sequential(Repeat(widening[0]), type(widening[2])())
    return 1


def rewrite_mnasnet(layers: nn.Sequential) -> int:
    layers[0], layers[1], layers[2] = Repeat(layers[0]), nn.Identity(), nn.ReLU()
    return 1


def rewrite_timm(block: nn.Module) -> int:
    if not Repeat(block.conv_pw).fits:
        return 0
    block.conv_pw, block.bn1 = Repeat(block.conv_pw), type(block.bn1.act)()
    return 1


def rewrite_universal(block: nn.Module) -> int:
    if isinstance(block.dw_mid, nn.Identity) or not Repeat(block.pw_exp.conv).fits:
        return 0
    block.pw_exp = nn.Sequential(Repeat(block.pw_exp.conv), type(block.pw_exp.bn.act)())
    return 1


# By the name of a block's class: what of it is rewritten, and how.
RULES = {
    "torchvision.models.mobilenetv2.InvertedResidual": (lambda b: b.conv, rewrite_sequence),
    "torchvision.models.mobilenetv3.InvertedResidual": (lambda b: b.block, rewrite_sequence),
    "torchvision.models.efficientnet.MBConv": (lambda b: b.block, rewrite_sequence),
    "torchvision.models.mnasnet._InvertedResidual": (lambda b: b.layers, rewrite_mnasnet),
    "timm.models._efficientnet_blocks.InvertedResidual": (lambda b: b, rewrite_timm),
    "timm.models._efficientnet_blocks.UniversalInvertedResidual": (lambda b: b, rewrite_universal),
}
# Expansions that are replaced, counted in the tables of the papers; and those of them before a padded convolution.
NETWORKS = {
    "torchvision:mobilenet_v2": (16, 0),
    "torchvision:mobilenet_v3_small": (8, 0),  # 72 and 88 are no multiples of 16 and 24
    "torchvision:mobilenet_v3_large": (11, 0),  # nor are 184 and 200 of 80
    "torchvision:efficientnet_b0": (15, 0),
    "torchvision:efficientnet_b1": (21, 0),
    "torchvision:mnasnet0_5": (16, 0),
    "timm:mobilenetv2_050": (16, 0),
    "timm:mobilenetv3_small_100": (8, 0),
    "timm:mnasnet_small": (14, 0),
    "timm:tf_efficientnet_lite0": (15, 4),  # pads as TensorFlow does where it strides
    "timm:mobilenetv4_conv_small": (11, 0),
}

LARGE = ("torchvision:efficientnet_b0", "torchvision:efficientnet_b1")


def created(name: str, **options) -> nn.Module:
    """A network in float64 whose batch norms are none of the start's."""
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(1)
    network = models.create(name, **dict(num_classes=10, in_channels=1, image_size=32) | options).double()
    for layer in network.modules():
        if isinstance(layer, NORMS):
            randomise(layer)
    return network


def rewritten(network: nn.Module) -> tuple[nn.Module, int]:
    twin, count = copy.deepcopy(network), 0
    for block in twin.modules():
        if rule := RULES.get(f"{type(block).__module__}.{type(block).__name__}"):
            part, rewrite = rule
            count += rewrite(part(block))
    return twin, count


def trained_once(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, dict, dict]:
    """Outputs in training, the gradients, and the state that is left."""
    torch.manual_seed(2)  # for stochastic depth and dropout
    outputs = network.train()(images)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum().backward()
    return outputs, {name: each.grad for name, each in network.named_parameters()}, network.state_dict()


IMAGES = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("literal", [False, True], ids=["default", "literal"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in NETWORKS],
)
def test_equals_the_rewrite_by_hand(name, literal):
    network = created(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    expected, count = rewritten(network)
    found, report = reuse_expansions(network, in_channels=1, image_size=32, literal=literal)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert (count, sum(each.is_copied for each in report.changed)) == NETWORKS[name]
    assert len(report.changed) == count
    copies = sum(isinstance(module, Reuse) for module in found.modules())
    assert copies == (count if literal else NETWORKS[name][1])
    assert list(found.state_dict()) == list(expected.state_dict())
    close = dict(rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.eval()(IMAGES), expected.eval()(IMAGES), **close)
    for mine, theirs in zip(trained_once(found, IMAGES), trained_once(expected, IMAGES), strict=True):
        torch.testing.assert_close(mine, theirs, **close)


@pytest.mark.parametrize("name", NETWORKS)
def test_report_counts_by_formula(name):
    """C E weights and the norm's 2 E fewer, and C E H W multiply-accumulates."""
    network, sizes = created(name), {}
    _, report = reuse_expansions(network, in_channels=1, image_size=32)
    for each in report.changed:
        module = network.get_submodule(each.name)
        module.register_forward_hook(lambda _, x, y, key=each.name: sizes.update({key: y[0, 0].numel()}))
    network.eval()(IMAGES[:1])
    weights = {each.name: each.channels * each.expanded for each in report.changed}
    norms = sum(2 * each.expanded for each in report.changed)
    assert report.parameters[0] == sum(each.numel() for each in network.parameters())
    assert report.parameters[0] - report.parameters[1] == sum(weights.values()) + norms
    assert report.macs[0] - report.macs[1] == sum(weights[key] * sizes[key] for key in weights)
    text = str(report)
    assert all(each.name in text for each in report.changed) and all(key in text for key in report.left)
    assert f"{report.parameters[1]:,}" in text and f"{report.macs[1]:,}" in text


def test_what_is_left_has_its_reason():
    _, report = reuse_expansions(created("torchvision:mobilenet_v3_small"), in_channels=1, image_size=32)
    assert report.left["features.2.block.0.0"] == "72 is no multiple of 16"
    assert report.left["features.12.0"] == "no depthwise convolution reads it"


class Odd(nn.Module):
    """Expansions that are no plain ones: an activation with weights for each channel, a dilation, one called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.prelu = nn.Sequential(
            nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        )
        self.dilated = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(True), nn.Conv2d(16, 16, 3, dilation=2, groups=16))
        self.plain = nn.Sequential(nn.Conv2d(16, 32, 1), nn.GELU(), nn.Conv2d(32, 32, (3, 3), (2, 1), 2, groups=32))
        self.twice = nn.Conv2d(4, 8, 1)

    def forward(self, x):
        return self.plain(self.dilated(self.prelu(x) + self.twice(x) * self.twice(x)))


def test_layers_that_need_the_copies_get_them():
    torch.manual_seed(0)
    network, x = Odd().double(), torch.randn(2, 4, 9, 9).double()
    nn.init.uniform_(network.prelu[2].weight)
    expected = copy.deepcopy(network)
    expected.prelu[0], expected.prelu[1] = Repeat(network.prelu[0]), nn.Identity()
    expected.dilated[0], expected.plain[0] = Repeat(network.dilated[0]), Repeat(network.plain[0])
    found, report = reuse_expansions(network, in_channels=4, image_size=9)
    assert [(each.name, each.is_copied) for each in report.changed] == [
        ("prelu.0", True),
        ("dilated.0", True),
        ("plain.0", False),
    ]
    assert report.left == {"twice": "it is called more than once"}
    assert isinstance(found.plain[2], ReuseDepthwise)
    torch.testing.assert_close(found(x), expected(x))


class AsksForValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 1), randomise(nn.BatchNorm2d(4))

    def forward(self, x):
        return self.norm(self.conv(x)).flatten(1) if x.sum() > 0 else x.flatten(1)


def test_a_network_that_cannot_be_traced():
    with pytest.raises(ValueError, match="cannot trace"):
        reuse_expansions(AsksForValues())
    network, x = AsksForValues(), torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(fold(network)(x), network.eval()(x))


@pytest.mark.parametrize("name", [*NETWORKS, "torchvision:resnet18", "timm:resnet18", "torchvision:densenet121"])
@pytest.mark.parametrize("reuse", [False, True], ids=["as it is", "reuse"])
def test_fold(name, reuse):
    if reuse and name not in NETWORKS:
        pytest.skip("has no expansions")
    network = created(name, reuse=reuse).eval()
    folded = fold(network)
    outputs = network(IMAGES)
    assert ((folded(IMAGES) - outputs).abs().max() / outputs.abs().max()).item() < 1e-10
    if "densenet" not in name:  # whose norms come before the convolutions
        assert not any(isinstance(module, NORMS) for module in folded.modules())


def test_fold_keeps_what_it_does_not_know():
    """A norm that holds an activation keeps it; a convolution that standardises its weight keeps its norm."""
    layers = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    for conv in (nn.Conv2d, layers.StdConv2d, layers.Conv2dSame):
        network = nn.Sequential(conv(3, 4, 3, stride=2), randomise(layers.BatchNormAct2d(4)), nn.Conv2d(4, 2, 1))
        network, x = network.double().eval(), torch.randn(2, 3, 8, 8).double()
        torch.testing.assert_close(fold(network)(x), network(x))
        norms = sum(isinstance(module, NORMS) for module in fold(network).modules())
        assert norms == (conv is layers.StdConv2d)


def test_create_is_the_librarys_network():
    """The same layers and, of a seed, the same weights; those of the first convolution for the channels there are."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(4)
    theirs = torchvision.models.mobilenet_v3_small(num_classes=7)
    torch.manual_seed(4)
    mine = models.create("torchvision:mobilenet_v3_small", num_classes=7)
    assert str(mine) == str(theirs)
    assert all(torch.equal(mine.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    torch.manual_seed(4)
    grey = models.create("torchvision:mobilenet_v3_small", num_classes=7, in_channels=1).state_dict()
    assert torch.equal(grey.pop("features.0.0.weight"), theirs.state_dict()["features.0.0.weight"][:, :1])
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in grey.items())


def test_neither_library_is_imported_unless_asked_for():
    program = "import models, sys; assert not {'torchvision', 'timm'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert not any(":" in name for name in models.names())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision:mobilenet_v3_smal", {}, "did you mean torchvision:mobilenet_v3_small"),
        ("torchvision:qqqqqqqq", {}, "list_models"),
        ("torchvision:vit_b_16", {}, "takes no image of 32x32"),
        ("torchvision:mobilenet_v2", {"width": 0.5}, "no width multiplier"),
        ("torchvision:mobilenet_v2", {"literal": True}, "has no Reuse"),
        ("torchvision:mobilenet_v2", {"expansion": "reuse"}, "has no parts"),
        ("torchvision:resnet18", {"reuse": True}, "can replace no 1x1 expansion"),
        ("cheapV3", {"reuse": True}, "cheapV3 is of this project"),
    ],
)
def test_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, **options)


RUN = "-reuse -dataset digits -size 32 -epochs 2 -steps 4 -log-every 1 -b 32 -seed 3 -gpu false -name try1"
CLASSIFIERS = {"torchvision:mobilenet_v3_small": "classifier.3", "timm:mobilenetv3_small_100": "classifier"}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def net(request) -> str:
    pytest.importorskip(request.param.partition(":")[0])
    return request.param


@pytest.fixture(scope="module")
def trained(net, tmp_path_factory, without_pictures) -> Path:
    """The folder of a run with Reuse, on real digits, that has ended."""
    out = tmp_path_factory.mktemp("trained")
    start(f"-net {net} {RUN}", out)
    return out


def inner(net: str) -> Path:
    return Path("checkpoints") / net.replace(":", "-") / "digits-try1"


def test_resume_ends_in_the_same_weights(net, trained, tmp_path, monkeypatch):
    steps = RunLog.steps

    def stopping(self, first, losses, rates):
        if first == 5:
            signal.raise_signal(signal.SIGTERM)
        steps(self, first, losses, rates)

    monkeypatch.setattr(RunLog, "steps", stopping)
    with pytest.raises(SystemExit):
        main.main([*f"-net {net} {RUN}".split(), "-out", str(tmp_path)])
    monkeypatch.undo()
    assert main.main(["-resume", "last", "-out", str(tmp_path)]) == 0
    assert kill_test.differences(trained / inner(net), tmp_path / inner(net)) == []


@pytest.mark.slow
def test_trained_network_is_used_as_ours(net, trained, tmp_path, capsys):
    weights = trained / inner(net) / "last.pth"
    for words in (f"-test -weights {weights}", f"-export onnx -weights {weights}", f"-compare -out {trained}"):
        assert main.main(words.split()) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert f"{net} on the 360 test images" in printed and "ONNX Runtime on 256 test images" in printed
    assert "-reuse true" in (trained / "runs" / "compare.csv").read_text()
    network = models.load(weights.with_suffix(".safetensors"), folded=False)
    assert sum(isinstance(module, ReuseDepthwise) for module in network.modules()) == 8


def test_weights_for_other_classes_start_a_run(net, trained, capsys):
    """The classifier alone is made new."""
    made = Made(net, num_classes=7, in_channels=1, image_size=32, others={"reuse": True})
    network, path = made.network(), trained / inner(net) / "last.pth"
    content = checkpoint.load(path)
    load_pretrained(network, content, path, made, classes=list("abcdefg"))
    theirs, mine = checkpoint.network_weights(content), network.state_dict()
    assert {key for key in mine if not torch.equal(mine[key], theirs[key])} == {
        f"{CLASSIFIERS[net]}.{which}" for which in ("weight", "bias")
    }
    assert f"{CLASSIFIERS[net]}.weight: made new" in capsys.readouterr().out
    plain = replace(made, others={})
    with pytest.raises(ValueError, match="give -reuse true"):
        load_pretrained(plain.network(), content, path, plain, classes=list("abcdefghij"))


def test_hub(net, trained):
    """create() as an entry point, for the names that are none of a function's."""
    weights = str(trained / inner(net) / "last.pth")
    loaded = torch.hub.load(str(ROOT), "create", net, source="local", weights=weights).eval()
    own = models.load(trained / inner(net) / "last.safetensors", folded=False)
    assert torch.equal(loaded(IMAGES.float()), own(IMAGES.float()))

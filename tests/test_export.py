"""The folded network and its ONNX file: the same outputs as the network that was trained, in less."""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import main
import models
from engine import checkpoint, export
from engine.copies import CopyByCopy
from engine.export import export_onnx, onnx_runner, to_onnx
from engine.fold import Sizes, fold
from models.layers import GlobalAveragePool
from models.reuse import ConvOnCopies, LinearOnCopies, from_literal

TEST_IMAGES = Path(main.__file__).parent / "data" / "cifar100" / "test"
# relative; in float64 only rounding is left
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-12}
NORMS = nn.modules.batchnorm._BatchNorm
EFFNETS = ("EffNet", "EffNet_baseline")


def networks() -> list[dict]:
    """Every network in the default form, at odd widths and shapes too, and the cheap ones in the literal form."""
    found = [dict(name=name) for name in models.names()]
    found += [dict(name=name, num_classes=7, in_channels=1, image_size=24) for name in models.names()]
    wide = [name for name in models.names() if models.registry.entry(name).takes("width")]
    found += [dict(name=name, width=0.35) for name in wide]
    return found + [dict(name=name, literal=True) for name in models.cheap_names()]


def trained(dtype: torch.dtype = torch.float32, **options) -> nn.Module:
    """A network with running statistics and weights that are none of the start's, so that folding has to use them."""
    torch.manual_seed(1)
    network = models.create(**options).to(dtype)
    for layer in network.modules():
        if isinstance(layer, NORMS):
            randomise(layer)
        elif isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.normal_(layer.bias)
    return network


def randomise(norm: nn.Module) -> nn.Module:
    norm.running_mean.normal_(std=0.5)
    norm.running_var.uniform_(0.3, 3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias, std=0.5)
    return norm


def largest_difference(network: nn.Module, folded: nn.Module, images: torch.Tensor) -> float:
    """Of the outputs in eval mode, as a share of the largest output."""
    training = network.training
    with torch.no_grad():
        expected, found = network.eval()(images), folded(images)
    network.train(training)
    assert expected.std() > 0.01 * expected.abs().max() and expected.isfinite().all()
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("options", networks(), ids=lambda options: "-".join(map(str, options.values())))
def test_outputs_stay(options, dtype, monkeypatch):
    """Both of a block's ways: as a whole, and copy by copy."""
    network = trained(dtype, **options)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    text = str(network)
    folded = fold(network)
    images = torch.randn(3, options.get("in_channels", 3), *2 * [options.get("image_size", 32)], dtype=dtype)
    for wide in (0, 1 << 60):
        monkeypatch.setattr(CopyByCopy, "WIDE", wide)
        assert largest_difference(network, folded, images) < BOUNDS[dtype]
    assert str(network) == text and network.training and not folded.training
    assert not any(weight.requires_grad for weight in folded.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", models.names())
def test_nothing_of_the_training_is_left(name):
    folded = fold(trained(name=name))
    kinds = (nn.Dropout, LinearOnCopies, ConvOnCopies)
    assert not [layer for layer in folded.modules() if isinstance(layer, kinds)]
    norms = [key for key, layer in folded.named_modules() if isinstance(layer, NORMS)]
    if name == "EffNet":  # those before the padded depthwise convolutions
        expected = {f"blocks.{block}.{layer}.bn" for block in range(3) for layer in ("pointwise", "horizontal")}
        assert set(norms) == expected
    elif name == "EffNet_baseline":  # its last goes into the classifier, through the pooling
        assert norms == ["blocks.0.bn", "blocks.1.bn"]
    else:
        assert norms == []


def test_random_numbers_of_the_caller_stay():
    network = trained(name="cheapV3_shuffle")
    state = torch.get_rng_state()
    fold(network)
    assert torch.equal(torch.get_rng_state(), state)


# what stands in a row, and the batch norms that must be left of it
ROWS = {
    "after a convolution": ([nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)], 0),
    "after a grouped one without bias": ([nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)], 0),
    "after a linear layer": ([nn.Flatten(), nn.Linear(256, 5), nn.BatchNorm1d(5)], 0),
    "without weights": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)], 0),
    "of the batch's own statistics": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)], 1),
    "before a convolution": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)], 0),
    "before a depthwise one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 12, 3, stride=2, groups=4)], 0),
    "before a grouped one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, (2, 1), groups=2, bias=False)], 0),
    "before a padded one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=(1, 0))], 1),
    "before one padded by its own values": (
        [nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")], 0,
    ),
    "before an activation": ([nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1)], 1),
    "before dropout and a linear layer": (
        [nn.Flatten(), nn.Linear(256, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)], 0,
    ),
    "before a classifier of the whole map": ([nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5)], 0),
    "before a classifier of means": ([nn.BatchNorm2d(4), GlobalAveragePool(), nn.Linear(4, 5)], 0),
    "before pooling": ([nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1)], 0),
    "in rows within rows": (
        [nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(6))), nn.Conv2d(6, 4, 1)], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_batch_norm(row):
    layers, left = ROWS[row]
    torch.manual_seed(0)
    network = nn.Sequential(*layers).double()
    for layer in network.modules():
        if isinstance(layer, NORMS) and layer.affine and layer.track_running_stats:
            randomise(layer)
        elif isinstance(layer, NORMS) and layer.track_running_stats:
            layer.running_mean.normal_()
    folded = fold(network)
    assert sum(isinstance(layer, NORMS) for layer in folded.modules()) == left
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


def test_batch_norm_without_shift_goes_into_a_padded_convolution():
    norm = randomise(nn.BatchNorm2d(4))
    nn.init.zeros_(norm.bias)
    norm.running_mean.zero_()
    network = nn.Sequential(norm, nn.Conv2d(4, 6, 3, padding=1)).double()
    folded = fold(network)
    assert len(folded) == 1
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


def test_negative_scale_stays_before_pooling():
    norm = randomise(nn.BatchNorm2d(4))
    with torch.no_grad():
        norm.weight[2] = -1
    network = nn.Sequential(norm, nn.MaxPool2d(2), nn.Conv2d(4, 6, 1)).double()
    folded = fold(network)
    assert len(folded) == 3
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


# weights that read copies: (k - 1) times what one copy is worth; 100 classes
COPIES = {
    "cheapV2": 3 * 320 * 100,
    "cheapV3": 11 * 160 * 100,
    "cheapV3_small": 11 * 96 * 100,
    "cheapV3_shuffle": 11 * 160 * 100 + 15 * 3 * 16,
    "cheapV3_shuffle6": 11 * 180 * 100 + 15 * 3 * 24,
    "cheapSqueezeNet": 715_876 - 658_276,
}


@pytest.mark.parametrize("name", models.names())
def test_sizes(name):
    """A batch norm after a convolution leaves one bias for its two weights, none where a bias was."""
    network = trained(name=name)
    sizes = Sizes.of(network, fold(network))
    assert sizes.stored == sum(weight.numel() for weight in network.parameters())
    assert sizes.copies == COPIES.get(name, 0)
    if name not in EFFNETS:
        with_bias = "SqueezeNet" in name or name.startswith(("EffNet_", "digits_", "steering_"))
        norms = sum(layer.num_features for layer in network.modules() if isinstance(layer, NORMS))
        assert sizes.batch_norms == norms * (2 if with_bias else 1)
    assert sizes.folded == sizes.stored - sizes.copies - sizes.batch_norms
    assert f"{sizes.stored:,} stored, {sizes.folded:,} folded" in str(sizes)


def real_images(count: int | None) -> torch.Tensor:
    """CIFAR-100's test images, evenly from all classes (None: all), normalised; noise where they are not laid out."""
    paths = sorted(TEST_IMAGES.glob("*/*.png"))
    if not paths:
        return torch.randn(count or 1000, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    chosen = paths if count is None else paths[:: len(paths) // count][:count]
    pixels = numpy.stack([numpy.asarray(Image.open(path)) for path in chosen])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return ((images - images.mean((0, 2, 3), True)) / images.std((0, 2, 3), keepdim=True)).contiguous()


def fitted(name: str, images: torch.Tensor) -> nn.Module:
    """A network in eval mode whose outputs differ from image to image, as they do after training.

    Running statistics are those of the images; gates are near 1, since cheapV3's, which are unbounded, would else
    make the signal vanish or burst; and the classifier lets every class's output vary alike.
    """
    network = trained(name=name)
    with torch.no_grad():
        for key, layer in network.named_modules():
            if isinstance(layer, NORMS):
                layer.momentum = 1.0
                layer.weight.uniform_(0.2, 0.8)
                layer.bias.uniform_(0.5, 1)
            elif key.endswith("se.reduce"):
                layer.weight.uniform_(0, 2 / layer.in_features)
        network(images)
        found = outputs(network.eval(), images)
        classifier, std, mean = network.head.classifier, found.std(0), found.mean(0)
        classifier.weight /= std.reshape(-1, *[1] * (classifier.weight.ndim - 1))
        classifier.bias.copy_((classifier.bias - mean) / std)
    return network


def outputs(network, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(100)])


def assert_same_choices(expected: torch.Tensor, found: torch.Tensor) -> None:
    """The same arg-max, but where the two largest outputs are nearer than 1e-4."""
    first, second = expected.topk(2).values.T
    clear = first - second >= 1e-4
    assert clear.float().mean() > 0.9 and len(expected.argmax(1).unique()) > 20
    assert torch.equal(expected.argmax(1)[clear], found.argmax(1)[clear])


@pytest.mark.parametrize("name", [pytest.param("cheapV3", marks=pytest.mark.slow), "cheapSqueezeNet"])
def test_onnx_on_real_images(name, tmp_path):
    """One file, any batch size, the network's outputs and choices."""
    images = real_images(200)
    network = fitted(name, images[::2])
    exported = export_onnx(network, tmp_path / "a.onnx", images, {"mean": "[0.5]"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]  # no weights beside it, no temporary file
    data = (tmp_path / "a.onnx").read_bytes()
    assert exported.size == len(data) and str(Path.cwd()).encode() not in data and b"forward" not in data
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    run = onnx_runner(data)
    expected = outputs(network, images)
    for found in (outputs(run, images), torch.cat([run(image) for image in images[:3].split(1)])):
        part = expected[: len(found)]
        torch.testing.assert_close(found, part, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert_same_choices(expected, outputs(run, images))
    assert_same_choices(expected, outputs(fold(network), images))
    assert 0 < exported.difference <= 1e-4 * exported.largest
    assert exported.largest == pytest.approx(expected.abs().max().item(), rel=1e-5)
    assert exported.parameters.copies == COPIES[name]


@pytest.mark.slow
def test_all_choices_stay():
    """cheapV3 on all of CIFAR-100's test images: as it is, folded, in ONNX Runtime; and from the literal form."""
    images = real_images(None)
    literal = models.create("cheapV3", literal=True)
    network = fitted("cheapV3", images[::50])
    literal.load_state_dict(models.reuse.to_literal(network.state_dict(), "cheapV3"))
    assert all(
        torch.equal(weight, network.state_dict()[key])
        for key, weight in from_literal(literal.state_dict(), "cheapV3").items()
    )
    expected = outputs(literal.eval(), images)
    folded = fold(network)
    assert_same_choices(expected, outputs(folded, images))
    assert_same_choices(expected, outputs(folded.to(memory_format=torch.channels_last), images))
    assert_same_choices(expected, outputs(onnx_runner(to_onnx(folded, images.shape[1:], {})), images))


def tiny() -> nn.Module:
    torch.manual_seed(0)
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), pool=GlobalAveragePool(), end=nn.Linear(4, 5))
    return nn.Sequential(layers)


@pytest.mark.parametrize("why", ["rounding", "not a number"])
def test_no_file_where_outputs_differ(why, tmp_path, monkeypatch):
    network = tiny()
    if why == "rounding":
        monkeypatch.setattr(export, "TOLERANCE", 0.0)
    else:
        nn.init.constant_(network.end.bias, float("nan"))
    with pytest.raises(ValueError, match="a.onnx: not written, .* differ"):
        export_onnx(network, tmp_path / "a.onnx", torch.randn(40, 3, 8, 8), {})
    assert list(tmp_path.iterdir()) == []


def test_one_image_is_enough_to_export(tmp_path):
    export_onnx(tiny(), tmp_path / "a.onnx", torch.randn(1, 3, 8, 8), {})
    assert onnx_runner((tmp_path / "a.onnx").read_bytes())(torch.randn(7, 3, 8, 8)).shape == (7, 5)


class InHalves(nn.Module):
    """A linear layer that reads its weight in halves, which the exporter has warnings about."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.flatten(1) @ half.T for half in self.weight.chunk(2)], dim=1)


def test_the_exporter_is_silent(tmp_path, capfd, caplog, recwarn):
    export_onnx(InHalves(), tmp_path / "a.onnx", torch.randn(3, 3, 2, 2), {})
    assert capfd.readouterr() == ("", "") and not recwarn.list
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What one short run on the digits leaves."""
    out = tmp_path_factory.mktemp("run")
    words = "main.py -net cheapV3_small -dataset digits -epochs 1 -b 64 -size 8 -name try1 -gpu false -out"
    sys.argv = [*words.split(), str(out)]
    assert main.main() == 0
    return out / "checkpoints" / "cheapV3_small" / "digits-try1"


def call(*words: object) -> int:
    sys.argv = ["main.py", *map(str, words)]
    return main.main()


def test_command_line(run_folder, capfd):
    weights = run_folder / "last.pth"
    before = {path.name for path in run_folder.iterdir()}
    assert call("-export", "onnx", "-weights", weights, "-gpu", "false") == 0
    captured = capfd.readouterr()
    assert captured.err == "" and len(captured.out.splitlines()) == 3
    assert {path.name for path in run_folder.iterdir()} == before | {"last.onnx"}
    content = checkpoint.load(weights)
    network = models.create("cheapV3_small", num_classes=10, in_channels=1, image_size=8)
    network.load_state_dict(checkpoint.network_weights(content))
    stored = sum(weight.numel() for weight in network.parameters())
    size = (run_folder / "last.onnx").stat().st_size
    assert f"{stored:,} stored" in captured.out and f"{run_folder / 'last.onnx'}: {size / 1e6:.2f} MB" in captured.out
    assert "largest difference" in captured.out

    session = onnxruntime.InferenceSession(run_folder / "last.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["net"] == "cheapV3_small" and metadata["dataset"] == "digits"
    assert json.loads(metadata["classes"]) == list(content["classes"]) and len(content["classes"]) == 10
    (mean,), (std,) = json.loads(metadata["mean"]), json.loads(metadata["std"])
    pixels = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    assert mean == pytest.approx(pixels.mean().item(), abs=0.01) and std == pytest.approx(pixels.std().item(), abs=0.01)
    images = (pixels[:99] - mean) / std
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    torch.testing.assert_close(found, outputs(network.eval(), images), rtol=1e-4, atol=1e-4)


def test_command_line_without_the_packages(run_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as Python treats a package that is not there
    before = sorted(run_folder.iterdir())
    assert call("-export", "onnx", "-weights", run_folder / "last.pth") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "pip install onnx onnxscript onnxruntime" in error
    assert sorted(run_folder.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-export onnx", "-export: needs -weights FILE"),
        ("-export tflite -weights other.pth", "tflite"),
        ("-export onnx -weights gone.pth", "gone.pth: cannot be read"),
        ("-export onnx -weights other.pth", "holds weights only"),
        ("-export onnx -weights other.pth -net cheapV3", "-net: contradicts -export"),
        ("-export onnx -weights other.pth -test", "-test: "),
        ("-export onnx -resume last", "-resume: "),
    ],
)
def test_mistakes(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(models.create("cheapV2", num_classes=10, in_channels=1).state_dict(), tmp_path / "other.pth")
    assert call(*words.split()) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]

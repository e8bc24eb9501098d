"""The ONNX file of a folded network, and the choices of both on real images: those of the network that was trained."""

import contextlib
import io
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
from commands import export, same_outputs
from commands.export import export_onnx, onnx_runner, to_onnx
from commands.half import InHalf, StoredAsHalf
from commands.program import LARGEST_BATCH, export_program
from commands.quantize import without_outliers
from engine.saved import checkpoint
from models.fold import fold
from models.layers import GlobalAveragePool
from models.literal import from_literal, to_literal
from tests.models.test_fold import COPIES, NORMS, trained

TEST_IMAGES = Path(main.__file__).parent / "data" / "cifar100" / "test"


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
    assert 0 < exported.difference <= 1e-4
    assert exported.largest == pytest.approx(expected.abs().max().item(), rel=1e-5)
    assert exported.parameters.copies == COPIES[name]


@pytest.mark.slow
def test_all_choices_stay():
    """cheapV3 on all of CIFAR-100's test images: as it is, folded, in ONNX Runtime; and from the literal form."""
    images = real_images(None)
    literal = models.create("cheapV3", literal=True)
    network = fitted("cheapV3", images[::50])
    literal.load_state_dict(to_literal(network.state_dict(), literal))
    assert all(
        torch.equal(weight, network.state_dict()[key])
        for key, weight in from_literal(literal.state_dict(), literal).items()
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
        monkeypatch.setattr(same_outputs, "TOLERANCE", 0.0)
    else:
        nn.init.constant_(network.end.bias, float("nan"))
    with pytest.raises(ValueError, match="a.onnx: not written, .* differ"):
        export_onnx(network, tmp_path / "a.onnx", torch.randn(40, 3, 8, 8), {})
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_overflows_hides_no_difference(tmp_path, monkeypatch):
    """Every image is held to its own outputs: one of 1e19 is no measure for the others."""
    network, images = tiny(), torch.randn(40, 3, 8, 8)
    images[7] *= 1e19
    run = export.onnx_runner

    def runner_of_a_broken_file(data):
        return lambda images: run(data)(images) + 0.05 * (images.abs().amax((1, 2, 3), keepdim=True) < 100)[:, :, 0, 0]

    export_onnx(network, tmp_path / "whole.onnx", images, {})
    monkeypatch.setattr(export, "onnx_runner", runner_of_a_broken_file)
    with pytest.raises(ValueError, match="broken.onnx: not written, .* differ"):
        export_onnx(network, tmp_path / "broken.onnx", images, {})
    assert [path.name for path in tmp_path.iterdir()] == ["whole.onnx"]


def test_another_choice_is_seen_where_outputs_are_small(tmp_path, monkeypatch):
    """An image with hardly any output: its two largest change places by less than other images' rounding."""
    network = nn.Sequential(GlobalAveragePool(), nn.Linear(3, 3, bias=False)).eval()
    nn.init.eye_(network[1].weight)
    images = torch.rand(8, 3, 8, 8) * 1000
    images[0] = torch.tensor([2e-3, 1e-3, 0.0])[:, None, None]
    run = export.onnx_runner

    def runner_of_a_broken_file(data):
        return lambda part: run(data)(part) + (part.amax((1, 2, 3), True)[..., 0, 0] < 1) * torch.tensor([0, 2e-3, 0])

    monkeypatch.setattr(export, "onnx_runner", runner_of_a_broken_file)
    with pytest.raises(ValueError, match="another largest output than the network for 1 of 8 images"):
        export_onnx(network, tmp_path / "broken.onnx", images, {})
    assert not (tmp_path / "broken.onnx").exists()


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


@pytest.fixture(scope="module", params=["EffNet", pytest.param("cheapV3_small", marks=pytest.mark.slow)])
def run_folder(request, without_pictures, tmp_path_factory):
    """What one short run on the digits leaves."""
    out = tmp_path_factory.mktemp("run")
    words = f"-net {request.param} -dataset digits -epochs 1 -b 64 -size 8 -name try1 -gpu false -out"
    assert main.main([*words.split(), str(out)]) == 0
    return out / "checkpoints" / request.param / "digits-try1"


def call(*words: object) -> int:
    return main.main(list(map(str, words)))


def test_command_line(run_folder, capfd):
    weights = run_folder / "last.pth"
    before = {path.name for path in run_folder.iterdir()}
    assert call("-export", "onnx", "-weights", weights, "-gpu", "false") == 0
    captured = capfd.readouterr()
    assert captured.err == "" and len(captured.out.splitlines()) == 3
    assert {path.name for path in run_folder.iterdir()} == before | {"last.onnx"}
    content = checkpoint.load(weights)
    network = models.create(run_folder.parent.name, num_classes=10, in_channels=1, image_size=8)
    network.load_state_dict(checkpoint.network_weights(content))
    stored = sum(weight.numel() for weight in network.parameters())
    size = (run_folder / "last.onnx").stat().st_size
    assert f"{stored:,} stored" in captured.out and f"{run_folder / 'last.onnx'}: {size / 1e6:.2f} MB" in captured.out
    assert "largest difference" in captured.out

    session = onnxruntime.InferenceSession(run_folder / "last.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["net"] == run_folder.parent.name and metadata["dataset"] == "digits"
    assert json.loads(metadata["classes"]) == list(content["classes"]) and len(content["classes"]) == 10
    (mean,), (std,) = json.loads(metadata["mean"]), json.loads(metadata["std"])
    pixels = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 16
    assert mean == pytest.approx(pixels.mean().item(), abs=0.01) and std == pytest.approx(pixels.std().item(), abs=0.01)
    images = (pixels[:99] - mean) / std
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    torch.testing.assert_close(found, outputs(network.eval(), images), rtol=1e-4, atol=1e-4)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_a_file_that_takes_pixels(run_folder, capfd, tmp_path):
    """From bytes to probabilities: those of the network on the images as it was trained on them."""
    weights = tmp_path / "last.pth"
    weights.write_bytes((run_folder / "last.pth").read_bytes())
    assert call("-export", "onnx", "-weights", weights, "-gpu", "false", "-with-preprocessing") == 0
    assert "uint8 pixels" in capfd.readouterr().out
    content = checkpoint.load(weights)
    network = models.create(run_folder.parent.name, num_classes=10, in_channels=1, image_size=8)
    network.load_state_dict(checkpoint.network_weights(content))
    pixels = torch.randint(0, 256, (7, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std = content["mean"][0], content["std"][0]
    session = session_of(tmp_path / "last.onnx")
    assert "pixel / 255" in session.get_modelmeta().custom_metadata_map["input"]
    found = torch.from_numpy(session.run(None, {"images": pixels.numpy()})[0])
    expected = outputs(network.eval(), (pixels / 255 - mean) / std).softmax(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def in_fewer_bits(run_folder, tmp_path_factory):
    """The folder of a float file and both that are made of it, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("bits"), io.StringIO()
    (folder / "last.pth").write_bytes((run_folder / "last.pth").read_bytes())
    with contextlib.redirect_stdout(printed):
        assert call("-export", "onnx", "-int8", "-half", "-weights", folder / "last.pth", "-gpu", "false") == 0
    assert len(list(folder.iterdir())) == 4
    return folder, printed.getvalue().splitlines()


def test_int8_says_what_it_gets_wrong(in_fewer_bits):
    """A smaller file with integers in it, beside the float file, and both files' errors on all test images."""
    folder, lines = in_fewer_bits
    assert "training images" in lines[3] and lines[4].startswith("wrong of 360 test images: ")
    assert (folder / "last-int8.onnx").stat().st_size < (folder / "last.onnx").stat().st_size / 2
    kinds = {each.data_type for each in onnx.load(folder / "last-int8.onnx").graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_half_says_what_it_gets_wrong(in_fewer_bits):
    """A file of half the size, floats in and out, whose outputs are the float file's but for rounding."""
    folder, lines = in_fewer_bits
    assert lines[-1].startswith("wrong of 360 test images: ") and lines[-1].endswith("of which 0 not finite")
    plain, half = session_of(folder / "last.onnx"), session_of(folder / "last-half.onnx")
    assert (folder / "last-half.onnx").stat().st_size < 0.6 * (folder / "last.onnx").stat().st_size
    assert half.get_modelmeta().custom_metadata_map == plain.get_modelmeta().custom_metadata_map
    assert [each.type for each in (*half.get_inputs(), *half.get_outputs())] == ["tensor(float)"] * 2
    kinds = {each.data_type for each in onnx.load(folder / "last-half.onnx").graph.initializer if each.dims}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds
    images = numpy.random.default_rng(0).standard_normal((5, 1, 8, 8), numpy.float32)
    expected, found = (each.run(None, {"images": images})[0] for each in (plain, half))
    assert numpy.abs(found - expected).max() < 0.02 * numpy.abs(expected).max()


@pytest.mark.parametrize("word", ["-int8", "-half"])
def test_fewer_bits_need_the_data_set(word, capfd, tmp_path):
    """Nothing is written where its error could not be told, the float file neither."""
    weights = tmp_path / "cheapV2-cifar100.safetensors"
    weights.write_bytes((Path(main.__file__).parent / "weights" / weights.name).read_bytes())
    assert call("-export", "onnx", word, "-weights", weights, "-data", tmp_path, "-gpu", "false") == 2
    assert "cifar100 is not under" in capfd.readouterr().err and list(tmp_path.iterdir()) == [weights]


def test_an_overflow_in_half_is_seen():
    """As the file's steps in torch's own float16: an image whose signal passes 65504 on its way, and ends small."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), GlobalAveragePool(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        network[0].weight.fill_(2.0)
        network[3].weight.mul_(1e-3)
    images = torch.rand(6, 1, 8, 8)
    images[2] *= 2e4
    found = StoredAsHalf(network)(images)
    with torch.no_grad():
        expected = torch.export.export(InHalf(network), (images,)).module()(images)
    assert found.isfinite().all(1).tolist() == expected.isfinite().all(1).tolist()
    assert found.isfinite().all(1).tolist() == [True, True, False, True, True, True]
    assert outputs(network, images).abs().max() < 65504
    torch.testing.assert_close(found[:2], expected[:2], rtol=2e-3, atol=2e-3)


def test_a_program_with_a_free_batch(run_folder, capfd, tmp_path):
    """What torch.export.load gives: the network's outputs for any number of images, and what they are of."""
    weights = tmp_path / "last.pth"
    weights.write_bytes((run_folder / "last.pth").read_bytes())
    assert call("-export", "pt2", "-weights", weights, "-gpu", "false") == 0
    captured = capfd.readouterr()
    assert captured.err == "" and "largest difference" in captured.out
    data = (tmp_path / "last.pt2").read_bytes()
    assert str(Path(main.__file__).parent).encode() not in data and sorted(tmp_path.glob("last.*")) == [
        tmp_path / "last.pt2",
        weights,
    ]
    extra = {name: "" for name in ("classes", "mean", "std", "size")}
    run = torch.export.load(tmp_path / "last.pt2", extra_files=extra).module()
    content = checkpoint.load(weights)
    assert {name: json.loads(extra[name]) for name in ("classes", "mean", "std")} == {
        name: content[name] for name in ("classes", "mean", "std")
    }
    assert json.loads(extra["size"]) == content["image_size"] == 8
    network = models.create(run_folder.parent.name, num_classes=10, in_channels=1, image_size=8)
    network.load_state_dict(checkpoint.network_weights(content))
    for count in (1, 7, LARGEST_BATCH):
        images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(run(images), outputs(network.eval(), images), rtol=1e-4, atol=1e-4)


def test_no_program_where_outputs_differ(tmp_path):
    network = tiny()
    nn.init.constant_(network.end.bias, float("nan"))
    with pytest.raises(ValueError, match="a.pt2: not written, .* differ"):
        export_program(network, tmp_path / "a.pt2", torch.randn(5, 3, 8, 8), {})
    assert list(tmp_path.iterdir()) == []


def test_images_that_overflow_are_no_calibration():
    """One image a thousand times as large as the rest, one that is not finite: neither sets a range."""
    network = nn.Sequential(GlobalAveragePool(), nn.Linear(3, 3, bias=False)).eval()
    nn.init.eye_(network[1].weight)
    images = torch.rand(8, 3, 4, 4) + 0.5
    images[2] *= 1000
    images[5] = float("inf")
    usual, left_out = without_outliers(network, images)
    assert left_out == 2 and torch.equal(usual, images[[0, 1, 3, 4, 6, 7]])


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
        ("-export onnx -weights other.pth -net cheapV3", "holds weights only; say with -net NAME and -dataset D"),
        ("-export onnx -weights other.pth -test", "-test: "),
        ("-export onnx -resume last", "-resume: "),
        ("-export pt2 -weights other.pth", "holds weights only; say with -net NAME and -dataset D"),
        ("-export pt2 -half -weights other.pth", "-half: goes with -export onnx or weights, not pt2"),
        ("-export pt2 -with-preprocessing -weights other.pth", "-with-preprocessing: goes with -export onnx, not pt2"),
        ("-export onnx -half -with-preprocessing -weights other.pth", "-half: contradicts -with-preprocessing"),
        ("-export weights -int8 -weights other.pth", "-int8: goes with -export onnx"),
        ("-test -with-preprocessing -weights other.pth", "-with-preprocessing: goes with -export alone"),
        ("-export onnx -int8 -with-preprocessing -weights other.pth", "-int8: contradicts -with-preprocessing"),
    ],
)
def test_mistakes(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(models.create("cheapV2", num_classes=10, in_channels=1).state_dict(), tmp_path / "other.pth")
    assert call(*words.split()) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]

"""-predict: what it prints for images is what the network makes of them when it is evaluated by hand."""

import copy
import csv
import io
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageOps

import main
import models
from conf.datasets import DATASETS
from conf.resolve import settings
from datasets.digits import read as read_digits
from engine.saved import checkpoint

ROOT = Path(main.__file__).parent
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def call(capsys, *words: object) -> tuple[int, str, str]:
    status = main.main(list(map(str, words)))
    return status, *capsys.readouterr()


def table(capsys, *words: object) -> list[dict]:
    status, out, error = call(capsys, "-predict", *words, "-gpu", "false")
    assert status == 0, error
    return list(csv.DictReader(io.StringIO(out)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six real CIFAR-100 images as PNG files, 32x32; generated ones where the data is not laid out."""
    folder = tmp_path_factory.mktemp("photos")
    found = sorted((ROOT / "data" / "cifar100" / "test").glob("*/005.png"))[:60:10]
    random = numpy.random.default_rng(0)
    for number in range(6):
        if found:
            shutil.copy(found[number], folder / f"{number}.png")
        else:
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=numpy.uint8)).save(folder / f"{number}.png")
    return folder


def make_weights(path: Path, net: str, classes: int, channels: int, size: int, **given) -> torch.nn.Module:
    """A checkpoint as a run saves it, with averaged weights that differ from the last; returns the averaged network."""
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = models.create(net, num_classes=classes, in_channels=channels, image_size=size)
        for layer in network.modules():
            if isinstance(layer, torch.nn.Linear):  # or every class would be nearly as likely as the next
                torch.nn.init.normal_(layer.weight, std=4 * layer.in_features**-0.5)
            elif isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0  # one batch gives the statistics
        # running statistics, without which an untrained network is all but blind
        with torch.no_grad():
            network.train()(torch.nn.functional.interpolate(torch.randn(32, channels, 7, 7), size))
        networks.append(network)
    content = {
        "network": networks[0].state_dict(),
        "averaged": networks[1].state_dict(),
        "settings": asdict(settings({"net": net, "ema": 0.9, **given})),
        "classes": [f"class, {number}" for number in range(classes)],
        "mean": list(MEAN[:channels]),
        "std": list(STD[:channels]),
        "image_size": size,
        "in_channels": channels,
    }
    checkpoint.save(path, content)
    return networks[1].eval()


@torch.no_grad()
def by_hand(network: torch.nn.Module, images: list[Image.Image]) -> torch.Tensor:
    """Probabilities, N x classes, of images that have the network's size and channels."""
    pixels = numpy.stack([numpy.atleast_3d(numpy.array(image)) for image in images]) / 255
    channels = pixels.shape[-1]
    pixels = (pixels - MEAN[:channels]) / STD[:channels]
    exact = copy.deepcopy(network).double()  # float32's rounding of the same images would differ by as much again
    return exact(torch.from_numpy(pixels).permute(0, 3, 1, 2)).softmax(1)


def assert_same(rows: list[dict], probabilities: torch.Tensor) -> None:
    """Every class shown has its probability, and the likeliest come first."""
    assert len(rows) == len(probabilities)
    for row, expected in zip(rows, probabilities, strict=True):
        order = expected.argsort(descending=True).tolist()
        for place, suffix in enumerate(("", " 2", " 3", " 4", " 5")):
            assert row[f"class{suffix}"] == f"class, {order[place]}"
            assert float(row[f"probability{suffix}"]) == pytest.approx(float(expected[order[place]]), abs=5e-6)
    if len(rows) > 1:
        assert probabilities.std(0).max() > 0.003, "the images tell nothing"


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    path = tmp_path_factory.mktemp("colour") / "last.pth"
    return path, make_weights(path, "cheapV2", classes=20, channels=3, size=32, dataset="cifar100")


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    path = tmp_path_factory.mktemp("grey") / "last.pth"
    return path, make_weights(path, "EffNet", classes=7, channels=1, size=28, dataset="mnist")


def test_a_folder_of_images(photos, colour, tmp_path, capsys, monkeypatch):
    """In order, with those in its folders, without other files; no data set is needed, nothing is written."""
    monkeypatch.chdir(tmp_path)
    weights, network = colour
    shutil.copytree(photos, "mine/b")
    shutil.copy(photos / "3.png", "mine/a.png")
    shutil.copy(photos / "3.png", "mine/.hidden.png")
    Path("mine/notes.txt").write_text("no image")
    before = sorted(tmp_path.rglob("*"))
    rows = table(capsys, "mine", "-weights", weights)
    paths = ["mine/a.png", *(f"mine/b/{number}.png" for number in range(6))]
    assert [row["path"] for row in rows] == paths and {row["frame"] for row in rows} == {""}
    assert_same(rows, by_hand(network, [Image.open(path) for path in paths]))
    assert sorted(tmp_path.rglob("*")) == before


def test_one_image_gets_words(photos, colour, capsys):
    weights, network = colour
    status, out, _ = call(capsys, "-predict", photos / "0.png", "-weights", weights, "-gpu", "false")
    first, *lines = out.splitlines()
    values, indices = by_hand(network, [Image.open(photos / "0.png")])[0].topk(5)
    assert status == 0 and first == str(photos / "0.png")
    assert [line.split(maxsplit=1)[1] for line in lines] == [f"class, {index}" for index in indices.tolist()]
    assert [float(line.split("%")[0]) for line in lines] == pytest.approx((100 * values).tolist(), abs=0.006)


def test_several_images_get_a_table(photos, grey, capsys):
    """Of as many classes as there are, up to five, in the order given."""
    weights, network = grey
    rows = table(capsys, photos / "1.png", photos / "0.png", "-weights", weights)
    assert [row["path"] for row in rows] == [str(photos / "1.png"), str(photos / "0.png")]
    fitted = [ImageOps.fit(Image.open(row["path"]).convert("L"), (28, 28), Image.Resampling.BILINEAR) for row in rows]
    assert_same(rows, by_hand(network, fitted))


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA"])
def test_other_modes_for_a_colour_network(photos, colour, tmp_path, capsys, mode):
    weights, network = colour
    images = [Image.open(photos / f"{number}.png").convert(mode) for number in range(2)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    assert_same(table(capsys, tmp_path, "-weights", weights), by_hand(network, [i.convert("RGB") for i in images]))


def test_other_shapes_are_cut_to_their_centre(photos, colour, tmp_path, capsys):
    """Wide, tall, larger and smaller, as a reader of a folder of images has it."""
    weights, network = colour
    images = [
        Image.open(photos / "0.png").resize(size, Image.Resampling.BICUBIC)
        for size in ((80, 64), (40, 100), (500, 500), (9, 9))
    ]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    fitted = [ImageOps.fit(image, (32, 32), Image.Resampling.BILINEAR) for image in images]
    assert_same(table(capsys, tmp_path, "-weights", weights), by_hand(network, fitted))


@pytest.mark.parametrize(("dataset", "path_of_folder"), [("cifar100", False), ("pets", True)])
def test_the_size_of_the_run(photos, tmp_path, capsys, dataset, path_of_folder):
    """CIFAR's images are 32x32 and resized from there to the run's size; a folder's are read at the run's size."""
    (tmp_path / dataset).mkdir()
    given = str(tmp_path / dataset) if path_of_folder else dataset
    network = make_weights(tmp_path / "w.pth", "EffNet", classes=9, channels=3, size=48, dataset=given)
    (tmp_path / dataset).rmdir()
    (tmp_path / "in").mkdir()
    images = [Image.open(photos / f"{number}.png").resize((90, 90), Image.Resampling.NEAREST) for number in range(4)]
    for number, image in enumerate(images):
        image.save(tmp_path / "in" / f"{number}.png")
    if not path_of_folder:
        images = [image.resize((32, 32), Image.Resampling.BILINEAR) for image in images]
    fitted = [image.resize((48, 48), Image.Resampling.BILINEAR) for image in images]
    assert_same(table(capsys, tmp_path / "in", "-weights", tmp_path / "w.pth"), by_hand(network, fitted))


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.gif", {}), ("a.png", {}), ("a.webp", {"lossless": True}), ("a.tiff", {})],
    ids=lambda value: str(value),
)
def test_frames_of_an_animation(photos, grey, tmp_path, capsys, name, options):
    weights, network = grey
    frames = [Image.open(photos / f"{number}.png").convert("L").resize((28, 28)) for number in range(6)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    rows = table(capsys, tmp_path / name, "-weights", weights)
    assert [(row["path"], row["frame"]) for row in rows] == [(str(tmp_path / name), str(n)) for n in range(1, 7)]
    assert_same(rows, by_hand(network, frames))


def test_a_second_picture_in_a_jpeg_is_no_frame(photos, colour, tmp_path, capsys):
    """Phones put a preview behind the picture."""
    pictures = [Image.open(photos / f"{number}.png") for number in range(2)]
    pictures[0].save(tmp_path / "a.mpo", save_all=True, append_images=pictures[1:])
    shutil.copy(tmp_path / "a.mpo", tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").n_frames == 2
    assert [row["frame"] for row in table(capsys, tmp_path, "-weights", colour[0])] == [""]


@pytest.mark.usefixtures("without_pictures")
def test_digits_from_training_to_a_table(tmp_path, capsys):
    """The test images of a real run, as PNG files: the table's errors are those that the run counted."""
    status, _, error = call(
        capsys,
        *"-net EffNet -dataset digits -size 8 -epochs 3 -warm 0.5 -lr 0.01 -ema 0.5 -gpu false -name a".split(),
        *("-out", tmp_path),
    )
    assert status == 0, error
    folder = tmp_path / "checkpoints" / "EffNet" / "digits-a"
    classes, _, test = read_digits(DATASETS["digits"], None, 8)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(test.images):
        Image.fromarray(image[0].numpy()).save(tmp_path / "images" / f"{number:03}.png")
    rows = table(capsys, tmp_path / "images", "-weights", folder / "last.pth")
    wrong = sum(row["class"] != classes[target] for row, target in zip(rows, test.targets.tolist(), strict=True))
    result = json.loads((folder / "result.json").read_text())
    assert 0 < wrong < 180 and wrong / len(rows) == pytest.approx(result["test top-1 error"])


def test_outputs_that_overflow_are_no_class(photos, colour, tmp_path, capsys):
    content = checkpoint.load_run(colour[0])
    next(reversed(content["averaged"].values())).fill_(float("inf"))
    checkpoint.save(tmp_path / "w.pth", content)
    status, out, _ = call(capsys, "-predict", photos / "0.png", "-weights", tmp_path / "w.pth", "-gpu", "false")
    assert status == 0 and "no class: the network's outputs overflow" in out
    rows = table(capsys, photos, "-weights", tmp_path / "w.pth")
    assert {(row["class"], row["probability"]) for row in rows} == {("", "nan")}


def test_a_reader_that_stops_early(photos, grey):
    """As `| head` does: no complaint of the interpreter's."""
    words = [sys.executable, str(ROOT / "main.py"), "-predict", str(photos), "-weights", str(grey[0])]
    program = subprocess.Popen([*words, "-gpu", "false"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    program.stdout.close()
    assert program.stderr.read() == b"" and program.wait() == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("gone.png", "-predict gone.png: no such file or folder"),
        ("good.png gone.png", "-predict gone.png: no such file or folder"),
        ("empty", "-predict empty: holds no images"),
        ("text.png", "text.png is not a readable image (unknown format)"),
        ("broken", "broken/b.png is not a readable image"),
        ("drive.mp4", "ffmpeg -i drive.mp4 frames/%06d.png, then -predict frames"),
    ],
)
def test_mistakes_in_images(photos, colour, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
    for name in ("good.png", "broken/a.png"):
        shutil.copy(photos / "0.png", name)
    Path("text.png").write_text("no image")
    Path("drive.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    Path("broken/b.png").write_bytes((photos / "1.png").read_bytes()[:-600])
    before = sorted(tmp_path.rglob("*"))
    status, out, error = call(capsys, "-predict", *words.split(), "-weights", colour[0], "-gpu", "false")
    assert status == 2 and out == "" and message in error and len(error.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["weights only", "another classifier"])
def test_mistakes_in_weights(photos, colour, tmp_path, capsys, content):
    path = tmp_path / "w.pth"
    if content == "weights only":
        torch.save(colour[1].state_dict(), path)
    else:
        changed = checkpoint.load_run(colour[0])
        changed["classes"] = changed["classes"][:-1]
        checkpoint.save(path, changed)
    status, out, error = call(capsys, "-predict", photos, "-weights", path, "-gpu", "false")
    message = "holds weights only" if content == "weights only" else "weights of another network"
    assert status == 2 and out == "" and message in error and len(error.splitlines()) == 1

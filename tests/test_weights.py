"""Every file that the table of weights/ lists: its SHA-256, and what it gets wrong of 500 real test images.

The same is tried on a network that is trained here, and that such a file can be had, used and refused everywhere.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import main
import models
from commands import publish
from commands.predict import ClassTable, normalised, read_images
from engine.saved import checkpoint
from engine.saved.trained import load_trained
from tests.helpers.drive import write_drive
from tests.helpers.runs import checkpoints, start

ROOT = Path(main.__file__).parent
NEAR_TIES = 1  # images on which another machine's rounding may decide otherwise


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of the folder's table, by the words of its head."""
    lines = [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("| ")]
    head, _, *cells = ([cell.strip("` ") for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, each, strict=True)) for each in cells]


def images_500(dataset: str = "cifar100") -> tuple[torch.Tensor, torch.Tensor]:
    """The picture of 500 images read apart: a row a class, of five or fifty tiles."""
    side, columns, mode = {"cifar100": (32, 5, "RGB"), "cifar10": (32, 50, "RGB"), "mnist": (28, 50, "L")}[dataset]
    picture = np.asarray(Image.open(ROOT / "tests" / "data" / f"{dataset}-500.webp").convert(mode))
    tiles = [picture[side * (n // columns) :][:side, side * (n % columns) :][:, :side] for n in range(500)]
    images = torch.from_numpy(np.stack(tiles)).reshape(500, side, side, -1)
    return images.permute(0, 3, 1, 2), torch.arange(500) // columns


def check(folder: Path, row: dict[str, str]) -> None:
    """Raises AssertionError where a file is not what its line of the table says."""
    path = folder / row["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row["SHA-256"]
    assert path.stat().st_size == int(row["bytes"].replace(",", ""))
    if row["wrong of 500"] == "-":
        return
    network = models.load(path)
    images, targets = images_500(row["data set"])
    with torch.inference_mode():
        wrong = (network(network.preprocess(images)).argmax(1) != targets).sum().item()
    assert abs(wrong - int(row["wrong of 500"])) <= NEAR_TIES


@pytest.mark.parametrize("row", rows(ROOT / "weights"), ids=lambda row: row["file"])
def test_a_file_is_what_its_line_says(row):
    check(ROOT / "weights", row)


def test_the_table_lists_every_file_and_no_other():
    assert sorted(row["file"] for row in rows(ROOT / "weights")) == sorted(
        path.name for path in (ROOT / "weights").glob("*.safetensors")
    )


@pytest.mark.parametrize("dataset", ["cifar100", "cifar10", "mnist"])
def test_the_500_images_are_as_the_command_reads_them(dataset):
    images, targets = publish.images_of(dataset)
    assert all(torch.equal(*pair) for pair in zip((images, targets), images_500(dataset), strict=True))
    assert len(images.flatten(1).unique(dim=0)) == 500
    assert publish.images_of("digits") is None and publish.images_of("../data/cifar100") is None


@pytest.fixture(scope="module")
def published(finished, without_pictures, tmp_path_factory) -> Path:
    """A folder with data (the 500 images, to train on and to test), a run on it, and weights/ with its file."""
    place = tmp_path_factory.mktemp("published")
    for number, image in enumerate(images_500()[0]):
        for split in ("train", "test"):
            folder = place / "cifar100" / split / f"class {number // 5:02}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    words = "-net EffNet -epochs 3 -b 50 -recipe digits -lr 0.003 -ema 0 -name a -gpu false"
    start(f"{words} -data {place}", place)
    assert main.main(["-export", "weights", "-weights", str(last(place)), "-half", "-out", str(place)]) == 0
    return place


def last(place: Path, name: str = "last.pth") -> Path:
    return next(place.glob("checkpoints/*/*/last.pth")).with_name(name)


def test_a_trained_network_s_file_is_what_its_line_says(published, tmp_path):
    folder = published / "weights"
    (row,) = rows(folder)
    check(folder, row)
    result = json.loads(last(published, "result.json").read_text())
    assert row["file"] == "EffNet-cifar100.safetensors" and row["network"] == "EffNet" and row["epochs"] == "3"
    # the run's test images are the 500, so that the whole test set's error is known; 16 bits may decide otherwise
    assert int(row["wrong of 500"]) == pytest.approx(500 * result["test top-1 error"], abs=3)
    assert row["top-1 error, %"] == f"{100 * result['test top-1 error']:.2f}" != "99.00"
    for change in ({"wrong of 500": str(int(row["wrong of 500"]) - 2)}, {"SHA-256": "0" * 64}):
        with pytest.raises(AssertionError):
            check(folder, row | change)


def test_half_of_the_bytes_and_nothing_of_the_machine(published):
    path = published / "weights" / "EffNet-cifar100.safetensors"
    assert path.stat().st_size < 0.6 * last(published, "last.safetensors").stat().st_size
    assert str(published).encode() not in path.read_bytes()
    assert str(published).encode() in last(published, "last.safetensors").read_bytes()  # -test finds the data by it
    with safe_open(path, "pt") as file:
        kinds = {(file.get_tensor(key).dtype, min(file.get_tensor(key).ndim, 2)) for key in file.keys()}
    assert kinds == {(torch.float16, 2), (torch.float32, 1), (torch.int64, 0)}


def test_numbers_that_float16_cannot_hold_stay(tmp_path):
    state = {"a": torch.tensor([[1e5, 1.0]]), "b": torch.tensor([[3.0, 1.0]]), "c": torch.tensor([1e5])}
    halved = models.weight_file.halved(state)
    assert [halved[key].dtype for key in "abc"] == [torch.float32, torch.float16, torch.float32]


def test_every_command_takes_the_file(finished, tmp_path, capsys):
    """The file of the run that has averaged weights: its figures are the checkpoint's, to the last digit printed."""
    for name in ("last.pth", "last.safetensors"):
        shutil.copy(checkpoints(finished) / name, tmp_path)
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")

    def printed(*words: object) -> str:
        capsys.readouterr()
        assert main.main([*map(str, words), "-gpu", "false"]) == 0
        return capsys.readouterr().out

    for words in (["-test"], ["-predict", tmp_path / "grey.png"]):
        files = [printed(*words, "-weights", tmp_path / name) for name in ("last.pth", "last.safetensors")]
        assert files[0] == files[1]
    printed("-export", "onnx", "-weights", tmp_path / "last.safetensors")
    session = onnxruntime.InferenceSession(tmp_path / "last.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(5, 1, 8, 8)
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    for folded in (True, False):
        network = models.load(tmp_path / "last.safetensors", folded)
        assert not network.training
        with torch.inference_mode():
            torch.testing.assert_close(network(images), found, rtol=1e-4, atol=1e-4)
    out = printed(*"-net EffNet -dataset digits -size 8 -epochs 1 -steps 1 -b 64 -lr 1e-20 -name b".split(),
                  *f"-weights {tmp_path}/last.safetensors -out {tmp_path}".split())  # fmt: skip
    assert "test top-1 error" in out


def test_the_file_holds_the_result_and_can_be_published_without_the_run(published, tmp_path):
    shutil.copy(last(published, "last.safetensors"), tmp_path / "a.safetensors")
    words = ["-export", "weights", "-weights", str(tmp_path / "a.safetensors"), "-out", str(tmp_path), "-half"]
    assert main.main(words) == 0 and main.main(words) == 0  # the same again is the same file
    made = "weights/EffNet-cifar100.safetensors"
    assert (tmp_path / made).read_bytes() == (published / made).read_bytes()
    assert main.main([*words[:-1], "-name", "whole"]) == 0
    assert [row["file"] for row in rows(tmp_path / "weights")] == ["EffNet-cifar100.safetensors", "whole.safetensors"]


def test_what_is_refused(published, tmp_path, capsys):
    def error(weights: Path, *words: str) -> str:
        capsys.readouterr()
        assert main.main(["-export", "weights", "-weights", str(weights), "-out", str(published), *words]) == 2
        return capsys.readouterr().err

    assert "is there already, and another file" in error(last(published))  # not halved
    assert "plain word" in error(last(published), "-name", "../a")
    content = checkpoint.load_run(last(published))
    shutil.copy(last(published, "result.json"), tmp_path)
    checkpoint.save(tmp_path / "EffNet-2-best.pth", content | {"epoch": 2})
    assert "is not of the epoch" in error(tmp_path / "EffNet-2-best.pth")
    data = bytearray((published / "weights" / "EffNet-cifar100.safetensors").read_bytes())
    for place in (len(data) // 2, data.index(b"class 07")):  # of the weights, of what is said of them
        data[place] ^= 1
        (tmp_path / "b.safetensors").write_bytes(data)
        with pytest.raises(ValueError, match="its checksum does not match"):
            models.load(tmp_path / "b.safetensors")
        data[place] ^= 1
    save_file({"head.classifier.bias": torch.zeros(2)}, tmp_path / "theirs.safetensors")
    with pytest.raises(ValueError, match="says nothing of its network"):
        models.load(tmp_path / "theirs.safetensors")
    state, about = models.weight_file.read(published / "weights" / "EffNet-cifar100.safetensors")
    (tmp_path / "old.safetensors").write_bytes(models.weight_file.to_bytes(state, about | {"revision": 7}))
    with pytest.raises(ValueError, match="old.safetensors: weights of revision 7 of EffNet"):
        models.load(tmp_path / "old.safetensors")


def test_weights_of_others_in_this_format(finished, tmp_path, capsys):
    """A bare state dict, as another project saves it; the command line says what it is of."""
    state = checkpoint.load_run(checkpoints(finished) / "last.pth")["averaged"]
    save_file({f"module.{key}": value.contiguous() for key, value in state.items()}, tmp_path / "theirs.safetensors")
    words = "-gpu false -net EffNet -dataset digits -size 8"
    assert main.main(["-test", "-weights", str(tmp_path / "theirs.safetensors"), *words.split()]) == 0
    bare = capsys.readouterr().out
    assert main.main(["-test", "-weights", str(checkpoints(finished) / "last.pth"), "-gpu", "false"]) == 0
    assert capsys.readouterr().out == bare


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (50, 70), (80, 64)])
def test_images_of_pillow_are_seen_as_predict_sees_them(published, tmp_path, size, cut):
    """With transparent pixels and a turn by EXIF; of a run on random cuts, the middle."""
    content = checkpoint.load_run(last(published))
    content["settings"]["random_resized_crop"] = 0.3 if cut else 0.0
    checkpoint.save(tmp_path / "a.pth", content)
    shutil.copy(last(published, "result.json"), tmp_path / "result.json")
    assert main.main(["-export", "weights", "-weights", str(tmp_path / "a.pth"), "-out", str(tmp_path)]) == 0
    network = models.load(next((tmp_path / "weights").glob("*.safetensors")))
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (*size, 4), np.uint8)).resize(size, Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    view = load_trained(tmp_path / "a.pth", {"gpu": False}).view
    assert view.middle == cut
    ((_, pixels),) = read_images([str(tmp_path / "a.png")], ClassTable(view), view, False)
    with Image.open(tmp_path / "a.png") as opened:
        found = network.preprocess(opened)
    torch.testing.assert_close(found, normalised(pixels, view, torch.device("cpu")), rtol=0, atol=1e-6)


def test_tensors_are_normalised_and_resized(finished):
    network = models.load(checkpoints(finished) / "last.safetensors")
    content = checkpoint.load_run(checkpoints(finished) / "last.pth")
    pixels = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    expected = (pixels / 255 - content["mean"][0]) / content["std"][0]
    torch.testing.assert_close(network.preprocess(pixels), expected)
    assert network.classes == tuple("0123456789")
    wide = torch.cat([pixels.new_zeros(3, 1, 8, 4), pixels, pixels.new_zeros(3, 1, 8, 5)], 3)  # the middle counts
    torch.testing.assert_close(network.preprocess(wide), expected)
    doubled = pixels.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (network.preprocess(doubled) - expected).abs().mean() < 0.5 * expected.std()
    for wrong in (pixels.float(), pixels[0], pixels.repeat(1, 3, 1, 1), "photo.png", Image.new("I;16", (8, 8))):
        with pytest.raises(ValueError, match="image"):
            network.preprocess(wrong)


def test_a_network_of_angles(tmp_path, finished, without_pictures):
    """Its outputs are the trained network's; a frame is cut in another way than images are."""
    write_drive(tmp_path / "driving")
    words = "-net EffNet_steering -dataset driving -size 16 -epochs 1 -steps 2 -b 32 -warm 0 -name a -gpu false"
    start(f"{words} -data {tmp_path}", tmp_path)
    network = models.load(last(tmp_path, "last.safetensors"))
    assert network.classes == ("angle",)
    trained = load_trained(last(tmp_path), {"gpu": False})
    pixels = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        expected = trained.network(normalised(pixels, trained.view, torch.device("cpu")))
        torch.testing.assert_close(network(network.preprocess(pixels)), expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="frames of a drive"):
        network.preprocess(Image.new("RGB", (320, 160)))


HUB = """
import torch
import models

def refused(**words):
    try:
        torch.hub.load(".", source="local", **words)
    except ValueError as error:
        return str(error)

assert "EffNet-nowhere.safetensors; there are EffNet-cifar100" in refused(model="EffNet", pretrained="nowhere")
path = "weights/EffNet-cifar100.safetensors"
assert "give one of them" in refused(model="EffNet", pretrained="cifar100", weights=path)
network = torch.hub.load(".", "EffNet", source="local", pretrained="cifar100").state_dict()
again = torch.hub.load(".", "EffNet", source="local", weights=path).state_dict()
wanted = models.weight_file.read(models.pretrained.Path(path))[0]
assert set(network) == set(wanted)
assert all(torch.equal(value, wanted[key].to(value.dtype)) for key, value in network.items())
assert all(torch.equal(value, again[key]) for key, value in network.items())
"""


def test_hub_finds_the_files_of_the_repository(published, tmp_path):
    """In a copy of this repository with the trained network's file in its weights/."""
    for name in ("models", "conf", "engine"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("hubconf.py", "utils.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(published / "weights", tmp_path / "weights")
    done = subprocess.run([sys.executable, "-c", HUB], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

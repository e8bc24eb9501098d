"""What a network sees is its checkpoint's: -test and -export beside changed training images, as -predict shows it."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from torchvision import transforms

import main
from commands import evaluate, predict
from engine.saved import checkpoint
from engine.saved.trained import load_trained

pytestmark = pytest.mark.usefixtures("without_pictures")
HOW = ["no training images", "another mean", "another side", "larger test images", "more classes"]
CLASSES = ("one", "two", "zero")  # in the order of folders
SIDE = 16


def call(*words: object) -> int:
    return main.main([str(word) for word in words])


def save(path: Path, pixels: np.ndarray, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((side, side)).save(path)


@pytest.fixture(scope="module")
def trained(without_pictures, tmp_path_factory) -> tuple[Path, Path]:
    """(a folder of real digits in three classes, the weights of a short run on it)."""
    place = tmp_path_factory.mktemp("trained")
    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images[:300], digits.target[:300], strict=True)):
        if target < 3:
            split = "test" if number % 3 == 0 else "train"
            pixels = (image * 255 / 16).round().astype(np.uint8)
            save(place / "digits" / split / ("zero", "one", "two")[target] / f"{number}.png", pixels)
    words = "-net EffNet -recipe digits -epochs 3 -b 16 -lr 0.01 -ema 0 -name a -gpu false"
    assert call(*words.split(), "-dataset", place / "digits", "-data", place / "data", "-out", place) == 0
    return place / "digits", place / "checkpoints" / "EffNet" / "digits-a" / "last.pth"


def predicted(weights: Path, files: list[Path], capsys) -> list[str]:
    """The class that -predict gives each file."""
    capsys.readouterr()
    assert call("-predict", *files, "-weights", weights, "-gpu", "false") == 0
    return [row["class"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]


@pytest.mark.parametrize("memory", [2, 0])
def test_a_run_on_a_folder_without_a_split_keeps_its_own(tmp_path, capsys, memory):
    """-test, -export and -resume see the test images that the run drew with its -val and -seed."""
    digits = load_digits()
    for number, (image, target) in enumerate(zip(digits.images[:200], digits.target[:200], strict=True)):
        if target < 2:
            save(tmp_path / "digits" / str(target) / f"{number}.png", (image * 255 / 16).round().astype(np.uint8))
    words = "-net EffNet -recipe digits -epochs 2 -b 16 -lr 0.01 -ema 0 -name a -gpu false -w 0 -val 0.25 -seed 5"
    where = ("-dataset", tmp_path / "digits", "-data", tmp_path / "data", "-out", tmp_path, "-memory", memory)
    assert call(*words.split(), *where) == 0
    out = capsys.readouterr().out
    assert "0.25 of each class, drawn with seed 5, is the test set" in out and "30 training, 10 test images" in out
    assert "chosen on the test set (a folder with train/, val/ and test/ chooses fairly)" in out
    assert "val loss" not in out
    folder = tmp_path / "checkpoints" / "EffNet" / "digits-a"
    figures = json.loads((folder / "result.json").read_text())
    found = evaluate.evaluate(folder / "last.pth", {"gpu": False})
    assert found["loss"] == pytest.approx(figures["test loss"], rel=1e-5)
    assert call("-resume", folder) == 0
    assert call("-export", "onnx", "-weights", folder / "last.pth", "-gpu", "false") == 0
    assert "ONNX Runtime on 10 test images" in capsys.readouterr().out


def changed(digits: Path, place: Path, how: str) -> Path:
    """A copy of the folder whose test images are the same, and whose training images are not."""
    folder = shutil.copytree(digits, place / "changed")
    if how == "no training images":
        shutil.rmtree(folder / "train")
    elif how == "another mean":
        for path in folder.glob("train/*/*.png"):
            save(path, 255 - np.asarray(Image.open(path)) // 8)
    elif how == "another side":
        save(folder / "train" / "one" / "large.png", np.zeros((40, 40), np.uint8), 40)
    elif how == "larger test images":
        for path in folder.glob("test/*/*.png"):
            save(path, np.asarray(Image.open(path)), 23)
    elif how == "more classes":
        save(folder / "train" / "a first class" / "1.png", np.zeros((16, 16), np.uint8))
    return folder


@pytest.mark.parametrize("memory", ["in memory", "streamed"])
@pytest.mark.parametrize("how", HOW)
def test_the_test_set_is_seen_as_predict_sees_it(trained, tmp_path, capsys, how, memory):
    """The outputs are those for the same pixels; the error is the share of images that -predict gets wrong."""
    digits, weights = trained
    if memory == "streamed":
        content = checkpoint.load(weights)
        content["settings"] |= {"memory": 0.0, "workers": 0}
        weights = tmp_path / "streams.pth"
        checkpoint.save(weights, content)
    folder = changed(digits, tmp_path, how)
    files = sorted((folder / "test").glob("*/*.png"))
    answers = predicted(weights, files, capsys)
    overrides = {"gpu": False, "dataset": str(folder), "data": str(tmp_path)}
    wrong = sum(answer != path.parent.name for answer, path in zip(answers, files, strict=True))
    assert evaluate.evaluate(weights, overrides)["accuracy"] == pytest.approx(1 - wrong / len(files), abs=1e-9)
    content = checkpoint.load(weights)
    fitted = [ImageOps.fit(Image.open(path).convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR) for path in files]
    pixels = np.stack([np.asarray(image) for image in fitted])
    mean, std = (torch.tensor(content[key])[:, None, None] for key in ("mean", "std"))
    expected = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    batches = load_trained(weights, overrides).test_batches()
    images = torch.cat([images for images, _ in batches])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert [CLASSES[n] for _, targets in batches for n in targets] == [path.parent.name for path in files]


def test_files_are_brought_to_the_published_size_first(trained, tmp_path):
    """As the training images of a named data set are, where the run has a size of its own: 28 pixels, then 16."""
    digits, weights = trained
    content = checkpoint.load(weights)
    content["settings"] |= {"dataset": "mnist", "size": SIDE}
    checkpoint.save(tmp_path / "sized.pth", content)
    overrides = {"gpu": False, "dataset": str(changed(digits, tmp_path, "larger test images")), "data": str(tmp_path)}
    network = load_trained(tmp_path / "sized.pth", overrides)
    files = sorted(str(path) for path in (tmp_path / "changed" / "test").glob("*/*.png"))
    ((_, pixels),) = predict.read_images(files, predict.ClassTable(network.view), network.view, False)
    expected = predict.normalised(pixels, network.view, torch.device("cpu"))
    assert torch.equal(torch.cat([images for images, _ in network.test_batches()]), expected)
    fitted = [Image.open(path).convert("RGB").resize((28, 28), Image.Resampling.BILINEAR) for path in files]
    sized = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in fitted])
    resized = transforms.functional.resize(sized, [SIDE, SIDE], antialias=True)
    torch.testing.assert_close(pixels, resized, rtol=0, atol=1)  # torchvision rounds in its own way


def test_a_class_that_the_network_does_not_know_is_refused(trained, tmp_path, capsys):
    digits, weights = trained
    folder = shutil.copytree(digits, tmp_path / "more")
    save(folder / "test" / "fish" / "1.png", np.zeros((16, 16), np.uint8))
    assert call("-test", "-weights", weights, "-dataset", folder, "-data", tmp_path) == 2
    error = capsys.readouterr().err
    assert "other classes than the network: 'fish'" in error and len(error.splitlines()) == 1


def test_a_run_on_random_cuts_predicts_the_middle_as_it_is_tested(trained, tmp_path, capsys):
    """The tested middle leaves an edge out: what stands there alone changes neither -test nor -predict."""
    digits, weights = trained
    content = checkpoint.load(weights)
    content["settings"] |= {"random_resized_crop": 0.5, "workers": 0}
    checkpoint.save(tmp_path / "cuts.pth", content)
    files = sorted((digits / "test").glob("*/*.png"))
    answers = predicted(tmp_path / "cuts.pth", files, capsys)
    found = evaluate.evaluate(tmp_path / "cuts.pth", {"gpu": False, "data": str(tmp_path)})
    right = sum(answer == path.parent.name for answer, path in zip(answers, files, strict=True))
    assert found["accuracy"] == pytest.approx(right / len(files), abs=1e-9)
    framed = [tmp_path / "plain.png", tmp_path / "framed.png"]
    pixels = np.asarray(Image.open(files[0]).convert("L").resize((112, 112)))
    save(framed[0], pixels, 112)
    edge = pixels.copy()
    edge[:2], edge[-2:], edge[:, :2], edge[:, -2:] = 255, 255, 255, 255
    save(framed[1], edge, 112)
    assert call("-predict", *framed, "-weights", tmp_path / "cuts.pth", "-gpu", "false") == 0
    rows = [row.split(",")[2:] for row in capsys.readouterr().out.splitlines()[-2:]]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("folder", ["gone", "changed"])
def test_the_exported_file_has_the_checkpoints_input(trained, tmp_path, capsys, monkeypatch, folder):
    """Without the test set the check runs on random images, and its line says so."""
    digits, weights = trained
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, tmp_path / "a.pth")
    content = checkpoint.load(tmp_path / "a.pth")
    place = changed(digits, tmp_path, "another side") if folder == "changed" else tmp_path / "gone"
    content["settings"]["dataset"] = str(place)
    checkpoint.save(tmp_path / "a.pth", content)
    assert call("-export", "onnx", "-weights", tmp_path / "a.pth", "-gpu", "false") == 0
    printed = capsys.readouterr().out
    count = len(list((digits / "test").glob("*/*.png")))
    expected = "ONNX Runtime on 256 random images" if folder == "gone" else f"ONNX Runtime on {count} test images"
    assert expected in printed and ("gone" in printed) == (folder == "gone")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, SIDE, SIDE]


def test_a_data_set_that_is_named_has_to_be_there(trained, tmp_path, capsys):
    assert call("-export", "onnx", "-weights", trained[1], "-dataset", tmp_path / "gone") == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_test_reads_nothing_of_the_training_images(trained, tmp_path, capsys):
    """Neither files that cannot be read nor damage in the packed training images are a matter to it."""
    digits, weights = trained
    shutil.copytree(digits.parent / "data", tmp_path / "data")
    (packed,) = (tmp_path / "data" / "packed").iterdir()
    content = bytearray(packed.read_bytes())
    content[len(content) // 3] ^= 255  # two thirds of the images are for training
    packed.write_bytes(content)
    evaluate.evaluate(weights, {"gpu": False, "data": str(tmp_path / "data")})
    assert capsys.readouterr().err == ""
    folder = shutil.copytree(digits, tmp_path / "broken")
    for path in folder.glob("train/*/*.png"):
        path.write_bytes(b"no image")
    evaluate.evaluate(weights, {"gpu": False, "dataset": str(folder), "data": str(tmp_path)})
    assert not (tmp_path / "packed").exists()

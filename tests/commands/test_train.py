"""-resume: the same data or a line that says what changed, from anywhere, and from exactly the file that is named."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from engine.saved import checkpoint
from tests.helpers.made_data import pixels, save_image

pytestmark = pytest.mark.usefixtures("without_pictures")
WORDS = "-net EffNet -recipe digits -epochs 11 -b 8 -warm 0 -val 0.25 -size 0 -name a -w 0 -gpu false"


def call(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture(scope="module", params=["in memory", "streamed"])
def begun(request, without_pictures, tmp_path_factory) -> Path:
    """A working folder in which a run of eleven epochs on the folder "photos" was started by relative paths."""
    place = tmp_path_factory.mktemp("begun")
    for number, name in enumerate(("cat", "dog")):
        for index, values in enumerate(pixels(8, side=16, seed=number)):
            save_image(place / "photos" / "train" / name / f"{index}.png", values)
        for index, values in enumerate(pixels(2, side=16, seed=9 + number)):
            save_image(place / "photos" / "test" / name / f"{index}.png", values)
    memory = ("-memory", 0) if request.param == "streamed" else ()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert call(*WORDS.split(), *memory, "-dataset", "photos", "-data", "packs") == 0
    return place


@pytest.fixture
def place(begun, tmp_path, monkeypatch) -> Path:
    """A copy of it with the times of all files, as the working folder."""
    shutil.copytree(begun, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    content = checkpoint.load(RUN / "last.pth")
    checkpoint.save(RUN / "last.pth", content | {"working_folder": str(tmp_path / "place")})
    return tmp_path / "place"


RUN = Path("checkpoints/EffNet/photos-a")
TRAIN = Path("photos/train")


def add_images() -> None:
    for number in range(3):
        save_image(TRAIN / "cat" / f"new{number}.png", pixels(1, side=16, seed=50 + number)[0])


def add_a_larger_image() -> None:
    save_image(TRAIN / "cat" / "new.png", pixels(1, side=24)[0])


def swap_classes() -> None:
    """The same pixels under the other class: counts, pixels and statistics stay."""
    for number in (0, 1):
        cat, dog = TRAIN / "cat" / f"{number}.png", TRAIN / "dog" / f"{number}.png"
        content, times = (cat.read_bytes(), dog.read_bytes()), (dog.stat().st_mtime_ns + 10**9,) * 2
        cat.write_bytes(content[1])
        dog.write_bytes(content[0])
        os.utime(cat, ns=times)


def change_a_test_image() -> None:
    path = Path("photos/test/dog/1.png")
    image = np.array(Image.open(path))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(path)
    os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)


def rename_a_class() -> None:
    for split in ("train", "test"):
        (Path("photos") / split / "dog").rename(Path("photos") / split / "eel")


CHANGES = [
    (add_images, "number of training images (16 then, 19 now)"),
    (add_a_larger_image, "image side (16 then, 64 now), number of training images (16 then, 17 now)"),
    (swap_classes, "of the training images"),
    (change_a_test_image, "of the test images"),
    (rename_a_class, "these differ: classes;"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_changed_data_is_refused_and_named(place, capsys, change, words):
    change()
    before = {path: path.read_bytes() for path in RUN.iterdir()}
    assert call("-resume", RUN, "-gpu", "false") == 2
    error = capsys.readouterr().err
    assert "photos is not the data set that it was" in error and words in error and len(error.splitlines()) == 1
    assert {path: path.read_bytes() for path in RUN.iterdir()} == before


@pytest.mark.parametrize(("key", "value"), [("mean", [0.1, 0.2, 0.3]), ("split", "another"), ("steps_per_epoch", 9)])
def test_another_split_and_other_statistics_are_named(place, capsys, key, value):
    """What another version of a library may bring about, with the same files."""
    content = checkpoint.load(RUN / "last.pth")
    if key == "split":
        content["fingerprint"]["split into training and validation images"] = value
    else:
        content[key] = value
    checkpoint.save(RUN / "last.pth", content)
    assert call("-resume", RUN, "-gpu", "false") == 2
    assert {"mean": "mean;", "split": "split into", "steps_per_epoch": "steps an epoch (9 then,"}[key] in (
        capsys.readouterr().err
    )


def test_a_checkpoint_without_a_fingerprint_goes_on_and_that_is_said(place, capsys):
    content = checkpoint.load(RUN / "last.pth")
    del content["fingerprint"], content["working_folder"], content["target_mean"]
    checkpoint.save(RUN / "last.pth", content)
    assert call("-resume", RUN, "-gpu", "false") == 0
    assert "holds no fingerprint of its data" in capsys.readouterr().err
    add_images()
    checkpoint.save(RUN / "last.pth", content)
    assert call("-resume", RUN, "-gpu", "false") == 2
    assert "these differ: mean, std" in capsys.readouterr().err


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_from_another_working_folder(place, tmp_path, monkeypatch):
    """Data, packs and curves are found where the run was begun, and nothing is written here."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = files(place)
    assert call("-resume", place / RUN, "-gpu", "false") == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {name.rpartition("/")[0] for name in files(place) - before} <= {"runs/EffNet/photos-a", "packs/packed"}


def test_a_whole_project_that_was_moved(place, tmp_path, monkeypatch):
    place.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert call("-resume", "moved/checkpoints/EffNet/photos-a", "-gpu", "false") == 0


def test_data_that_has_gone_is_named_and_may_be_named_anew(place, tmp_path, monkeypatch, capsys):
    shutil.move("photos", tmp_path / "archive")
    assert call("-resume", RUN, "-gpu", "false") == 2
    error = capsys.readouterr().err
    assert f"no such folder as {place / 'photos'}" in error and "-dataset PATH" in error
    assert len(error.splitlines()) == 1
    assert call("-resume", RUN, "-dataset", tmp_path / "archive", "-gpu", "false") == 0
    assert checkpoint.load(RUN / "last.pth")["settings"]["dataset"] in ("photos", str(tmp_path / "archive"))


@pytest.mark.parametrize("where", ["a/b", "a/checkpoints", "a/EffNet/photos-a"])
def test_curves_stay_inside_a_folder_that_lies_elsewhere(place, tmp_path, where):
    """A mounted or copied folder: nothing is written above it."""
    copy = tmp_path / "root" / where
    shutil.copytree(RUN, copy)
    assert call("-resume", copy, "-gpu", "false") == 0
    outside = {path for path in (tmp_path / "root").rglob("*") if path.is_file() and copy not in path.parents}
    assert outside == set() and (copy / "runs").is_dir()


def test_through_a_link(place):
    Path("link").symlink_to(RUN)
    before = set(Path("runs/EffNet/photos-a").iterdir())
    assert call("-resume", "link", "-gpu", "false") == 0
    assert set(Path("runs/EffNet/photos-a").iterdir()) > before and not (RUN / "runs").exists()


def test_a_folder_right_below_the_root_has_no_runs_folder_above():
    """/a/b has two parents only; a path of three that looks like a run's is one."""
    from engine.saved.folders import Folders

    assert Folders.beside(Path("/a/b"), "EffNet").runs == Path("/a/b/runs")
    assert Folders.beside(Path("/b"), "EffNet").runs == Path("/b/runs")
    assert Folders.beside(Path("/checkpoints/EffNet/b"), "EffNet").runs == Path("/runs/EffNet/b")
    assert Folders.beside(Path("/x/checkpoints/other/b"), "EffNet").runs == Path("/x/checkpoints/other/b/runs")


def test_a_renamed_run_keeps_its_layout(place):
    RUN.rename(RUN.with_name("mine"))
    assert call("-resume", RUN.with_name("mine"), "-gpu", "false", "-kernels", "false") == 0
    assert Path("runs/EffNet/mine").is_dir() and not (RUN.with_name("mine") / "runs").exists()


def test_from_exactly_the_file_that_is_named(place, tmp_path):
    """Back to the tenth of eleven epochs: it ends in the same weights, and what came later is kept."""
    whole = checkpoint.load(RUN / "last.pth")
    (tmp_path / "alone").mkdir()
    shutil.copy(RUN / "EffNet-10-regular.pth", tmp_path / "alone" / "any name.pth")
    for file in (RUN / "EffNet-10-regular.pth", tmp_path / "alone" / "any name.pth"):
        assert call("-resume", file, "-gpu", "false") == 0
        again = checkpoint.load(file.with_name("last.pth"))
        assert again["epoch"] == 11
        assert all(torch.equal(whole["network"][key], again["network"][key]) for key in whole["network"])
    rows = list(csv.DictReader(Path("runs/EffNet/photos-a/metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 12))
    assert checkpoint.load(RUN / "later" / "last.pth")["seconds"] == whole["seconds"]
    assert (RUN / "later" / "result.json").exists() and (RUN / "result.json").exists()
    assert (tmp_path / "alone" / "runs" / "metrics.csv").exists()


def test_a_damaged_file_that_is_named_is_not_replaced_by_another(place, capsys):
    data = (RUN / "EffNet-10-regular.pth").read_bytes()
    (RUN / "EffNet-10-regular.pth").write_bytes(data[:-200] + b"0" + data[-199:])
    assert call("-resume", RUN / "EffNet-10-regular.pth", "-gpu", "false") == 2
    assert "EffNet-10-regular.pth: damaged" in capsys.readouterr().err

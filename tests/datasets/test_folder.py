"""The reader of a folder of images with a folder for each class."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from conf.datasets import find_row
from datasets.fingerprint import differences, fingerprint
from tests.helpers.made_data import load_folder, pixels, same, save_image


def test_folder_takes_the_size_that_its_images_share(image_folder):
    found = load_folder(image_folder)
    assert found.classes == ("cat", "dog")
    assert torch.equal(found.train.images[2:], torch.from_numpy(pixels(2, side=20, seed=1)))
    assert found.train.targets.tolist() == [0, 0, 1, 1] and found.test.targets.tolist() == [0, 1]


def test_folder_with_other_sizes_is_cut_to_the_centre(image_folder):
    wide = np.zeros((3, 40, 120), dtype=np.uint8)
    wide[0, :, :40], wide[1, :, 40:80], wide[2, :, 80:] = 255, 255, 255
    save_image(image_folder / "val" / "cat" / "wide.png", wide)
    save_image(image_folder / "val" / "dog" / "square.png", pixels(1, side=20)[0])
    shutil.rmtree(image_folder / "test")
    found = load_folder(image_folder)
    assert found.train.images.shape == (4, 3, 64, 64)
    centre = found.test.images[0, :, :, 2:-2]  # the middle third is green; its borders are blended
    assert (centre[1] == 255).all() and (centre[[0, 2]] == 0).all()
    assert load_folder(image_folder, size=10).test.images.shape == (2, 3, 10, 10)


def test_folder_passes_over_hidden_files_and_knows_extensions_in_capitals(image_folder):
    before = load_folder(image_folder)
    (image_folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (image_folder / "train" / "cat" / "notes.txt").write_bytes(b"x")
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    hidden = image_folder / "train" / "dog" / ".thumbnails" / "0.png"
    save_image(hidden, pixels(1, side=20)[0])
    (image_folder / "train" / "cat" / "0.png").rename(image_folder / "train" / "cat" / "0.PNG")
    assert same(before, load_folder(image_folder))
    grey = Image.fromarray(pixels(1, side=20, channels=1)[0, 0])
    (image_folder / "train" / "cat" / "more").mkdir()
    grey.save(image_folder / "train" / "cat" / "more" / "grey.png")
    found = load_folder(image_folder)
    assert found.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(found.train.images[2], torch.from_numpy(np.array(grey)).expand(3, 20, 20))


def break_folder(folder: Path, mistake: str) -> None:
    if mistake == "nothing":
        shutil.rmtree(folder)
    elif mistake == "no train":
        shutil.rmtree(folder / "train")
    elif mistake == "no test":
        shutil.rmtree(folder / "test")
    elif mistake == "no classes":
        shutil.rmtree(folder / "train")
        (folder / "train").mkdir()
    elif mistake == "test class":
        (folder / "test" / "dog").rename(folder / "test" / "wolf")
    elif mistake == "not an image":
        (folder / "train" / "dog" / "1.png").write_bytes(b"text")
    elif mistake == "cut off":
        path = folder / "test" / "dog" / "a.png"
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("nothing", "images: no such folder"),
        ("no train", "no folder train"),
        ("no test", "neither a folder test nor val"),
        ("no classes", "train holds no classes"),
        ("test class", "class 'wolf' of .*test is not in"),
        ("not an image", "train/dog/1.png is not a readable image"),
        ("cut off", "test/dog/a.png is not a readable image"),
    ],
)
@pytest.mark.parametrize("size", [None, 20])
def test_folder_mistakes_are_named(image_folder, tmp_path, mistake, message, size):
    row = find_row(str(image_folder))
    break_folder(image_folder, mistake)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(row, tmp_path / "data", size)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("size", [0, -1, 100_000])
def test_a_size_out_of_bounds_is_refused(image_folder, size):
    with pytest.raises(ValueError, match=f"image size {size}"):
        load_folder(image_folder, size)


def grey_levels(split: datasets.Split) -> list[int]:
    return [int(split.images[number][0, 0, 0]) for number in range(len(split.images))]


def lay_out_levels(folder: Path, splits: dict[str, dict[str, list[int]]]) -> None:
    """Images of one grey each: split -> class -> levels."""
    for split, classes in splits.items():
        for name, levels in classes.items():
            for level in levels:
                save_image(folder / split / name / f"{level:03}.png", np.full((3, 8, 8), level, dtype=np.uint8))


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "VALID", "Testing"), ("TRAINING", "Validation", "Test")]
)
def test_all_three_splits_are_used_in_any_case(tmp_path, names):
    train, val, test = names
    lay_out_levels(
        tmp_path / "x", {train: {"a": [1, 2], "b": [3]}, val: {"a": [4], "b": [5]}, test: {"a": [6], "b": [7, 8]}}
    )
    for found in (load_folder(tmp_path / "x"), load_folder(tmp_path / "x")):  # read, then from the packed file
        assert [grey_levels(split) for split in (found.train, found.val, found.test)] == [[1, 2, 3], [4, 5], [6, 7, 8]]
        assert found.val.targets.tolist() == [0, 1] and found.test.targets.tolist() == [0, 1, 1]


def test_two_folders_for_one_split_are_refused(tmp_path):
    lay_out_levels(tmp_path / "x", dict.fromkeys(("train", "val", "valid"), {"a": [1], "b": [2]}))
    with pytest.raises(ValueError, match="has both val and valid: rename or remove one"):
        load_folder(tmp_path / "x")


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("unlabelled", ["test", "val"])
def test_a_split_without_labels_gives_way(tmp_path, capsys, inner, unlabelled):
    other = {"test": "val", "val": "test"}[unlabelled]
    lay_out_levels(tmp_path / "x", {"train": {"a": [1], "b": [2]}, other: {"a": [3], "b": [4]}})
    save_image(tmp_path / "x" / unlabelled / inner / "0.png", pixels(1, side=8)[0])
    found = load_folder(tmp_path / "x")
    assert grey_levels(found.test) == [3, 4] and found.val is None
    for _ in range(2):
        assert f"{unlabelled} has no folder of a class, so no labels" in capsys.readouterr().out
        load_folder(tmp_path / "x")  # from the packed file, which says it too


@pytest.mark.parametrize(("val", "counts"), [(0.0, [2, 6, 1]), (0.4, [4, 12, 2])])
@pytest.mark.parametrize("limit", [None, 0])
def test_a_folder_without_a_split_is_split_by_class(tmp_path, capsys, val, counts, limit):
    """By share and seed; each gives the same images from the files, the packed file and to a test alone."""
    levels = {"a": list(range(10)), "b": list(range(100, 130)), "train": list(range(200, 205))}  # a class of vehicles
    lay_out_levels(tmp_path, {"x": levels})
    row, streaming = replace(find_row(str(tmp_path / "x")), val=val), datasets.Streaming(limit)
    found, prints = {}, {}
    for seed in (1, 2, 1):
        data = datasets.load(replace(row, seed=seed), tmp_path, None, streaming)
        said = f"{val or 0.2} of each class, drawn with seed {seed}, is the test set (-val)"
        assert said in capsys.readouterr().out
        assert data.classes == ("a", "b", "train") and data.is_split_here
        assert torch.bincount(data.test.targets).tolist() == counts
        assert sorted(grey_levels(data.train) + grey_levels(data.test)) == sorted(sum(levels.values(), []))
        view = datasets.View(data.mean, data.std, 8, 3, data.classes, file_side=8)
        for _ in ("packed", "from the files"):
            alone = datasets.load_test(replace(row, seed=seed), tmp_path, view, streaming)
            assert grey_levels(alone) == grey_levels(data.test) and said in capsys.readouterr().out
            shutil.rmtree(tmp_path / "packed", ignore_errors=True)
        assert found.setdefault(seed, grey_levels(data.test)) == grey_levels(data.test)
        prints[seed] = fingerprint(data, [])
    assert found[1] != found[2] and differences(prints[1], prints[2])
    with pytest.raises(ValueError, match="0.01 of each class cannot be split off .* give another -val"):
        datasets.load(replace(row, val=0.01), tmp_path)


def test_a_folder_of_split_folders_is_named(tmp_path):
    lay_out_levels(tmp_path, {"one/outer": {"train/a": [1], "test/a": [2]}})
    with pytest.raises(ValueError, match="did you mean -dataset .*one/outer"):
        load_folder(tmp_path / "one")


def test_classes_sort_by_their_numbers_only_if_asked(tmp_path):
    levels = {name: [level] for level, name in enumerate(("1", "2", "10", "a9b", "a10b", "a010b"))}
    lay_out_levels(tmp_path / "x", {"train": levels, "test": levels})
    row = find_row(str(tmp_path / "x"))
    for _ in range(2):
        assert datasets.load(row, tmp_path).classes == ("1", "10", "2", "a010b", "a10b", "a9b")
        found = datasets.load(replace(row, natural_order=True), tmp_path)
        assert found.classes == ("1", "2", "10", "a9b", "a010b", "a10b")
        assert grey_levels(found.test) == [levels[name][0] for name in found.classes]


def test_an_empty_class_is_left_out_and_counted(image_folder, capsys):
    before = load_folder(image_folder)
    (image_folder / "train" / "fox").mkdir()
    (image_folder / "train" / "owl").mkdir()
    (image_folder / "train" / "owl" / "a.heic").write_bytes(b"x")
    (image_folder / "stray.png").write_bytes(b"x")
    assert same(before, load_folder(image_folder))
    out = capsys.readouterr().out
    assert "class folders of train without images (fox, owl) 2" in out and ".heic files 1" in out


def test_all_broken_images_are_named_or_left_out(image_folder, tmp_path, capsys):
    good = load_folder(image_folder)
    for number in range(9):
        (image_folder / "train" / "cat" / f"x{number}.jpg").write_bytes(b"text")
    (image_folder / "train" / "dog" / "y.png").write_bytes(b"")
    path = image_folder / "test" / "dog" / "z.png"
    path.write_bytes((image_folder / "test" / "dog" / "a.png").read_bytes()[:300])
    (image_folder / "test" / "cat" / "bomb.pgm").write_bytes(b"P5 20000 20000 255\n")
    with pytest.raises(ValueError, match="^12 images cannot be read: ") as caught:
        load_folder(image_folder)
    text = str(caught.value)
    assert text.count("(unknown format)") == 9 and "y.png (the file is empty)" in text and " and 2 more;" in text
    assert "-skip-broken true" in text and "\n" not in text
    skipping = replace(find_row(str(image_folder)), skip_broken=True)
    capsys.readouterr()
    for streaming in (datasets.Streaming(), datasets.Streaming(), datasets.Streaming(limit=0)):
        found = datasets.load(skipping, tmp_path / "data", None, streaming)
        counts = (4, 2, 12) if streaming.limit is None else (4, 3, 11)  # of the cut one the header is whole
        assert (len(found.train.targets), len(found.test.targets)) == counts[:2]
        assert f"left out {counts[2]} images that cannot be read" in capsys.readouterr().out
        assert (found.mean, found.std) == (good.mean, good.std)
        assert torch.equal(torch.stack([found.train.images[n] for n in range(4)]), good.train.images)


def test_every_mode_is_the_same_in_memory_and_streamed(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "x" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
            Image.fromarray(grey / np.float32(255)).save(folder / "float.tiff")
            Image.fromarray(np.dstack([0 * grey, 0 * grey, 0 * grey, 255 - grey])).save(folder / "alpha.png")
            Image.fromarray(np.rot90(grey)).save(folder / "turned.png", exif=exif)
    row = find_row(str(tmp_path / "x"))
    packed, streamed = (datasets.load(row, tmp_path, None, datasets.Streaming(limit=limit)) for limit in (None, 0))
    assert (packed.mean, packed.std) == (streamed.mean, streamed.std)
    for number in range(8):
        assert torch.equal(packed.train.images[number], streamed.train.images[number])
        assert (packed.train.images[number].int() - torch.from_numpy(grey).int()).abs().max() <= 1

"""The reader of a folder of images with a folder for each class."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from conf.datasets import find_row
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

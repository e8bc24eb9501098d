"""The readers of CIFAR, Tiny-ImageNet and digits, on files in the official layouts."""

from __future__ import annotations

import csv
import pickle
import shutil
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms.v2 import functional as transforms

import datasets
from conf.datasets import DATASETS
from tests.helpers.made_data import (
    CLASSES,
    DATA,
    assert_same_test_split_alone,
    cifar_pickles,
    cifar_row,
    lay_out,
    md5,
    pixels,
    same,
    save_image,
    tar_gz,
)


def test_a_file_in_the_place_of_the_data_folder_is_named(tmp_path):
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(ValueError, match="data is not a folder"):
        datasets.load(DATASETS["cifar100"], tmp_path / "data")


# CIFAR


def test_cifar_archive_folder_and_images_are_the_same_data(tmp_path):
    contents = cifar_pickles()
    archive = tar_gz(contents)
    row = cifar_row(archive, contents)
    lay_out(tmp_path / "archive", {"cifar-100-python.tar.gz": archive})
    lay_out(tmp_path / "unpacked" / "cifar100", contents)
    for split in ("train", "test"):
        batch = pickle.loads(contents[f"cifar-100-python/{split}"])
        for index, (values, label) in enumerate(zip(batch["data"], batch["fine_labels"], strict=True)):
            path = tmp_path / "images" / "cifar100" / split / CLASSES[label] / f"{index}.png"
            save_image(path, values.reshape(3, 32, 32))
    found = {name: datasets.load(row, tmp_path / name) for name in ("archive", "unpacked", "images")}

    batch = pickle.loads(contents["cifar-100-python/train"])
    expected = torch.from_numpy(batch["data"].reshape(-1, 3, 32, 32))
    assert torch.equal(found["archive"].train.images, expected)
    for name in found:
        assert_same_test_split_alone(found["archive"], row, tmp_path / name)
    assert found["archive"].train.targets.tolist() == batch["fine_labels"]
    assert found["archive"].classes == CLASSES
    assert np.allclose(found["archive"].mean, expected.double().mean((0, 2, 3)) / 255, rtol=1e-12)
    assert np.allclose(found["archive"].std, expected.numpy().std((0, 2, 3)) / 255, rtol=1e-12)
    assert same(found["archive"], found["unpacked"])
    assert same(found["archive"], found["images"])


@pytest.mark.parametrize(
    ("folder", "data"),
    [
        ("cifar-100-python", ""),
        ("cifar100/cifar-100-python/cifar-100-python", ""),
        ("cifar100", ""),
        ("cifar-100-python", "cifar-100-python"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "unpacked"])
def test_cifar_nested_once_more(tmp_path, form, folder, data):
    contents = cifar_pickles()
    archive = tar_gz(contents)
    row = cifar_row(archive, contents)
    files = {name.rpartition("/")[2]: content for name, content in contents.items()}
    lay_out(tmp_path / folder, {row.files[0].name: archive} if form == "archive" else files)
    found = datasets.load(row, tmp_path / data)
    assert found.classes == CLASSES and np.array_equal(found.train.images, pixels(6, seed=0))


def test_cifar10_has_its_training_images_in_several_files(tmp_path):
    contents = {"cifar-10-batches-py/batches.meta": pickle.dumps({"label_names": list(CLASSES)}, protocol=2)}
    for seed, name in enumerate(("data_batch_1", "data_batch_2", "test_batch")):
        batch = {"data": pixels(3, seed=seed).reshape(3, -1), "labels": [2, 0, seed % 3]}
        contents[f"cifar-10-batches-py/{name}"] = pickle.dumps(batch, protocol=2)
    lay_out(tmp_path, contents)
    row = replace(DATASETS["cifar10"], members=tuple((name, md5(content)) for name, content in contents.items()))
    found = datasets.load(row, tmp_path)
    assert np.array_equal(found.train.images.numpy(), np.concatenate([pixels(3, seed=0), pixels(3, seed=1)]))
    assert found.train.targets.tolist() == [2, 0, 0, 2, 0, 1]
    assert found.test.targets.tolist() == [2, 0, 2]
    assert_same_test_split_alone(found, row, tmp_path)
    assert found.classes == CLASSES


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["archive", "unpacked"])
def test_no_pickle_is_read_before_its_checksum(tmp_path, form):
    trace = tmp_path / "trace"
    good = cifar_pickles()
    row = cifar_row(tar_gz(good), good)
    bad = {**good, "cifar-100-python/train": pickle.dumps(Payload(trace))}
    pickle.loads(bad["cifar-100-python/train"]).close()
    assert trace.exists()  # the payload works
    trace.unlink()
    data = tmp_path / "data"
    lay_out(data, {row.files[0].name: tar_gz(bad)} if form == "archive" else bad)
    with pytest.raises(ValueError, match="not the published file") as caught:
        datasets.load(row, data)
    assert ("cifar-100-python.tar.gz" if form == "archive" else "train") in str(caught.value)
    assert not trace.exists()
    assert not (data / "packed").exists()


@pytest.mark.skipif(not (DATA / "cifar100" / "train").is_dir(), reason="CIFAR-100 is not laid out")
def test_real_cifar100_has_its_published_figures():
    found = datasets.load(DATASETS["cifar100"], DATA)
    assert np.allclose(found.mean, (0.50707516, 0.48654887, 0.44091784), atol=1e-8, rtol=0)
    assert np.allclose(found.std, (0.26733429, 0.25643846, 0.27615047), atol=1e-8, rtol=0)
    assert set(Counter(found.train.targets.tolist()).values()) == {500}
    assert set(Counter(found.test.targets.tolist()).values()) == {100}
    assert len(found.classes) == 100 and list(found.classes) == sorted(found.classes)
    for index, name in ((0, "apple/000"), (499, "apple/499"), (500, "aquarium_fish/000"), (49_999, "worm/499")):
        expected = torch.from_numpy(np.array(Image.open(DATA / f"cifar100/train/{name}.png"))).permute(2, 0, 1)
        assert torch.equal(found.train.images[index], expected)


# Tiny-ImageNet


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The real cut where it is laid out, else a few images in the same layout; without packed files."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-imagenet-200"
    if (DATA / "tiny-imagenet-200" / "wnids.txt").is_file():
        shutil.copytree(DATA / "tiny-imagenet-200", folder)
        return folder
    wnids = ("n03", "n01", "n02")
    lay_out(
        folder, {"wnids.txt": "\n".join(wnids).encode(), "words.txt": b"n01\tcrane, bird\nn02\tcrane\nn03\tdog, pet"}
    )
    annotations = []
    for number, wnid in enumerate(wnids):
        for index, values in enumerate(pixels(3, side=64, seed=number)):
            save_image(folder / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", values)
            save_image(folder / "val" / "images" / f"val_{index * 3 + number}.JPEG", values)
            annotations.append(f"val_{index * 3 + number}.JPEG\t{wnid}\t0\t0\t9\t9")
    lay_out(folder, {"val/val_annotations.txt": "\n".join(annotations).encode()})
    return folder


def test_tiny_imagenet_labels_follow_its_own_files(tiny):
    found = datasets.load(DATASETS["tiny-imagenet"], tiny.parent)
    wnids = (tiny / "wnids.txt").read_text().split()
    with open(tiny / "val" / "val_annotations.txt", newline="") as file:
        annotations = [(line[0], line[1]) for line in csv.reader(file, delimiter="\t")]
    assert found.test.targets.tolist() == [wnids.index(wnid) for _, wnid in annotations]
    assert len(set(found.test.targets.tolist())) == len(wnids)
    for index in range(0, len(annotations), max(1, len(annotations) // 25)):
        image = Image.open(tiny / "val" / "images" / annotations[index][0]).convert("RGB")
        assert np.array_equal(found.test.images[index].permute(1, 2, 0), np.array(image))
    counts = [len(list((tiny / "train" / wnid / "images").iterdir())) for wnid in wnids]
    assert found.train.targets.tolist() == [label for label, count in enumerate(counts) for _ in range(count)]
    words = dict(line.split("\t") for line in (tiny / "words.txt").read_text().splitlines())
    for name, wnid in zip(found.classes, wnids, strict=True):
        assert words[wnid].startswith(name.removesuffix(f" ({wnid})"))
    assert len(set(found.classes)) == len(wnids)


@pytest.mark.parametrize("inner", ["", "images"])
def test_tiny_imagenet_whose_validation_images_somebody_has_sorted(tiny, tmp_path, inner):
    """Into folders by class, with or without the list of their classes: the same images in the order of the classes."""
    folder = tmp_path / "tiny-imagenet-200"
    shutil.copytree(tiny, folder)
    lines = (folder / "val" / "val_annotations.txt").read_text().splitlines()
    for name, wnid, *_ in (line.split("\t") for line in lines):
        (folder / "val" / wnid / inner).mkdir(parents=True, exist_ok=True)
        (folder / "val" / "images" / name).rename(folder / "val" / wnid / inner / name)
    (folder / "val" / "images").rmdir()
    if inner:
        (folder / "val" / "val_annotations.txt").unlink()
    before, found = (datasets.load(DATASETS["tiny-imagenet"], place) for place in (tiny.parent, tmp_path))
    order = before.test.targets.argsort(stable=True)
    assert torch.equal(found.test.targets, before.test.targets[order])
    assert sorted(map(hash_of, found.test.images)) == sorted(map(hash_of, before.test.images))
    for label in range(len(found.classes)):
        parts = ({hash_of(image) for image in d.test.images[d.test.targets == label]} for d in (before, found))
        assert next(parts) == next(parts)


def hash_of(image: torch.Tensor) -> int:
    return hash(image.numpy().tobytes())


def test_tiny_imagenet_zip_is_its_folder(tiny, tmp_path):
    path = tmp_path / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(tiny.rglob("*")):
            if "packed" not in name.parts:
                archive.write(name, name.relative_to(tiny.parent))
    official = replace(DATASETS["tiny-imagenet"].files[0], checksum=md5(path.read_bytes()))
    row = replace(DATASETS["tiny-imagenet"], files=(official,))
    found = datasets.load(row, tmp_path)
    assert same(found, datasets.load(DATASETS["tiny-imagenet"], tiny.parent))
    assert_same_test_split_alone(found, row, tmp_path)
    assert_same_test_split_alone(found, DATASETS["tiny-imagenet"], tiny.parent)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="tiny-imagenet-200.zip is not the published file"):
        datasets.load(row, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("val/val_annotations.txt", b"val_0.JPEG\tn99999999\t0\t0\t9\t9", "line 1 of val/val_annotations.txt"),
        ("val/val_annotations.txt", b"none.JPEG\tn01\t0\t0\t9\t9", "val/images/none.JPEG"),
        ("wnids.txt", b"n01\nn07", "n07"),
        ("wnids.txt", b"\n", "lists no class"),
        ("val/images/val_0.JPEG", b"JFIF", "val/images/val_0.JPEG is not a readable image"),
    ],
)
def test_tiny_imagenet_mistakes_are_named(tmp_path, name, content, message):
    folder = tmp_path / "tiny-imagenet-200"
    for path in ("train/n01/images/n01_0.JPEG", "val/images/val_0.JPEG"):
        save_image(folder / path, pixels(1, side=64)[0])
    lay_out(folder, {"wnids.txt": b"n01\n", "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t9\t9"})
    lay_out(folder, {name: content})
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load(DATASETS["tiny-imagenet"], tmp_path)
    assert "\n" not in str(caught.value)


# digits


def test_digits_are_all_there_in_fixed_stratified_parts(tmp_path):
    bunch = load_digits()
    found = datasets.load(DATASETS["digits"], tmp_path, size=8)
    assert (len(found.train.targets), len(found.test.targets)) == (1437, 360)
    assert len(found.classes) == DATASETS["digits"].classes == 10
    together = torch.cat([found.train.images, found.test.images]).flatten(1)
    targets = torch.cat([found.train.targets, found.test.targets])
    expected = np.rint(bunch.data / 16 * 255).astype(int)
    assert Counter(
        (*row, label) for row, label in zip(expected.tolist(), bunch.target.tolist(), strict=True)
    ) == Counter((*row, label) for row, label in zip(together.tolist(), targets.tolist(), strict=True))
    share = torch.bincount(found.test.targets) / torch.bincount(targets)
    assert (share - 0.2).abs().max() < 0.01
    assert same(found, datasets.load(DATASETS["digits"], tmp_path, size=8))
    assert_same_test_split_alone(found, DATASETS["digits"], tmp_path)
    default = datasets.load(DATASETS["digits"], tmp_path)
    assert default.train.images.shape == (1437, 1, 16, 16) and default.train.images.dtype == torch.uint8
    assert torch.equal(default.test.images, transforms.resize(found.test.images, [16, 16], antialias=True))


@pytest.mark.parametrize("size", [16, 48])
def test_size_resizes_as_torchvision_does(tmp_path, size):
    contents = cifar_pickles()
    lay_out(tmp_path, contents)
    row = cifar_row(b"", contents)
    expected = transforms.resize(datasets.load(row, tmp_path).train.images, [size, size], antialias=True)
    assert torch.equal(datasets.load(row, tmp_path, size).train.images, expected)

"""The data sets by name, a row each: all that can be said of one without reading it, its official files included.

A data set that is not in this table is the user's own, and is named by its path (find_row).
Mean and standard deviation are not listed: they are computed once from the training images, and cached.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass

from utils import nearest

# The knobs for one kind of data set alone.
OF_DRIVING = ("correction", "brightness", "zero_drop")
OF_FOLDERS = ("natural_order", "skip_broken", "random_resized_crop")  # which cuts from images as large as on disk


@dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher offers it. checksum: "md5:..." or "sha256:..." of the whole file."""

    name: str
    url: str
    checksum: str


@dataclass(frozen=True)
class DatasetRow:
    """What the project knows of a data set before it has read a byte of it.

    name       the word after -dataset
    task       "classification" or "regression": decides loss, metrics and pictures (engine/tasks.py)
    reader     the module of datasets/ that reads it
    channels   the channels of an image: 1 grey, 3 RGB
    size       the side of its square images in pixels; 0: that of the images on disk
    recipe     the recipe (conf/recipes/) that is taken unless -recipe or the network says otherwise
    folder     its folder under -data
    files      the official files; empty where the data comes with a package or is the user's own
    downloads  the folder under -data into which the official files are downloaded, or the user puts the data
    unused_settings  the knobs that change nothing for this data set; another value than their default is refused
    degrees    the angle in degrees that a target of 1 stands for (regression)
    layout     what the user has to put into the folder, where there are no official files
    members    the path in the archive and the checksum of every file that may be read, for archives that hold pickles
    classes    how many are published, or outputs of a network for angles; 0: the images on disk say it
    natural_order, skip_broken, val, seed  the user's choices for a folder of images, as Settings has them; the last two
               are for one that is not split into training and test images
    """

    name: str
    task: str
    reader: str
    channels: int
    size: int
    recipe: str
    folder: str
    files: tuple[OfficialFile, ...] = ()
    downloads: str = ""
    unused_settings: tuple[str, ...] = (*OF_DRIVING, *OF_FOLDERS)
    degrees: float = 1.0
    layout: str = ""
    members: tuple[tuple[str, str], ...] = ()
    classes: int = 0
    natural_order: bool = False
    skip_broken: bool = False
    val: float = 0.0
    seed: int = 0


def _mnist_files(base: str, checksums: tuple[str, str, str, str]) -> tuple[OfficialFile, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return tuple(
        OfficialFile(f"{name}.gz", f"{base}{name}.gz", f"md5:{checksum}")
        for name, checksum in zip(names, checksums, strict=True)
    )


# The MD5 sums are those that torchvision and the publishers give; the SHA-256 sums of the CIFAR archives
# are those of Keras and of torchvision's prototype readers.
DATASETS: dict[str, DatasetRow] = {
    row.name: row
    for row in (
        DatasetRow(
            name="cifar10",
            task="classification",
            reader="cifar",
            channels=3,
            size=32,
            classes=10,
            recipe="original",
            folder="cifar10",
            files=(
                OfficialFile(
                    "cifar-10-python.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
                ),
            ),
            members=(
                ("cifar-10-batches-py/data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
                ("cifar-10-batches-py/data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
                ("cifar-10-batches-py/data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
                ("cifar-10-batches-py/data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
                ("cifar-10-batches-py/data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
                ("cifar-10-batches-py/test_batch", "md5:40351d587109b95175f43aff81a1287e"),
                ("cifar-10-batches-py/batches.meta", "md5:5ff9c542aee3614f3951f8cda6e48888"),
            ),
        ),
        DatasetRow(
            name="cifar100",
            task="classification",
            reader="cifar",
            channels=3,
            size=32,
            classes=100,
            recipe="original",
            folder="cifar100",
            files=(
                OfficialFile(
                    "cifar-100-python.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                    "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
                ),
            ),
            members=(
                ("cifar-100-python/train", "md5:16019d7e3df5f24257cddd939b257f8d"),
                ("cifar-100-python/test", "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"),
                ("cifar-100-python/meta", "md5:7973b15100ade9c7d40fb424638fde48"),
            ),
        ),
        DatasetRow(
            name="tiny-imagenet",
            task="classification",
            reader="tiny_imagenet",
            channels=3,
            size=64,
            classes=200,
            recipe="original",
            folder="tiny-imagenet-200",
            files=(
                OfficialFile(
                    "tiny-imagenet-200.zip",
                    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                    "md5:90528d7ca1a48142e341f4ef8d21d0de",
                ),
            ),
        ),
        DatasetRow(
            name="mnist",
            task="classification",
            reader="mnist",
            channels=1,
            size=28,
            classes=10,
            recipe="mnist",
            folder="MNIST",
            downloads="MNIST/raw",
            files=_mnist_files(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                (
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                    "d53e105ee54ea40749a09fcbcd1e9432",
                    "9fb629c4189551a2d022fa330f9573f3",
                    "ec29112dd5afa0611ce80d1b7f02629c",
                ),
            ),
        ),
        DatasetRow(
            name="fashion-mnist",
            task="classification",
            reader="mnist",
            channels=1,
            size=28,
            classes=10,
            recipe="mnist",
            folder="FashionMNIST",
            downloads="FashionMNIST/raw",
            files=_mnist_files(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                (
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "bef4ecab320f06d8554ea6380940ec79",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                ),
            ),
        ),
        DatasetRow(
            name="digits",
            task="classification",
            reader="digits",
            channels=1,
            size=16,
            classes=10,
            recipe="digits",
            folder="",
        ),
        DatasetRow(
            name="driving",
            task="regression",
            reader="driving",
            channels=3,
            size=128,
            classes=1,
            recipe="driving",
            folder="driving",
            downloads="driving",
            unused_settings=("crop", "rotation", "trivial_augment", "erase", *OF_FOLDERS),
            degrees=25.0,
            layout="a drive of the Udacity simulator, driving_log.csv and IMG/,",
        ),
    )
}


def find_row(name: str) -> DatasetRow:
    """The row of a data set by its name, or by the path of a folder: of images, or of a recording as driving has it.

    The images of a folder decide their size themselves (size 0). Raises ValueError for any other name.
    """
    if name in DATASETS:
        return DATASETS[name]
    if os.path.isfile(os.path.join(name, "driving_log.csv")):
        return dataclasses.replace(DATASETS["driving"], name=name, folder=os.path.abspath(name))
    if os.path.isdir(name):
        return DatasetRow(name, "classification", "folder", 3, 0, "original", name, unused_settings=OF_DRIVING)
    if os.sep in name or name.startswith("."):
        raise ValueError(
            f"-dataset {name}: no such folder; give one with train/CLASS/* and val/CLASS/* or test/CLASS/*"
        )
    near = nearest(name, DATASETS)
    raise ValueError(f"-dataset {name}: unknown data set; did you mean {near}? (or the path of a folder of images)")

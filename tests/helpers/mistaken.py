"""A folder of files that the command line must refuse: recipes, checkpoints, archives, images."""

import dataclasses
import gzip
import os
from pathlib import Path

import torch

import models
from conf.resolve import settings as resolve
from engine.saved import checkpoint
from tests.helpers.made_data import write_images

RECIPES = {
    "list": "- epochs\n- 3\n",
    "code": "!!python/object/apply:os.mkdir [made]\n",
    "outside": "out: /etc\n",
    "elsewhere": "name: ../../elsewhere\n",
    "partly": "epochs: 3\n",
    "words": "epochs: many\n",
}


class Code:
    """What makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("made",)


def write_checkpoints(folder: Path) -> None:
    """Runs to go on with: damaged, of another version, made for other data, with code in it."""
    settings = dataclasses.asdict(resolve({"net": "EffNet", "dataset": "digits", "ema": 0.0}))
    weights = models.create("EffNet", num_classes=10, in_channels=1, image_size=16).state_dict()
    content = {"settings": settings, "network": weights, "classes": list("0123456789"), "steps_per_epoch": 23}
    content |= {"mean": [0.5], "std": [0.5], "image_size": 16, "in_channels": 1, "averaged": None, "averaged_steps": 0}
    content |= dict.fromkeys(("epoch", "batch", "step"), 0) | dict.fromkeys(("loss", "rate", "seconds"), 0.0)
    content |= {"sums": [], "history": [], "scaler": {}, "best": {}, "schedule": {"last_epoch": 0}}
    content |= {"optimizer": {"state": {}, "param_groups": []}}
    changes = {
        "newer": {"settings": settings | {"teleport": True}},
        "unsound": {"settings": settings | {"epochs": 0}},
        "pets": {"classes": ["cat", "dog"]},
        "code": {"network": Code()},
        "stranger_net": {"settings": settings | {"net": "cheapV9"}},
        "earlier_revision": {"settings": settings | {"net": "cheapV3"}, "revision": 1},
        "strange_key": {"history": "none"},
    }
    for name, change in changes.items():
        checkpoint.save(folder / "old" / name / "last.pth", content | change)
    (folder / "old" / "gone").mkdir()
    whole = (folder / "old" / "pets" / "last.pth").read_bytes()
    (folder / "old" / "cut").mkdir()
    (folder / "old" / "cut" / "last.pth").write_bytes(whole[: len(whole) // 2])


def write_archives(folder: Path) -> None:
    """Files under the official names that are not the official files."""
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz").write_bytes(b"not the archive")
    (folder / "tiny-imagenet-200.zip").write_bytes(b"PK\3\4 cut short")
    (folder / "MNIST" / "raw").mkdir(parents=True)
    (folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\3 too short"))


def write_mistaken(folder: Path) -> None:
    """Fills the folder."""
    (folder / "empty").mkdir()
    (folder / "no_classes" / "train").mkdir(parents=True)
    (folder / "no_classes" / "test").mkdir()
    write_images(folder / "stranger", train=("cat", "dog"), test=("cat", "fish"))
    write_images(folder / "broken", train=("cat", "dog"), test=("cat", "dog"))
    (folder / "broken" / "train" / "dog" / "bad.png").write_bytes(b"this is no image")
    torch.save(models.create("cheapV2", num_classes=10, in_channels=1).state_dict(), folder / "other.pth")
    (folder / "cut.safetensors").write_bytes(b"no header")
    (folder / "damaged.pth").write_bytes((folder / "other.pth").read_bytes()[:5000])
    (folder / "mine.yaml").write_text("epochs: 3\nlearning_rate: 0.1\n")
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    write_checkpoints(folder)
    write_archives(folder / "data")

"""-export weights: a finished run's weights as a file that anyone can verify, in weights/, and its line in the table.

What the file gets wrong of 500 test images, which come with this repository, stands in it and in the table:
tests/test_weights.py counts them again.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from commands.finished_runs import read_result
from conf.datasets import DATASETS
from engine.saved import checkpoint
from engine.saved.about_weights import about_weights, without_paths
from engine.saved.folders import LAST, RESULT, net_folder
from engine.shown.cards import markdown_table
from models import weight_file
from models.pretrained import build
from utils import write_atomically

TABLE = "README.md"  # in the folder of the weights
INTRODUCTION = """# Weights

Each file holds the weights of a finished run, without its optimizer, and as JSON in its metadata its network, classes,
normalisation, settings and result. `python main.py -export weights -weights checkpoints/<net>/<run>/last.pth` writes a
file and this table; with `-half true`, weights of two axes or more are stored in 16 bits. "Top-1 error" is the run's
result on the whole test set, from before that rounding. "Wrong of 500" is measured with the file itself, on 500 test
images of its data set in `tests/data/`; `python -m pytest tests/test_weights.py` compares it and the SHA-256 with the
table. In Python: `models.load(FILE)` (`models/pretrained.py`).
"""
HEAD = ["file", "network", "data set", "epochs", "parameters", "top-1 error, %", "wrong of 500", "bytes", "SHA-256"]


def publish(weights: Path, out: Path, name: str = "", half: bool = False) -> Path:
    """Writes the weights of a finished run to out/weights/<net>-<data set>.safetensors and prints the SHA-256.

    weights: the run's last.pth or last.safetensors. name: the file's, in the place of <net>-<data set>.
    Raises ValueError where the file is not of a finished run's last epoch, or another file of that name is there.
    """
    content = checkpoint.load_run(weights)
    result = finished_result(content, weights)
    about = without_paths(about_weights(content, weights, result))
    if not name:
        name = net_folder("{net}-{dataset}".format_map(about["settings"]))
    if Path(name).name != name or name.startswith("."):
        raise ValueError(f"-name {name}: must be a plain word, without slashes or a leading dot")
    state = checkpoint.network_weights(content)
    state = weight_file.halved(state) if half else dict(state)
    about["wrong of 500"] = wrong_of_500(state, about)
    path = out / "weights" / f"{name}{weight_file.SUFFIX}"
    data = weight_file.to_bytes(state, about)
    if path.exists() and path.read_bytes() != data:
        raise ValueError(f"{path}: is there already, and another file; remove it, or give -name")
    write_atomically(path, data)
    write_atomically(path.with_name(TABLE), table(path.parent).encode())
    wrong = "" if about["wrong of 500"] is None else f", {about['wrong of 500']} of 500 images wrong"
    print(f"{path}: {len(data) / 1e6:.2f} MB{wrong}\nSHA-256 {hashlib.sha256(data).hexdigest()}")
    return path


def finished_result(content: dict, weights: Path) -> dict:
    """The result of the run whose last weights these are. Raises ValueError where they are not."""
    if "result" in content:
        return content["result"]
    place = weights.with_name(RESULT)
    if not place.exists():
        raise ValueError(f"{weights}: of a run that is not finished, {place} is missing; go on with -resume first")
    result = read_result(place)
    if content.get("epoch") != result.get("epochs trained"):
        raise ValueError(f"{weights}: is not of the epoch that {place} is about; give the run's {LAST}")
    return result


def wrong_of_500(state: dict[str, Tensor], about: dict[str, object]) -> int | None:
    """How many of the data set's 500 images the weights get wrong; None where this repository has none of it."""
    found = images_of(str(about["settings"]["dataset"]))
    if found is None:
        return None
    images, targets = found
    classes = about["classes"]
    if len(classes) != len(targets.unique()) or classes != sorted(classes):
        return None
    network = build(state, about)
    with torch.inference_mode():
        chosen = torch.cat([network(network.preprocess(part)).argmax(1) for part in images.split(100)])
    return int((chosen != targets).sum())


def images_of(dataset: str) -> tuple[Tensor, Tensor] | None:
    """The 500 test images of a data set, uint8 N x C x H x W, and their class numbers; None where there are none.

    The picture tests/data/<data set>-500.webp has a row for each class, in the order of their names, of equally many
    images. Those of cifar100 and cifar10 were drawn from the test images as files, data/<data set>/test/<class>/*: of
    each class in turn `sorted(generator.sample(sorted files, count))`, with one generator, random.Random(500); those of
    mnist in the same way from the numbers of a class's images in the test set.
    """
    path = Path(__file__).resolve().parents[1] / "tests" / "data" / f"{dataset}-500.webp"
    if dataset not in DATASETS or not path.exists():
        return None
    mode = "L" if DATASETS[dataset].channels == 1 else "RGB"
    with Image.open(path) as picture:
        pixels = np.array(picture.convert(mode))
    height, width = pixels.shape[:2]
    side = math.isqrt(height * width // 500)
    rows, columns = height // side, width // side
    images = pixels.reshape(rows, side, columns, side, -1).transpose(0, 2, 4, 1, 3).reshape(500, -1, side, side)
    return torch.from_numpy(images.copy()), torch.arange(rows).repeat_interleave(columns)


def table(folder: Path) -> str:
    """The text of the folder's README: a line for each of its files, of what these say of themselves."""
    return f"{INTRODUCTION}\n{markdown_table(HEAD, [line(path) for path in sorted(folder.glob('*.safetensors'))])}\n"


def line(path: Path) -> list[str]:
    """The cells of a file's line in the table."""
    _, about = weight_file.read(path)
    if about is None:
        raise ValueError(f"{path}: was not written by -export weights; remove it from there")
    result, data = about["result"], path.read_bytes()
    error, wrong = result.get("test top-1 error"), about.get("wrong of 500")
    return [
        f"`{path.name}`",
        result["net"],
        Path(result["dataset"]).name,
        json.dumps(result["epochs trained"]),
        f"{result['parameters']:,}",
        "-" if error is None else f"{100 * error:.2f}",
        "-" if wrong is None else str(wrong),
        f"{len(data):,}",
        f"`{hashlib.sha256(data).hexdigest()}`",
    ]

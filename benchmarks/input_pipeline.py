"""Images a second of the batched augmentation (datasets/augment.py) beside torchvision's per-image transforms.

    python benchmarks/input_pipeline.py -rounds 9 -batch 128 -threads 1

Both make the training images of CIFAR: RandomCrop(32, padding=4), RandomHorizontalFlip, RandomRotation(15), then
floats, normalised. torchvision starts from images that are already decoded (PIL, in a list) and its tensors are not
gathered into batches; the batched side starts from the uint8 tensor and ends with batches in channels_last, draws
and look-up of a random permutation included. The two alternate, round by round, in one process; the ratio is taken
within each round. Beside them stand what a strong recipe adds to the batched side, each alone and all together:
TrivialAugment, random erasing, mixup or CutMix; -distill, by an untrained network (-teacher), as its weights cost the
same; and torchvision's TrivialAugmentWide and RandomErasing, image by image on tensors. Images are CIFAR-100's training
images where they lie as PNG files under data/cifar100/train (-data), generated noise where not.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

import models
from benchmarks.measure import CPU, alternate, machine, make_parser, positive, ratios, summary
from datasets.augment import Augmentation, ImageSource
from datasets.batches import TrainingBatches
from datasets.mixing import Mixing
from engine.device import Precision, keep_freed_memory, to_device
from engine.distillation import TaughtBatches, Teacher
from models.fold import fold

CROP, ROTATION = 4, 15.0
ADDED = {
    "crop, flip, rotation": {},
    "and -trivial-augment": {"trivial_augment": True},
    "and -erase 0.25": {"erase": 0.25},
    "and -mixup 0.2": {"mixup": 0.2},
    "and -cutmix 1": {"cutmix": 1.0},
    "and all of them": {"trivial_augment": True, "erase": 0.25, "mixup": 0.2, "cutmix": 1.0},
}
TAUGHT = "and -distill"
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)  # CIFAR-100's, to three digits


def read_images(folder: Path, count: int) -> tuple[Tensor, str]:
    """`count` images, uint8 N x 3 x 32 x 32, evenly from all classes of folder/<class>/*.png; and what they are."""
    paths = sorted(folder.glob("*/*.png"))
    if len(paths) < count:
        noise = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return noise, f"{count} images of generated noise (no {count} PNG files under {folder})"
    chosen = paths[:: len(paths) // count][:count]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), f"{count} real CIFAR-100 images from {folder}"


def images_a_second_of_torchvision(images: list[Image.Image]) -> float:
    """One pass over the images with torchvision's transforms, one image after the other."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=CROP),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(ROTATION),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    begin = time.perf_counter()
    for image in images:
        transform(image)
    return len(images) / (time.perf_counter() - begin)


def images_a_second_of_batches(source: ImageSource, batch: int, passes: int, generator: torch.Generator) -> float:
    """`passes` passes over the images in batches, each in an order of its own."""
    begin = time.perf_counter()
    for _ in range(passes):
        for index in torch.randperm(len(source), generator=generator).split(batch):
            source.augmented(index, generator)
    return passes * len(source) / (time.perf_counter() - begin)


def images_a_second_of_one_by_one(images: Tensor, transform: v2.Transform) -> float:
    """One pass over tensors with one of torchvision's transforms, one image after the other."""
    begin = time.perf_counter()
    for image in images:
        transform(image)
    return len(images) / (time.perf_counter() - begin)


def training_batches(source: ImageSource, batch: int, added: dict[str, float]) -> TrainingBatches:
    """The batches of a training with these knobs beside crop, flip and rotation."""
    knobs = {name: value for name, value in added.items() if name not in ("mixup", "cutmix")}
    chosen = copy.copy(source)
    chosen.augmentation = dataclasses.replace(source.augmentation, **knobs)
    kinds = added.get("mixup", 0.0), added.get("cutmix", 0.0)
    mixing = Mixing(*kinds, classes=100) if any(kinds) else None
    return TrainingBatches(chosen, torch.arange(len(source)), batch, seed=0, shuffle=True, mixing=mixing)


def taught(batches: TrainingBatches, name: str) -> TaughtBatches:
    """The batches with the outputs of a network of that name, on this device as a run has its teacher."""
    network = fold(to_device(models.create(name), CPU, channels_last=True))
    return TaughtBatches(batches, Teacher(network, Precision.choose("off", CPU), digest=""))


def images_a_second_of_training(batches: TrainingBatches | TaughtBatches, passes: int) -> float:
    begin = time.perf_counter()
    for number in range(passes):
        for _ in batches.epoch(number):
            pass
    return passes * len(batches.index) / (time.perf_counter() - begin)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=9, threads=1)
    parser.add_argument("-batch", type=positive, default=128, help="images a batch")
    parser.add_argument("-images", type=positive, default=2000, help="images in a pass")
    parser.add_argument("-passes", type=positive, default=10, help="passes a round of the batched side")
    parser.add_argument("-teacher", choices=models.names(), default="cheapV2", help="the network of -distill")
    parser.add_argument("-data", type=Path, default=Path("data"), help="folder that holds cifar100/train/<class>/*.png")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    images, what = read_images(arguments.data / "cifar100" / "train", arguments.images)
    pil_images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    augmentation = Augmentation(crop=CROP, flip=True, rotation=ROTATION)
    targets = torch.zeros(len(images), dtype=torch.int64)
    source = ImageSource(images, targets, MEAN, STD, augmentation, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    print(f"{what}; batch {arguments.batch}")
    print(machine("torchvision", "pillow"))
    images_a_second_of_torchvision(pil_images[:200])  # both once without being timed
    images_a_second_of_batches(source, arguments.batch, 1, generator)
    speeds = alternate(
        {
            "torchvision": lambda: images_a_second_of_torchvision(pil_images),
            "batched": lambda: images_a_second_of_batches(source, arguments.batch, arguments.passes, generator),
        },
        arguments.rounds,
    )
    one_by_one, batched = speeds.values()
    print(f"images a second and their ratio: median of {arguments.rounds} rounds (least to greatest)")
    print(f"torchvision, image by image  {summary(one_by_one, 1)}")
    print(f"datasets/augment.py          {summary(batched, 1)}")
    print(f"ratio                        {summary(ratios(batched, one_by_one), 1)}")

    keep_freed_memory()  # as a run does
    made = {name: training_batches(source, arguments.batch, added) for name, added in ADDED.items()}
    calls = {
        name: functools.partial(images_a_second_of_training, batches, arguments.passes)
        for name, batches in made.items()
    }
    teaching = taught(made["crop, flip, rotation"], arguments.teacher)
    calls[TAUGHT] = functools.partial(images_a_second_of_training, teaching, 1)
    floats = torch.zeros(images.shape)
    for transform, given in ((v2.TrivialAugmentWide(), images), (v2.RandomErasing(0.25), floats)):
        name = f"{type(transform).__name__} alone"
        calls[name] = functools.partial(images_a_second_of_one_by_one, given, transform)
    for call in calls.values():
        call()
    speeds = alternate(calls, arguments.rounds)
    print(
        "\nimages a second of datasets/batches.py, and what an image takes more than in the first line (microseconds)"
    )
    for name, values in speeds.items():
        more = [1e6 / value - 1e6 / base for value, base in zip(values, speeds["crop, flip, rotation"], strict=True)]
        print(f"{name:28} {summary(values, 1)}{'; ' + summary(more, 1) if name in [*ADDED, TAUGHT][1:] else ''}")


if __name__ == "__main__":
    main()

"""Images a second in training: the loop of the original repository, written out, beside this project's.

    python benchmarks/vs_original.py -rounds 5 -steps 20

The original's: cheapV3 with Reuse by concatenation in the default memory format; PIL images through RandomCrop(32,
padding=4), RandomHorizontalFlip, RandomRotation(15), ToTensor and Normalize in a DataLoader with two workers;
loss.item() after each step. Its prints and its TensorBoard points a step are left out, which is in its favour. This
project's: engine.loop.train_epoch as main.py runs it, on its own batches, in channels_last, the blocks by
models/ops/kernels.c where that compiles. Both: the same images, in batches of the same size, and SGD with the original
recipe's momentum and weight decay, at a rate low enough that neither diverges.

Each runs in a process of its own; they take turns, one waiting while the other works. A turn begins with untimed
steps: batches that workers had ready when the turn before ended would be a present. A ratio is taken within a round.
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

import datasets
import models
from benchmarks.measure import ratios, summary
from benchmarks.processes import Group, Own, loop_settings, make_loop_parser, take_turns
from conf import Settings
from conf.datasets import find_row
from engine.device import choose_device
from engine.processes.distributed import Processes
from models.fast_path import use_kernels

WORKERS = 2  # the original's -w
UNTIMED = 2 * WORKERS + 1  # steps before the timed ones: two batches a worker may be ready, and one at work


class Pictures(torch.utils.data.Dataset):
    """Training images as the original's data set gives them: decoded, then transformed one by one."""

    def __init__(self, data: datasets.Dataset) -> None:
        self.pixels = data.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = data.train.targets.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(self.pixels.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[number])), self.targets[number]


class Original:
    """The original's training loop, over as many epochs as are asked for."""

    def __init__(self, settings: Settings, processes: Processes) -> None:
        data = datasets.load(find_row(settings.dataset), Path(settings.data))
        torch.manual_seed(settings.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() and settings.gpu is not False else "cpu")
        side = data.train.images.shape[-1]
        network = models.create(settings.net, num_classes=len(data.classes), image_size=side, literal=True)
        self.network = network.to(self.device)
        self.loader = DataLoader(Pictures(data), shuffle=True, num_workers=WORKERS, batch_size=settings.batch_size)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=settings.lr, momentum=0.9, weight_decay=5e-4)
        self.loss_function = nn.CrossEntropyLoss()
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.loader))
        self.network.train()

    def run(self, steps: int) -> int:
        """Takes that many steps; returns the number of images."""
        count = 0
        for images, labels in itertools.islice(self.batches, steps):
            labels = labels.to(self.device)
            images = images.to(self.device)
            self.optimizer.zero_grad()
            outputs = self.network(images)
            loss = self.loss_function(outputs, labels)
            loss.backward()
            self.optimizer.step()
            self.loss = loss.item()
            count += len(images)
        return count


def blocks_by(net: str, gpu: bool | None) -> str:
    """What trains this project's widened blocks here. gpu: as engine.device.choose_device takes it."""
    try:
        if choose_device(gpu).type != "cpu":
            raise ValueError("models/ops/kernels.c is for a CPU")
        use_kernels(models.create(net), required=True)
    except ValueError as error:
        return f"their modules ({error})"
    return "models/ops/kernels.c"


SIDES = {"original": Original, "own": Own}


def main() -> int:
    options = make_loop_parser(__doc__, models.cheap_names(), steps=20).parse_args()
    torch.set_num_threads(options.threads)
    try:
        settings = loop_settings(options)
        # the first to load the data packs it for both
        groups = {name: partial(Group, side, settings, options.threads) for name, side in SIDES.items()}
        speeds = take_turns(groups, UNTIMED, options, "torchvision", "pillow")
    except ValueError as error:
        print(f"vs_original.py: {error}", file=sys.stderr)
        return 2
    print(f"this project's widened blocks by {blocks_by(options.net, settings.gpu)}")
    print("images a second, and their ratio: median (least to greatest)")
    print(f"the original's loop  {summary(speeds['original'], 1)}")
    print(f"this project's loop  {summary(speeds['own'], 1)}")
    print(f"ratio                {summary(ratios(speeds['own'], speeds['original']), 2)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

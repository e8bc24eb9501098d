"""One process of tests/engine/test_distributed.py: an epoch on digits in float64, batch norm frozen; saves the outcome.

python -m torch.distributed.run ... tests/helpers/distributed_worker.py FOLDER ACCUMULATE... [taught]

taught: once more without accumulation, after a teacher's outputs.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import models
from conf.datasets import find_row
from conf.resolve import settings
from datasets import load
from datasets.loaders import make_batches
from engine.device import Precision
from engine.distillation import Distilled, TaughtBatches, Teacher
from engine.loop import evaluate, train_epoch
from engine.processes.distributed import process_group
from engine.state import TrainState
from engine.tasks import Classification


class Double:
    """The batches of a source in float64."""

    def __init__(self, source) -> None:
        self.source = source

    def fetch(self, parts, seed=None):
        return ((self, part) for part in parts)

    def augmented(self, *details):
        images, targets = self.source.augmented(*details)
        return images.double(), targets

    def plain(self, index):
        images, targets = self.source.plain(index)
        return images.double(), targets


def frozen(network: nn.Module) -> nn.Module:
    """Batch norm stays in eval mode, whatever the network's: a batch's statistics would depend on the shares."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module
    return network


def teacher() -> Teacher:
    """One linear layer, whose outputs are other ones for each image."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    return Teacher(network, Precision(torch.device("cpu"), torch.float32), digest="")


def epoch(processes, accumulate: int, taught: bool = False) -> dict:
    chosen = settings(
        {
            "net": "EffNet",
            "dataset": "digits",
            "epochs": 1,
            "accumulate": accumulate,
            "clip": 0.5,
            "flip": True,
            "crop": 1,
            "rotation": 10.0,
            "erase": 0.3,
            "mixup": 0.3,
            "cutmix": 1.0,
            "recipe": "original",
            "warm": 0.1,
            "batch_size": 96,
        }
    )
    data = load(find_row("digits"), Path("data"), 8)
    device = torch.device("cpu")
    share = (processes.rank, processes.world_size)
    training, evaluations = make_batches(chosen, data, device, share)
    for batches in (training, *evaluations.values()):
        batches.source = Double(batches.source)
    task = Classification(10)
    if taught:
        training, task = TaughtBatches(training, teacher()), Distilled(10, 0.0, temperature=2.0, share=0.7)
    torch.manual_seed(0)
    network = frozen(models.create("EffNet", num_classes=10, in_channels=1, image_size=8).double())
    state = TrainState.start(network, len(training), chosen, Precision(device, torch.float32), processes)
    losses = []
    metrics = train_epoch(
        state, training, task, Precision(device, torch.float32), chosen,
        lambda read, rates: losses.extend(read), lambda: None, processes,
    )  # fmt: skip
    found = evaluate(network, evaluations["Test"], task, Precision(device, torch.float32), processes)
    return {"network": network.state_dict(), "losses": losses, "train": metrics, "test": found}


if __name__ == "__main__":
    with process_group(gpu=False) as processes:
        results = {
            word: epoch(processes, 1, taught=True) if word == "taught" else epoch(processes, int(word))
            for word in sys.argv[2:]
        }
        torch.save(results, Path(sys.argv[1]) / f"{processes.rank}.pt")

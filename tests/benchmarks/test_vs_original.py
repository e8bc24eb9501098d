"""benchmarks/vs_original.py: both loops train the same network on the same images, and the command prints a ratio."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import vs_original
from benchmarks.processes import Own
from conf.resolve import settings
from engine.processes.distributed import SINGLE_PROCESS
from tests.helpers.made_data import write_images

ROOT = Path(vs_original.__file__).resolve().parents[1]


@pytest.fixture
def images(tmp_path) -> dict[str, object]:
    write_images(tmp_path / "images", train=("cat", "dog", "fox"), test=("cat", "dog", "fox"))
    return {"dataset": str(tmp_path / "images"), "data": str(tmp_path / "data"), "recipe": "original"}


def test_both_loops_train_the_same_network_on_the_same_images(images):
    chosen = settings({"net": "cheapV2", "batch_size": 6, "gpu": False, "lr": 1e-3, **images})
    original, own = vs_original.Original(chosen, SINGLE_PROCESS), Own(chosen)
    before = [parameter.detach().clone() for parameter in original.network.parameters()]
    counts = sum(parameter.numel() for parameter in before)
    assert counts == own.job.parameters  # the literal form has the same weights
    assert any("Reuse" == type(module).__name__ for module in original.network.modules())
    assert not any("Reuse" == type(module).__name__ for module in own.job.network.modules())
    plain = torch.from_numpy(original.loader.dataset.pixels).permute(0, 3, 1, 2)
    assert torch.equal(plain, own.job.dataset.train.images)
    for loop in (original, own):
        assert loop.run(3) == 18  # an epoch is two steps: it goes on with the next
        assert math.isfinite(loop.loss)
    assert not any(torch.equal(a, b) for a, b in zip(before, original.network.parameters(), strict=True))
    assert own.state.step == 3


def test_the_c_code_is_claimed_on_a_cpu_only(monkeypatch):
    monkeypatch.setattr(vs_original, "choose_device", lambda gpu: torch.device("cuda"))
    assert vs_original.blocks_by("cheapV2", None) == "their modules (models/ops/kernels.c is for a CPU)"


@pytest.mark.slow
def test_vs_original_as_a_command(images):
    words = f"-net cheapV2 -batch 4 -rounds 2 -steps 1 -dataset {images['dataset']} -data {images['data']}".split()
    command = [sys.executable, str(ROOT / "benchmarks" / "vs_original.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rates = [float(line.split("  ")[-1].split()[0]) for line in done.stdout.splitlines()[-3:]]
    assert all(rate > 0 for rate in rates)
    done = subprocess.run([*command, "-dataset", "./nowhere"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "no such folder" in done.stderr and len(done.stderr.splitlines()) == 1

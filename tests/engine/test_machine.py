"""Settings of the machine change how a run computes, and not what: torch.compile, the optimizer's fused step."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
import models
from conf.resolve import settings
from engine.schedule import make_optimizer
from tests.helpers.runs import RUN, checkpoints, curves, start

pytestmark = pytest.mark.usefixtures("without_pictures")

ROOT = Path(main.__file__).parent


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_fused_step_is_the_loop_s(optimizer):
    """Three steps with weight decay, in float64, to rounding."""
    ends = []
    for fused in (True, False):
        chosen = settings({"net": "EffNet", "dataset": "digits", "optimizer": optimizer, "fused": fused})
        torch.manual_seed(0)
        network = models.create("EffNet", num_classes=10, in_channels=1, image_size=8).double()
        made = make_optimizer(network, chosen)
        assert bool(made.defaults["fused"]) == fused
        images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
        for _ in range(3):
            made.zero_grad()
            network(images).square().mean().backward()
            made.step()
        ends.append(network.state_dict())
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_a_compiled_run_is_the_run(tmp_path, monkeypatch):
    """Its first losses to rounding in float32, which grows from step to step; its weights load anywhere."""
    losses = []
    for name, more in (("compiled", " -compile"), ("plain", "")):
        start(RUN + f" -epochs 1{more}", tmp_path / name)
        losses.append([point.value for point in curves(tmp_path / name).Scalars("Train/loss")])
    assert losses[0][:5] == pytest.approx(losses[1][:5], rel=1e-3) and losses[0] != losses[1]
    assert main.main(["-test", "-weights", str(checkpoints(tmp_path / "compiled") / "last.pth")]) == 0


@pytest.mark.slow
def test_a_run_compiled_and_with_the_kernels(tmp_path):
    """-compile and -kernels go together: the same training loss over an epoch, to what rounding grows to."""
    words = "-net cheapV2 -width 0.25 -dataset digits -size 8 -epochs 1 -b 128 -warm 0.5 -gpu false -name a"
    losses = []
    for name, more in (("compiled", " -compile"), ("plain", "")):
        printed = start(f"{words} -kernels true{more}", tmp_path / name)
        assert "by models/ops/kernels.c" in printed
        table = (tmp_path / name / "runs" / "cheapV2" / "digits-a" / "metrics.csv").open()
        losses += [float(row["train loss"]) for row in csv.DictReader(table)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2) and losses[0] != losses[1]


@pytest.mark.slow
def test_no_compiler_is_one_line(tmp_path):
    words = "-net EffNet -dataset digits -compile -gpu false -out".split()
    environment = os.environ | {"CXX": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "main.py", *words, str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "-compile: torch.compile does not work here" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()

"""benchmarks/scaling.py: the prediction's formulas, and processes that train together."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scaling
from tests.helpers.made_data import write_images

ROOT = Path(scaling.__file__).resolve().parents[1]


def test_a_ring_s_time_by_counting_its_messages():
    """Each GPU sends one part in N of the gradient 2 (N - 1) times."""
    for count in (2, 8, 1024):
        literal = sum(1e6 / count / 1e9 + 1e-5 for _ in range(2 * (count - 1)))
        assert scaling.all_reduce_seconds(count, 1_000_000, 1e9, 1e-5) == pytest.approx(literal)


def test_efficiency_of_a_step_and_what_it_waits_for():
    assert scaling.efficiency(0.3, 0.1) == pytest.approx(0.75)
    assert scaling.efficiency(0.3, 0.1, hidden=0.2) == 1.0  # all of it behind the backward pass
    assert scaling.efficiency(0.3, 0.4, hidden=0.2) == pytest.approx(0.6)


@pytest.mark.slow
def test_scaling_as_a_command(tmp_path):
    write_images(tmp_path / "images", train=("cat", "dog", "fox"), test=("cat", "dog", "fox"))
    words = "-net cheapV2 -batch 4 -rounds 2 -steps 2 -threads 2 -links 10".split()
    words += ["-dataset", str(tmp_path / "images"), "-data", str(tmp_path / "data")]
    command = [sys.executable, str(ROOT / "benchmarks" / "scaling.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    speeds = [float(line.split("  ")[-1].split()[0]) for line in lines if line.startswith(("one", "2 proc", "ratio"))]
    assert len(speeds) == 3 and all(speed > 0 for speed in speeds)
    rows = [line.split() for line in lines if line.split()[0].isdigit() and "/" in line]
    assert [int(row[0]) for row in rows] == list(scaling.GPUS)
    assert all(0 < float(row[1]) <= float(row[3]) <= 1 for row in rows)
    done = subprocess.run([*command, "-batch", "5"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "multiple of the 2 processes" in done.stderr and len(done.stderr.splitlines()) == 1

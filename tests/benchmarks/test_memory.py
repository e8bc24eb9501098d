"""benchmarks/memory.py: the memory that training takes for its data."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory

ROOT = Path(memory.__file__).resolve().parents[1]


def test_images_are_as_many_as_their_size_says(tmp_path):
    size = memory.make_images(tmp_path / "images", 9, 16)
    files = [path for path in (tmp_path / "images").rglob("*.bmp")]
    assert size == len(files) * 16 * 16 * 3 / 1e6 and len(files) == 9 + memory.EVALUATED
    assert {path.parent.name for path in (tmp_path / "images" / "test").rglob("*.bmp")} == set("0123")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the largest memory of a process")
def test_training_holds_its_data_once():
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "-megabytes", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    shares = [float(share) for share in re.findall(r"share (\S+) times", done.stdout)]
    assert len(shares) == 2 and max(shares) <= 1.6, done.stdout

"""benchmarks/input_pipeline.py: a line with a figure for each kind of augmentation, on noise where there is no data."""

import re
import sys

import pytest

from benchmarks import input_pipeline

pytestmark = pytest.mark.usefixtures("threads_put_back")
KINDS = ("-trivial-augment", "-erase", "-mixup", "-cutmix", "-distill")


def test_each_kind_has_its_images_a_second(tmp_path, monkeypatch, capsys):
    words = "input_pipeline.py -rounds 1 -passes 1 -images 64 -batch 32 -threads 1 -teacher cheapV3_small -data"
    monkeypatch.setattr(sys, "argv", [*words.split(), str(tmp_path)])
    input_pipeline.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("64 images of generated noise (no 64 PNG files")
    for kind in KINDS:
        (line,) = (line for line in lines if line.startswith(f"and {kind}"))
        speed = re.search(r" ([\d,.]+) \(.*; -?[\d,.]+ \(", line)[1]  # and what an image takes more than without
        assert float(speed.replace(",", "")) > 0, line

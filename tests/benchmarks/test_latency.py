"""benchmarks/latency.py: the rows of a table of results/rows.yaml reach RESULTS.md's column."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import models
from benchmarks import latency
from commands.result_rows import read_tables
from models.summary import mac_count

ROOT = Path(__file__).resolve().parents[2]
ROWS = """
forms:
  settings: {dataset: cifar100, size: 16, epochs: 1}
  rows:
  - {net: cheapV3_small}
  - {net: MobileNetV3_small, label: narrowed, settings: {match: "macs:3M"}}
"""


def test_a_table_s_rows_are_the_networks_that_it_trains(tmp_path):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    (cheap, shape), (narrowed, _) = (latency.row_network(row) for row in read_tables(path)[0].rows)
    assert shape == (3, 16, 16)
    assert mac_count(cheap, 3, 16) == mac_count(models.create("cheapV3_small", image_size=16), 3, 16)
    assert abs(mac_count(narrowed, 3, 16) / 3e6 - 1) < 0.05


@pytest.mark.slow
def test_what_is_measured_is_kept_beside_the_rows(tmp_path):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    command = [sys.executable, str(ROOT / "benchmarks" / "latency.py"), "-rows", str(path), "-rounds", "1", "-table"]
    done = subprocess.run([*command, "forms"], capture_output=True, text=True, check=True)
    kept = json.loads((tmp_path / "forms" / "latency.json").read_text())
    assert list(kept["milliseconds"]) == ["cheapV3_small", "narrowed"] and kept["rounds"] == 1
    for label, ways in kept["milliseconds"].items():
        for way, value in ways.items():
            printed = float(done.stdout.split(f"| {label} | {way} | ")[1].split(" ")[0])
            assert value > 0 and abs(printed - value) < 1e-3  # rounded to fewer digits
    refused = subprocess.run([*command, "froms"], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr == f"latency.py: -table froms: {path} has forms\n"

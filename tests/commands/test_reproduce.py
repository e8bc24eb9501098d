"""-reproduce: rows are trained once, go on after a kill, and the tables say what the kept files say."""

import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import main
from commands import reproduce
from conf import resolve

ROWS = """
small:
  title: Digits, a small network
  settings: {dataset: digits, size: 8, epochs: 2, batch_size: 256}
  seeds: [1, 2]
  rows:
  - {net: EffNet_digits, published: "1.68 (MNIST, the Keras port)"}
  - {net: EffNet_digits, label: higher-rate, settings: {lr: 0.01}}
  pairs: [[EffNet_digits, higher-rate]]
"""


def rows_file(tmp_path: Path, text: str = ROWS) -> Path:
    path = tmp_path / "results" / "rows.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def kept(path: Path, label: str, seed: int, error: float, **given) -> None:
    """The files that a finished run leaves, with a made error."""
    settings = resolve.settings(
        {"net": "EffNet_digits", "seed": seed, **yaml.safe_load(ROWS)["small"]["settings"], **given}
    )
    folder = path.parent / "small" / f"{label}-seed{seed}"
    folder.mkdir(parents=True)
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(settings).items()}
    (folder / "settings.yaml").write_text(yaml.safe_dump(plain))
    result = {"net": "EffNet_digits", "dataset": "digits", "seed": seed, "test top-1 error": error, "parameters": 51706}
    result |= {"macs": 330000, "images per second": 1000.0, "device": "cpu", "epochs": 2}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.csv").write_text(f"epoch,test accuracy\n1,0.5\n2,{1 - error}\n")


def test_a_row_is_trained_once_and_its_figures_reach_the_table(tmp_path, monkeypatch, capsys):
    one = ROWS.replace("[1, 2]", "[1]").replace(
        "  - {net: EffNet_digits, label: higher-rate, settings: {lr: 0.01}}\n", ""
    )
    path = rows_file(tmp_path, re.sub("  pairs.*\n", "", one))
    (tmp_path / "RESULTS.md").write_text(
        "# By hand\n\n<!-- written by -reproduce: small -->\nold\n<!-- end of small -->\nafter\n"
    )
    words = ["-reproduce", str(path), "-out", str(tmp_path)]
    assert main.main(words) == 0
    folder = tmp_path / "results" / "small" / "EffNet_digits-seed1"
    result = json.loads((folder / "result.json").read_text())
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 2
    assert str(tmp_path) not in (folder / "settings.yaml").read_text()  # where it lay on this machine
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("# By hand\n") and text.endswith("<!-- end of small -->\nafter\n") and "old" not in text
    assert f"| {100 * result['test top-1 error']:.2f} |" in text and "1.68 (MNIST, the Keras port)" in text
    shutil.rmtree(tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "runs")
    picture = (tmp_path / "results" / "small.svg").read_bytes()
    capsys.readouterr()
    assert main.main(words) == 0 and "1 of 1 runs" in capsys.readouterr().out
    assert not (tmp_path / "checkpoints").exists()  # nothing was trained again
    assert (tmp_path / "results" / "small.svg").read_bytes() == picture
    assert (tmp_path / "RESULTS.md").read_text() == text


def test_means_deviations_and_differences(tmp_path):
    path = rows_file(tmp_path)
    errors = {"EffNet_digits": (0.10, 0.14), "higher-rate": (0.20, 0.21)}
    for label, given in (("EffNet_digits", {}), ("higher-rate", {"lr": 0.01})):
        for seed, error in enumerate(errors[label], 1):
            kept(path, label, seed, error, **given)
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| `EffNet_digits` | 12.00 ± 2.83 |" in text and "| `EffNet_digits` `-lr 0.01` | 20.50 ± 0.71 |" in text
    error = 100 * math.sqrt(sum(statistics.variance(each) / 2 for each in errors.values()))
    assert "\n± is the sample standard deviation over the seeds.\n" in text
    assert f"+8.50 points of top-1 error, with a standard error of {error:.2f}: more than twice that" in text


def test_one_seed_has_no_deviation_and_what_is_missing_is_not_shown(tmp_path):
    path = rows_file(tmp_path)
    kept(path, "EffNet_digits", 2, 0.1)
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| `EffNet_digits` | 10.00 |" in text and "±" not in text and "lr 0.01" not in text and "points" not in text


def test_a_row_that_is_not_trained_has_what_is_published_alone(tmp_path):
    path = rows_file(tmp_path)
    kept(path, "higher-rate", 1, 0.1, lr=0.01)
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    lines = (tmp_path / "RESULTS.md").read_text().split("\n")
    untrained = next(line for line in lines if line.startswith("| `EffNet_digits` | "))
    assert set(untrained.split(" | ")[1:-1]) == {"-"} and untrained.endswith("| 1.68 (MNIST, the Keras port) |")


def test_a_plot_against_multiply_accumulates_and_measured_latencies(tmp_path):
    path = rows_file(tmp_path, ROWS.replace("  seeds:", "  plot: macs\n  seeds:"))
    kept(path, "EffNet_digits", 1, 0.1)
    kept(path, "EffNet_digits", 2, 0.1)
    kept(path, "higher-rate", 1, 0.2, lr=0.01)
    medians = {"EffNet_digits": {"ONNX Runtime": 0.1234, "PyTorch": 1.5}}
    latency = {"machine": "a processor, 4 cores\n1 thread(s)", "rounds": 15, "milliseconds": medians}
    (path.parent / "small" / "latency.json").write_text(json.dumps(latency))
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    lines = (tmp_path / "RESULTS.md").read_text().split("\n")
    heads = next(line for line in lines if line.startswith("| network")).split(" | ")
    cells = next(line for line in lines if line.startswith("| `EffNet_digits` | 10.00")).split(" | ")
    assert dict(zip(heads, cells, strict=True))["folded, ms an image, ONNX Runtime"] == "0.12"
    assert dict(zip(heads, cells, strict=True))["folded, ms an image, PyTorch"] == "1.50"
    assert any("-lr 0.01" in line and "| - | - |" in line for line in lines)  # not measured
    picture = (path.parent / "small.svg").read_text()
    assert "multiply-accumulates" in picture and "EffNet_digits: 10.00 %" in picture
    how = "`python benchmarks/latency.py -table small`, the median of 15 rounds on a processor, 4 cores; 1 thread(s)"
    assert f"Milliseconds: {how}." in lines


def test_a_plot_of_many_rows_has_a_line_for_each(tmp_path):
    path = rows_file(tmp_path, ROWS.replace("  seeds:", "  plot: rows\n  seeds:"))
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    assert not (path.parent / "small.svg").exists()
    kept(path, "EffNet_digits", 1, 0.1)
    kept(path, "EffNet_digits", 2, 0.2)
    kept(path, "higher-rate", 1, 0.4, lr=0.01)
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    picture = (path.parent / "small.svg").read_text()
    places = [picture.index(label) for label in ("EffNet_digits: 15.00 %", "higher-rate: 40.00 %")]
    heights = [float(re.search(r"translate\([-\d.]+ ([\d.]+)\)", picture[place:])[1]) for place in places]
    assert heights[0] < heights[1] and "test top-1 error" in picture


def test_seeds_that_stopped_early_share_their_curve_as_far_as_all_went(tmp_path):
    path = rows_file(tmp_path)
    kept(path, "EffNet_digits", 1, 0.1)
    kept(path, "EffNet_digits", 2, 0.3)
    kept(path, "higher-rate", 1, 0.2, lr=0.01)
    (path.parent / "small" / "EffNet_digits-seed1" / "metrics.csv").write_text(
        "epoch,test accuracy\n1,0.5\n2,0.6\n3,0.8\n4,0.9\n"
    )
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    picture = (path.parent / "small.svg").read_text()
    assert "EffNet_digits: 20.00 %" in picture  # the mean of their last epochs, as in the table
    lines = re.findall(r'<g id="line2d_\d+">\s*<path d="(.*?)" clip-path', picture, re.DOTALL)
    assert max(line.count("\n") for line in lines) == 2  # points, of a row's curve or of the grid


def test_speed_is_shown_unless_the_rows_were_not_timed_and_overflows_where_there_are_any(tmp_path):
    for timed, overflowing in ((True, 0), (False, 3)):
        path = rows_file(tmp_path, ROWS.replace("  seeds:", f"  timed: {str(timed).lower()}\n  seeds:"))
        shutil.rmtree(path.parent / "small", ignore_errors=True)
        kept(path, "EffNet_digits", 1, 0.1)
        written = path.parent / "small" / "EffNet_digits-seed1" / "result.json"
        result = json.loads(written.read_text()) | {"test overflowing images": overflowing}
        written.write_text(json.dumps(result))
        assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
        text = (tmp_path / "RESULTS.md").read_text()
        assert ("| images/s | device |" in text) == timed and ("| 1,000 | cpu |" in text) == timed
        assert ("| test images that overflow |" in text) == (overflowing > 0)


def test_files_that_contradict_their_row_are_refused(tmp_path, capsys):
    path = rows_file(tmp_path)
    kept(path, "EffNet_digits", 1, 0.1, lr=0.5)
    assert main.main(["-reproduce", str(path)]) == 2
    said = capsys.readouterr().err
    assert "was trained with -lr 0.5, and its row has 0.0025" in said and said.count("\n") == 1
    assert not (tmp_path / "RESULTS.md").exists()


def test_the_width_that_match_found_contradicts_no_row(tmp_path):
    path = rows_file(
        tmp_path, ROWS.replace("lr: 0.01", "match: params:20K").replace("EffNet_digits, label", "cheapV2, label")
    )
    kept(path, "higher-rate", 1, 0.1, net="cheapV2", match="params:20K")
    settings = path.parent / "small" / "higher-rate-seed1" / "settings.yaml"
    settings.write_text(settings.read_text().replace("width: 1.0", "width: 0.1"))
    assert main.main(["-reproduce", str(path), "-jobs", "0"]) == 0
    assert "| `cheapV2` `-match params:20K` | 10.00 |" in (tmp_path / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("net: EffNet_digits, p", "net: EffNet_digit, p", "EffNet_digit"),
        ("lr: 0.01", "lr: none", "small, higher-rate: -lr none: must be a number"),
        ("lr: 0.01", "rate: 0.01", "knows no 'rate'"),
        ("label: higher-rate, ", "", "each with a label of its own"),
        ("pairs: [[EffNet_digits,", "pairs: [[cheapV3,", "a pair is two of EffNet_digits, higher-rate"),
        ("small:", "small: [", "not readable as YAML"),
        ("seeds: [1, 2]", "seeds: 1", "small: seeds must be a list"),
        ("  seeds:", "  timed: often\n  seeds:", "small: timed often: must be true or false"),
        ("  seeds:", "  plot: time\n  seeds:", "small: plot time: must be one of epochs, macs, rows"),
        ("seeds: [1, 2]", "seeds: [one]", "-seed one: must be a whole number"),
    ],
)
def test_rows_that_cannot_be_used_are_one_line(old, new, said, tmp_path, capsys):
    path = rows_file(tmp_path, ROWS.replace(old, new))
    assert main.main(["-reproduce", str(path), "-out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["results", "rows.yaml"]


def test_each_job_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(reproduce, "visible_cuda_devices", lambda: [])
    assert reproduce.environments(3) == [{"OMP_NUM_THREADS": "2"}] * 3 and reproduce.environments(1) == [{}]
    monkeypatch.setattr(reproduce, "visible_cuda_devices", lambda: ["2", "5"])
    assert [each["CUDA_VISIBLE_DEVICES"] for each in reproduce.environments(3)] == ["2", "5", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_rows_go_on_after_a_kill_and_end_as_if_left_alone(number, tmp_path):
    text = ROWS.replace("epochs: 2", "epochs: 12").replace("batch_size: 256", "batch_size: 16")
    text = re.sub("  pairs.*\n", "", text.replace("[1, 2]", "[1]"))
    errors = {}
    for place in ("alone", "killed"):
        folder = tmp_path / place
        folder.mkdir()
        path = rows_file(folder, text)
        words = [sys.executable, "main.py", "-reproduce", str(path), "-jobs", "2", "-out", str(folder)]
        if place == "killed":
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            while not list(folder.glob("checkpoints/*/*/*best.pth")):
                time.sleep(0.05)
                assert process.poll() is None
            process.send_signal(number)
            said, _ = process.communicate()
            assert process.returncode == (-number if number == signal.SIGKILL else 1), said
            assert not list(folder.glob("results/small/*")) or number == signal.SIGKILL
            time.sleep(2)  # what the kill left running ends
        subprocess.run(words, check=True, capture_output=True)
        files = sorted(folder.glob("results/small/*/result.json"))
        assert len(files) == 2
        errors[place] = [json.loads(each.read_text())["test loss"] for each in files]
    assert errors["killed"] == errors["alone"]

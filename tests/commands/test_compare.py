"""-compare: the table of finished runs, on real runs on digits and on results as other runs leave them."""

import csv
import io
import json
import math
import os
import re
import shutil
import statistics
from dataclasses import asdict

import pytest
import torch
import yaml
from PIL import Image

import main
import models
from commands.compare import plot
from commands.finished_runs import newest_of_each_seed, read_runs, rows_of
from conf import FIELDS, is_list, option, value_type
from conf.resolve import settings
from conf.yaml_file import read_mapping
from engine.saved import checkpoint


def compare(out, capsys) -> tuple[list[list[str]], list[dict], str]:
    """(cells of the markdown lines, rows of the CSV, stderr)."""
    status = main.main(["-compare", "-out", str(out)])
    printed, error = capsys.readouterr()
    assert status == 0, error
    where = f"{out / 'runs' / 'compare.csv'}; the plot: {out / 'runs' / 'compare.png'}"
    assert where in printed.splitlines()[-1]
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return cells, list(csv.DictReader((out / "runs" / "compare.csv").open())), error


def leave(out, folder: str, result: dict | None = None, /, **given) -> dict:
    """A finished run's result.json and settings.yaml; returns the result."""
    chosen = settings({"net": "cheapV2", "dataset": "cifar100", **given})
    found = {
        "net": chosen.net,
        "dataset": chosen.dataset,
        "recipe": chosen.recipe,
        "seed": chosen.seed,
        "epochs": chosen.epochs,
        "epochs trained": chosen.epochs,
        "train loss": 0.5,
        "test loss": 1.0,
        "test top-1 error": 0.25,
        "best epoch chosen on": "test set",
        "best test top-1 error": 0.2,
        "parameters": 1000,
        "macs": 2_000_000,
        "weights bytes": 4500,
    }
    found = {key: value for key, value in (found | (result or {})).items() if value != "absent"}
    place = out / "checkpoints" / chosen.net / folder
    place.mkdir(parents=True)
    (place / "result.json").write_text(json.dumps(found))
    saved = asdict(chosen) | {"dataset": found["dataset"], "milestones": list(chosen.milestones)}
    (place / "settings.yaml").write_text(yaml.safe_dump(saved))
    return found


@pytest.mark.usefixtures("without_pictures")
def test_real_runs(tmp_path, capsys):
    """Two seeds of one run, one of another, and one that starts from the first's weights: what stands in the table
    stands in the results and on disk.
    """
    run = "-net EffNet -dataset digits -size 8 -epochs 1 -b 256 -lr 0.01 -warm 0 -gpu false"
    folder = tmp_path / "checkpoints" / "EffNet"
    start = folder / "digits-a" / "last.pth"
    others = (f"{run} -seed 2 -name b", f"{run} -seed 1 -name c -val 0.1 -flip", f"{run} -seed 3 -weights {start}")
    for words in (f"{run} -seed 1 -name a", *others):
        assert main.main([*words.split(), "-out", str(tmp_path)]) == 0
    capsys.readouterr()
    one, two, other = (json.loads((folder / f"digits-{name}" / "result.json").read_text()) for name in "abc")
    _, rows, error = compare(tmp_path, capsys)
    assert len(rows) == 3 and not error
    pair, single, started = sorted(rows, key=lambda row: (-len(row["seeds"]), row["seeds"]))
    assert (pair["seeds"], pair["epochs"], single["seeds"]) == ("1 2", "1", "1")
    assert started["seeds"] == "3" and f"-weights {start}" in started["changed"]
    assert "-size 8 -b 256 -lr 0.01 -warm 0" in pair["changed"] and "-flip random" not in pair["changed"]
    assert "-val 0.1" in single["changed"] and "-flip random" in single["changed"]
    for key in ("train loss", "test loss", "test top-1 error", "best test top-1 error", "seconds"):
        assert float(pair[key]) == pytest.approx(statistics.mean((one[key], two[key]))), key
        assert float(pair[f"{key} std"]) == pytest.approx(statistics.stdev((one[key], two[key]))), key
        assert float(single[key]) == pytest.approx(other[key]) and single[f"{key} std"] == ""
    history = list(csv.DictReader((tmp_path / "runs" / "EffNet" / "digits-c" / "metrics.csv").open()))
    for split in ("train", "val", "test"):
        assert float(single[f"{split} loss"]) == pytest.approx(float(history[-1][f"{split} loss"]))
    assert pair["val loss"] == "" and single["best epoch chosen on"] == "validation images"
    # size on disk: what torch writes for these weights alone
    network = models.create("EffNet", num_classes=10, in_channels=1, image_size=8)
    torch.save(network.state_dict(), file := io.BytesIO())
    assert float(pair["weights bytes"]) == pytest.approx(len(file.getvalue()), abs=200)
    assert int(pair["parameters"]) == sum(p.numel() for p in network.parameters())
    picture = Image.open(tmp_path / "runs" / "compare.png").convert("L")
    assert picture.width > 1000 and len(set(picture.resize((60, 40)).tobytes())) > 20


def test_the_markdown_table(tmp_path, capsys):
    for seed, error in ((1, 0.25), (2, 0.27), (3, 0.29)):
        leave(tmp_path, f"a{seed}", {"test top-1 error": error}, seed=seed, width=0.5)
    head, _, row = compare(tmp_path, capsys)[0]
    found = dict(zip(head, row, strict=True))
    assert found["settings"] == "original -width 0.5" and found["seeds"] == "1-3"
    assert found["test error, %"] == "27.00 ± 2.00"
    assert (found["network"], found["parameters"], found["M MACs"]) == ("cheapV2", "1,000", "2.00")


def test_the_table_fits_and_keeps_what_tells_rows_apart(tmp_path, capsys):
    """Seven columns in a hundred characters, however much the runs have changed."""
    many = dict(lr=0.25, momentum=0.875, weight_decay=0.0625, label_smoothing=0.125, crop=3, clip=2.5, ema=0.99)
    for number, own in enumerate(
        ({}, {"net": "cheapV3_shuffle6"}, {"erase": 0.5}, dict(gamma=0.25, dropout=0.5, rotation=3.5, mixup=1.5))
    ):
        for seed in range(1, 7):
            leave(tmp_path, f"{number}-{seed}", {"test top-1 error": seed / 7}, **many, **own, seed=seed)
    assert main.main(["-compare", "-out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    table = [line for line in printed if line.startswith("|")]
    assert len(table) == 6 and all(len(line) <= 100 and line.count("|") == 8 for line in table)
    [common] = [line for line in printed if line.startswith("all with ")]
    assert common.startswith("all with original ") and all(word in common for word in ("-lr 0.25", "-clip 2.5"))
    assert any("-erase 0.5" in line for line in table) and not any("-lr" in line for line in table)
    assert any("…" in line for line in table) and any(" 1-6 " in line for line in table)


@pytest.mark.parametrize(
    "given",
    [
        dict(lr=0.2),
        dict(epochs=30),
        dict(recipe="fast"),
        dict(width=0.5),
        dict(val=0.1),
        dict(rotation=0.0),
        dict(sync_bn=True),
        dict(reuse_kernels=[3, 3, 5, 5, 7, 7]),
    ],
    ids=str,
)
def test_what_tells_runs_apart(tmp_path, capsys, given):
    leave(tmp_path, "a")
    leave(tmp_path, "b", **{"seed": 2, **given})
    _, rows, _ = compare(tmp_path, capsys)
    assert [row["seeds"] for row in rows] == ["1", "2"]
    shown = [(row["recipe"], row["epochs"], row["changed"]) for row in rows]
    assert shown[0] == ("original", "300", "") and shown[1] != shown[0]


def another(name: str, value: object) -> object:
    """A value that a knob may have, and does not have here."""
    limits = FIELDS[name].metadata
    if value_type(name) is bool:
        return not value
    if value_type(name) is str:
        return next((word for word in limits["choices"] if word != value), "other")
    number = value_type(name)(limits["high"] if value != limits["high"] else limits["low"])
    return [number] if is_list(name) else number


def test_every_knob_that_changes_the_result_tells_runs_apart(tmp_path, capsys):
    """A run for each, of its own seed, that differs by it alone from the first; and one by all others together."""
    leave(tmp_path, "start")
    place = tmp_path / "checkpoints" / "cheapV2"
    result, plain = json.loads((place / "start/result.json").read_text()), read_mapping(place / "start/settings.yaml")
    told = [name for name, field in FIELDS.items() if field.metadata["changes"] == "result" and name != "seed"]
    changes = {number: {name: another(name, plain[name])} for number, name in enumerate(told, 2)}
    changes[1000] = {name: another(name, plain[name]) for name in FIELDS if name not in (*told, "seed")}
    for seed, change in changes.items():
        shutil.copytree(place / "start", place / str(seed))
        (place / str(seed) / "settings.yaml").write_text(yaml.safe_dump(plain | change | {"seed": seed}))
        own = {name: value for name, value in change.items() if name in result}
        (place / str(seed) / "result.json").write_text(json.dumps(result | own | {"seed": seed}))
    rows = rows_of(newest_of_each_seed(read_runs(tmp_path)))  # without the plot, which takes long
    assert not capsys.readouterr().err
    found = {
        row["seeds"]: row for row in (each.labels() | {"dataset": each.runs[0].result["dataset"]} for each in rows)
    }
    first = found.pop("1 1000")
    assert found.keys() == {str(seed) for seed in changes if seed != 1000}
    for seed, name in enumerate(told, 2):
        row = found[str(seed)]
        assert row[name] != first[name] if name in first else option(name) in row["changed"].split(), name


def test_what_does_not(tmp_path, capsys):
    """Where a run computes and writes; and a knob that is newer than a run."""
    leave(tmp_path, "a")
    leave(tmp_path, "b", seed=2, out="elsewhere", data="there", gpu=False, save_every=1.0, name="b")
    saved = tmp_path / "checkpoints" / "cheapV2" / "a" / "settings.yaml"
    saved.write_text("".join(line for line in saved.open() if not line.startswith("patience")))
    _, (row,), _ = compare(tmp_path, capsys)
    assert row["seeds"] == "1 2"


def test_a_run_with_the_recipe_of_its_data_set_has_changed_nothing(tmp_path, capsys):
    leave(tmp_path, "a", dataset="driving")
    _, (row,), _ = compare(tmp_path, capsys)
    assert row["recipe"] == "driving" and row["changed"] == ""


def test_a_table_for_each_data_set(tmp_path, capsys):
    """Classification and regression: columns of one are no columns of the other."""
    leave(tmp_path, "a")
    absent = dict.fromkeys(("test top-1 error", "best test top-1 error"), "absent")
    figures = {"dataset": "driving", "test loss": 0.04, "test mean absolute error (degrees)": 2.5}
    leave(tmp_path, "b", absent | figures)
    (first, _, _, second, _, row), rows, _ = compare(tmp_path, capsys)
    assert "test error, %" in first
    found = dict(zip(second, row, strict=True))
    assert "test error, %" not in found and found["test loss"] == "0.04"
    assert rows[1]["test mean absolute error (degrees)"] == "2.5"
    assert [row["dataset"] for row in rows] == ["cifar100", "driving"]
    assert rows[1]["test top-1 error"] == "" and rows[1]["test loss"] == "0.04"


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_loss_that_overflowed(tmp_path, capsys, loss):
    """As result.json has it now, and as it once had it: no mean of it, and no harm to the rest."""
    leave(tmp_path, "a", {"test loss": loss})
    leave(tmp_path, "b", seed=2)
    _, rows, _ = compare(tmp_path, capsys)
    assert rows[0]["test loss"] == "" and rows[0]["test top-1 error"] == "0.25"


def test_early_stopping_shows(tmp_path, capsys):
    leave(tmp_path, "a", {"epochs trained": 20}, patience=5)
    leave(tmp_path, "b", {"epochs trained": 31}, patience=5, seed=2)
    _, (row,), _ = compare(tmp_path, capsys)
    assert row["epochs"] == "25.5 of 300" and row["changed"] == "-patience 5"


def test_the_same_run_twice_counts_once(tmp_path, capsys):
    """The newer one."""
    leave(tmp_path, "a", {"test top-1 error": 0.5})
    leave(tmp_path, "b", {"test top-1 error": 0.4})
    os.utime(tmp_path / "checkpoints/cheapV2/a/result.json", (2e9, 2e9))
    _, (row,), error = compare(tmp_path, capsys)
    assert row["seeds"] == "1" and row["test top-1 error"] == "0.5"
    assert len(error.splitlines()) == 1 and "cheapV2/b: left out" in error


def test_older_results_are_completed_from_their_checkpoint(tmp_path, capsys):
    leave(tmp_path, "a", dict.fromkeys(("train loss", "weights bytes", "epochs trained"), "absent"))
    weights = {"w": torch.zeros(5000)}
    content = {
        "settings": {},
        "network": weights,
        "averaged": None,
        "history": [{"train loss": 9}, {"train loss": 2.5}],
    }
    checkpoint.save(tmp_path / "checkpoints" / "cheapV2" / "a" / "last.pth", content)
    _, (row,), _ = compare(tmp_path, capsys)
    assert row["train loss"] == "2.5" and row["epochs"] == "300"
    assert 20_000 < int(row["weights bytes"]) < 22_000


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"net": 3}', '{"net": "a"}', ""])
def test_a_result_that_cannot_be_read_is_named_and_left_out(tmp_path, capsys, content):
    leave(tmp_path, "a")
    leave(tmp_path, "b")
    (tmp_path / "checkpoints/cheapV2/b/result.json").write_bytes(content.encode("latin-1"))
    _, rows, error = compare(tmp_path, capsys)
    assert len(rows) == 1
    assert len(error.splitlines()) == 1 and "cheapV2/b/result.json" in error and "left out" in error


@pytest.mark.parametrize("content", [None, "{", "- a", "net: cheapV2", "!!python/object/apply:os.system ['true']"])
def test_settings_that_cannot_be_read_make_a_row_of_its_own(tmp_path, capsys, content):
    leave(tmp_path, "a")
    leave(tmp_path, "b", seed=2)
    path = tmp_path / "checkpoints/cheapV2/b/settings.yaml"
    path.unlink() if content is None else path.write_text(content)
    _, rows, error = compare(tmp_path, capsys)
    assert [row["changed"] for row in rows] == ["", "settings unknown"]
    assert len(error.splitlines()) == 1 and "settings.yaml" in error


def test_a_recipe_that_is_gone(tmp_path, capsys):
    """Every knob that is no default is told then."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"epochs": 3, "batch_size": 8, "lr": 0.1} | REST))
    leave(tmp_path, "a", recipe=str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").unlink()
    _, (row,), _ = compare(tmp_path, capsys)
    assert row["changed"] == "-b 8 -optimizer adam -lr 0.1 -schedule cosine"


REST = {"optimizer": "adam", "schedule": "cosine"}


def test_runs_that_have_not_finished_are_none(tmp_path, capsys):
    leave(tmp_path, "a")
    (tmp_path / "checkpoints/cheapV2/a/result.json").unlink()
    assert main.main(["-compare", "-out", str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_one_seed_has_no_error_bar(tmp_path):
    """Nor a standard deviation; two seeds have both."""
    for name, given in {"a": {"lr": 0.2}, "b": {}, "c": {"seed": 2}}.items():
        leave(tmp_path, name, {"test top-1 error": {"a": 0.3, "b": 0.2, "c": 0.4}[name]}, **given)
    rows = rows_of(read_runs(tmp_path))
    axes = plot({"cifar100": rows}).axes[0]
    bars = {len(row.runs): bool(drawn.lines[1]) for row, drawn in zip(rows, axes.containers, strict=True)}
    assert bars == {1: False, 2: True}


def test_a_cheap_network_is_joined_to_its_baseline(tmp_path):
    """That of the same settings, and none of others."""
    figures = {
        "cheapV2": (0.3, 1e6),
        "MobileNetV2": (0.2, 2e6),
        "SqueezeNet": (0.5, 3e6),
    }
    for net, (error, macs) in figures.items():
        leave(tmp_path, net, {"net": net, "test top-1 error": error, "macs": macs}, net=net)
    leave(tmp_path, "other", {"net": "MobileNetV2", "test top-1 error": 0.1, "macs": 4e6}, net="MobileNetV2", lr=0.2)
    axes = plot({"cifar100": rows_of(read_runs(tmp_path))}).axes[0]
    joined = [line.get_xydata().tolist() for line in axes.lines if len(line.get_xydata()) == 2]
    assert joined == [[[2e6, 20.0], [1e6, 30.0]]]


def test_results_and_settings_made_to_harm(tmp_path, capsys):
    """A number beyond floats, a bomb of aliases, a pipe that nobody writes into."""
    leave(tmp_path, "a", {"test loss": 10**400, "seconds": 1e308})
    leave(tmp_path, "b", seed=2)
    bomb = "".join(
        f"{name}: &{name} [{f'*{before}, ' * 9}1]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    (tmp_path / "checkpoints/cheapV2/b/settings.yaml").write_text("a: &a 1\n" + bomb)
    leave(tmp_path, "c")
    (tmp_path / "checkpoints/cheapV2/c/result.json").unlink()
    os.mkfifo(tmp_path / "checkpoints/cheapV2/c/result.json")
    _, rows, error = compare(tmp_path, capsys)
    assert [row["test loss"] for row in rows] == ["", "1.0"] and len(error.splitlines()) == 2
    assert "alias" in error and "not a file" in error

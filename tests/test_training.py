"""A real run on scikit-learn's digits: what it learns, what it leaves, that it can be tested and gone on with."""

import csv
import json
import sys

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from engine import checkpoint
from engine.logs import RunLog

EPOCHS = 3
RUN = (
    f"main.py -net EffNet -dataset digits -size 8 -epochs {EPOCHS} -b 64 -warm 0.5 -lr 0.01 -ema 0.5 "
    "-val 0.1 -name try1 -seed 3 -gpu false"
)


def start(words: str, out, capsys) -> str:
    """Runs the command line in this process; returns what it printed."""
    sys.argv = [*words.split(), "-out", str(out)]
    status = main.main()
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    sys.argv = [*RUN.split(), "-out", str(out)]
    assert main.main() == 0
    return out


def checkpoints(out):
    return out / "checkpoints" / "EffNet" / "digits-try1"


def curves(out):
    events = EventAccumulator(str(out / "runs" / "EffNet" / "digits-try1"), {"scalars": 0, "images": 0})
    return events.Reload()


def result(out):
    return json.loads((checkpoints(out) / "result.json").read_text())


def test_it_learns(finished):
    """Three epochs are enough to be far from chance, 90 % error."""
    assert result(finished)["test top-1 error"] < 0.35


def test_every_promised_tag_is_there(finished):
    events = curves(finished)
    scalars = set(events.Tags()["scalars"])
    assert {"Train/loss", "Train/accuracy", "Train/lr", "Train/images per second", "Train/epoch"} <= scalars
    for split in ("Test", "Val"):
        assert {f"{split}/Average loss", f"{split}/Accuracy", f"{split}/Top-5"} <= scalars
    assert {"Train/augmented images", "Test/worst mistakes", "Test/confusion matrix"} <= set(events.Tags()["images"])
    assert events.Tags()["graph"]
    assert {"Final/test top-1 error"} <= scalars


def test_a_point_for_every_step_and_one_axis(finished):
    events = curves(finished)
    steps = result(finished)["epochs"] * -(-1293 // 64)  # 1,437 images less a tenth
    assert [event.step for event in events.Scalars("Train/loss")] == list(range(1, steps + 1))
    assert [event.step for event in events.Scalars("Test/Accuracy")] == [steps * n // EPOCHS for n in (1, 2, 3)]


def test_csv_and_result_say_what_the_curves_say(finished):
    rows = list(csv.DictReader((runs_csv := finished / "runs/EffNet/digits-try1/metrics.csv").open()))
    assert len(rows) == EPOCHS, runs_csv
    accuracies = [event.value for event in curves(finished).Scalars("Test/Accuracy")]
    assert [float(row["test accuracy"]) for row in rows] == pytest.approx(accuracies, rel=1e-6)
    found = result(finished)
    assert found["test top-1 error"] == pytest.approx(1 - float(rows[-1]["test accuracy"]))
    best = max(range(EPOCHS), key=lambda n: float(rows[n]["val accuracy"]))
    assert found["best epoch"] == best + 1 and found["best epoch chosen on"] == "validation images"
    assert found["best test top-1 error"] == pytest.approx(1 - float(rows[best]["test accuracy"]))


def test_what_a_run_leaves(finished):
    folder = checkpoints(finished)
    best = result(finished)["best epoch"]
    expected = {"settings.yaml", "result.json", "last.pth", f"EffNet-{best}-best.pth"}
    assert {path.name for path in folder.iterdir()} == expected
    saved = yaml.safe_load((folder / "settings.yaml").read_text())
    assert saved["epochs"] == EPOCHS and saved["lr"] == 0.01 and saved["seed"] == 3
    assert not any(key.startswith("module.") for key in checkpoint.load(folder / "last.pth")["network"])


def test_dash_test_reproduces_the_figures(finished, capsys):
    words = f"main.py -test -weights {checkpoints(finished) / 'last.pth'} -gpu false"
    sys.argv = words.split()
    assert main.main() == 0
    printed = capsys.readouterr().out
    found = result(finished)
    assert f"loss {found['test loss']:.4f}" in printed
    assert f"top-1 error {100 * found['test top-1 error']:.2f} %" in printed
    assert f"top-5 error {100 * found['test top-5 error']:.2f} %" in printed
    assert f"{found['parameters']:,} parameters" in printed


def test_same_seed_same_weights_and_another_seed_others(finished, tmp_path, capsys):
    start(RUN, tmp_path / "again", capsys)
    start(RUN.replace("-seed 3", "-seed 4"), tmp_path / "other", capsys)
    first, again, other = (
        checkpoint.load(checkpoints(out) / "last.pth")["network"]
        for out in (finished, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_an_interrupted_run_goes_on_to_the_same_weights(finished, tmp_path, capsys, monkeypatch):
    """Stopped within the second epoch, after a save within it: the same weights and history bit for bit, and each
    step once in the curves."""
    steps = RunLog.steps

    def stop_at_30(self, first, losses, rates):
        if first >= 30:
            raise KeyboardInterrupt
        steps(self, first, losses, rates)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunLog, "steps", stop_at_30)
        start(f"{RUN} -log-every 2 -save-every 0", tmp_path, capsys)
    stopped = checkpoint.load_run(checkpoints(tmp_path) / "last.pth")
    assert stopped["epoch"] == 1 and 0 < stopped["batch"] < 21
    printed = start("main.py -resume last", tmp_path, capsys)
    assert f"going on from epoch 2, batch {stopped['batch'] + 1}" in printed
    first, again = (checkpoint.load_run(checkpoints(out) / "last.pth") for out in (finished, tmp_path))
    assert all(torch.equal(first["network"][key], again["network"][key]) for key in first["network"])
    for row, other in zip(first["history"], again["history"], strict=True):
        assert {key: value for key, value in row.items() if "second" not in key} == {
            key: value for key, value in other.items() if "second" not in key
        }
    for tag in ("Train/loss", "Test/Accuracy"):
        wanted, found = (curves(out).Scalars(tag) for out in (finished, tmp_path))
        assert [(e.step, e.value) for e in found] == [(e.step, e.value) for e in wanted]


def test_without_val_it_says_that_the_test_set_chose(tmp_path, capsys):
    printed = start(RUN.replace("-val 0.1", "").replace("-epochs 3", "-epochs 1"), tmp_path, capsys)
    assert "chosen on the test set" in printed.splitlines()[-2]
    assert result(tmp_path)["best epoch chosen on"] == "test set"


def test_weights_of_other_classes_start_a_run(finished, tmp_path, capsys):
    """A classifier for ten classes is made new for two, and that is said."""
    from tests.test_command_line import write_images

    write_images(tmp_path / "pets", train=("cat", "dog"), test=("cat", "dog"))
    weights = checkpoints(finished) / "last.pth"
    sys.argv = (
        f"main.py -net EffNet -dataset {tmp_path / 'pets'} -epochs 1 -weights {weights} -out {tmp_path} "
        "-b 4 -lr 1e-9 -gpu false"
    ).split()
    status = main.main()
    captured = capsys.readouterr()
    assert status == 2 and "blocks.0.pointwise.conv.weight" in captured.err  # grey digits against colour images


def test_a_single_left_over_image_joins_the_batch_before(tmp_path, capsys):
    """1,437 = 4 x 359 + 1: batch norm could not take the last image alone."""
    words = "main.py -net EffNet -dataset digits -size 8 -epochs 1 -b 359 -name try1 -gpu false"
    printed = start(words, tmp_path, capsys)
    assert "1 epochs of 4 steps" in printed


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    sys.argv = [
        *"main.py -net EffNet -dataset digits -size 8 -epochs 2 -optimizer sgd -lr 1e30 -warm 0".split(),
        *f"-log-every 3 -name try1 -gpu false -out {tmp_path}".split(),
    ]
    assert main.main() == 2
    error = capsys.readouterr().err
    assert "the loss of step" in error and "learning rate of 9.783e+29" in error
    assert not list(tmp_path.rglob("*.pth"))

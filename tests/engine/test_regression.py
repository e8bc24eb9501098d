"""A run whose task is a number, not a class: what it learns, logs, leaves; that it can be tested and gone on with."""

import csv
import json
import math

import numpy
import pytest
import torch
from PIL import Image
from sklearn.metrics import mean_absolute_error, mean_squared_error
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from datasets import driving
from datasets.split import held_out_driving
from engine.saved import checkpoint
from engine.shown import figures
from engine.shown.logs import RunLog
from engine.tasks import Regression
from tests.helpers.drive import angle_of, write_drive

COUNT, EPOCHS, STEPS = 60, 3, 30
RUN = (
    f"-net EffNet -dataset driving -size 16 -epochs {EPOCHS} -steps {STEPS} -b 32 -lr 2e-3 -val 0.2 -name try1 "
    "-seed 3 -gpu false"
)


def call(words: str, capsys) -> tuple[int, str, str]:
    status = main.main(words.split())
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_drive(folder / "driving", COUNT)
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    assert main.main([*RUN.split(), "-data", str(data), "-out", str(out)]) == 0
    return out


def checkpoints(out):
    return out / "checkpoints" / "EffNet" / "driving-try1"


def curves(out):
    events = EventAccumulator(str(out / "runs" / "EffNet" / "driving-try1"), {"scalars": 0, "images": 0})
    return events.Reload()


def result(out):
    return json.loads((checkpoints(out) / "result.json").read_text())


def true_angles() -> dict[str, numpy.ndarray]:
    """Of each split, worked out from what was written."""
    testing = driving.held_out_stretches(COUNT)
    rest = [angle_of(number) for number in range(COUNT) if not testing[number]]
    train, validation = (numpy.array(rest)[index.numpy()] for index in held_out_driving(len(rest), 0.2))
    test = [angle_of(number) for number in range(COUNT) if testing[number]]
    return {"train": train, "val": validation, "test": numpy.array(test), "all training": numpy.array(rest)}


def test_it_learns(finished):
    """Three short epochs are enough to be well below what takes no network."""
    found = result(finished)
    assert found["best test loss"] < 0.5 * found["test loss of always zero"]


def test_beside_every_loss_stand_those_of_zero_and_of_the_mean(finished):
    rows = list(csv.DictReader((finished / "runs/EffNet/driving-try1/metrics.csv").open()))
    true = true_angles()
    mean = true["all training"].mean()
    assert len(rows) == EPOCHS
    for row in rows:
        for split in ("val", "test"):
            assert float(row[f"{split} loss of zero"]) == pytest.approx((true[split] ** 2).mean(), rel=1e-5)
            zero = 25 * abs(true[split]).mean()
            assert float(row[f"{split} degrees of zero"]) == pytest.approx(zero, rel=1e-5)
            assert float(row[f"{split} loss of mean"]) == pytest.approx(((true[split] - mean) ** 2).mean(), rel=1e-5)
        assert float(row["train loss of zero"]) > 0


def test_every_promised_tag_is_there_and_none_of_classes(finished):
    events = curves(finished)
    scalars, images = set(events.Tags()["scalars"]), set(events.Tags()["images"])
    for split in ("Train", "Val", "Test"):
        assert {
            f"{split}/loss",
            f"{split}/mean absolute error in degrees",
            f"{split}/mean absolute error of always zero in degrees",
            f"{split}/loss of always zero",
            f"{split}/loss of the training mean",
        } <= scalars
    assert {"Train/loss", "Train/lr", "Train/images per second", "Train/epoch"} <= scalars
    assert not any(word in tag.lower() for tag in scalars for word in ("accuracy", "top-", "top 1"))
    assert images == {
        "Train/augmented images",
        "Test/predicted against true",
        "Test/error by angle range",
        "Test/frames with both angles",
    }
    assert [event.step for event in events.Scalars("Train/loss")] == list(range(1, EPOCHS * STEPS + 1))


def test_best_is_the_least_loss(finished):
    rows = list(csv.DictReader((finished / "runs/EffNet/driving-try1/metrics.csv").open()))
    found = result(finished)
    best = min(range(EPOCHS), key=lambda number: float(rows[number]["val loss"]))
    assert found["best epoch"] == best + 1 and found["best epoch chosen on"] == "validation images"
    assert found["best test loss"] == pytest.approx(float(rows[best]["test loss"]))
    assert found["test loss"] == pytest.approx(float(rows[-1]["test loss"]))
    degrees = float(rows[-1]["test degrees"])
    assert found["test mean absolute error (degrees)"] == pytest.approx(degrees)
    assert (checkpoints(finished) / f"EffNet-{best + 1}-best.pth").is_file()


def test_dash_test_reproduces_the_figures(finished, capsys):
    status, printed, _ = call(f"-test -weights {checkpoints(finished) / 'last.pth'} -gpu false", capsys)
    found = result(finished)
    assert status == 0
    assert f"MSE {found['test loss']:.4f} (always zero {found['test loss of always zero']:.4f}" in printed
    assert f"mean absolute error {found['test mean absolute error (degrees)']:.2f} degrees" in printed
    assert f"{found['parameters']:,} parameters" in printed


def test_dash_test_of_weights_alone_knows_the_training_mean(finished, data, tmp_path, capsys):
    content = checkpoint.load_run(checkpoints(finished) / "last.pth")
    torch.save(content["averaged"] or content["network"], tmp_path / "alone.pth")
    words = f"-test -weights {tmp_path / 'alone.pth'} -net EffNet -dataset driving -size 16 -data {data} -gpu false"
    status, printed, _ = call(words, capsys)
    true = true_angles()
    expected = ((true["test"] - true["all training"].mean()) ** 2).mean()
    assert status == 0 and f"training mean {expected:.4f}" in printed, printed


class Killed(BaseException):
    """What ends a process at once."""


def test_a_run_killed_within_an_epoch_goes_on_to_the_same_weights(finished, data, tmp_path, capsys, monkeypatch):
    steps = RunLog.steps

    def stop(self, first, losses, rates):
        if first >= STEPS + 16:
            raise Killed
        steps(self, first, losses, rates)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunLog, "steps", stop)
        call(f"{RUN} -data {data} -out {tmp_path} -log-every 4 -save-every 0", capsys)
    stopped = checkpoint.load_run(checkpoints(tmp_path) / "last.pth")
    assert stopped["epoch"] == 1 and 0 < stopped["batch"] < STEPS
    status, printed, error = call(f"-resume {checkpoints(tmp_path)}", capsys)
    assert status == 0 and "going on from epoch 2" in printed, error
    first, again = (checkpoint.load_run(checkpoints(out) / "last.pth") for out in (finished, tmp_path))
    assert all(torch.equal(first["network"][key], again["network"][key]) for key in first["network"])
    for row, other in zip(first["history"], again["history"], strict=True):
        assert {key: value for key, value in row.items() if "second" not in key} == {
            key: value for key, value in other.items() if "second" not in key
        }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-dataset driving -crop 4", "-crop 4: not for -dataset driving; give -crop 0"),
        ("-dataset driving -rotation 5", "-rotation 5: not for -dataset driving"),
        ("-dataset driving -label-smoothing 0.1", "has no labels"),
        ("-dataset driving -zero-drop 1", "-zero-drop 1.0: must be at most"),
        ("-dataset driving -val 0.001", "-val 0.001"),
        ("-dataset digits -brightness 0.5", "-brightness 0.5: not for -dataset digits; give -brightness 1"),
        ("-dataset digits -recipe driving", "-correction 0.25: not for -dataset digits"),
    ],
)
def test_knobs_of_other_data_are_refused(data, tmp_path, capsys, words, message):
    status, _, error = call(f"-net EffNet -size 16 -data {data} -out {tmp_path} {words}", capsys)
    assert status == 2 and message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_metrics_against_scikit_learn():
    """Over batches of unequal size; degrees from the unit of the log."""
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(2, 37, generator=generator)
    task = Regression(degrees=25.0, training_mean=0.3)
    sums = sum(task.sums(outputs[part, None], targets[part]).double() for part in torch.arange(37).split(10))
    found = task.metrics(sums.tolist())
    true, predicted = targets.numpy(), outputs.numpy()
    assert found["loss"] == pytest.approx(mean_squared_error(true, predicted), rel=1e-5)
    assert found["degrees"] == pytest.approx(25 * mean_absolute_error(true, predicted), rel=1e-5)
    assert found["loss of zero"] == pytest.approx(mean_squared_error(true, 0 * true), rel=1e-5)
    assert found["degrees of zero"] == pytest.approx(25 * mean_absolute_error(true, 0 * true), rel=1e-5)
    assert found["loss of mean"] == pytest.approx(mean_squared_error(true, 0 * true + 0.3), rel=1e-5)
    assert task.loss(outputs[:, None], targets).item() == pytest.approx(found["loss"], rel=1e-5)
    assert task.score(found) == found["loss"]


def test_errors_by_range_against_a_loop():
    """Every angle is in one range; the edges belong to the range nearer to zero."""
    generator = torch.Generator().manual_seed(0)
    true = torch.cat(
        [torch.empty(200).uniform_(-25, 25, generator=generator), torch.tensor([-25.0, 0.0, 0.5, 15.0, 25])]
    )
    predicted = true + torch.randn(len(true), generator=generator)
    rows = figures.errors_by_range(true, predicted, 25.0)
    assert sum(row[2] for row in rows) == len(true)
    assert [row[0] for row in rows[1:]] == [row[1] for row in rows[:-1]]
    for low, high, count, error, of_zero in rows:
        nearer, farther = sorted((abs(low), abs(high)))
        if low < 0 < high:
            inside = [n for n, angle in enumerate(true.tolist()) if abs(angle) <= high]
        else:
            sign = 1 if high > 0 else -1
            inside = [n for n, angle in enumerate(true.tolist()) if nearer < sign * angle <= farther]
        assert count == len(inside)
        assert error == pytest.approx(sum(abs(predicted[n] - true[n]).item() for n in inside) / count, rel=1e-4)
        assert of_zero == pytest.approx(sum(abs(true[n]).item() for n in inside) / count, rel=1e-4)


def test_pictures_show_what_they_say():
    true, predicted = torch.tensor([0.0, 20.0, -10.0]), torch.tensor([5.0, 10.0, -10.0])
    scatter = figures.scatter_figure(true, predicted, 25.0).axes[0].collections[0]
    assert scatter.get_offsets().tolist() == torch.stack([true, predicted], 1).tolist()
    bars = figures.range_figure(true, predicted, 25.0).axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0, 5, 10, 10, 0, 20])
    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    strip = figures.frames_figure(images, true, predicted).axes
    order = true.argsort()  # the strip goes from left to right
    for axes, *expected in zip(strip, true[order].tolist(), predicted[order].tolist(), strict=True):
        drawn = []
        for line in axes.lines:
            (x0, x1), (y0, y1) = line.get_data()
            assert (x0, y0) == (7.5, 15)
            drawn.append(math.degrees(math.atan2(x1 - x0, y0 - y1)))  # rightwards of upwards
        assert drawn == pytest.approx(expected, abs=1e-6)


def test_predict_gives_the_angles_that_the_test_measured(finished, data, capsys):
    """-predict over the test rows' centre frames: their mean absolute error is the run's own."""
    testing = driving.held_out_stretches(COUNT)
    rows = [number for number in range(COUNT) if testing[number]]
    frames = [str(data / "driving" / "IMG" / f"center_{number:03}.jpg") for number in rows]
    weights = checkpoints(finished) / "last.pth"
    status, printed, _ = call(f"-predict {' '.join(frames)} -weights {weights} -gpu false", capsys)
    assert status == 0
    found = list(csv.DictReader(printed.splitlines()))
    assert [row["path"] for row in found] == frames
    errors = [abs(float(row["degrees"]) - 25 * angle_of(number)) for row, number in zip(found, rows, strict=True)]
    assert numpy.mean(errors) == pytest.approx(result(finished)["test mean absolute error (degrees)"], abs=1e-3)
    assert float(found[0]["degrees"]) == pytest.approx(25 * float(found[0]["angle"]), abs=1e-3)
    status, printed, _ = call(f"-predict {frames[0]} -weights {weights} -gpu false", capsys)
    assert status == 0 and f"{found[0]['degrees']} degrees" in printed


def test_predict_refuses_what_is_no_frame(finished, tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    weights = checkpoints(finished) / "last.pth"
    status, _, error = call(f"-predict {tmp_path / 'a.png'} -weights {weights} -gpu false", capsys)
    assert status == 2 and "64x64 pixels" in error and len(error.splitlines()) == 1

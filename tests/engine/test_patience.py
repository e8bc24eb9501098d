"""Early stopping: -patience N, on real runs on scikit-learn's digits; and the text of result.json."""

import csv
import json
import math

import pytest
import torch

import main
from conf.resolve import settings
from engine.device import Precision
from engine.saved import checkpoint
from engine.shown.logs import RunLog
from engine.shown.result import to_json
from engine.state import TrainState

pytestmark = pytest.mark.usefixtures("without_pictures")

# Two epochs that learn, then a rate of zero: once the running statistics have settled, the score stays.
RUN = (
    "-net EffNet -dataset digits -size 8 -val 0.8 -epochs 12 -b 32 -s false -lr 0.01 -warm 0 -ema 0 "
    "-schedule step -milestones 2 -gamma 0 -gpu false -name one"
)
PATIENCE = 2


class Killed(BaseException):
    """Ends a run at a place of the test's choosing, as a kill would."""


def run(words: str, out) -> None:
    assert main.main([*words.split(), "-out", str(out)]) == 0


def result(out) -> dict:
    return json.loads((out / "checkpoints/EffNet/digits-one/result.json").read_text())


def history(out) -> list[dict]:
    return list(csv.DictReader((out / "runs/EffNet/digits-one/metrics.csv").open()))


def weights(out) -> dict:
    return checkpoint.load_run(out / "checkpoints/EffNet/digits-one/last.pth")["network"]


def without_times(found: dict) -> dict:
    return {key: value for key, value in found.items() if "second" not in key}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that never stops early."""
    out = tmp_path_factory.mktemp("whole")
    run(RUN, out)
    return out


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped")
    run(f"{RUN} -patience {PATIENCE}", out)
    return out


def literal_stop(errors: list[float], patience: int) -> int:
    """The number of epochs that a run with these validation errors trains."""
    best, waited = math.inf, 0
    for epoch, error in enumerate(errors, start=1):
        best, waited = (error, 0) if error < best else (best, waited + 1)
        if waited == patience:
            return epoch
    return len(errors)


def test_it_stops_where_the_validation_error_says(whole, stopped):
    errors = [1 - float(row["val accuracy"]) for row in history(whole)]
    expected = literal_stop(errors, PATIENCE)
    assert len(errors) == 12 and PATIENCE + 1 < expected < 12
    assert [without_times(row) for row in history(stopped)] == [without_times(r) for r in history(whole)[:expected]]
    found = result(stopped)
    assert (found["epochs"], found["epochs trained"], found["stopped early"]) == (12, expected, True)
    assert found["best epoch"] == expected - PATIENCE
    assert found["images per second"] * found["seconds"] == pytest.approx(287 * expected)
    assert (result(whole)["epochs trained"], result(whole)["stopped early"]) == (12, False)


def test_it_is_said(stopped, tmp_path, capsys):
    run(f"-resume {stopped / 'checkpoints/EffNet/digits-one'}", stopped)
    epochs = result(stopped)["epochs trained"]
    line = f"stopped early, after {epochs} of 12 epochs: 2 in a row without a better score on the validation images"
    assert line in capsys.readouterr().out.splitlines()


def test_a_patience_that_ends_with_the_run_stopped_nothing(stopped, tmp_path, capsys):
    """The same run with no more epochs asked for than it trained."""
    epochs = result(stopped)["epochs trained"]
    run(f"{RUN} -epochs {epochs} -milestones 2 -patience {PATIENCE}", tmp_path)
    found = result(tmp_path)
    assert found["epochs trained"] - found["best epoch"] == PATIENCE and not found["stopped early"]
    assert "stopped early" not in capsys.readouterr().out


@pytest.mark.parametrize("place", ["within an epoch", "after the last"])
def test_a_killed_run_stops_at_the_same_epoch(stopped, tmp_path, monkeypatch, place):
    last = result(stopped)["epochs trained"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if place == "within an epoch":  # the one before the last: the first without a better score
            patch.setattr(RunLog, "steps", killing(RunLog.steps, lambda first: first >= 9 * (last - 2) + 3))
        else:
            patch.setattr("engine.run.make_result", killing(None, lambda job: True))
        run(f"{RUN} -patience {PATIENCE} -log-every 3 -save-every 0", tmp_path)
    run("-resume last", tmp_path)
    assert without_times(result(tmp_path)) == without_times(result(stopped))
    assert all(torch.equal(value, weights(tmp_path)[key]) for key, value in weights(stopped).items())


def killing(function, condition):
    """function, until condition holds of its first argument that is a number or a job."""

    def call(*args):
        if condition(next(arg for arg in args if not isinstance(arg, RunLog))):
            raise Killed
        return function(*args)

    return call


def test_a_score_that_is_no_number_is_never_the_best():
    precision = Precision.choose("off", torch.device("cpu"))
    state = TrainState.start(torch.nn.Linear(1, 1), 1, settings({"net": "EffNet"}), precision)
    taken = []
    for state.epoch, score in enumerate((math.nan, 0.5, math.nan, math.inf, 0.5, 0.4), start=1):
        taken.append(state.is_best(score))
    assert taken == [True, True, False, False, False, True] and state.best == {"score": 0.4, "epoch": 6}


def test_result_json_is_json():
    """A strict reader takes it: null where a loss overflowed, and every other value as it is."""

    def refuse(word):
        raise AssertionError(word)

    values = {"test loss": math.inf, "val loss": math.nan, "train loss": -math.inf, "epochs": 3, "x": 0.1, "b": True}
    found = json.loads(to_json(values), parse_constant=refuse)
    assert found == values | {"test loss": None, "val loss": None, "train loss": None}

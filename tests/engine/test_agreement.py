"""A run goes on only with a state that it could have left itself; else one line names the part."""

import copy

import pytest
import torch

import main
from engine.saved import checkpoint
from tests.helpers.runs import checkpoints

pytestmark = pytest.mark.usefixtures("finished", "without_pictures")


def of_optimizer(content: dict, name: str, value: torch.Tensor) -> None:
    content["optimizer"]["state"][3][name] = value


def count_more(content: dict) -> None:
    for kept in content["optimizer"]["state"].values():
        kept["step"] += 1


def without_column(content: dict) -> None:
    for row in content["history"]:
        del row["val loss"]


CHANGES = {
    "moment of another shape": (
        lambda c: of_optimizer(c, "exp_avg", torch.zeros(2)),
        "has a exp_avg of [2], and not of [",
    ),
    "moments of sgd": (lambda c: of_optimizer(c, "momentum_buffer", torch.zeros(2)), "than adamw does"),
    "steps counted anew": (lambda c: of_optimizer(c, "step", torch.zeros(())), "other steps than the 63 of the run"),
    "more steps than the run's": (count_more, "other steps than the 63 of the run"),
    "a parameter less": (lambda c: c["optimizer"]["state"].pop(0), "and the network has 38"),
    "no moments at all": (lambda c: c["optimizer"]["state"].clear(), "is of 0 parameters, and the network has 38"),
    "another decay": (lambda c: c["optimizer"]["param_groups"][0].update(weight_decay=0.3), "another weight_decay"),
    "another rate": (lambda c: c["optimizer"]["param_groups"][0].update(lr=0.3), "another learning rate"),
    "steps": (lambda c: c.update(batch=1, sums=[1.0] * 5), "its 'step' is 63, where 3 epochs of 21 steps and 1"),
    "averages": (lambda c: c.update(averaged_steps=5), "its 'averaged_steps' is 5"),
    "weights": (lambda c: c["averaged"].pop("head.classifier.bias"), "'averaged' is of another network"),
    "history": (without_column, "its 'history' has no 'val loss'"),
    "task": (lambda c: c.update(task="regression"), "is regression for 10 classes"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_state_of_another_run_is_refused(finished, tmp_path, capsys, change, message):
    content = copy.deepcopy(checkpoint.load(checkpoints(finished) / "last.pth"))
    change(content)
    folder = tmp_path / "checkpoints" / "EffNet" / "digits-try1"
    checkpoint.save(folder / "last.pth", content)
    before = sorted(tmp_path.rglob("*")), (folder / "last.pth").read_bytes()
    assert main.main(["-resume", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert (sorted(tmp_path.rglob("*")), (folder / "last.pth").read_bytes()) == before

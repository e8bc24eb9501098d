"""Every name and line in which users read a task's metrics, for fixed metrics, against literals."""

from __future__ import annotations

import math

import pytest
import torch

from engine.tasks import TASKS, Classification, Regression, Task

BEST_EPOCH = {"best epoch": 2, "best epoch chosen on": "validation images"}


@pytest.fixture
def classes() -> tuple[Classification, dict, dict]:
    """A classification, its metrics after the last epoch, and those after the best one."""
    task = Classification(10)
    last = task.metrics([13.0, 6.0, 7.5, 8.0, 0.0]) | task.spread([0.25, 0.5, 0.75, 5.0])
    best = {"loss": 1.0, "accuracy": 0.875, "top-5": 1.0, "overflowing images": 0.0, "median loss": 0.5}
    return task, last, best


@pytest.fixture
def angles() -> tuple[Regression, dict, dict]:
    """A regression, its metrics after the last epoch, and those after the best one."""
    task = Regression(degrees=25.0, training_mean=0.3)
    best = {"loss": 0.125, "degrees": 3.0, "loss of zero": 0.5, "degrees of zero": 12.5, "loss of mean": 0.375}
    return task, task.metrics([1.0, 1.5, 2.0, 4.0, 3.0, 8.0]), best


def test_names_of_the_tasks():
    assert TASKS == {"classification": Classification, "regression": Regression}
    assert (Classification(10).targets(), Regression(25.0, 0.3).targets()) == ("10 classes", "an angle each")


def test_the_table_is_of_the_metrics(classes, angles):
    """Each metric has one row, and each that stands beside another belongs to a metric."""
    for task, metrics, _ in (classes, angles):
        keys = [metric.key for metric in task.table]
        assert sorted(keys) == sorted(metrics)
        assert {metric.beside for metric in task.table} <= {"", *keys}


def test_a_task_without_a_loss_is_none():
    class Lossless(Classification):
        loss = Task.loss

    with pytest.raises(TypeError, match="abstract.*loss"):
        Lossless(10)


def test_classification_columns_and_tags(classes):
    task, last, best = classes
    assert list(last.items()) == [
        ("loss", 1.625),
        ("accuracy", 0.75),
        ("top-5", 0.9375),
        ("overflowing images", 0.0),
        ("median loss", 0.625),
    ]
    assert list(task.tags(last).items()) == [
        ("loss", 1.625),
        ("accuracy", 0.75),
        ("top-5 accuracy", 0.9375),
        ("median loss", 0.625),
        ("overflowing images", 0.0),
    ]
    training = {key: value for key, value in last.items() if key != "median loss"}
    assert task.train_tags(training) == {"accuracy": 0.75, "top-5 accuracy": 0.9375, "overflowing images": 0.0}
    assert (task.score(last), task.score(best)) == (0.25, 0.125)


def test_classification_result(classes):
    task, last, best = classes
    found = task.result(last, best, BEST_EPOCH)
    assert list(found.items()) == [
        ("test loss", 1.625),
        ("test top-1 error", 0.25),
        ("test top-5 error", 0.0625),
        ("test median loss", 0.625),
        ("test overflowing images", 0.0),
        ("best epoch", 2),
        ("best epoch chosen on", "validation images"),
        ("best test top-1 error", 0.125),
        ("best test top-5 error", 0.0),
    ]
    assert task.main_tags == ("accuracy", "top-5 accuracy", "loss")


def test_classification_lines(classes):
    task, last, best = classes
    assert task.describe(last) == "loss 1.6250  top-1 error 25.00 %  top-5 error 6.25 %"
    assert task.describe(last | {"loss": math.nan}) == "loss nan  top-1 error 25.00 %  top-5 error 6.25 %"
    overflown = last | {"loss": 3.2e15, "overflowing images": 2.0}
    assert task.describe(overflown) == (
        "loss 3200000000000000.0000 (median 0.6250, overflowing images 2)  top-1 error 25.00 %  top-5 error 6.25 %"
    )
    del overflown["median loss"]
    assert "3200000000000000.0000 (overflowing images 2)  top-1" in task.describe(overflown)
    assert task.describe_result(task.result(last, best, BEST_EPOCH)) == (
        "test top-1 error 25.00 %, top-5 error 6.25 %",
        "test top-1 error 12.50 %",
    )


def test_regression_columns_and_tags(angles):
    task, last, best = angles
    assert list(last.items()) == [
        ("loss", 0.125),
        ("degrees", 4.6875),
        ("loss of zero", 0.25),
        ("degrees of zero", 12.5),
        ("loss of mean", 0.375),
    ]
    tags = [
        ("loss", 0.125),
        ("mean absolute error in degrees", 4.6875),
        ("mean absolute error of always zero in degrees", 12.5),
        ("loss of always zero", 0.25),
        ("loss of the training mean", 0.375),
    ]
    assert list(task.tags(last).items()) == tags
    assert list(task.train_tags(last).items()) == tags[1:]
    assert task.score(best) == 0.125


def test_regression_result(angles):
    task, last, best = angles
    assert list(task.result(last, best, BEST_EPOCH).items()) == [
        ("test loss", 0.125),
        ("test mean absolute error (degrees)", 4.6875),
        ("test mean absolute error of always zero (degrees)", 12.5),
        ("test loss of always zero", 0.25),
        ("test loss of the training mean", 0.375),
        ("best epoch", 2),
        ("best epoch chosen on", "validation images"),
        ("best test loss", 0.125),
        ("best test mean absolute error (degrees)", 3.0),
    ]
    assert task.main_tags == ("loss", "mean absolute error in degrees")


def test_regression_lines(angles):
    task, last, best = angles
    assert task.describe(last) == (
        "MSE 0.1250 (always zero 0.2500, training mean 0.3750)  mean absolute error 4.69 degrees (always zero 12.50)"
    )
    assert task.describe_result(task.result(last, best, BEST_EPOCH)) == (
        "test MSE 0.1250 (always zero 0.2500, training mean 0.3750), "
        "mean absolute error 4.69 degrees (always zero 12.50)",
        "test MSE 0.1250, mean absolute error 3.00 degrees",
    )


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_there_is_no_top_5_error_of_five_classes(outputs):
    """Every guess is among the first five. The sums stay as they are: a checkpoint within an epoch holds them."""
    task = Classification(outputs)
    logits = torch.randn(8, outputs, generator=torch.Generator().manual_seed(0))
    sums = task.sums(logits, torch.zeros(8, dtype=torch.long)).tolist()
    assert len(sums) == len(Classification(6).sums(torch.randn(8, 6), torch.zeros(8, dtype=torch.long)))
    metrics = task.metrics(sums)
    evaluated = metrics | task.spread([1.0])
    result = task.result(evaluated, evaluated, BEST_EPOCH)
    lines = (*task.main_tags, *task.tags(evaluated), *result, task.describe(metrics), *task.describe_result(result))
    assert list(metrics) == ["loss", "accuracy", "overflowing images"]
    assert not any("top-5" in line.lower() for line in lines)
    assert "top-5" in Classification(6).metrics([1.0, 1.0, 1.0, 1.0, 0.0])


def test_images_whose_logits_overflow_are_counted_and_the_median_is_of_all():
    """Against numbers by hand: the losses are ln 3, 0 2e4, inf (a logit is infinite) and not a number."""
    large, nan, inf = 2e4, math.nan, math.inf
    logits = torch.tensor([[0.0, 0, 0], [9e3, 0, 0], [0, large, 0], [-inf, 0, 0], [nan, 0, 0]])
    task, targets = Classification(3), torch.tensor([0, 0, 0, 0, 0])
    sums = task.sums(logits, targets).tolist()
    assert sums[3:] == [5.0, 3.0]  # images, and those of 2e4, -inf and nan
    assert Classification(3).sums(torch.tensor([[1e4, 0, 0], [1.1e4, 0, 0]]), targets[:2]).tolist()[3:] == [2.0, 1.0]
    losses = task.image_losses(logits, targets).tolist()
    assert losses == [pytest.approx(math.log(3)), 0.0, 2e4, inf, inf]
    assert task.spread(losses) == {"median loss": 2e4}
    assert task.spread(losses[:4]) == {"median loss": pytest.approx((math.log(3) + 2e4) / 2)}
    assert task.completed([1.0, 2.0, 3.0, 4.0]) == [1.0, 2.0, 3.0, 4.0, 0.0] and task.completed(sums) == sums

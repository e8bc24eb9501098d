"""-test: the figures of finished weights on the test set of their data set."""

from __future__ import annotations

from pathlib import Path

from engine import loop
from engine.trained import load_trained
from models.summary import parameter_count


def evaluate(weights: Path, overrides: dict[str, object]) -> dict[str, float]:
    """Evaluates the weights of a checkpoint on the test set, prints the metrics and returns them.

    overrides: settings that do not change the network. Raises ValueError as load_trained() and test_batches() do.
    """
    trained = load_trained(weights, overrides)
    batches = trained.test_batches()
    metrics = loop.evaluate(trained.network, batches, trained.task, trained.precision)
    print(f"{trained.settings.net} on the {len(batches.index):,} test images of {trained.settings.dataset}")
    print(f"{trained.task.describe(metrics)}  {parameter_count(trained.network):,} parameters")
    return metrics

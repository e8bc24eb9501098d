"""-test: the figures of finished weights on the test set of their data set."""

from __future__ import annotations

from pathlib import Path

from engine import loop
from engine.job import job_from_checkpoint


def evaluate(weights: Path, overrides: dict[str, object]) -> dict[str, float]:
    """Evaluates the weights of a checkpoint on the test set, prints the metrics and returns them.

    overrides: settings that do not change the network. Raises ValueError as job_from_checkpoint() does.
    """
    job, _ = job_from_checkpoint(weights, overrides)
    metrics = loop.evaluate(job.network, job.evaluations["Test"], job.task, job.precision)
    print(f"{job.settings.net} on the {len(job.dataset.test.targets):,} test images of {job.settings.dataset}")
    print(f"{job.task.describe(metrics)}  {job.parameters:,} parameters")
    return metrics

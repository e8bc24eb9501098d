"""What a run tells TensorBoard at its start, after each epoch and at its end; of its steps engine/run.py tells."""

from __future__ import annotations

import torch

from engine.job import Job
from engine.loop import predict
from engine.saved.folders import Folders
from engine.shown import cards
from engine.shown.logs import NoLog, RunLog, only_a_warning
from engine.shown.progress import status, watched
from engine.shown.result import split_metrics
from engine.state import TrainState


def open_log(job: Job, state: TrainState, folders: Folders) -> RunLog:
    """The log of the run's curves; points that an interrupted run wrote after this step are purged.

    A checkpoint is written before its last step is evaluated or the evaluation logged, so that the last step's
    points may lack: they are purged as well, and written again.
    """
    log = RunLog(folders.runs, state.step)
    log.layout(cards.layout(job.task, job.settings.log_more))
    if state.step:
        log.steps(state.step - 1, [state.loss], [state.rate])
    if state.history and not state.batch:
        log_epoch(log, job, state)
    return log


def log_start(log: RunLog, job: Job, folders: Folders) -> None:
    """Logs the run's card, the network's graph and a grid of training images as the network sees them."""
    log.text("Run/card", cards.card(job.settings, folders.checkpoints, None), 0)
    images, _ = next(job.training.epoch(0))
    mean = torch.tensor(job.dataset.mean, device=images.device)[:, None, None]
    std = torch.tensor(job.dataset.std, device=images.device)[:, None, None]
    log.images("Train/augmented images", (images * std + mean).clamp(0, 1).cpu(), 0)
    log.graph(job.network, images)


def log_epoch(log: RunLog | NoLog, job: Job, state: TrainState) -> None:
    """Logs the figures of the history's last epoch, and metrics.csv."""
    row = state.history[-1]
    counts = {"images per second": row["images per second"], "epoch": row["epoch"]}
    log.scalars(state.step, "Train", job.task.train_tags(split_metrics(row, "Train")) | counts)
    for split in job.evaluations:
        log.scalars(state.step, split, job.task.tags(split_metrics(row, split)))
    log.table("metrics", state.history)


def log_end(log: RunLog, job: Job, state: TrainState, folders: Folders, result: dict) -> None:
    """Logs the task's pictures and tables of the test set, the run's card with its result, its row of HParams."""
    with only_a_warning(f"{folders.runs}: pictures of the test set"):
        batches = watched(job.evaluations["Test"].whole(), "test set, for its pictures")
        found = predict(state.evaluated, batches, job.precision, job.task)
        with status("drawing the pictures of the test set"):
            for name, figure in job.task.figures(*found, job.dataset).items():
                log.figure(f"Test/{name}", figure, state.step)
        for name, rows in job.task.tables(*found, job.dataset).items():
            log.text(f"Test/{name}", cards.table(rows), state.step)
            log.table(name, rows)
    log.text("Run/card", cards.card(job.settings, folders.checkpoints, result), state.step)
    tags = [f"Test/{tag}" for tag in job.task.main_tags]
    log.hyperparameters(cards.columns(job.settings, job.parameters, job.macs), tags)

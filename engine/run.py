"""A training run from its first step to its result, and the evaluation of finished weights."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from conf import Settings
from engine import checkpoint, report
from engine.folders import Folders
from engine.job import Job, finished_job, make_job
from engine.logs import RunLog
from engine.loop import evaluate, train_epoch
from engine.result import describe_result, make_result
from engine.state import TrainState

REGULAR_EVERY = 10  # epochs between the checkpoints that are kept


def train(settings: Settings, weights: Path | None = None) -> dict:
    """A new run; returns its result, which is also written to result.json."""
    job = make_job(settings, weights)
    folders = Folders.new(settings)
    state = TrainState.start(job.network, len(job.training), settings, job.precision)
    folders.checkpoints.mkdir(parents=True)
    text = yaml.safe_dump(dataclasses.asdict(settings) | {"milestones": list(settings.milestones)}, sort_keys=False)
    checkpoint.write_atomically(folders.checkpoints / "settings.yaml", text.encode())
    return Run(job, state, folders).finish()


def resume(folder: Path, overrides: dict[str, object]) -> dict:
    """Goes on with the run whose checkpoints lie in folder. overrides: settings that do not change its result."""
    content = checkpoint.load_run(folder / "last.pth")
    folder = folder.resolve()
    settings = dataclasses.replace(Settings(**content["settings"]), **overrides)
    folders = Folders(folder.parents[2] / "runs" / folder.parent.name / folder.name, folder)
    job = make_job(settings)
    state = TrainState.start(job.network, len(job.training), settings, job.precision)
    state.restore(content)
    print(f"going on from epoch {state.epoch + 1}, batch {state.batch + 1} of {len(job.training)}")
    return Run(job, state, folders).finish()


class Run:
    """A job and its state, trained to the end epoch by epoch; every epoch is evaluated, logged and saved."""

    def __init__(self, job: Job, state: TrainState, folders: Folders) -> None:
        self.job, self.state, self.folders = job, state, folders
        self.settings = job.settings

    def finish(self) -> dict:
        """Trains what is left of the run; returns its result."""
        print(self.describe())
        self.log = RunLog(self.folders.runs, self.state.step)
        self.saved_at = time.monotonic()
        if self.state.step == 0:
            self.log_start()
        while self.state.epoch < self.settings.epochs:
            self.epoch()
        result = make_result(self.job, self.state)
        text = json.dumps(result, indent=2) + "\n"
        checkpoint.write_atomically(self.folders.checkpoints / "result.json", text.encode())
        self.log_end(result)
        self.log.close()
        print(describe_result(result, self.job.task))
        return result

    def describe(self) -> str:
        job, settings = self.job, self.settings
        images = {split: len(batches.index) for split, batches in job.evaluations.items()}
        chosen_on = "validation images" if job.chosen_on == "Val" else "test set (give -val for a fair choice)"
        splits = ", ".join(f"{count:,} {split.lower()}" for split, count in images.items())
        side = job.dataset.train.images.shape[-1]
        return (
            f"{settings.net}: {job.parameters:,} parameters, {job.macs / 1e6:.2f} M MACs for one {side}x{side} image\n"
            f"{settings.dataset}: {len(job.training.index):,} training, {splits} images, "
            f"{job.task.targets()}\n"
            f"recipe {settings.recipe}: {settings.epochs} epochs of {len(job.training):,} steps, "
            f"batch {settings.batch_size}, {settings.optimizer} at {settings.lr:g}, seed {settings.seed}\n"
            f"on {job.precision.device} in {str(job.precision.dtype).removeprefix('torch.')}; "
            f"the best epoch is chosen on the {chosen_on}\n"
            f"curves: tensorboard --logdir {self.folders.runs.parents[1]}; weights: {self.folders.checkpoints}"
        )

    def epoch(self) -> None:
        """One epoch, or what is left of it: train, evaluate, log, save."""
        state, task = self.state, self.job.task
        done_before, seconds_before = state.batch, state.seconds
        metrics = {"Train": self.train_with_progress()}
        bounds = self.job.training.bounds
        images = bounds[-1][1] - bounds[done_before][0]
        speed = images / (state.seconds - seconds_before)
        for split, batches in self.job.evaluations.items():
            metrics[split] = evaluate(state.evaluated(), batches, task, self.job.precision)
        is_best = self.note(metrics, speed)
        self.log_epoch(metrics, speed)
        name = self.settings.net
        self.save("last.pth")
        if state.epoch % REGULAR_EVERY == 0:
            self.save(f"{name}-{state.epoch}-regular.pth")
        if is_best:
            for old in self.folders.checkpoints.glob(f"{name}-*-best.pth"):
                if old.name != f"{name}-{state.epoch}-best.pth":
                    old.unlink()
            self.save(f"{name}-{state.epoch}-best.pth")

    def train_with_progress(self) -> dict[str, float]:
        """Trains the rest of the epoch under a progress bar, which is silent without a terminal."""
        state, task, settings = self.state, self.job.task, self.settings
        started, before = time.perf_counter(), state.seconds
        bar = tqdm(
            total=len(self.job.training),
            initial=state.batch,
            disable=None,
            leave=False,
            unit="step",
            desc=f"epoch {state.epoch + 1}/{settings.epochs}",
        )

        def on_read(losses: list[float], rates: list[float]) -> None:
            self.log.steps(state.step - len(losses), losses, rates)
            now = before + time.perf_counter() - started
            speed = len(losses) * settings.batch_size / (now - state.seconds)
            state.seconds = now
            bar.set_postfix_str(f"{task.describe(task.metrics(state.sums))}, {speed:.0f} images/s", refresh=False)
            bar.update(len(losses))
            if time.monotonic() - self.saved_at > 60 * settings.save_every:
                self.save("last.pth")

        with bar:
            return train_epoch(state, self.job.training, task, self.job.precision, settings, on_read)

    def note(self, metrics: dict[str, dict[str, float]], speed: float) -> bool:
        """Adds the epoch's figures to the history; returns whether it is the best so far."""
        state = self.state
        row = {"epoch": state.epoch, "step": state.step, "lr": state.optimizer.param_groups[0]["lr"]}
        for split, values in metrics.items():
            row |= {f"{split.lower()} {key}": value for key, value in values.items()}
        state.history.append(row | {"images per second": speed, "seconds": state.seconds})
        score = self.job.task.score(metrics[self.job.chosen_on])
        if state.best and score >= state.best["score"]:
            return False
        state.best = {"score": score, "epoch": state.epoch}
        return True

    def log_epoch(self, metrics: dict[str, dict[str, float]], speed: float) -> None:
        state, task = self.state, self.job.task
        self.log.scalars(
            state.step,
            "Train",
            {
                **task.train_tags(metrics["Train"]),
                "images per second": speed,
                "epoch": state.epoch,
            },
        )
        for split in self.job.evaluations:
            self.log.scalars(state.step, split, task.tags(metrics[split]))
        self.log.table(state.history)
        texts = [f"{split.lower()} {task.describe(values)}" for split, values in metrics.items()]
        print(f"epoch {state.epoch}/{self.settings.epochs}  {'  |  '.join(texts)}  |  {speed:.0f} images/s", flush=True)

    def save(self, name: str) -> None:
        """A checkpoint that holds all of the run; curves are flushed first, so that none is behind it."""
        self.log.flush()
        content = self.state.to_checkpoint() | {
            "settings": dataclasses.asdict(self.settings),
            "classes": list(self.job.dataset.classes),
            "mean": list(self.job.dataset.mean),
            "std": list(self.job.dataset.std),
            "image_size": self.job.dataset.train.images.shape[-1],
            "in_channels": self.job.dataset.train.images.shape[1],
        }
        checkpoint.save(self.folders.checkpoints / name, content)
        self.saved_at = time.monotonic()

    def log_start(self) -> None:
        """The graph, and a grid of training images as the network sees them."""
        job = self.job
        images, _ = next(job.training.epoch(0))
        mean = torch.tensor(job.dataset.mean, device=images.device)[:, None, None]
        std = torch.tensor(job.dataset.std, device=images.device)[:, None, None]
        self.log.images("Train/augmented images", (images * std + mean).clamp(0, 1).cpu(), 0)
        self.log.graph(job.network, images)

    def log_end(self, result: dict) -> None:
        """The task's pictures of the test set, and the run's row in the HParams table."""
        job, step = self.job, self.state.step
        found = report.predictions(self.state.evaluated(), job.evaluations["Test"], job.precision, job.task)
        for name, figure in job.task.figures(*found, job.dataset).items():
            self.log.figure(f"Test/{name}", figure, step)
        figures = {key: result[key] for key in job.task.final}
        self.log.hyperparameters(dataclasses.asdict(self.settings), figures, step)


def test(weights: Path, overrides: dict[str, object]) -> dict[str, float]:
    """Evaluates the weights of a checkpoint on the test set of their data set, and prints the figures."""
    job, _ = finished_job(weights, overrides)
    metrics = evaluate(job.network, job.evaluations["Test"], job.task, job.precision)
    print(f"{job.settings.net} on the {len(job.dataset.test.targets):,} test images of {job.settings.dataset}")
    print(f"{job.task.describe(metrics)}  {job.parameters:,} parameters")
    return metrics

"""A training run from its first step to its result."""

from __future__ import annotations

import dataclasses
import errno
import shlex
import sys
import time

from engine.device import algorithms
from engine.graphs import make_step
from engine.interruption import Interrupted, Interruption
from engine.job import Job, describe_job
from engine.loop import NotFinite, evaluate, train_epoch
from engine.saved import checkpoint
from engine.saved.about_weights import about_weights
from engine.saved.folders import LAST, RESULT, WEIGHTS, Folders, net_folder
from engine.saved.schema import RunContent
from engine.shown import curves
from engine.shown.blocks import WatchedStep
from engine.shown.logs import NoLog, RunLog
from engine.shown.progress import Clock, Estimate, epoch_line, progress_bar, show_figures, status, watched
from engine.shown.result import describe_result, make_result, to_json
from engine.state import TrainState
from models import weight_file
from models.registry import entry

REGULAR_EVERY = 10  # epochs between the checkpoints that are kept


class Run:
    """A job and its state, trained to the end epoch by epoch; every epoch is evaluated, logged and saved."""

    def __init__(self, job: Job, state: TrainState, folders: Folders) -> None:
        self.job, self.state, self.folders = job, state, folders
        self.settings, self.processes = job.settings, job.processes
        self.interruption = Interruption(self.processes.largest)
        self.log: RunLog | NoLog = NoLog()
        self.saved_at = time.monotonic()
        self.estimate = Estimate(job)
        self.step = make_step(self.settings, job.precision.device, self.processes.world_size)
        self.watched = None
        if self.settings.log_more and self.processes.is_main:
            self.step = self.watched = WatchedStep(self.step, self.settings.log_every)

    def finish(self) -> dict:
        """Trains what is left of the run; returns its result.

        Raises Interrupted, with everything saved, where a signal asked the run to stop; ValueError where a loss is not
        finite or a file cannot be written, with the last checkpoint as it was.
        """
        print(describe_job(self.job, self.folders))
        again = f"python main.py -resume {shlex.quote(str(self.folders.checkpoints))}"
        try:
            with self.interruption, algorithms(self.settings.deterministic, self.settings.cudnn_benchmark):
                result = self.train()
            if self.processes.is_main:
                place, content = self.folders.checkpoints, self.content()
                about = about_weights(content, place / LAST, result)
                weights = weight_file.to_bytes(checkpoint.network_weights(content), about)
                checkpoint.write_atomically(place / WEIGHTS, weights)
                checkpoint.write_atomically(place / RESULT, to_json(result).encode())  # last: the run is over
        except Interrupted:
            print(f"stopped in epoch {self.state.epoch + 1}, all is saved; go on with: {again}")
            raise
        except NotFinite as error:
            if not self.processes.is_main:
                raise SystemExit(2) from None  # the main process says why
            raise ValueError(
                f"{error}; {self.folders.checkpoints / LAST} is from before it: try a lower -lr, a longer -warm, "
                "-clip 1 or -amp off in a new run"
            ) from None
        except OSError as error:
            if error.errno == errno.ENOMEM:  # memory, and not the disk
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise ValueError(
                f"{error.filename or self.folders.checkpoints}: not written ({error.strerror or error}); older "
                f"checkpoints are as they were: {'make room' if full else 'mend that'}, then {again}"
            ) from None
        print(describe_result(result, self.job.task))
        return result

    def train(self) -> dict:
        """Trains every epoch that is left; returns the run's result. Where it is interrupted, it saves first."""
        is_new = self.state.step == 0
        if is_new:  # before anything else is written: a folder without a checkpoint cannot be resumed
            self.save(LAST)
        if self.processes.is_main:
            self.log = curves.open_log(self.job, self.state, self.folders)
        self.saved_at = time.monotonic()
        try:
            if is_new and self.processes.is_main:
                with status("drawing the network's graph"):
                    curves.log_start(self.log, self.job, self.folders)
            while not self.is_over():
                self.epoch()
            result = make_result(self.job, self.state)
            if self.processes.is_main:
                curves.log_end(self.log, self.job, self.state, self.folders, result)
            return result
        except Interrupted:
            self.save(LAST)
            raise
        finally:
            self.log.close()

    def is_over(self) -> bool:
        return self.state.epoch >= self.settings.epochs or self.state.is_stale(self.settings.patience)

    def epoch(self) -> None:
        """Trains one epoch, or what is left of it, then evaluates, logs and saves."""
        state, task = self.state, self.job.task
        metrics = {"Train": self.train_with_progress()}
        self.processes.broadcast_buffers(state.evaluated)
        for split, batches in self.job.evaluations.items():
            if self.processes.world_size == 1:  # several have unequal numbers of batches and could not agree
                batches = self.interruption.between(watched(batches, f"{split.lower()} set"))
            metrics[split] = evaluate(state.evaluated, batches, task, self.job.precision, self.processes)
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, []
        is_best = self.note(metrics)
        # before anything is logged, drawn or printed: a resume writes these again
        name = f"{net_folder(self.settings.net)}-{state.epoch}"
        # the last epoch's would be last.pth again
        is_regular = state.epoch % REGULAR_EVERY == 0 and not self.is_over()
        regular = [f"{name}-regular.pth"] if is_regular else []
        best = [f"{name}-best.pth"] if is_best else []
        self.save(*regular, *best, LAST)
        if best:
            self.remove_older("best", 1)
        if regular and self.settings.keep:
            self.remove_older("regular", self.settings.keep)
        curves.log_epoch(self.log, self.job, self.state)
        speed = state.history[-1]["images per second"]
        print(epoch_line(state.epoch, self.settings.epochs, task, metrics, speed), flush=True)

    def remove_older(self, kind: str, kept: int) -> None:
        """Removes the checkpoints of a kind except the newest `kept`."""
        if not self.processes.is_main:
            return
        for path in checkpoint.by_epoch(self.folders.checkpoints.glob(f"*-{kind}.pth"))[kept:]:
            path.unlink()

    def train_with_progress(self) -> dict[str, float]:
        """Trains the rest of the epoch under a progress bar, which moves with every step; without a terminal it is
        silent."""
        state, settings, training = self.state, self.settings, self.job.training
        clock = Clock(state, settings.batch_size)
        with progress_bar(state, settings, len(training), shown=self.processes.is_main) as bar:

            def before_step() -> None:
                bar.update(state.batch - bar.n)
                if self.processes.is_main and (text := self.estimate.before_step(state)):
                    bar.write(text)
                    sys.stdout.flush()
                self.interruption.check()

            def on_read(losses: list[float], rates: list[float]) -> None:
                self.log.steps(state.step - len(losses), losses, rates)
                if self.watched is not None:
                    self.log.scalars(state.step, "Train by block", self.watched.read())
                speed = clock.read(len(losses))
                show_figures(bar, self.job.task, state.sums, speed)
                if time.monotonic() - self.saved_at > 60 * settings.save_every:
                    self.save(LAST)

            work = self.job.task, self.job.precision, settings
            return train_epoch(state, training, *work, on_read, before_step, self.processes, self.step)

    def note(self, metrics: dict[str, dict[str, float]]) -> bool:
        """Adds the epoch's figures to the history; returns whether this epoch is the best so far."""
        state = self.state
        row = {"epoch": state.epoch, "step": state.step, "lr": state.rate}
        for split, values in metrics.items():
            row |= {f"{split.lower()} {key}": value for key, value in values.items()}
        seconds = state.seconds - (state.history[-1]["seconds"] if state.history else 0.0)
        speed = self.job.training.bounds[-1][1] / seconds
        state.history.append(row | {"images per second": speed, "seconds": state.seconds})
        return state.is_best(self.job.task.score(metrics[self.job.chosen_on]))

    def save(self, *names: str) -> None:
        """Writes checkpoints under these names; curves are flushed first, so that none is behind a checkpoint."""
        if not self.processes.is_main:
            return
        self.log.flush()
        content = self.content()
        whole = checkpoint.to_bytes(content)
        for name in names:
            # the best epoch's is for use: no run goes on from it
            data = checkpoint.to_bytes(checkpoint.for_use(content)) if name.endswith("-best.pth") else whole
            checkpoint.write_atomically(self.folders.checkpoints / name, data)
        self.saved_at = time.monotonic()

    def content(self) -> RunContent:
        """What a checkpoint of the run holds now."""
        return self.state.to_checkpoint() | {
            "settings": dataclasses.asdict(self.settings),
            "revision": entry(self.settings.net).revision,
            "task": self.job.task.name,
            **self.job.about_data(),
        }

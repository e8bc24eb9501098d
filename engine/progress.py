"""What a terminal shows while an epoch is trained, and the clock of a run's training steps."""

from __future__ import annotations

import time

from tqdm import tqdm

from conf import Settings
from engine.state import TrainState


def progress_bar(state: TrainState, settings: Settings, steps: int, shown: bool) -> tqdm:
    """The bar of the present epoch, of so many steps; silent without a terminal, or where it is not to be shown."""
    tqdm.monitor_interval = 0  # its thread revives bars that stand still, and warns where no thread can start
    return tqdm(
        total=steps,
        initial=state.batch,
        disable=None if shown else True,
        leave=False,
        unit="step",
        desc=f"epoch {state.epoch + 1}/{settings.epochs}",
    )


class Clock:
    """Keeps state.seconds, the time that the run has spent in training steps."""

    def __init__(self, state: TrainState, batch_size: int) -> None:
        self.state, self.batch_size = state, batch_size
        self.started, self.before = time.perf_counter(), state.seconds

    def read(self, steps: int) -> float:
        """Brings state.seconds up to now; returns the images a second of the steps since the last reading."""
        now = self.before + time.perf_counter() - self.started
        speed = steps * self.batch_size / (now - self.state.seconds)
        self.state.seconds = now
        return speed

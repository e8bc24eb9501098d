"""Worker processes that decode the batches of a folder that streams, none of which is waited for without end."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils import derived_seed

AHEAD = 2  # batches that a worker has in work or waiting
POLL = 2  # seconds between looks at the workers while no batch comes
PATIENCE = 300  # seconds without a batch after which the workers are given up
SHARED_MEMORY = "/dev/shm"
FAILURES = (RuntimeError, OSError, EOFError)  # what the DataLoader raises for a worker, alive or dead


def decoded(images, parts: list[Tensor], seed: int | None, workers: int, pinned: bool) -> Iterator:
    """Yields images.__getitems__(keys) for each part of an index, in order, which worker processes decode ahead.

    images: datasets.stream.StreamedImages. The keys are (number, seed of the random cut; None: as in a test).
    """
    done = 0
    if workers and _fits_in_shared_memory(images, parts, workers):
        try:
            for batch in _from_workers(images, parts, seed, workers, pinned):
                yield batch
                done += 1
        except FAILURES as error:  # a worker was killed, or nothing has come for PATIENCE seconds
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            print(f"-w {workers}: {reason}; this process decodes the rest of the pass itself", file=sys.stderr)
    yield from _loader(images, parts[done:], seed, 0, pinned)


def _from_workers(images, parts: list[Tensor], seed: int | None, workers: int, pinned: bool) -> Iterator:
    """Yields batches that workers decode. Raises RuntimeError where one is dead, or all do nothing for PATIENCE."""
    others = set(multiprocessing.active_children())
    batches = _loader(images, parts, seed, workers, pinned)
    processes = [child for child in multiprocessing.active_children() if child not in others]
    came = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            batch = next(batches)
        except StopIteration:
            return
        except FAILURES as error:
            now = time.monotonic()
            # a look at the workers that finds them alive takes all of POLL; an error comes at once
            idle = now - asked >= 0.9 * POLL and all(process.is_alive() for process in processes)
            if idle and now - came < PATIENCE:
                continue
            for process in processes:
                process.kill()
            if idle:
                raise RuntimeError(f"the workers have given no batch for {PATIENCE} seconds") from error
            raise
        yield batch
        came = time.monotonic()


def _loader(images, parts: list[Tensor], seed: int | None, workers: int, pinned: bool) -> Iterator:
    loader = DataLoader(
        images,
        batch_sampler=_Keys(parts, seed),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # or a number would be drawn from the run's own
        prefetch_factor=AHEAD if workers else None,
        timeout=POLL if workers else 0,
    )
    if not workers or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    # torch's handler raises wherever the training process is when a worker dies; asking for a batch tells it too.
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    signal.signal(signal.SIGCHLD, handler)
    return batches


def _fits_in_shared_memory(images, parts: list[Tensor], workers: int) -> bool:
    """Whether shared memory has room for the batches of the workers; prints what to do where it has not."""
    largest = max(map(len, parts), default=0)
    needed = (workers + 1) * AHEAD * largest * images.shape[1:].numel()
    try:
        status = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):  # not Linux: shared memory has no size of its own
        return True
    free = status.f_bavail * status.f_frsize
    if needed > free:
        _tell_of_shared_memory(workers)
    return needed <= free


@functools.cache  # once for all splits and epochs
def _tell_of_shared_memory(workers: int) -> None:
    print(
        f"-w {workers}: {SHARED_MEMORY} is too small for the batches of so many workers; this process decodes instead "
        "(docker run --shm-size=1g makes it larger; a smaller -b or -w needs less)",
        file=sys.stderr,
    )


class _Keys:
    """Yields for each part of an index the keys that StreamedImages takes."""

    def __init__(self, parts: Iterable[Tensor], seed: int | None) -> None:
        self.parts, self.seed = parts, seed

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        for part in self.parts:
            numbers = part.tolist()
            seeds = [None if self.seed is None else derived_seed(self.seed, "image", number) for number in numbers]
            yield list(zip(numbers, seeds, strict=True))


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


def _leave_signals(worker: int) -> None:
    """Makes a worker ignore SIGINT and SIGTERM.

    Ctrl-C reaches every process of a terminal, and SIGTERM every process of a cluster's job, but only the training
    process decides what to do. A worker ends when the training process says so, or has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

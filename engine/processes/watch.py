"""How a process notices that a machine of its run is lost.

A machine that loses its power or its network closes no connection, and the others would wait for it for a day.
So each process counts up a number in the launcher's store, and reads those of the others.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator

import torch.distributed as dist

BEAT = 5.0  # seconds between two signs of life
SILENT = 8  # beats without a sign after which a process counts as lost; a machine that is suspended counts none
DONE = b"done"


class Watch:
    """Signs of life of the processes of a run. lost is called, once, with the processes of which nothing is heard."""

    def __init__(
        self, store: dist.Store, rank: int, world_size: int, lost: Callable[[list[int]], None] | None = None
    ) -> None:
        self.store, self.rank, self.lost = store, rank, lost or self._end
        self.keys = [f"beat-{number}" for number in range(world_size)]
        self.silence = dict.fromkeys((n for n in range(world_size) if n != rank), 0)
        self.hosts: dict[int, str] = {}
        self.last: dict[int, bytes] = {}
        self.over = threading.Event()

    def start(self) -> None:
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> None:
        """Tells the others that this process has done its part."""
        self.over.set()
        with contextlib.suppress(RuntimeError):  # the store's machine may have ended first
            self.store.set(self.keys[self.rank], DONE)

    def _exchange(self) -> None:
        """Writes a number, and sets back the silence of those whose number has changed. A dead store ends it."""
        beats = 0
        with contextlib.suppress(RuntimeError):
            while not self.over.is_set():
                self.store.set(self.keys[self.rank], f"{beats} {platform.node()}")
                if not beats:
                    self.store.wait(self.keys)
                for number, word in enumerate(self.store.multi_get(self.keys)):
                    if number in self.silence and word != self.last.get(number):
                        self.silence[number], self.last[number] = 0, word
                        self.hosts[number] = word.decode().partition(" ")[2] or self.hosts.get(number, "")
                beats += 1
                self.over.wait(BEAT)

    def _judge(self) -> None:
        """Counts beats without a sign. It speaks to nobody, since the store of a lost machine never answers."""
        while not self.over.wait(BEAT):
            for number in self.silence:
                self.silence[number] += self.last.get(number) != DONE
            if silent := [number for number, beats in self.silence.items() if beats >= SILENT]:
                return self.lost(silent)

    def _end(self, silent: list[int]) -> None:
        if is_first_here():
            names = ", ".join(f"{number} on {self.hosts.get(number, 'another machine')}" for number in silent)
            print(
                f"main.py: process {self.rank} of {len(self.keys)}: nothing was heard for {SILENT * BEAT:.0f} s of "
                f"process {names}, and this one cannot go on without it; what was saved is whole, go on with -resume",
                file=sys.stderr,
                flush=True,
            )
        os._exit(2)  # the main thread waits for the lost process, and no signal or exception would reach it


def machine_count() -> int:
    """The number of machines, each with a launcher of its own."""
    return int(os.environ.get("GROUP_WORLD_SIZE") or 1)


def is_first_here() -> bool:
    """Whether this is the process that speaks for its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextlib.contextmanager
def watched(store: dist.Store, rank: int, world_size: int) -> Iterator[None]:
    """A context in which this process ends soon after a machine is lost, where there is more than one."""
    if machine_count() == 1:
        yield
        return
    watch = Watch(dist.PrefixStore("watch", store.clone()), rank, world_size)
    watch.start()
    try:
        yield
    except SystemExit:
        watch.stop()
        raise
    watch.stop()

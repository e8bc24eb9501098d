"""Ctrl-C and SIGTERM: the first signal asks the run to stop after its step, a second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """Raised between two steps of a run that was asked to stop. The exit status is 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """A context in which the first signal is remembered and a second raises SystemExit.

    agree: turns the number of the signal that this process received (0: none) into the one that all processes act on.
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        self.agree, self.received = agree, 0
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread install handlers
            self.handlers = {number: signal.signal(number, self.receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.received:
            raise SystemExit(128 + number)
        self.received = number
        os.write(2, b"\nstopping after this step; the same again stops at once\n")  # print is not safe in a handler

    def check(self) -> None:
        """Raises Interrupted where one of the processes has received a signal."""
        if number := self.agree(self.received):
            raise Interrupted(number)

    def between(self, batches: Iterable) -> Iterator:
        """Yields the batches and calls check() before each."""
        for batch in batches:
            self.check()
            yield batch

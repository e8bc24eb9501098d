"""Ctrl-C and SIGTERM: the first asks the run to stop after its step, a second ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """The run was asked to stop, and stands between two steps. Its exit status is 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """A context in which the first signal is noted and a second raises SystemExit.

    agree   of the number that this process received (0: none), the number that all processes act on
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        self.agree, self.received = agree, 0
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # no other may install handlers
            self.handlers = {number: signal.signal(number, self.receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise SystemExit(128 + number)
        self.received = number
        os.write(2, b"\nstopping after this step; the same again stops at once\n")  # print is not safe in a handler

    def check(self) -> None:
        """Raises Interrupted where a signal has come."""
        if number := self.agree(self.received):
            raise Interrupted(number)

    def between(self, batches: Iterable) -> Iterator:
        """The batches, with a check before each."""
        for batch in batches:
            self.check()
            yield batch

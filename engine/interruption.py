"""Ctrl-C, SIGTERM and SIGHUP: the first signal asks the run to stop after its step, a second ends the process at once.

SIGHUP comes when the terminal is closed. Under nohup it is ignored, and stays so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Seconds within which another signal is the same wish: from a terminal, a process gets Ctrl-C itself and a second time
# by its launcher, and SIGHUP by the system and by the shell.
SAME_WISH = 1.0


def handled_signals() -> list[int]:
    """The signals that ask this process to stop: without SIGHUP where that is ignored, as under nohup."""
    return [
        number
        for number in SIGNALS
        if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN
    ]


class Interrupted(SystemExit):
    """Raised between two steps of a run that was asked to stop. The exit status is 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """A context in which the first signal is remembered and a second raises SystemExit.

    agree: turns the number of the signal that this process received (0: none) into the one that all processes act on.
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        self.agree, self.received, self.received_at = agree, 0, 0.0
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread install handlers
            self.handlers = {number: signal.signal(number, self.receive) for number in handled_signals()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if not self.received:
            self.received, self.received_at = number, time.monotonic()
            with contextlib.suppress(OSError):  # `| tee` has got Ctrl-C too and ended; print is not safe in a handler
                os.write(2, b"\nstopping after this step; the same again stops at once\n")
        elif time.monotonic() - self.received_at >= SAME_WISH:
            raise SystemExit(128 + number)

    def check(self) -> None:
        """Raises Interrupted where one of the processes has received a signal."""
        if number := self.agree(self.received):
            raise Interrupted(number)

    def between(self, batches: Iterable) -> Iterator:
        """Yields the batches and calls check() before each."""
        for batch in batches:
            self.check()
            yield batch

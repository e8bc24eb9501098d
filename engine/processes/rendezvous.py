"""How the processes that a launcher started find each other, and what is said where they do not."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout

from engine.processes.count import VARIABLES, unset

T = TypeVar("T")

FOUND_WITHIN = timedelta(seconds=30)  # a launcher starts its processes at the same time


def find_processes() -> tuple[dist.Store, int, int]:
    """(where the processes find each other, this one's rank, their number).

    Raises ValueError, KeyError, RuntimeError or OSError where they do not find each other within FOUND_WITHIN.
    """
    return _in_time(_rendezvous)


def _in_time(find: Callable[[], T]) -> T:
    """What find() returns or raises. Raises OSError where it takes longer than FOUND_WITHIN.

    torch waits without end where another program listens at the main process's address, and does not answer.
    """
    found: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            found.put(([find()], None))
        except BaseException as error:
            found.put(([], error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = found.get(timeout=1.2 * FOUND_WITHIN.total_seconds())
    except queue.Empty:
        raise OSError("what listens at the address does not answer") from None
    if error is not None:
        raise error
    return result[0]


def _rendezvous() -> tuple[dist.Store, int, int]:
    """(where the processes find each other, this one's rank, their number).

    After a restart they use a part of the launcher's store of their own: the rest still has the old addresses.
    """
    rank, world_size = (int(os.environ.get(name, "")) for name in ("RANK", "WORLD_SIZE"))
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is none of {world_size}")
    _wait_for_master()
    store, rank, world_size = next(dist.rendezvous("env://", timeout=FOUND_WITHIN))
    store.set_timeout(FOUND_WITHIN)
    # a first word of each process: to connect, torch waits for the others much longer
    store = dist.PrefixStore(f"start-{restarts()}", store)
    store.set(f"here-{rank}", "")
    store.wait([f"here-{number}" for number in range(world_size)], FOUND_WITHIN)
    store.set_timeout(default_pg_timeout)
    return store, rank, world_size


def _wait_for_master() -> None:
    """Returns once something listens at the main process's address, or this one is to; raises OSError if nothing does.

    torch waits there three times as long as it is told to, and fills the terminal meanwhile.
    """
    environment = os.environ
    if environment.get("RANK") == "0" and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = environment.get("MASTER_ADDR", ""), int(environment.get("MASTER_PORT") or 0)
    give_up = time.monotonic() + FOUND_WITHIN.total_seconds()
    while all(address):  # torch names the variable that is missing
        try:
            return socket.create_connection(address, timeout=5).close()
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)


def not_found(error: Exception) -> str:
    """The line for the user where the processes of this run have not found each other."""
    found = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return (
        f"the environment has {' '.join(found)}, as a launcher of several processes sets them, and they do not find "
        f"each other ({reason}); if they are left over: {unset()}"
    )


def restarts() -> int:
    """How often the launcher has restarted this run (torchrun --max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

"""One process or many: what they agree on, and how torch's launcher starts them (torchrun, torch.distributed.run).

Every process draws the same batches and works on its own share of each (datasets/batches.py), so that many processes
compute what one does. Only the main process, rank 0, prints and writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.constants import default_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from conf import Settings
from engine.watch import is_first_here, machine_count, watched

T = TypeVar("T")

FOUND_WITHIN = timedelta(seconds=45)  # a launcher starts its processes at the same time
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
GRACE = 30.0  # seconds that torch's launcher gives a process to end by itself
SOON = 5.0  # seconds in which a launcher notices that a process of its own machine has ended


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: its rank, counted from 0, and the number of processes."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, numbers: list[float]) -> list[float]:
        """The sums over all processes. A process that has nothing to add gives an empty list."""
        if self.world_size == 1:
            return numbers
        lists: list[list[float]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, numbers)
        return [sum(column) for column in zip(*(row for row in lists if row), strict=True)]

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers. They are compared on the host, so that nothing waits for a device."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """What make() returns in the main process. If it raises ValueError there, the other processes exit silently."""
        if self.world_size == 1:
            return make()
        made: list = [None, False]
        try:
            if self.is_main:
                made = [make(), True]
        finally:
            dist.broadcast_object_list(made)
        if not made[1]:
            raise SystemExit(2)
        return made[0]

    def main_process_first(self, make: Callable[[], T]) -> T:
        """Calls make() in the main process, then in one process of each other machine, and then in all others.

        So a mistake of the user's is printed once, and the others find the data that the first of their machine has
        packed.
        """
        if self.world_size == 1:
            return make()
        made: list[T] = []
        self.broadcast_from_main(lambda: made.append(make()))
        if machine_count() > 1:
            if not self.is_main and is_first_here():
                made.append(make())
            self.largest(0)  # waits for those
        return made[0] if made else make()

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """The network wrapped for training: its gradients are averaged over the processes."""
        if self.world_size == 1:
            return network
        # the main process's running statistics count; they are sent before each evaluation, not at each step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames broadcast_buffers
            wrapped = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.broadcast_buffers(network)  # and the parameters were: the main process alone reads -weights
        return wrapped

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Sends the main process's buffers (batch norm's running statistics) to all processes."""
        if self.world_size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


SINGLE_PROCESS = Processes()


@contextlib.contextmanager
def process_group(gpu: bool | None) -> Iterator[Processes]:
    """Connects the processes that torch's launcher started together with this one; without a launcher there is one.

    gpu: as choose_device takes it. gloo connects CPUs and nccl CUDA devices; each process has a device of its own.
    Raises ValueError where the environment speaks of other processes and they do not come, or one of them has ended.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        yield SINGLE_PROCESS
        return
    if is_launched():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    devices = visible_devices(gpu)
    cuda = devices > 0
    if cuda:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if here > devices and os.environ.get("RANK", "0") != "0":
            raise SystemExit(2)  # the main process says why
        check_devices(here, devices, f"--nproc-per-node={here}")
    try:
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, rank, world_size = _rendezvous()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=world_size)
    except (RuntimeError, ValueError, KeyError, OSError) as error:  # torch raises all of them
        raise ValueError(_not_found(error)) from None
    processes = Processes(rank, world_size)
    try:
        with contextlib.ExitStack() as stack:
            if not processes.is_main:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            stack.enter_context(watched(store, rank, world_size))
            yield processes
    except RuntimeError as error:
        if not _is_of_another_process(error):
            raise
        if is_launched():
            # the launcher says which process it was, and ends this one with SIGTERM at once; of another machine's
            # processes it knows nothing, and one process here speaks
            time.sleep(SOON if machine_count() > 1 and is_first_here() else GRACE)
        raise ValueError(
            f"process {rank} of {world_size}: another process has ended, and this one cannot go on without it; "
            "what was saved is whole, go on with -resume"
        ) from None
    finally:
        dist.destroy_process_group()


def _is_of_another_process(error: RuntimeError) -> bool:
    """Whether the connection to another process broke. gloo's errors begin with a file of its source."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error).partition("]")[0]


def _rendezvous() -> tuple[dist.Store, int, int]:
    """(where the processes find each other, this one's rank, their number).

    After a restart they use a part of the launcher's store of their own: the rest still has the old addresses.
    """
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


def _not_found(error: Exception) -> str:
    """The line for the user where the processes of this run have not found each other."""
    found = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return (
        f"the environment has {' '.join(found)}, as a launcher of several processes sets them, and they do not find "
        f"each other ({reason}); if they are left over: {_unset()}"
    )


def _unset() -> str:
    """The command that removes what a launcher has left in the environment."""
    return f"unset {' '.join(name for name in VARIABLES if name in os.environ)}"


def _end_with(launcher: int) -> None:
    """Waits until the launcher is dead, also by SIGKILL; then this process saves and ends as by SIGTERM."""
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)  # it waits for another process that has ended


def is_launched() -> bool:
    """Whether torch's launcher started this process."""
    return all(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"))


def restarts() -> int:
    """How often the launcher has restarted this run (torchrun --max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


LEAST_SHARE = 128  # images of a step: with fewer, starting a step's kernels binds a GPU, and more of them gain nothing


def visible_devices(gpu: bool | None) -> int:
    """The number of CUDA devices that processes may use. gpu: as choose_device takes it."""
    return torch.cuda.device_count() if gpu is not False else 0


def wanted_processes(procs: int, gpu: bool | None, batch_size: int) -> int:
    """procs, or where that is 0 as many as there are CUDA devices that share a batch evenly, with LEAST_SHARE images or
    more each; at least one.

    Raises ValueError where each of procs cannot have a device of its own, or a launcher has started another number.
    """
    devices = visible_devices(gpu)
    if procs:
        if is_launched() and os.environ["WORLD_SIZE"] != str(procs):
            raise ValueError(
                f"-procs {procs}: the environment has WORLD_SIZE={os.environ['WORLD_SIZE']} from a launcher; leave out "
                f"-procs, or where it is left over: {_unset()}"
            )
        check_devices(procs, devices, f"-procs {procs}")
        return procs
    counts = range(1, devices + 1)
    return max((n for n in counts if batch_size % n == 0 and batch_size // n >= LEAST_SHARE), default=1)


def check_devices(processes: int, devices: int, option: str) -> None:
    """Raises ValueError where there are CUDA devices, and fewer than processes on this machine."""
    if 0 < devices < processes:
        raise ValueError(
            f"{option}: each process takes a CUDA device of its own, and {devices} can be seen; "
            f"give at most {devices}, or -gpu false"
        )


def describe_processes(processes: Processes, settings: Settings) -> str:
    """For a run's first lines: how many processes there are, and why not one for each device where nobody chose."""
    several = f", {processes.world_size} processes" if processes.world_size > 1 else ""
    if machine_count() > 1:
        return f"{several} on {machine_count()} machines, of which {platform.node()} prints and writes"
    devices, batch = visible_devices(settings.gpu), settings.batch_size
    chosen = settings.procs or processes.world_size != wanted_processes(0, settings.gpu, batch)
    if chosen or processes.world_size >= devices:
        return several
    most = max(n for n in range(1, devices + 1) if batch % n == 0)
    more = f"; -procs {most}: {most} processes" if most > processes.world_size else ""
    return (
        f"{several}, {processes.world_size} of {devices} devices (as many as share -b {batch} evenly, "
        f"{LEAST_SHARE} images or more each{more})"
    )


def launch(count: int, argv: list[str]) -> int:
    """Runs main.py with the arguments argv in `count` processes on this machine.

    Returns the exit status of the first process that failed, or 0.
    """
    logging.disable()  # the launcher's own log: below one line says what went wrong
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    program = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "main.py")
    arguments = run.parse_args(["--standalone", f"--nproc-per-node={count}", program, *argv])
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup
        arguments.signals_to_handle = "SIGTERM,SIGINT,SIGQUIT"
    try:
        run.run(arguments)
    except SignalException as received:
        return 128 + received.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode not in (2, 130, 143):  # those have said why
            print(f"main.py: process {rank} of {count} ended with status {failure.exitcode}", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 1
    return 0

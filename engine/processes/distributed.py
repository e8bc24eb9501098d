"""One process or many: what they agree on, and how torch's launcher starts them (torchrun, torch.distributed.run).

Every process draws the same batches and works on its own share of each (datasets/batches.py), so that many processes
compute what one does. Only the main process, rank 0, prints and writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.processes.count import check_devices, is_launched, visible_devices
from engine.processes.rendezvous import find_processes, not_found
from engine.processes.watch import is_first_here, machine_count, watched

T = TypeVar("T")

STARTER = "REUSE_STARTER"  # the variable with the number of a process with which this one is to end
# for one another, as all wait while the first downloads, decodes or checks a data set. Who has ended is told by the
# launcher on the same machine, and by watched() of another one
PATIENCE = timedelta(days=1)
GRACE = 30.0  # seconds that torch's launcher gives a process to end by itself


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
        return [sum(column) for column in zip(*(row for row in self._lists(numbers) if row), strict=True)]

    def gather(self, numbers: list[float]) -> list[float]:
        """The numbers of all processes, in the order of their ranks."""
        return [number for row in self._lists(numbers) for number in row]

    def _lists(self, numbers: list[float]) -> list[list[float]]:
        if self.world_size == 1:
            return [numbers]
        lists: list[list[float]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, numbers)
        return lists

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
        store, rank, world_size = find_processes()
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)
    except (RuntimeError, ValueError, KeyError, OSError) as error:  # torch raises all of them
        raise ValueError(not_found(error)) from None
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
            # processes it knows nothing, and one process here speaks, whatever the launcher sends meanwhile
            if machine_count() > 1 and is_first_here():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            else:
                time.sleep(GRACE)
        raise ValueError(
            f"process {rank} of {world_size}: another process has ended, and this one cannot go on without it; "
            "what was saved is whole, go on with -resume"
        ) from None
    finally:
        dist.destroy_process_group()


def _is_of_another_process(error: RuntimeError) -> bool:
    """Whether the connection to another process broke. gloo's errors begin with a file of its source."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error).partition("]")[0]


def end_with_starter() -> None:
    """Where the environment names the process that started this one, and not its children: ends this one with it."""
    if starter := os.environ.pop(STARTER, ""):
        threading.Thread(target=_end_with, args=(int(starter),), daemon=True).start()


def _end_with(starter: int) -> None:
    """Waits until the starter is dead, also by SIGKILL; then this process saves and ends as by SIGTERM."""
    while os.getppid() == starter:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)  # it waits for another process that has ended


def launch(count: int, argv: list[str]) -> int:
    """Runs main.py with the arguments argv in `count` processes on this machine.

    Returns the exit status of the first process that failed, or 0.
    """
    logging.disable()  # the launcher's own log: below one line says what went wrong
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    program = Path(__file__).resolve().parents[2] / "main.py"
    arguments = run.parse_args(["--standalone", f"--nproc-per-node={count}", str(program), *argv])
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

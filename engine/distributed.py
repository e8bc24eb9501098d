"""One process or many: what they agree on, and how torch's launcher starts them (torchrun, torch.distributed.run).

Every process draws the same batches and works on its own share of each (datasets/batches.py), so that many processes
compute what one does. The first process alone prints and writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: its number from 0, and how many there are."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, numbers: list[float]) -> list[float]:
        """The sums over all processes; one that has nothing to add gives an empty list."""
        if self.count == 1:
            return numbers
        lists: list[list[float]] = [[] for _ in range(self.count)]
        dist.all_gather_object(lists, numbers)
        return [sum(column) for column in zip(*(row for row in lists if row), strict=True)]

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers. On the host: nothing waits for a device."""
        if self.count == 1:
            return number
        numbers = torch.tensor([number])
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def from_first(self, make: Callable[[], T]) -> T:
        """What make() returns in the first process. Where it raises ValueError there, the others end without a word."""
        if self.count == 1:
            return make()
        made: list = [None, False]
        try:
            if self.is_first:
                made = [make(), True]
        finally:
            dist.broadcast_object_list(made)
        if not made[1]:
            raise SystemExit(2)
        return made[0]

    def in_turn(self, make: Callable[[], T]) -> T:
        """make() in the first process, and then in the others: one mistake is one line, and packed data is there."""
        if self.count == 1:
            return make()
        result: list[T] = []
        self.from_first(lambda: result.append(make()))
        return result[0] if self.is_first else make()

    def together(self, network: nn.Module) -> nn.Module:
        """network as it is trained: its gradients are the mean over the processes."""
        if self.count == 1:
            return network
        # the running statistics that count are the first process's: they are sent before each evaluation, not each step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames broadcast_buffers
            return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def share_buffers(self, network: nn.Module) -> None:
        """The first process's buffers (batch norm's running statistics) in all of them."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)


ALONE = Processes()


@contextlib.contextmanager
def joined(gpu: bool | None) -> Iterator[Processes]:
    """The processes that torch's launcher started together with this one; one alone where there was no launcher.

    gpu: as choose_device takes it. gloo connects CPUs and nccl CUDA devices; each process has a device of its own.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    cuda = torch.cuda.is_available() and gpu is not False
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", **_rendezvous())
    processes = Processes(dist.get_rank(), count)
    try:
        with contextlib.ExitStack() as stack:
            if not processes.is_first:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield processes
    finally:
        dist.destroy_process_group()


def _rendezvous() -> dict[str, object]:
    """Where the processes find each other. The launcher's store still has the addresses of those before a restart."""
    environment = os.environ
    if not restarts() or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = dist.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    store = dist.PrefixStore(f"start-{restarts()}", store)
    return {"store": store, "rank": int(environment["RANK"]), "world_size": int(environment["WORLD_SIZE"])}


def is_launched() -> bool:
    """Whether torch's launcher started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarts() -> int:
    """How often the launcher has started this run again (torchrun --max-restarts)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def wanted_processes(procs: int, gpu: bool | None) -> int:
    """procs, or where that is 0 one for each visible CUDA device, at least one."""
    return procs or (max(1, torch.cuda.device_count()) if gpu is not False else 1)


def launch(count: int, words: list[str]) -> int:
    """main.py with these words in `count` processes on this machine; the exit status of the first that failed, or 0."""
    logging.disable()  # the launcher's own log: what went wrong is said below, in a line
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    program = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "main.py")
    try:
        run.run(run.parse_args(["--standalone", f"--nproc-per-node={count}", program, *words]))
    except SignalException as signal:
        return 128 + signal.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode not in (2, 130, 143):  # those have said why
            print(f"main.py: process {rank} of {count} ended with status {failure.exitcode}", file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 1
    return 0

"""Training loops in processes of their own that take turns: one side waits while the other works."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection

import torch

from benchmarks.measure import Turn, alternate, endless, machine, make_parser, positive, speed
from conf import Settings
from conf.resolve import settings as resolve
from engine.device import algorithms
from engine.graphs import make_step
from engine.job import make_job
from engine.loop import train_epoch
from engine.processes.distributed import SINGLE_PROCESS, Processes, process_group
from engine.state import TrainState


class Own:
    """This project's training loop, over as many epochs as are asked for."""

    def __init__(self, settings: Settings, processes: Processes = SINGLE_PROCESS) -> None:
        self.settings, self.processes = settings, processes
        self.job = make_job(settings, processes=processes)
        self.device = self.job.precision.device
        steps = len(self.job.training)
        self.state = TrainState.start(self.job.network, steps, settings, self.job.precision, processes)
        self.batches = endless(self.job.training)
        self.step = make_step(settings, self.device, processes.world_size)

    def run(self, steps: int) -> int:
        """Takes that many steps; returns the number of images, this process's share of them."""
        turn, self.state.batch = Turn(self.batches, steps, self.job.training.bounds), 0
        how = dict(processes=self.processes, step=self.step)
        with algorithms(self.settings.deterministic, self.settings.cudnn_benchmark):
            train_epoch(self.state, turn, self.job.task, self.job.precision, self.settings, self._read, **how)
        return turn.images

    def _read(self, losses: list[float], rates: list[float]) -> None:
        self.loss = losses[-1]


def serve(side: type, settings: Settings, threads: int, place: dict[str, str], connection: Connection) -> None:
    """A process's work: builds its side, then answers (untimed steps, timed steps) with images a second, until None.

    place: what torch's launcher would set in the environment.
    """
    os.environ.update(place)
    torch.set_num_threads(threads)
    with process_group(settings.gpu) as processes:
        try:
            loop = side(settings, processes)
        except ValueError as error:
            connection.send(error)
            return
        connection.send(None)
        while (steps := connection.recv()) is not None:
            loop.run(steps[0])
            connection.send(speed(loop, steps[1]))


class Group:
    """One side in processes of its own, with `threads` threads each: side(settings, processes) has run() and device.

    Raises ValueError where it cannot be built, for want of data for instance.
    """

    def __init__(self, side: type, settings: Settings, threads: int, count: int = 1) -> None:
        context = multiprocessing.get_context("spawn")
        self.connections, self.processes = [], []
        for place in places(count):
            connection, theirs = context.Pipe()
            process = context.Process(target=serve, args=(side, settings, threads, place, theirs))
            process.start()
            theirs.close()  # so that the end of that process is seen as the end of the pipe
            self.connections.append(connection)
            self.processes.append(process)
        for error in [connection.recv() for connection in self.connections]:
            if error is not None:
                raise error

    def speed(self, untimed: int, steps: int) -> float:
        """Images a second of all its processes over that many steps, after the untimed ones."""
        for connection in self.connections:
            connection.send((untimed, steps))
        return sum(connection.recv() for connection in self.connections)

    def end(self) -> None:
        for connection in self.connections:
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.send(None)
        for process in self.processes:
            process.join()


def places(count: int) -> list[dict[str, str]]:
    """For each of `count` processes on this machine the variables that torch's launcher sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def make_loop_parser(description: str, nets: Sequence[str], steps: int) -> argparse.ArgumentParser:
    """A parser with what every comparison of whole loops takes; description is a file's docstring."""
    parser = make_parser(description, rounds=5)
    parser.add_argument("-net", choices=nets, default="cheapV3", help="network", metavar="NET")
    parser.add_argument("-batch", type=positive, default=128, help="images a step, of all processes together")
    parser.add_argument("-steps", type=positive, default=steps, help="timed steps of a turn")
    parser.add_argument("-dataset", default="cifar100", help="data set")
    parser.add_argument("-data", default="data", help="folder of the data sets")
    return parser


def loop_settings(options: argparse.Namespace, **more: object) -> Settings:
    """The original recipe at a rate at which no network diverges. Raises ValueError for what is not allowed."""
    given = {"net": options.net, "dataset": options.dataset, "data": options.data, "batch_size": options.batch}
    return resolve(given | {"recipe": "original", "lr": 1e-3} | more)


def take_turns(
    groups: Mapping[str, Callable[[], Group]], untimed: int, options: argparse.Namespace, *packages: str
) -> dict[str, list[float]]:
    """Images a second of each group, round by round. Raises ValueError where one cannot be built.

    groups: what starts each, one after the other; packages: whose versions matter.
    """
    with contextlib.ExitStack() as stack:
        calls = {}
        for name, start in groups.items():
            group = start()
            stack.callback(group.end)
            calls[name] = partial(group.speed, untimed, options.steps)
        print(f"{options.net} on {options.dataset}, batch {options.batch}, {options.rounds} rounds")
        print(machine(*packages), flush=True)
        return alternate(calls, options.rounds)

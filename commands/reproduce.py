"""-reproduce: trains the rows of RESULTS.md's tables, keeps their small files, and writes the tables from these.

Each row is a run of main.py in a process of its own. What is finished is skipped, what was begun goes on where it was,
and a kill at any moment costs no more than it costs a run.
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from commands import result_tables
from commands.result_rows import METRICS, ResultRow, read_tables
from conf.resolve import SETTINGS
from conf.yaml_file import read_mapping, to_text
from engine.device import visible_cuda_devices
from engine.interruption import handled_signals
from engine.processes.distributed import STARTER
from engine.saved.folders import RESULT, Folders, net_folder
from engine.saved.run_lock import owner
from engine.shown.cards import words

PLACES = ("data", "out")  # settings
MAIN = Path(__file__).resolve().parents[1] / "main.py"


def reproduce(path: Path, jobs: int, out: Path, data: Path) -> int:
    """Trains what is not finished of the rows in path, `jobs` at once, then writes RESULTS.md; returns the exit status.

    path  the rows; finished runs' files are kept in its folder, and RESULTS.md stands in the folder above
    jobs  0 trains nothing
    out   where runs/ and checkpoints/ of the rows lie
    Raises ValueError for rows that cannot be used, or kept files that contradict their row.
    """
    tables, results = read_tables(path), path.parent
    rows = [(row, seed) for table in tables for row in table.rows for seed in row.seeds]
    result_tables.check(tables, results)
    missing = [(row, seed) for row, seed in rows if not row.folder(results, seed).exists()]
    print(f"{len(rows) - len(missing)} of {len(rows)} runs of {path} are finished", flush=True)
    failed = Trainer(results, out, data).train(missing, jobs) if missing and jobs else []
    result_tables.write(tables, results)
    for label, why in failed:
        print(f"{label}: not finished: {why}", file=sys.stderr)
    return 1 if failed else 0


@dataclass
class Trainer:
    """Trains rows in processes of their own. A signal to stop reaches all of them; each saves, and so can go on.

    They end as well where this process is killed.
    """

    results: Path
    out: Path
    data: Path
    running: set[subprocess.Popen] = field(default_factory=set)
    stopped: bool = False

    def train(self, rows: list[tuple[ResultRow, int]], jobs: int) -> list[tuple[str, str]]:
        """Trains rows, `jobs` at once; returns name and reason of those that did not finish."""
        places: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for place in environments(jobs):
            places.put(place)
        before = {name: signal.signal(name, self.stop) for name in handled_signals()}
        try:
            with ThreadPoolExecutor(jobs) as pool:
                reasons = list(pool.map(lambda each: self.train_one(*each, places), rows))
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
        named = [f"{row.table}/{row.label}-seed{seed}" for row, seed in rows]
        return [(name, why) for name, why in zip(named, reasons, strict=True) if why]

    def stop(self, number: int, frame: object) -> None:
        self.stopped = True
        for process in list(self.running):
            process.terminate()

    def train_one(self, row: ResultRow, seed: int, places: queue.SimpleQueue) -> str:
        """Trains a row for a seed, from where it was, and keeps its files; returns why it did not finish, or ''."""
        place = places.get()
        try:
            settings = row.settings(seed)
            name = f"{Path(settings.dataset).resolve().name}-{row.run_name(seed)}"
            inner = Path(net_folder(settings.net)) / name
            folders = Folders(self.out / "runs" / inner, self.out / "checkpoints" / inner)
            if not (folders.checkpoints / RESULT).exists():
                other = owner(folders.checkpoints)
                why = f"is being trained by {other}" if other else ""
                why = why or self.run(self.command(row, seed, folders), folders, place)
                if why:
                    return why
            keep(folders, row.folder(self.results, seed))
            return ""
        except OSError as error:  # the others go on
            return f"{error.filename or folders.checkpoints}: {error.strerror or error}"
        finally:
            places.put(place)

    def command(self, row: ResultRow, seed: int, folders: Folders) -> list[str]:
        if any(folders.checkpoints.glob("*.pth")):
            return ["-resume", str(folders.checkpoints), "-data", str(self.data)]
        own = {"name": row.run_name(seed), "seed": seed, "out": self.out, "data": self.data}
        return words(row.given | own)

    def run(self, command: list[str], folders: Folders, place: dict[str, str]) -> str:
        """Runs main.py; its output goes to a file. Returns why it failed: its last line, or nothing."""
        if self.stopped:
            return "stopped before it began"
        log = self.out / "runs" / "output" / folders.checkpoints.parent.name / f"{folders.checkpoints.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"python main.py {shlex.join(command)} >> {shlex.quote(str(log))}", flush=True)
        with log.open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, str(MAIN), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | place | {STARTER: str(os.getpid())},
                start_new_session=True,  # a terminal's Ctrl-C would reach it twice, and the second stops at once
            )
            self.running.add(process)
            if self.stopped:  # the signal came between the two
                process.terminate()
            status = process.wait()
            self.running.discard(process)
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line for line in reversed(lines) if line.strip()), "")
        print(f"{folders.checkpoints}: {said}", flush=True)
        return "" if status == 0 else f"{said or f'exit status {status}'} ({log})"


def environments(jobs: int) -> list[dict[str, str]]:
    """For each of the jobs what its environment has beside the caller's: a CUDA device, or its share of the cores."""
    devices = visible_cuda_devices()
    if devices:
        return [{"CUDA_VISIBLE_DEVICES": devices[job % len(devices)]} for job in range(jobs)]
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return [{}] * jobs
    return [{"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}] * jobs


def keep(folders: Folders, kept: Path) -> None:
    """Copies a finished run's small files to the folder `kept`, which is there with all of them or not at all.

    Where the run lay on its machine is left out of the settings.
    """
    unfinished = kept.with_name(f".{kept.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shutil.copyfile(folders.runs / METRICS, unfinished / METRICS)
    shutil.copyfile(folders.checkpoints / RESULT, unfinished / RESULT)
    settings = {
        name: value for name, value in read_mapping(folders.checkpoints / SETTINGS).items() if name not in PLACES
    }
    (unfinished / SETTINGS).write_text(to_text(settings), encoding="utf-8")
    unfinished.rename(kept)

"""Kills a training run with SIGKILL at random moments, goes on each time, and compares with a run left alone.

    python benchmarks/kill_test.py -kills 50       cheapV3 on digits

The killed run saves after every step, so that many kills fall into the writing of a checkpoint. At the end both runs
must agree bit for bit: network, averaged weights, optimizer and figures; every step stands once in the TensorBoard
curves. Exit status 1 where anything differs. Needs nothing but the requirements; takes some seconds a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.saved import checkpoint
from engine.saved.folders import LAST

EACH_STEP = ["-save-every", "0", "-log-every", "1"]


@dataclass(frozen=True)
class Moment:
    """When a run is killed: `delay` seconds after its checkpoint was renewed `renewals` times."""

    renewals: int
    delay: float

    @classmethod
    def draw(cls, most: int, chance: random.Random) -> Moment:
        """Mostly within a few steps' time of a renewal, so in the middle of the next; at times much later."""
        return cls(chance.randint(0, most), chance.uniform(0.0, chance.choice((0.05, 0.05, 0.05, 0.5))))


def run(words: list[str], checkpoint_file: Path, moment: Moment | None = None) -> bool:
    """main.py with these words, killed at a moment; True where it ended by itself, SystemExit where it failed."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "main.py"), *words], stdout=printed, stderr=subprocess.STDOUT, cwd=ROOT
        )
        if moment is None:
            process.wait()
        elif _reached(moment, process, checkpoint_file):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return False
        if process.returncode:
            printed.seek(0)
            raise SystemExit(f"main.py {' '.join(words)} ended with {process.returncode}:\n{printed.read()}")
    return True


def _reached(moment: Moment, process: subprocess.Popen, checkpoint_file: Path) -> bool:
    """Waits for a moment; False where the process ends before it."""

    def written() -> int:
        return checkpoint_file.stat().st_mtime_ns if checkpoint_file.exists() else 0

    seen, left = written(), moment.renewals
    while left and process.poll() is None:
        time.sleep(0.001)
        if written() != seen:
            seen, left = written(), left - 1
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment.delay)
    return process.poll() is None


def kill_and_resume(start: list[str], last: Path, kills: int, steps: int, chance: random.Random) -> list[int]:
    """Runs `start`, of about so many steps, to its end through kills; the step that was saved at each.

    last: its last.pth, which is read, and so must be readable, after each kill.
    """
    killed_at: list[int] = []
    while True:
        if not last.exists():
            shutil.rmtree(last.parent, ignore_errors=True)
        words = ["-resume", str(last.parent)] if last.exists() else start
        moment = Moment.draw(steps // kills, chance) if len(killed_at) < kills else None
        if run([*words, *EACH_STEP], last, moment):
            return killed_at
        killed_at.append(checkpoint.load_run(last)["step"] if last.exists() else 0)


def differences(left: Path, right: Path) -> list[str]:
    """What the checkpoints of two runs disagree in; times apart, they should in nothing."""
    wanted, found = checkpoint.load_run(left / LAST), checkpoint.load_run(right / LAST)
    for content in (wanted, found):
        del content["seconds"]
        content["settings"] = {**content["settings"], "name": "", "out": "", "save_every": 0, "log_every": 0}
        for row in content["history"]:
            del row["seconds"], row["images per second"]
    return _different(wanted, found, "")


def _different(wanted: object, found: object, where: str) -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        return [line for key in wanted for line in _different(wanted[key], found[key], f"{where}/{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = zip(wanted, found, strict=True)
        return [line for number, pair in enumerate(pairs) for line in _different(*pair, f"{where}/{number}")]
    same = torch.equal(wanted, found) if isinstance(wanted, torch.Tensor) else wanted == found
    return [] if same else [where]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a run as TensorBoard reads it: (step, value)."""
    events = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def curve_differences(left: Path, right: Path) -> list[str]:
    """The curves that two runs' event files disagree in, those of speed apart."""
    wanted, found = points(left), points(right)
    tags = {tag for tag in wanted.keys() | found.keys() if "per second" not in tag}
    return sorted(tag for tag in tags if wanted.get(tag) != found.get(tag))


def trial(words: list[str], inner: Path, out: Path, kills: int, seed: int) -> list[int]:
    """A run left alone and one that is killed, both under `out`; the steps at which the kills fell.

    inner: <net>/<dataset>-<name>, the run's folder. Raises SystemExit where the two runs differ.
    """
    alone, killed = out / "alone", out / "killed"
    last = alone / "checkpoints" / inner / LAST
    run([*words, "-out", str(alone)], last)
    folder = killed / "checkpoints" / inner
    length = checkpoint.load_run(last)["step"]
    steps = kill_and_resume([*words, "-out", str(killed)], folder / last.name, kills, length, random.Random(seed))
    wrong = differences(alone / "checkpoints" / inner, folder)
    wrong += curve_differences(alone / "runs" / inner, killed / "runs" / inner)
    left_over = [str(path) for path in out.rglob("*.tmp")]
    if wrong:
        raise SystemExit(f"after {len(steps)} kills the two runs differ in: {', '.join(wrong[:20])}")
    print(
        f"{len(steps)} kills at steps {' '.join(map(str, steps))}; no unreadable checkpoint, equal weights, figures "
        f"and curves; {len(left_over)} temporary files left by kills within a write"
    )
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-kills", type=int, default=50)
    parser.add_argument("-net", default="cheapV3")
    parser.add_argument("-epochs", type=int, default=12)
    parser.add_argument("-seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    words = f"-net {options.net} -dataset digits -epochs {options.epochs} -name trial -gpu false".split()
    with tempfile.TemporaryDirectory() as out:
        steps = trial(words, Path(options.net) / "digits-trial", Path(out), options.kills, options.seed)
    if len(steps) < options.kills:
        raise SystemExit(f"the run ended before kill {len(steps) + 1}; give more -epochs")


if __name__ == "__main__":
    main()

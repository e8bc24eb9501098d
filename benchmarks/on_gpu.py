"""What a GPU does with this project, in named stages; send back the folder that it writes.

    python benchmarks/on_gpu.py                          every stage, into benchmarks/on_gpu/
    python benchmarks/on_gpu.py -stages matrix -out DIR  one of them
    python benchmarks/on_gpu.py -only "*, batch 512*"    the lines whose whole names fit, of every stage
    python benchmarks/on_gpu.py -small                   a few steps of each on a CPU, to see that it works

correct    the tests of tests/cuda, file by file, where pytest-xdist is installed; what they said is in DIR/correct/
waits      how often the host waits for the device within training steps between two readings of the loss: it should not
profile    kernels a step, the device's time in them, and the kernels that take most of it
matrix     each network at each batch size as main.py trains it by CUDA graphs; then each setting by itself against that
crossed    the form of the widened depthwise convolution, the layout and the precision, each with each
compiled   -compile in each mode, and replayed as CUDA graphs, each in a process of its own
compare    the loop of the original repository, written out, and MobileNetV3 of torchvision and timm, beside ours
streaming  a folder of JPEG images that is decoded while a network trains, by the number of decoders

Images are noise of CIFAR's shape unless -dataset names others: times do not depend on them. What is measured is added
to DIR/on_gpu.json at once, and a stage that was stopped, or ran into -limit, goes on where it was when it is asked for
again; DIR/on_gpu.md has the tables. A setting that cannot run is recorded with its reason.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import on_gpu_checks, on_gpu_plan, on_gpu_speeds
from benchmarks.measure import machine, make_parser
from engine.device import choose_device
from engine.shown.cards import markdown_table
from engine.shown.result import commit
from utils import parse_bool

ROOT = Path(__file__).resolve().parents[1]
STAGES = {
    "correct": on_gpu_checks.correct,
    "waits": on_gpu_checks.waits,
    "profile": on_gpu_checks.profile,
    "matrix": on_gpu_speeds.matrix,
    "crossed": on_gpu_speeds.crossed,
    "compiled": on_gpu_speeds.compiled,
    "compare": on_gpu_speeds.compare,
    "streaming": on_gpu_speeds.streaming,
}


class Notebook:
    """What was measured: a table for each stage, from the name of a line to its cells; on disk after each line."""

    def __init__(self, folder: Path, about: str) -> None:
        self.path, self.about = folder / "on_gpu.json", about
        self.tables: dict[str, dict[str, dict[str, str]]] = {}
        self.fitted: set[str] = set()  # the patterns that any line's name fitted
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            saved = json.loads(self.path.read_text())
            if saved["about"] != about:
                raise ValueError(f"{self.path} is of another machine or other software; give another -out")
            self.tables = saved["tables"]

    def fill(self, stage: str, lines: Iterator[tuple[str, Callable]], only: list[str], limit: float) -> bool:
        """Measures the lines that the table lacks and whose names fit a pattern; whether the time was enough."""
        found, begin = self.tables.setdefault(stage, {}), time.monotonic()
        for name, measure in lines:
            fitting = {pattern for pattern in only if fnmatchcase(name, pattern)}
            self.fitted |= fitting
            if name in found or not fitting:
                continue
            if time.monotonic() - begin > limit:
                return False
            try:
                found[name] = measure()
            except Exception as error:  # of any kind: each library has its own for a thing that a machine lacks
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                found[name] = {"left out": f"it cannot run here ({reason[:120]})"}
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
            self.save()
        return True

    def save(self) -> None:
        text = json.dumps({"about": self.about, "tables": self.tables}, indent=1)
        self.path.write_text(text)
        self.path.with_suffix(".md").write_text(self.markdown())

    def markdown(self) -> str:
        parts = [self.about]
        for stage, found in self.tables.items():
            columns = list(dict.fromkeys(key for cells in found.values() for key in cells))
            rows = [[name, *(cells.get(column, "") for column in columns)] for name, cells in found.items()]
            parts.append(f"## {stage}\n\n" + markdown_table([stage, *columns], rows))
        return "\n\n".join(parts) + "\n"


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("-stages", nargs="+", choices=list(STAGES), default=list(STAGES), help="what to measure")
    parser.add_argument("-only", nargs="+", default=["*"], help="patterns of the names of the lines to measure")
    parser.add_argument("-out", type=Path, default=ROOT / "benchmarks" / "on_gpu", help="folder of what is written")
    parser.add_argument("-dataset", default=None, help="a data set in the place of noise")
    parser.add_argument("-data", default="data", help="folder of the data sets")
    parser.add_argument("-gpu", type=parse_bool, default=None, help="true demands CUDA, false keeps to the CPU")
    parser.add_argument("-limit", type=float, default=540, help="seconds after which a stage begins nothing more")
    parser.add_argument("-small", action="store_true", help="few steps of small networks, as a CPU can take them")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    try:
        device = choose_device(options.gpu)
        if device.type != "cuda" and not options.small:
            raise ValueError("there is no CUDA device; give -small to try the stages on a CPU")
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
        notes = Notebook(
            options.out, f"{name}; {machine()}; commit {commit() or 'unknown'}{'; -small' * options.small}"
        )
        plan = on_gpu_plan.Plan.small() if options.small else on_gpu_plan.Plan()
        dataset = options.dataset or on_gpu_plan.write_images(options.out / "noise", *plan.noise)
        given = {"dataset": str(dataset), "data": options.data, "gpu": options.gpu, "recipe": "original", "lr": 1e-3}
        bench = on_gpu_plan.Bench(plan, given, device, options.rounds, options.threads, options.out)
        print(notes.about, flush=True)
        whole = True
        for stage in options.stages:
            print(f"\n{stage}", flush=True)
            on_gpu_plan.give_memory_back(bench)
            whole &= notes.fill(stage, STAGES[stage](bench), options.only, options.limit)
        if whole and (without := [pattern for pattern in options.only if pattern not in notes.fitted]):
            raise ValueError(f"-only {without[0]}: fits no whole name of a line; * stands for any characters")
    except ValueError as error:
        print(f"on_gpu.py: {error}", file=sys.stderr)
        return 2
    print(f"\nwritten: {notes.path} and {notes.path.with_suffix('.md')}")
    if not whole:
        print("some of it is left: ask for it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())

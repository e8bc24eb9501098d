"""The stages of benchmarks/on_gpu.py that look for what is wrong: tests, waits of the host, what a step consists of.

Each yields the lines of its table, and what measures a line's cells.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import torch

from benchmarks.on_gpu_plan import Bench, Lines

ROOT = Path(__file__).resolve().parents[1]
# of pytest -v in processes side by side
BEGUN = re.compile(r"^\S+?\.py::(.*?) *$", re.MULTILINE)
OUTCOME = re.compile(r"^\[gw\d+\] .*?(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) \S+?\.py::(.*?) *$", re.MULTILINE)


def correct(bench: Bench) -> Lines:
    for path in sorted((ROOT / "tests" / "cuda").glob("test_*.py")):
        if path.name in (bench.plan.tests or (path.name,)):
            yield path.name, partial(run_tests, bench, path)


def run_tests(bench: Bench, path: Path) -> dict[str, str]:
    """Runs a file's tests in processes side by side; what came of them, and the names of those that failed or had begun
    when the time was over."""
    if importlib.util.find_spec("xdist") is None:
        raise ValueError("pytest-xdist is not installed")
    words = [sys.executable, "-m", "pytest", "-m", "cuda", "-n", str(bench.plan.workers), "--tb", "short", "-vv"]
    environment = os.environ | ({} if bench.is_cuda else {"CUDA_TESTS_ON": "cpu"})
    log, late = bench.folder / "correct" / f"{path.stem}.log", []
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        how = dict(cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        process = subprocess.Popen([*words, str(path)], **how)
        try:
            process.wait(bench.plan.seconds)
        except subprocess.TimeoutExpired:
            late = [f"stopped after {bench.plan.seconds:g} s"]
            os.killpg(process.pid, signal.SIGKILL)  # its processes too, which would take part in later measurements
            process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    outcomes = {name: outcome for outcome, name in OUTCOME.findall(said)}
    if not outcomes and not late:
        raise ValueError((said.strip().splitlines() or ["pytest said nothing"])[-1])
    counts = Counter(outcome.lower() for outcome in outcomes.values())
    failed = [name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")]
    unfinished = [name for name in dict.fromkeys(BEGUN.findall(said)) if name not in outcomes]
    return {
        "found": ", ".join([f"{n} {outcome}" for outcome, n in sorted(counts.items())] + late),
        "failed": "; ".join(failed),
        "not finished": "; ".join(unfinished),
    }


def waits(bench: Bench) -> Lines:
    def count(**more: object) -> dict[str, str]:
        steps = bench.plan.steps(bench.plan.batches[0])
        loop = bench.loop(bench.plan.net, bench.plan.batches[0], log_every=10**5, **more)
        if not bench.is_cuda:
            raise ValueError("a CPU is never waited for")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loop.run(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        seen = [warning for warning in caught if "synchroniz" in str(warning.message)]
        places = sorted({f"{Path(each.filename).name}:{each.lineno}" for each in seen})
        return {"waits": f"{len(seen)} in {steps} steps and a reading", "where": ", ".join(places)}

    for name, more in {"graphs": {}, "eager": {"graphs": False}, "eager, ema": {"graphs": False, "ema": 0.99}}.items():
        yield name, partial(count, **more)


def profile(bench: Bench) -> Lines:
    def look(net: str, graphs: bool) -> dict[str, str]:
        loop = bench.loop(net, bench.plan.batches[0], graphs=graphs)
        kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * bench.is_cuda
        steps = min(10, bench.plan.steps(bench.plan.batches[0]))
        with torch.profiler.profile(activities=kinds) as profiler:
            loop.run(steps)
        by_device = torch.autograd.DeviceType.CUDA if bench.is_cuda else torch.autograd.DeviceType.CPU
        events = [event for event in profiler.key_averages() if event.device_type == by_device]
        time_of = "self_device_time_total" if bench.is_cuda else "self_cpu_time_total"
        events.sort(key=lambda event: -getattr(event, time_of))
        total = sum(getattr(event, time_of) for event in events)
        top = [
            f"{100 * getattr(event, time_of) / total:.0f} % {event.key[:90]} x{event.count}" for event in events[:14]
        ]
        return {
            "kernels a step": f"{sum(event.count for event in events) / steps:.0f}",
            "ms a step in kernels": f"{total / steps / 1e3:.2f}",
            "most of it in": "; ".join(top),
        }

    for net in bench.plan.pairs[0]:
        for graphs in (True, False) if bench.is_cuda else (False,):
            yield f"{net}, {'graphs' if graphs else 'eager'}", partial(look, net, graphs)

"""Milliseconds of one batch: each cheap network beside the MobileNet that it is made from, as a device would run it.

    python benchmarks/latency.py -batch 1 32 -rounds 15 -threads 1
    python benchmarks/latency.py -table parts-V2 parts-V3      the rows of tables of results/rows.yaml, by one image

All are folded, and run in ONNX Runtime from the file that -export onnx writes, and eagerly in PyTorch, channels_last.
The two of a pair, or the rows of a table, take turns, round by round and both ways, in one process; the ratio is taken
within its round. Images are noise, of 32x32 pixels or of the size of the table's rows, in 100 classes; running
statistics are those of one batch of it. A table's medians are kept in results/<table>/latency.json, from which
`python main.py -reproduce -jobs 0` fills a column of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

import models
from benchmarks.inference import SHAPE, with_statistics
from benchmarks.measure import alternate, calls_a_second, machine, make_parser, positive, ratios, summary
from commands.export import check_packages, onnx_runner, to_onnx
from commands.result_rows import LATENCY, ResultRow, ResultTable, read_tables
from conf.resolve import chosen_row
from datasets import View
from engine.job import matched
from engine.saved.trained import how_made
from models.fold import fold
from models.for_export import for_onnx
from utils import write_atomically

PAIRS = (("MobileNetV2", "cheapV2"), ("MobileNetV3", "cheapV3"))
SHORTEST = 0.1  # seconds that a measurement takes at least, in whole batches
WAYS = ("ONNX Runtime", "PyTorch")
ROWS = Path(__file__).resolve().parents[1] / "results" / "rows.yaml"


def make_ways(network: nn.Module, shape: torch.Size = SHAPE) -> dict[str, Callable[[Tensor], Tensor]]:
    """The folded network as a function of images of that shape, by the name of the way in which it runs."""
    folded = fold(with_statistics(network, shape))
    in_onnx = onnx_runner(to_onnx(for_onnx(folded, shape), shape, {}))
    folded.to(memory_format=torch.channels_last)
    ways = in_onnx, lambda images: folded(images.contiguous(memory_format=torch.channels_last))
    return dict(zip(WAYS, ways, strict=True))


def milliseconds(way: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Of one batch, over as many as take SHORTEST."""
    return 1000 / calls_a_second(partial(way, images), SHORTEST)


def measure(baseline: str, cheap: str, batches: list[int], rounds: int) -> None:
    """Prints a row of a table for each batch size and way: both networks, and the cheap one's share of the other."""
    torch.manual_seed(0)
    ways = {name: make_ways(models.create(name)) for name in (baseline, cheap)}
    for batch in batches:
        images = torch.randn(batch, *SHAPE)
        calls = {(name, way): partial(milliseconds, run, images) for name in ways for way, run in ways[name].items()}
        alternate(calls, 1)  # the first calls are slower
        found = alternate(calls, rounds)
        for way in WAYS:
            both = found[baseline, way], found[cheap, way]
            times = " | ".join(f"{name} {summary(each, 2)}" for name, each in zip(ways, both, strict=True))
            print(f"| {batch} | {way} | {times} | {summary(ratios(both[1], both[0]), 2)} |", flush=True)


def row_network(row: ResultRow) -> tuple[nn.Module, torch.Size]:
    """The network that a row trains, before its training, for 100 classes, and the shape of an image."""
    settings = row.settings(row.seeds[0])
    data = chosen_row(settings)
    side = settings.size or data.size
    mean = (0.5,) * data.channels
    view = View(mean, mean, side, data.channels, classes=tuple(map(str, range(100))), file_side=side)
    torch.manual_seed(0)
    return how_made(matched(settings, view), view).network(), torch.Size((data.channels, side, side))


def measure_table(table: ResultTable, rounds: int, results: Path) -> None:
    """Prints the milliseconds of one image for each row of a table, and keeps them beside the table's rows."""
    calls = {}
    for row in table.rows:
        network, shape = row_network(row)
        images = torch.randn(1, *shape)
        ways = make_ways(network, shape)
        calls |= {(row.label, way): partial(milliseconds, run, images) for way, run in ways.items()}
    alternate(calls, 1)  # the first calls are slower
    found = alternate(calls, rounds)
    print(f"\n{table.title}\n\n| row | runs in | ms an image | over the first row |\n|---|---|---|---|")
    for (label, way), each in found.items():
        share = summary(ratios(each, found[table.rows[0].label, way]), 2)
        print(f"| {label} | {way} | {summary(each, 3)} | {share} |", flush=True)
    medians = {
        row.label: {way: round(statistics.median(found[row.label, way]), 4) for way in WAYS} for row in table.rows
    }
    content = {"machine": machine("onnxruntime"), "rounds": rounds, "milliseconds": medians}
    path = results / table.name / LATENCY
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    print(f"kept in {path}")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=15, threads=1)
    parser.add_argument("-batch", type=positive, nargs="+", default=[1, 32], help="images a batch, one or several")
    cheap = [pair[1] for pair in PAIRS]
    parser.add_argument("-net", choices=cheap, nargs="+", default=cheap, help="the cheap networks")
    parser.add_argument("-table", nargs="+", default=[], help="in place of the pairs, at batch 1: tables of -rows")
    parser.add_argument("-rows", type=Path, default=ROWS, help="the file of the tables")
    return parser.parse_args()


def chosen_tables(path: Path, names: list[str]) -> list[ResultTable]:
    """The tables of a file by their names. Raises ValueError for one that is not there."""
    tables = {table.name: table for table in read_tables(path)} if names else {}
    for name in names:
        if name not in tables:
            raise ValueError(f"-table {name}: {path} has {', '.join(tables)}")
    return [tables[name] for name in names]


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    try:
        check_packages()
        tables = chosen_tables(arguments.rows, arguments.table)
    except ValueError as error:
        print(f"latency.py: {error}", file=sys.stderr)
        return 2
    print(f"milliseconds of a batch, median (least to greatest) of {arguments.rounds} rounds\n{machine('onnxruntime')}")
    with torch.inference_mode():
        for table in tables:
            measure_table(table, arguments.rounds, arguments.rows.parent)
        if tables:
            return 0
        print("| batch | runs in | MobileNet | cheap | cheap / MobileNet |\n|---|---|---|---|---|")
        for pair in PAIRS:
            if pair[1] in arguments.net:
                measure(*pair, arguments.batch, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

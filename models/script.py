"""The command line of a network's file: what it costs.

    python models/cheapV3.py [NETWORK] [-size N] [-classes N] [-width 1] [-expansion conv] [-layers] [-literal] ...

For each network of the file: a line a block, the figures of three counters and what they differ in (see counters.py),
parameters, size, and the measured time of a forward pass; then a table of the file's networks. Size and classes are
those that the network is meant for, unless they are given.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable

import torch
from torch import nn

from models import registry
from models.block_table import block_table
from models.parts import CHOICES
from models.parts import NAMES as PARTS
from models.summary import describe, layer_table, mac_count, parameter_count
from utils import OneLineParser, parse_bool

IN_CHANNELS, SIZE, CLASSES = 3, 32, 100  # of networks that are not meant for something else
FLAGS = (  # word, type (tuple: whole numbers), default, help
    ("size", int, None, f"side of the image in pixels (default: {SIZE}, or what the network is meant for)"),
    ("classes", int, None, f"number of classes (default: {CLASSES}, or what the network is meant for)"),
    ("width", float, 1.0, "width multiplier, for the networks that have one"),
)
PART_FLAGS = tuple(
    (name.replace("_", "-"), kind, None, f"{' or '.join(CHOICES.get(name, ()))} (default: the network's own)".lstrip())
    for name, kind in zip(PARTS, [str] * len(CHOICES) + [int, tuple, parse_bool], strict=True)
)


def network_table(networks: dict[str, nn.Module], shapes: dict[str, dict]) -> str:
    """A line for each network: its image, classes, parameters, and MACs by torch."""
    lines = [f"{'network':20}{'image':>14}{'classes':>9}{'parameters':>13}{'MACs':>15}"]
    for name, network in networks.items():
        channels, side = shapes[name]["in_channels"], shapes[name]["image_size"]
        image, classes = f"{channels} x {side} x {side}", shapes[name]["num_classes"]
        macs = mac_count(network, channels, side)
        lines.append(f"{name:20}{image:>14}{classes:9}{parameter_count(network):13,}{macs:15,}")
    return "\n".join(lines)


def options(file: str, words: list[str], flags: tuple = FLAGS) -> argparse.Namespace:
    """Raises ValueError for words that are no options, and for values that cannot be."""
    parser = OneLineParser(prog=f"{file}.py", description="Prints what this file's networks cost.", allow_abbrev=False)
    parser.add_argument("network", nargs="?", help="one of the file's networks (default: all of them)")
    for word, kind, default, text in flags:
        text += "" if default is None else f" (default: {default:g})"
        metavar = "N" if kind in (int, float, tuple) else word.upper()
        form = dict(type=int, nargs="+") if kind is tuple else dict(type=kind)
        parser.add_argument(f"-{word}", f"--{word}", default=default, metavar=metavar, help=text, **form)
    parser.add_argument("-layers", "--layers", action="store_true", help="torchsummary's table of layers, not blocks")
    parser.add_argument("-literal", "--literal", action="store_true", help="the form with real concatenations")
    given = parser.parse_args(words)
    if given.classes is not None and given.classes < 1:
        raise ValueError(f"-classes {given.classes}: must be at least 1")
    if not (math.isfinite(given.width) and given.width > 0):
        raise ValueError(f"-width {given.width:g}: must be a finite number above 0")
    return given


def names_of(file: str, wanted: str | None) -> list[str]:
    """The networks that models/<file>.py registers, or the wanted one of them. Raises ValueError for any other."""
    names = [name for name in registry.names() if registry.entry(name).builder.__module__ == f"models.{file}"]
    if wanted is None or wanted in names:
        return names if wanted is None else [wanted]
    if wanted in registry.names():
        other = registry.entry(wanted).builder.__module__.replace(".", "/")
        raise ValueError(f"{wanted}: a network of {other}.py; this file has {', '.join(names)}")
    raise ValueError(f"{wanted}: no network of this file; it has {', '.join(names)}")


def shape_of(name: str, given: argparse.Namespace) -> dict[str, object]:
    """What a network is built for, and with: what was given, else what it is meant for."""
    usual = dict(num_classes=CLASSES, in_channels=IN_CHANNELS, image_size=SIZE) | registry.entry(name).usual
    asked = dict(num_classes=given.classes, image_size=given.size)
    chosen = {name: getattr(given, name) for name in PARTS}
    return usual | {key: value for key, value in (asked | chosen).items() if value is not None} | {"width": given.width}


def main(
    file: str,
    words: list[str] | None = None,
    flags: tuple = (),
    check: Callable[[argparse.Namespace], None] = lambda given: None,
    describe_more: Callable[[argparse.Namespace], str] | None = None,
) -> int:
    """Describes the networks of models/<file>.py. Returns the exit status.

    words          the command line's
    flags          further ones, as in FLAGS
    check          raises ValueError for values that cannot be
    describe_more  gives what stands below the networks
    """
    try:
        given = options(file, sys.argv[1:] if words is None else words, FLAGS + PART_FLAGS + flags)
        check(given)
        with torch.random.fork_rng(devices=[]):
            shapes = {name: shape_of(name, given) for name in names_of(file, given.network)}
            built = {name: registry.create(name, **shape, literal=given.literal) for name, shape in shapes.items()}
            for name, network in built.items():
                shape = shapes[name]
                chosen = {part: shape[part] for part in PARTS if part in shape}
                has_reuse = registry.entry(name).has_reuse(**chosen)
                literal = registry.create(name, **shape, literal=True) if has_reuse and not given.literal else None
                table = layer_table if given.layers else block_table
                text = describe(name, network, shape["in_channels"], shape["image_size"], literal, table)
                print(text, end="\n\n", flush=True)
            if len(built) > 1:
                print(network_table(built, shapes), end="\n\n", flush=True)
            if describe_more is not None:
                print(describe_more(given), flush=True)
    except ValueError as error:
        print(f"{file}.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:  # a counting library, or what one imports
        print(f"{file}.py: {error}; pip install -r requirements.txt", file=sys.stderr)
        return 2
    except BrokenPipeError:  # head, or less, has seen enough; what is left at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

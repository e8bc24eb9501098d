"""What a network costs: parameters and multiply-accumulates; and what running a network's file prints.

    python models/cheapV3.py [NETWORK] [-size N] [-classes N] [-width 1] [-expansion conv] ...

For each network of the file: torchsummary's table of layers, the figures of three counters and what they differ in
(see counters.py), parameters, size, and the measured time of a forward pass. Size and classes are those that the
network is meant for, unless they are given.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from models import counters, registry
from models.parts import CHOICES
from models.parts import NAMES as PARTS
from models.reuse import ConvOnCopies, LinearOnCopies
from utils import OneLineParser, parse_bool

MEGABYTE = 1024**2  # bytes; as torchsummary has it
IN_CHANNELS, SIZE, CLASSES = 3, 32, 100  # of networks that are not meant for something else
TORCH_COUNTS = "MACs of every convolution and matrix product that runs; not bias, batch norm, activations, pools, sums"
COUNTERS = (  # name, function, what it counts
    ("thop", counters.thop_count, "in layers of the very classes it knows: MACs without bias, batch norm"),
    ("flopth", counters.flopth_count, "in layers: MACs with convolutions' bias, batch norm, activations, 2-D pools"),
)
FLAGS = (  # word, type, default, help
    ("size", int, None, f"side of the image in pixels (default: {SIZE}, or what the network is meant for)"),
    ("classes", int, None, f"number of classes (default: {CLASSES}, or what the network is meant for)"),
    ("width", float, 1.0, "width multiplier, for the networks that have one"),
)
PART_FLAGS = tuple(
    (name.replace("_", "-"), kind, None, f"{' or '.join(CHOICES.get(name, ()))} (default: the network's own)".lstrip())
    for name, kind in zip(PARTS, [str] * len(CHOICES) + [int, parse_bool], strict=True)
)


def parameter_count(network: nn.Module) -> int:
    """Trainable parameters; running statistics of batch norm are buffers and not counted."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def mac_count(network: nn.Module, in_channels: int, image_size: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image, in eval mode."""
    return counters.torch_count(network, in_channels, image_size)[0]


def weights_on_copies(network: nn.Module) -> dict[str, tuple[int, int]]:
    """For each part of a network (stem, head, ...) the weights that read copies: (stored, worth).

    Copies of one map make the slices of these weights act as their sum: it is the sum that the network is worth.
    """
    parts: dict[str, tuple[int, int]] = {}
    for name, module in network.named_modules():
        if isinstance(module, LinearOnCopies | ConvOnCopies):
            stored, worth = parts.get(name.split(".")[0], (0, 0))
            own, summed = module.weight.numel(), module.summed_weight().numel()
            parts[name.split(".")[0]] = stored + own, worth + summed
    return parts


def layer_table(network: nn.Module, in_channels: int, image_size: int) -> str:
    """torchsummary's table of layers, and a line below it where its total is not parameter_count's."""
    twin, _ = counters.prepared(network, in_channels, image_size)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), counters.quiet() as printed:
        from torchsummary import summary

        summary(twin, (in_channels, image_size, image_size), device="cpu")
    table = printed.getvalue().rstrip()
    total = int(re.search(r"Total params: ([\d,]+)", table)[1].replace(",", ""))
    surplus = total - parameter_count(network)
    if surplus:
        table += f"\n{surplus:+,} in this total: torchsummary adds weight and bias of a layer each time it runs"
    return table


def counter_lines(network: nn.Module, in_channels: int, image_size: int, literal: nn.Module | None = None) -> list[str]:
    """A line for each counter with its figure, and below it the sum that leads to it from torch's."""
    total, layers = counters.torch_count(network, in_channels, image_size)
    lines = [f"{'torch':10}{total:15,}  {TORCH_COUNTS}"]
    if literal is not None:
        macs = mac_count(literal, in_channels, image_size)
        lines.append(f"{'':10}{macs:15,}  of the literal form, which copies feature maps and adds no weights")
    for name, function, what in COUNTERS:
        count = function(network, in_channels, image_size)
        lines.append(f"{name:10}{count.total:15,}  {what}")
        lines.append(f"{'':13}={total:15,}  torch's")
        for amount, words in counters.differences(count, total, layers):
            lines.append(f"{'':13}{'+' if amount > 0 else '-'}{abs(amount):15,}  {words}")
        unknown = counters.uncounted(count, layers)
        if unknown:
            lines.append(f"{'':31}no rule either, here zero as torch's: {', '.join(unknown)}")
    return lines


def size_lines(network: nn.Module) -> list[str]:
    """Parameters, what those that read copies are worth, and the size in MB."""
    count = parameter_count(network)
    lines = [f"{'parameters':10}{count:15,}"]
    parts = weights_on_copies(network)
    if parts:
        worth = count - sum(stored - summed for stored, summed in parts.values())
        where = ", ".join(f"{part} {stored:,} -> {summed:,}" for part, (stored, summed) in parts.items())
        lines.append(f"{'':10}{worth:15,}  once the weights that read copies of one map are added ({where})")
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    stored = sum(tensor.nbytes for tensor in network.state_dict().values())
    lines.append(
        f"{'size':10}{parameters / MEGABYTE:15.2f}  MB of {MEGABYTE:,} bytes in float32; "
        f"{stored / MEGABYTE:.2f} with the buffers of its state dict"
    )
    return lines


def forward_line(network: nn.Module, in_channels: int, image_size: int, seconds: float = 0.3) -> str:
    """The median time of a forward pass of one image, on CUDA where there is any, else on the CPU.

    Five runs at least, and as many as fit into `seconds`, after two that warm up.
    """
    twin, image = counters.prepared(network, in_channels, image_size)
    threads = torch.get_num_threads()
    where = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if torch.cuda.is_available():
        twin, image, where = twin.to("cuda"), image.to("cuda"), torch.cuda.get_device_name()
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 7 or sum(times[2:]) < seconds:
            start = time.perf_counter()
            twin(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    median = statistics.median(times[2:])
    return f"{'forward':10}{median * 1e3:15.2f}  ms, median of {len(times) - 2} runs, batch 1, float32, {where}"


def describe(name: str, network: nn.Module, in_channels: int, image_size: int, literal: nn.Module | None = None) -> str:
    """All that is printed of a network, which stays as it is. literal: its literal form, for a cheap one."""
    lines = [layer_table(network, in_channels, image_size), ""]
    lines.append(f"{name}, one image of {in_channels} x {image_size} x {image_size}, in eval mode; MACs by")
    lines += counter_lines(network, in_channels, image_size, literal)
    lines += size_lines(network)
    lines.append(forward_line(network, in_channels, image_size))
    return "\n".join(lines)


def options(file: str, words: list[str], flags: tuple = FLAGS) -> argparse.Namespace:
    """Raises ValueError for words that are no options, and for values that cannot be."""
    parser = OneLineParser(prog=f"{file}.py", description="Prints what this file's networks cost.", allow_abbrev=False)
    parser.add_argument("network", nargs="?", help="one of the file's networks (default: all of them)")
    for word, kind, default, text in flags:
        text += "" if default is None else f" (default: {default:g})"
        metavar = "N" if kind in (int, float) else word.upper()
        parser.add_argument(f"-{word}", f"--{word}", type=kind, default=default, metavar=metavar, help=text)
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


def main(file: str, words: list[str] | None = None) -> int:
    """Describes the networks of models/<file>.py. words: the command line's. Returns the exit status."""
    return main_with(file, words)


def main_with(
    file: str,
    words: list[str] | None = None,
    flags: tuple = (),
    check: Callable[[argparse.Namespace], None] = lambda given: None,
    describe_more: Callable[[argparse.Namespace], str] | None = None,
) -> int:
    """As main(), for a file that prints more than its networks.

    flags          further ones, as in FLAGS
    check          raises ValueError for values that cannot be
    describe_more  gives what stands below the networks
    """
    try:
        given = options(file, sys.argv[1:] if words is None else words, FLAGS + PART_FLAGS + flags)
        check(given)
        with torch.random.fork_rng(devices=[]):
            shapes = {name: shape_of(name, given) for name in names_of(file, given.network)}
            built = {name: registry.create(name, **shape) for name, shape in shapes.items()}
            for name, network in built.items():
                shape = shapes[name]
                chosen = {part: shape[part] for part in PARTS if part in shape}
                has_reuse = registry.entry(name).has_reuse(**chosen)
                literal = registry.create(name, **shape, literal=True) if has_reuse else None
                text = describe(name, network, shape["in_channels"], shape["image_size"], literal)
                print(text, end="\n\n", flush=True)
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

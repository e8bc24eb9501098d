"""Images a second in inference: literal form, default form, folded network, ONNX Runtime.

    python benchmarks/inference.py -net cheapV3 -batch 128 1 -rounds 9 -threads 1

The same weights in four forms: the literal form in the default memory format (the yardstick; a network without Reuse
has one form only and is its own), the default form in channels_last, the folded network (models/fold.py) in
channels_last, and the folded network as ONNX Runtime runs it. They alternate, round by round, in one process, and
each ratio is taken within its round. Images are noise of 32x32 pixels, which takes the same time as any image;
running statistics are those of one batch of it, and the outputs of all forms are compared before the first round.
A round of a form lasts about -seconds, in whole batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn

import models
from benchmarks.measure import alternate, calls_a_second, machine, make_parser, positive, ratios, summary
from commands.export import check_packages, onnx_runner, to_onnx
from models.fold import Sizes, fold
from models.for_export import for_onnx
from models.literal import from_literal

SHAPE = torch.Size((3, 32, 32))
YARDSTICK = "literal form"


def with_statistics(network: nn.Module, shape: torch.Size = SHAPE) -> nn.Module:
    """The network with the running statistics of one batch of noise, as training leaves it with those of images."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(64, *shape))
    return network.eval()


def make_forms(name: str) -> tuple[dict[str, Callable[[Tensor], Tensor]], Sizes]:
    """The four forms by what they are called, each from N x C x H x W floats to outputs; and parameters."""
    torch.manual_seed(0)
    cheap = name in models.cheap_names()
    literal = with_statistics(models.create(name, literal=cheap))
    default = models.create(name).eval()
    default.load_state_dict(from_literal(literal.state_dict(), literal) if cheap else literal.state_dict())
    folded = fold(default)
    in_onnx = onnx_runner(to_onnx(for_onnx(folded, SHAPE), SHAPE, {}))
    sizes = Sizes.of(default, folded)

    def channels_last(network: nn.Module) -> Callable[[Tensor], Tensor]:
        network.to(memory_format=torch.channels_last)
        return lambda images: network(images.contiguous(memory_format=torch.channels_last))

    forms = {
        YARDSTICK: literal,
        "default form, channels_last": channels_last(default),
        "folded, channels_last": channels_last(folded),
        "folded, ONNX Runtime": in_onnx,
    }
    return forms, sizes


def check(forms: dict[str, Callable[[Tensor], Tensor]], images: Tensor) -> None:
    """Runs each form once, untimed. Raises AssertionError where one gives other outputs."""
    expected = forms[YARDSTICK](images)
    for name, form in forms.items():
        difference = ((form(images) - expected).abs().max() / expected.abs().max()).item()
        assert difference < 1e-4, f"{name}: outputs differ by {difference:.2g} of the largest"


def images_a_second(form: Callable[[Tensor], Tensor], images: Tensor, seconds: float) -> float:
    """Over as many whole batches as take `seconds`."""
    return len(images) * calls_a_second(partial(form, images), seconds)


def measure(forms: dict[str, Callable[[Tensor], Tensor]], images: Tensor, rounds: int, seconds: float) -> None:
    """Prints a line for each form."""
    check(forms, images)
    speeds = alternate({name: partial(images_a_second, form, images, seconds) for name, form in forms.items()}, rounds)
    print(f"batch {len(images)}: images a second, and times the {YARDSTICK}: median (least to greatest)")
    for name, values in speeds.items():
        print(f"  {name:<28} {summary(values, 1):<28} {summary(ratios(values, speeds[YARDSTICK]), 2)}")


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, rounds=9, threads=1)
    parser.add_argument("-net", choices=models.names(), default="cheapV3", help="network", metavar="NET")
    parser.add_argument("-batch", type=positive, nargs="+", default=[128, 1], help="images a batch, one or several")
    parser.add_argument("-seconds", type=float, default=1.0, help="length of one measurement")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    try:
        check_packages()
    except ValueError as error:
        print(f"inference.py: {error}", file=sys.stderr)
        return 2
    forms, sizes = make_forms(arguments.net)
    print(f"{arguments.net}, 100 classes, 32x32 noise, {arguments.rounds} rounds")
    print(sizes)
    print(machine("onnxruntime"))
    with torch.inference_mode():
        for batch in arguments.batch:
            measure(forms, torch.randn(batch, *SHAPE), arguments.rounds, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

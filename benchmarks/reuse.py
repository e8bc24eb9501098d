"""What Reuse without a copy saves: images a second in training, and memory kept for the backward pass.

    python benchmarks/reuse.py                     cheapV3, literal form against the default form
    python benchmarks/reuse.py -nets cheapV2 cheapSqueezeNet
    python benchmarks/reuse.py -all                every cheap network, and MobileNetV3 against torchvision's and timm's
    python benchmarks/reuse.py -multiplier         ReuseDepthwise against one convolution with a channel multiplier
    python benchmarks/reuse.py -profile            where a training step's time goes
    python benchmarks/reuse.py -keep               freed memory kept, as main.py does (engine/device.py)

The default form is measured by its modules, as it runs on a GPU, and by models/ops/kernels.c where that compiles, as
main.py trains on a CPU. The literal form runs in the default memory format and the default form in channels_last;
rounds alternate. The ratio's median, smallest and largest round are printed, never one form's time alone. Without -keep
the C library is as it comes; with it all forms are faster, the literal one by most.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import nn

import models
from benchmarks.measure import CPU, Step, alternate, machine, make_parser, positive, ratios, summary
from engine.device import keep_freed_memory
from models.fast_path import use_kernels
from models.layers import HardswishByFormula, replace_modules
from models.reuse import ReuseDepthwise


def kept_bytes(step: Step) -> int:
    """Bytes of activations that autograd keeps between forward and backward, each storage once; no weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in step.network.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()  # the graph holds this function, and would never end if this held the graph
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (tensor, storage.nbytes())  # held, so that no address is given out twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.cross_entropy(step.network(step.images), step.targets)
    return sum(size for _, size in kept.values())


def compare(name: str, slow: Step, fast: Step, rounds: int) -> None:
    """Prints how many times as many images a second `fast` trains, over alternating rounds."""
    slow(), fast()
    times = alternate({"slow": slow, "fast": fast}, rounds)
    rates = [len(fast.images) / statistics.median(values) for values in times.values()]
    print(
        f"{name:50} {rates[0]:7.1f} {rates[1]:7.1f} images/s   "
        f"ratio {summary(ratios(times['slow'], times['fast']), 2)}   "
        f"kept for backward {kept_bytes(fast) / kept_bytes(slow):.2f}",
        flush=True,
    )


def default_forms(name: str) -> dict[str, nn.Module]:
    """The default form as it is, and a second one for models/ops/kernels.c where that can train it."""
    forms = {"default": models.create(name)}
    compiled = models.create(name)
    if use_kernels(compiled, required=False):
        forms["default by kernels.c"] = compiled
    return forms


def compare_forms(name: str, batch: int, rounds: int) -> None:
    """The default form, by its modules and by the kernels, against the literal one as it is; where that differs, with
    native activations too."""
    torch.manual_seed(0)
    literal = models.create(name, literal=True)
    steps = {form: Step(network, batch, channels_last=True) for form, network in default_forms(name).items()}
    for form, step in steps.items():
        compare(f"{name}: literal, {form}", Step(literal, batch, channels_last=False), step, rounds)
    if any(isinstance(module, HardswishByFormula) for module in literal.modules()):
        native = replace_modules(literal, HardswishByFormula, nn.Hardswish)
        for form, step in steps.items():
            compare(f"  native hard-swish, {form}", Step(native, batch, channels_last=False), step, rounds)


def others(batch: int, device: torch.device = CPU) -> list[tuple[str, Step]]:
    """torchvision's and timm's MobileNetV3 large, for 100 classes, their first two strides set for 32x32 images."""
    import torchvision

    theirs = torchvision.models.mobilenet_v3_large(num_classes=100)
    theirs.features[0][0].stride = (1, 1)
    theirs.features[2].block[1][0].stride = (1, 1)
    found = [("torchvision mobilenet_v3_large", theirs)]
    try:
        import timm
    except ImportError:
        print("timm is not installed: pip install timm")
    else:
        theirs = timm.create_model("mobilenetv3_large_100", num_classes=100)
        theirs.conv_stem.stride = (1, 1)
        theirs.blocks[1][0].conv_dw.stride = (1, 1)
        found.append(("timm mobilenetv3_large_100", theirs))
    return [(name, Step(network, batch, device=device)) for name, network in found]


def compare_multiplier(batch: int, rounds: int) -> None:
    """ReuseDepthwise as it is against Conv2d(C, kC, groups=C), in cheapV3."""
    side_by_side = Step(models.create("cheapV3"), batch, channels_last=True)
    network = models.create("cheapV3")
    for module in network.modules():
        if isinstance(module, ReuseDepthwise):
            module.forward = nn.Conv2d.forward.__get__(module)
    compare("cheapV3: one convolution, side by side", Step(network, batch, True), side_by_side, rounds)


def profile(name: str, batch: int) -> None:
    """The operations that take most of a training step's time, for each form."""
    forms = {"literal": models.create(name, literal=True)} | default_forms(name)
    for form, network in forms.items():
        step = Step(network, batch, channels_last=form != "literal")
        step()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            step()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        print(f"{name}, {form}: {total / 1e6:.2f} s")
        for event in events[:10]:
            print(f"  {100 * event.self_cpu_time_total / total:5.1f} %  {event.key}")


def main() -> None:
    parser = make_parser(__doc__, rounds=7)
    parser.add_argument(
        "-nets", nargs="+", default=["cheapV3"], choices=models.cheap_names(), metavar="NET", help="networks"
    )
    parser.add_argument("-all", action="store_true", help="every cheap network, and those of torchvision and timm")
    parser.add_argument("-multiplier", action="store_true", help="ReuseDepthwise against a channel multiplier")
    parser.add_argument("-profile", action="store_true", help="where a training step's time goes")
    parser.add_argument("-keep", action="store_true", help="freed memory kept, as main.py does")
    parser.add_argument("-batch", type=positive, default=128, help="images a step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.keep:
        keep_freed_memory()
    print(f"{machine()}; batch {options.batch}")
    if options.profile:
        for name in options.nets:
            profile(name, options.batch)
    elif options.multiplier:
        compare_multiplier(options.batch, options.rounds)
    else:
        for name in models.cheap_names() if options.all else options.nets:
            compare_forms(name, options.batch, options.rounds)
        if options.all:
            own = Step(models.create("MobileNetV3"), options.batch, channels_last=True)
            for name, theirs in others(options.batch):
                compare(f"{name}, MobileNetV3 here", theirs, own, options.rounds)


if __name__ == "__main__":
    main()

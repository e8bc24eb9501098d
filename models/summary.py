"""What a network costs: parameters, multiply-accumulates by several counters, size, and the time of a forward pass."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from models import counters
from models.block_table import block_table
from models.counters import parameter_count
from models.fold import fold
from models.reuse import ConvOnCopies, LinearOnCopies, ReuseDepthwise

MEGABYTE = 1024**2  # bytes; as torchsummary has it
TORCH_COUNTS = "MACs of every convolution and matrix product that runs; not bias, batch norm, activations, pools, sums"
COUNTERS = (  # name, function, what it counts
    ("thop", counters.thop_count, "in layers of the very classes it knows: MACs without bias, batch norm"),
    ("flopth", counters.flopth_count, "in layers: MACs with convolutions' bias, batch norm, activations, 2-D pools"),
)


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
        lines += [
            f"{'':10}{macs:15,}  of the literal form, which copies feature maps and adds no weights: have another",
            f"{'':27}tool count that (-literal, literal=True in models.create). thop, torchinfo and ptflops know",
            f"{'':27}layers by their class: of the form above they count next to nothing for",
            f"{'':27}{of_own_classes(layers)}",
        ]
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


def of_own_classes(layers: dict[str, counters.Layer]) -> str:
    """The layers of classes of this project that multiply, as "15 ReuseDepthwise (8.72 M)", and their MACs."""
    kinds = {kind.__name__ for kind in (ReuseDepthwise, ConvOnCopies, LinearOnCopies)}
    found: dict[str, list[int]] = {}
    for layer in layers.values():
        if layer.kind in kinds:
            found.setdefault(layer.kind, []).append(layer.macs)
    return ", ".join(f"{len(macs)} {kind} ({sum(macs) / 1e6:.2f} M)" for kind, macs in found.items())


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


def forward_line(network: nn.Module, in_channels: int, image_size: int) -> str:
    """The median times of a forward pass of one image, folded and as built, on CUDA where there is any."""
    threads = torch.get_num_threads()
    where = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if torch.cuda.is_available():
        where = torch.cuda.get_device_name()
    plain, folded = (forward_time(each, in_channels, image_size) for each in (network, fold(network)))
    return (
        f"{'forward':10}{folded * 1e3:15.2f}  ms folded for inference, {plain * 1e3:.2f} as it is; medians, batch 1, "
        f"float32, {where}"
    )


def forward_time(network: nn.Module, in_channels: int, image_size: int, seconds: float = 0.3) -> float:
    """The median time of a forward pass in seconds: of five runs at least, and as many as fit into `seconds`, after
    two that warm up."""
    twin, image = counters.prepared(network, in_channels, image_size)
    if torch.cuda.is_available():
        twin, image = twin.to("cuda"), image.to("cuda")
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < 7 or sum(times[2:]) < seconds:
            start = time.perf_counter()
            twin(image)
            if image.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def describe(
    name: str,
    network: nn.Module,
    in_channels: int,
    image_size: int,
    literal: nn.Module | None = None,
    table: Callable[[nn.Module, int, int], str] = block_table,
) -> str:
    """All that is printed of a network, which stays as it is.

    literal  its literal form, for a cheap one
    table    what stands first: block_table or layer_table
    """
    lines = [table(network, in_channels, image_size), ""]
    lines.append(
        f"{name}, one image of {in_channels} x {image_size} x {image_size}, in eval mode; MACs by torch, thop, flopth"
    )
    lines += size_lines(network)
    lines += counter_lines(network, in_channels, image_size, literal)
    lines.append(forward_line(network, in_channels, image_size))
    return "\n".join(lines)

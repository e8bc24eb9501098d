"""What can be told of a run before anything is written: from its settings alone, and from the shapes of its maps."""

from __future__ import annotations

import torch
from torch import nn

from conf import Settings
from conf.datasets import DatasetRow
from conf.knobs import show
from engine.device import check_compiler, choose_device
from engine.graphs import check_graphs
from engine.muon import check_muon
from engine.saved.weights import Made
from models.gate_start import can_start_at_one
from models.registry import SMALLEST_IMAGE, create, entry
from models.reuse import LinearOnCopies
from models.shapes import shapes_alone


def check_run(settings: Settings, row: DatasetRow, processes: int, goes_on: bool = False) -> torch.device:
    """The device of a run of these settings on the data set of row, in so many processes.

    goes_on: the run may have begun on another machine; it goes on without -sync-bn, -graphs and reduce-overhead
    where there is no CUDA.
    Raises ValueError for settings that cannot run.
    """
    known = entry(settings.net, row.task)
    if known.task not in ("", row.task):
        made, has, fitting = {
            "regression": ("angles", "classes", "driving, or a folder with driving_log.csv"),
            "classification": ("classes", "angles", "digits, mnist or other images in classes"),
        }[known.task]
        raise ValueError(
            f"{settings.net}: made for {made}, and {row.name} has {has}; this network goes with -dataset {fitting}"
        )
    if settings.match and not known.takes("width"):
        raise ValueError(f"-match {settings.match}: {settings.net} has no width multiplier; leave it out")
    device = choose_device(settings.gpu)
    if settings.batch_size % processes:
        raise ValueError(f"-b {settings.batch_size}: must be a multiple of the {processes} processes")
    parts = max(1, settings.batch_size // processes // 2)
    if settings.accumulate > parts and not goes_on:  # a run goes on with fewer parts in more processes
        raise ValueError(
            f"-accumulate {settings.accumulate}: a process's {settings.batch_size // processes} images of -b "
            f"{settings.batch_size} make {parts} parts of two or more, which batch norm needs; give at most {parts}"
        )
    if settings.sync_bn and device.type != "cuda" and not goes_on:
        raise ValueError(f"-sync-bn true: it is for CUDA devices only, not for {device}; leave it out of a new run")
    check_graphs(settings, device, processes, goes_on)
    if settings.compile == "reduce-overhead" and device.type != "cuda" and not goes_on:
        raise ValueError(f"-compile reduce-overhead: it is for CUDA devices, not for {device}; give -compile default")
    if settings.compile != "off":
        check_compiler(device)
    return device


def check_given(settings: Settings, given: dict[str, object]) -> None:
    """Raises ValueError for a knob of a new run's command line that changes nothing in the network.

    given: the knobs of the command line by name. A recipe may have one for the networks that it does change.
    """
    gates, activation = given.get("gate_start") == "one", given.get("activation_before")
    if not gates and activation is None:
        return

    def made(**parts: object) -> nn.Module:
        with shapes_alone():
            return create(settings.net, **settings.parts() | parts)

    has_parts = entry(settings.net).parts is not None
    if gates and not (has_parts and any(map(can_start_at_one, made().modules()))):
        raise ValueError(
            f"-gate-start one: {settings.net} has no gates that could start there, by Reuse or without a bound; "
            "leave it out"
        )
    if has_parts and activation is not None:
        ways = {str(made(activation_before=way)) for way in (True, False)}
        if len(ways) == 1:
            raise ValueError(
                f"-activation-before {str(activation).lower()}: changes nothing where {settings.net} has only one copy "
                "in a block; leave it out"
            )


def prepare_network(network: nn.Module, settings: Settings) -> None:
    """Gives the network the recipe's dropout. Raises ValueError for what the recipe asks of it and it does not have."""
    check_muon(network, settings)
    if settings.dropout is None:
        return
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    on_copies = [module for module in network.modules() if isinstance(module, LinearOnCopies) and module.dropout]
    if not layers and not on_copies:
        raise ValueError(f"-dropout {settings.dropout:g}: {settings.net} has no dropout layer; leave it out")
    for layer in layers:
        layer.p = settings.dropout
    for layer in on_copies:
        layer.dropout = settings.dropout


def check_sizes(network: nn.Module, made: Made, settings: Settings) -> None:
    """Raises ValueError where the network, on the CPU and made so, cannot be trained at the sides of -sizes."""
    if not settings.sizes:
        return
    given, side = f"-sizes {show(settings.sizes)}", settings.sizes[0]
    if settings.sizes[-1] != made.image_size:
        raise ValueError(f"{given}: the last one must be the side of the images, {made.image_size}")
    if side < SMALLEST_IMAGE:
        raise ValueError(f"{given}: {side} is too small for {made.name}; give {SMALLEST_IMAGE} or more")
    was_training = network.training
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, made.in_channels, side, side))
    except RuntimeError:  # maps of another size than its linear layers or pools were made for
        raise ValueError(
            f"{given}: {made.name} of {made.image_size}x{made.image_size} pixels takes no image of {side}x{side}; "
            "leave it out"
        ) from None
    finally:
        network.train(was_training)


def check_single_images(made: Made, settings: Settings, smallest: int) -> None:
    """Raises ValueError where a step has one image (smallest: of all steps) and a batch norm's map one pixel, so that
    there would be nothing to take a deviation of.
    """
    if smallest > 1:
        return
    side = min(settings.sizes, default=made.image_size)
    try:
        with torch.random.fork_rng(devices=()), torch.no_grad():
            made.network().train()(torch.zeros(1, made.in_channels, side, side))
    except ValueError:  # as torch's batch norm raises it
        few = "-b 1" if settings.batch_size == 1 else f"{settings.dataset} has one training image"
        advice = "give -b 2 or more" if settings.batch_size == 1 else "give more images"
        raise ValueError(
            f"{few}: at {side}x{side} pixels {made.name} has maps of one pixel, whose batch norm "
            f"needs two images; {advice}, or a larger -size"
        ) from None

"""Networks of torchvision and timm as they are, under the names torchvision:NAME and timm:NAME, with new weights.

They are built for 3 x 224 x 224 images in most cases, and halve the map five times, where the networks here halve it
three times: of a 32x32 image one pixel is left before the pool. A larger -size gives them larger maps. Nothing is
downloaded, and neither library is imported before one of its networks is asked for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable

import torch
from torch import nn

from utils import nearest

LIBRARIES = ("torchvision", "timm")
SIZE = 224  # pixels of the images that they are meant for
# torchvision's two networks with further outputs in training, which its argument leaves out
WITHOUT_MORE_OUTPUTS = dict.fromkeys(("googlenet", "inception_v3"), dict(aux_logits=False, init_weights=True))


def is_foreign(name: str) -> bool:
    """Whether a network's name begins with a library's."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


@functools.cache
def builder(name: str) -> Callable[..., nn.Module]:
    """The builder of a network by its whole name, as models.registry.register() takes one.

    Raises ValueError for an unknown name, with near ones, and where timm is missing.
    """
    library, _, own = name.partition(":")
    try:
        module = importlib.import_module({"torchvision": "torchvision.models"}.get(library, library))
    except ImportError:
        raise ValueError(f"{name}: needs {library}; pip install {library}") from None
    known = module.list_models(module) if library == "torchvision" else module.list_models()
    if own not in known:
        near = nearest(own, known)
        if near.count(", ") > 10:  # all of them
            raise ValueError(f"{name}: unknown network; {module.__name__}.list_models() lists all {len(known):,}")
        near = " or ".join(f"{library}:{each}" for each in near.split(" or "))
        raise ValueError(f"{name}: unknown network; did you mean {near}?")
    make = _of_torchvision if library == "torchvision" else _of_timm

    def build(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
        try:
            network = make(module, own, num_classes, in_channels)
        except (
            NotImplementedError
        ):  # a few read their own numbers while they are made, which the meta device has none of
            with torch.random.fork_rng(devices=()), torch.device("cpu"):
                network = make(module, own, num_classes, in_channels)
            network = network.to("meta")
        _check(network, name, num_classes, in_channels, image_size)
        return network

    build.__name__ = name
    return build


def _of_torchvision(module, own: str, num_classes: int, in_channels: int) -> nn.Module:
    options = WITHOUT_MORE_OUTPUTS.get(own, {})
    network = module.get_model(own, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        name, first = next(each for each in network.named_modules() if isinstance(each[1], nn.Conv2d))
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, _for_channels(first, in_channels))
    return network


def _for_channels(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The convolution for another number of channels: its weights of the first ones, and again of these."""
    with torch.device("meta"):  # no initial weights are drawn
        new = nn.Conv2d(
            in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None
        )
    index = [channel % conv.in_channels for channel in range(in_channels)]
    new.weight, new.bias = nn.Parameter(conv.weight.detach()[:, index].clone()), conv.bias
    return new


def _of_timm(module, own: str, num_classes: int, in_channels: int) -> nn.Module:
    return module.create_model(own, pretrained=False, num_classes=num_classes, in_chans=in_channels)


def _check(network: nn.Module, name: str, num_classes: int, in_channels: int, image_size: int) -> None:
    """Raises ValueError where the network does not make N x num_classes outputs of such images."""
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(1, in_channels, image_size, image_size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{name}: takes no image of {image_size}x{image_size} pixels; give another size, such as {SIZE}"
        ) from error
    network.train()
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, num_classes):
        raise ValueError(f"{name}: does not give a number for each class; take another network")

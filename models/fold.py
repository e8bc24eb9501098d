"""A trained network as an equal one for inference: batch norms folded, copies' weights added, dropout gone.

A layer that has another form for inference says so with fold(), which returns it (models/reuse.py,
models/reuse_block.py); fold() here walks a network, of this project or another, and calls them. One that is several
convolutions says with fused_with() how it takes a batch norm in (models/mixed_depthwise.py).
Layers that feed one another are found in nn.Sequential, nested ones included: every network here keeps its
convolutions and batch norms in them. Where a network of another library has batch norms elsewhere, torch.fx tells which
convolution each of them follows; one that it cannot tell of stays as it is, and nothing is lost.
"""

# NOTE: of a network in the literal form (models.create(literal=True)) only the batch norms are folded; its weights
# that read copies are added where models.literal.from_literal has carried them to the default form first.

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.layers import GlobalAveragePool
from models.reuse import ReuseDepthwise
from models.traced import Calls, after_norm, is_plain_norm, of_timm, replace


@torch.no_grad()
def fold(network: nn.Module) -> nn.Module:
    """An equal network for inference, in eval mode, on the same device; network itself is left as it was.

    - every layer with a fold() is replaced by what that returns: layers that read copies become plain ones with their
      slices added, widened blocks are computed copy by copy;
    - a batch norm that follows a convolution or linear layer goes into it;
    - one that follows something else (EffNet's follow an activation) goes into the next convolution or linear layer
      where that is exact, and else stays: see next_reader and scale_input;
    - dropout goes.

    The outputs differ from the network's in eval mode by rounding only. No parameter of the result asks for a
    gradient: to train it would be another training, since that of a sum of k slices counts once instead of k times.
    """
    folded = inference_layer(copy.deepcopy(network).eval())
    fold_batch_norms(folded)
    fold_traced(folded)
    return folded.requires_grad_(False)


def inference_layer(layer: nn.Module) -> nn.Module:
    """What a layer is for inference; its children are replaced in place first."""
    for name, child in layer.named_children():
        setattr(layer, name, inference_layer(child))
    if hasattr(layer, "fold"):
        return layer.fold()
    return nn.Identity() if isinstance(layer, _DropoutNd) else layer


def fold_batch_norms(network: nn.Module) -> None:
    """Takes batch norms into the layers beside them, in place, wherever that is exact; network is in eval mode.

    Identities, of dropout too, are taken out of every nn.Sequential.
    """
    for chain in chains(network):
        fold_into_previous(chain)
        fold_into_next(chain)
    for sequential in filter(is_plain_sequential, network.modules()):
        for name, layer in list(sequential.named_children()):
            if type(layer) is nn.Identity:
                delattr(sequential, name)


@dataclass(frozen=True)
class Sizes:
    """Parameters of a network as stored and folded; copies and batch_norms are what each kind of folding took."""

    stored: int
    folded: int
    copies: int
    batch_norms: int

    @classmethod
    def of(cls, network: nn.Module, folded: nn.Module) -> Sizes:
        stored, left = (sum(weight.numel() for weight in each.parameters()) for each in (network, folded))
        readers = [layer for layer in network.modules() if hasattr(layer, "summed_weight")]
        copies = sum(layer.weight.numel() - layer.summed_weight().numel() for layer in readers)
        return cls(stored, left, copies, stored - left - copies)

    def __str__(self) -> str:
        return (
            f"parameters: {self.stored:,} stored, {self.folded:,} folded "
            f"({self.copies:,} fewer where copies were read, {self.batch_norms:,} with the batch norms)"
        )


class Place:
    """Where a layer stands in its parent; layer reads it and replaces it."""

    def __init__(self, parent: nn.Module, name: str) -> None:
        self.parent, self.name = parent, name

    @property
    def layer(self) -> nn.Module:
        return getattr(self.parent, self.name)

    @layer.setter
    def layer(self, layer: nn.Module) -> None:
        setattr(self.parent, self.name, layer)


def is_plain_sequential(layer: nn.Module) -> bool:
    """Whether it does nothing but to call its children in order."""
    return isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward


def chains(network: nn.Module) -> list[list[Place]]:
    """Every longest run of layers that feed one another, without identities; nested nn.Sequential are laid flat."""
    sequentials = list(filter(is_plain_sequential, network.modules()))
    inner = {id(child) for parent in sequentials for child in parent.children() if is_plain_sequential(child)}
    return [flat(sequential) for sequential in sequentials if id(sequential) not in inner]


def flat(sequential: nn.Sequential) -> list[Place]:
    places = []
    for name, child in sequential.named_children():
        if is_plain_sequential(child):
            places += flat(child)
        elif type(child) is not nn.Identity:
            places.append(Place(sequential, name))
    return places


def fold_into_previous(chain: list[Place]) -> None:
    """Batch norms into the convolution or linear layer that they directly follow."""
    for before, place in pairwise(chain):
        if (fused := fused_layer(before.layer, place.layer)) is not None:
            before.layer, place.layer = fused, after_norm(place.layer)


def fused_layer(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    """A layer and the batch norm that follows it as one, without the activation that the norm may hold; None where
    that is not known to be exact.
    """
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or after_norm(norm) is None:
        return None
    if hasattr(layer, "fused_with"):
        return layer.fused_with(norm)
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm) if type(layer).forward is nn.Linear.forward else None
    # others may change their weight in forward(), as those with standardised weights do; "same" padding does not
    padded = of_timm("conv2d_same", "Conv2dSame") or ReuseDepthwise
    linear = isinstance(layer, nn.Conv2d) and type(layer).forward in (
        each.forward for each in (nn.Conv2d, ReuseDepthwise, padded)
    )
    return fuse_conv_bn_eval(layer, norm) if linear else None


def fold_traced(network: nn.Module) -> None:
    """Batch norms that stand in no nn.Sequential into the layer whose result they alone read, in place."""
    parents = [each for each in network.modules() if not is_plain_sequential(each)]
    if not any(isinstance(child, _BatchNorm) for parent in parents for child in parent.children()):
        return
    try:
        calls = Calls(network)
    except ValueError:
        return
    for node in calls.nodes:
        layer, reader = calls.module(node), calls.reader(node)
        norm = calls.module(reader) if reader is not None else None
        if layer is not None and norm is not None and (fused := fused_layer(layer, norm)) is not None:
            replace(network, node.target, fused)
            replace(network, reader.target, after_norm(norm))


def fold_into_next(chain: list[Place]) -> None:
    """Batch norms that are left into the convolution or linear layer that reads them, where that is exact."""
    for number, place in enumerate(chain):
        if is_plain_norm(place.layer) and place.layer.running_mean is not None:
            scale, shift = scale_and_shift(place.layer)
            reader = next_reader(chain[number + 1 :], scale)
            if reader is not None and scale_input(reader, scale, shift):
                place.layer = nn.Identity()


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Batch norm in eval mode is x * scale + shift, for each channel."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def next_reader(following: list[Place], scale: Tensor) -> nn.Conv2d | nn.Linear | None:
    """The layer that reads a scaled and shifted map, if only layers stand before it that commute with that.

    A mean and a change of shape do; the largest of a window does where no scale is negative.
    """
    for place in following:
        layer = place.layer
        if type(layer) in (nn.Conv2d, nn.Linear):  # a subclass may read its input otherwise
            return layer
        commutes = isinstance(layer, GlobalAveragePool | nn.Flatten | nn.Identity)
        if not commutes and not (isinstance(layer, nn.MaxPool2d) and (scale >= 0).all()):
            return None
    return None


def scale_input(reader: nn.Conv2d | nn.Linear, scale: Tensor, shift: Tensor) -> bool:
    """Changes the layer so that it gives for x what it gave for x * scale + shift. Returns whether that is exact.

    The border of a convolution with zero padding is zero after the shift, so that a shift before it cannot be
    expressed; such a layer is left alone.
    """
    padded = isinstance(reader, nn.Conv2d) and reader.padding_mode == "zeros" and any(reader.padding)
    if padded and shift.any():
        return False
    weight = reader.weight
    shift_columns, scale_columns = (columns(reader, values) for values in (shift, scale))
    bias = (weight * shift_columns).flatten(1).sum(1)
    reader.bias = nn.Parameter(bias if reader.bias is None else bias + reader.bias)
    reader.weight = nn.Parameter(weight * scale_columns)
    return True


def columns(reader: nn.Conv2d | nn.Linear, values: Tensor) -> Tensor:
    """A value for each input channel in the shape of the layer's weight: out x in/groups (x 1 x 1).

    A linear layer after nn.Flatten reads each channel in_features / channels times in a row.
    """
    if isinstance(reader, nn.Linear):
        return values.repeat_interleave(reader.in_features // len(values))[None]
    grouped = values.unflatten(0, (reader.groups, 1, -1))
    return grouped.repeat(1, reader.out_channels // reader.groups, 1).flatten(0, 1)[:, :, None, None]

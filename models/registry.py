"""The networks by name: a table that the network files fill, and create(), which builds one, of other libraries too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from models import foreign
from models.convert import replace_expansions
from models.gate_start import GATE_STARTS, start_gates_at_one
from models.parts import Parts
from utils import nearest

SMALLEST_IMAGE = 8  # pixels: the networks here halve the map three times


@dataclass(frozen=True)
class Entry:
    """A registered network.

    usual     num_classes, in_channels and image_size of what it is meant for, where create()'s are not
    task      "classification" or "regression", where it is made for that alone (its published recipe, its start);
              empty: a network of one output learns angles too
    revision  of the function: raised whenever the same weights come to compute something else
    about     what it is, in a few words for -list
    baseline  the network that it is made from, or was published beside; empty where there is none
    """

    builder: Callable[..., nn.Module]
    usual: dict[str, int] = field(default_factory=dict)
    revision: int = 1
    task: str = ""
    about: str = ""
    baseline: str = ""

    def takes(self, parameter: str) -> bool:
        """Whether the builder has this parameter: literal, width or parts."""
        return parameter in inspect.signature(self.builder).parameters

    @property
    def parts(self) -> Parts | None:
        """The network's parts, where others can be chosen in their place."""
        return inspect.signature(self.builder).parameters["parts"].default if self.takes("parts") else None

    def has_reuse(self, **parts: object) -> bool:
        """Whether the network has Reuse, and so a literal form, with these parts in place of its own."""
        own = self.parts
        return self.takes("literal") and (own is None or own.replaced(self.name, parts).has_reuse)

    @property
    def name(self) -> str:
        return self.builder.__name__


_ENTRIES: dict[str, Entry] = {}


def register(builder: Callable[..., nn.Module] | None = None, **facts: object):
    """Decorator: registers a builder under its function's name, which is the word after -net. facts: an Entry's.

    A builder takes num_classes, in_channels and image_size, and width and literal where it has them.
    Raises ValueError for a name that is taken.
    """

    def add(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if function.__name__ in _ENTRIES:
            raise ValueError(f"a network named {function.__name__} is registered already; give this one another name")
        _ENTRIES[function.__name__] = Entry(function, **facts)
        return function

    return add(builder) if builder is not None else add


def names() -> list[str]:
    """The names of all networks, in the order of their registration."""
    return list(_ENTRIES)


def cheap_names() -> list[str]:
    """The names of the networks with Reuse, which exist in a literal form too."""
    return [name for name, known in _ENTRIES.items() if known.has_reuse()]


def entry(name: str, task: str = "") -> Entry:
    """The entry of a network of models/, or of another library (models/foreign.py).

    Raises ValueError for an unknown name, with the nearest ones; task: of networks that can be trained for it.
    """
    if foreign.is_foreign(name):
        return Entry(foreign.builder(name), {"image_size": foreign.SIZE})
    if name not in _ENTRIES:
        fitting = [each for each, known in _ENTRIES.items() if not task or known.task in ("", task)]
        raise ValueError(f"{name}: unknown network; did you mean {nearest(name, fitting)}?")
    return _ENTRIES[name]


def create(
    name: str,
    num_classes: int = 100,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    literal: bool = False,
    gate_start: str = "original",
    reuse: bool = False,
    **parts: object,
) -> nn.Module:
    """A network by name: N x in_channels x image_size x image_size float images -> N x num_classes logits.

    width    multiplies the channel counts of the MobileNets and their cheap variants
    literal  builds a cheap network by the definition of Reuse, with real concatenations; the same function,
             slower. models.literal.from_literal carries weights over.
    gate_start  how the gates of a squeeze-excite by Reuse, or without a bound, start: "original", near zero as drawn,
             or "one" (models/gate_start.py); other networks have one start only
    reuse    of torchvision:NAME and timm:NAME: Reuse in the place of every 1x1 expansion that it can replace
             (models/convert.py); with literal, by real concatenations
    parts    of a MobileNet or its cheap variants, in place of the network's own: see models.parts.Parts
    Raises ValueError for an unknown name or a combination that cannot be built.
    """
    known = entry(name)
    if gate_start not in GATE_STARTS:
        raise ValueError(f"gate_start {gate_start}: must be one of {', '.join(GATE_STARTS)}")
    if image_size < SMALLEST_IMAGE:
        raise ValueError(f"image size {image_size}: too small for {name}; give {SMALLEST_IMAGE} or more")
    if min(num_classes, in_channels) < 1:
        raise ValueError(f"{name}: num_classes {num_classes} and in_channels {in_channels} must be at least 1")
    options = dict(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    if known.takes("width"):
        options["width"] = width
    elif width != 1.0:
        raise ValueError(f"width {width:g}: {name} has no width multiplier; leave it out")
    if known.parts is not None:
        options["parts"] = known.parts.replaced(name, parts)
    elif parts:
        raise ValueError(f"{next(iter(parts))}: {name} has no parts to choose; the MobileNets and cheapV2, cheapV3 do")
    if reuse and not foreign.is_foreign(name):
        raise ValueError(
            f"reuse true: {name} is of this project, and reuse converts torchvision:NAME and timm:NAME; its forms with "
            f"Reuse are {cheap_names()}"
        )
    if literal and not reuse and not known.has_reuse(**parts):
        raise ValueError(f"literal: {name} has no Reuse and so only one form; the cheap ones are {cheap_names()}")
    if known.takes("literal"):
        options["literal"] = literal
    network = known.builder(**options)
    if reuse:
        try:
            replace_expansions(network, literal)
        except ValueError as error:
            raise ValueError(f"reuse true: {name}: {error}; leave it out") from None
    if gate_start == "one":
        start_gates_at_one(network)
    return network

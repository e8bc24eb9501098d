"""Weights in files of this project and of others: whether they fit a network, and if not, what they are of."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import models
from conf import PARTS, Settings
from engine.saved import checkpoint
from engine.saved.schema import TrainedContent
from engine.saved.state_dicts import differences, find_weights, shown
from models.shapes import shapes_alone

SIDES = (8, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
WIDTHS = (0.1, 0.25, 0.35, 0.5, 0.75, 1.0, 1.25, 1.3, 1.4, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Made:
    """How a network was made: the arguments of models.create()."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    width: float = 1.0
    others: Mapping[str, object] = field(default_factory=dict)  # gate_start and the parts

    @classmethod
    def of(cls, settings: Settings, num_classes: int, in_channels: int, image_size: int) -> Made:
        """How the network of the settings is made."""
        others = {"gate_start": settings.gate_start, **settings.parts()}
        return cls(settings.net, num_classes, in_channels, image_size, settings.width, others)

    def arguments(self) -> dict[str, object]:
        """The arguments of models.create() for trained weights, which do not depend on how they were drawn."""
        parts = {key: value for key, value in self.others.items() if key != "gate_start"}
        shape = dict(num_classes=self.num_classes, in_channels=self.in_channels, image_size=self.image_size)
        return {"name": self.name, **shape, "width": self.width, **parts}

    def network(self) -> nn.Module:
        """A new network that is made so."""
        shape = (self.num_classes, self.in_channels, self.image_size, self.width)
        return models.create(self.name, *shape, **self.others)

    def without_values(self) -> dict[str, Tensor]:
        """The state dict of network(), of tensors that have a shape and a type but take no memory."""
        with shapes_alone():
            return self.network().state_dict()

    def classifier(self) -> list[str]:
        """The names of the weights whose shape depends on the number of classes."""
        own, others = self.shapes(), self.shapes(num_classes=self.num_classes + 1)
        return [key for key, shape in own.items() if shape != others.get(key)]

    def shapes(self, **others: object) -> dict[str, torch.Size]:
        """The shapes of the weights of a network that is made so, but for `others`; empty where there is none."""
        try:
            state = replace(self, **others).without_values()
        except ValueError:
            return {}
        return {key: value.shape for key, value in state.items()}


def weights_in(content: dict, own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights in the content of a file: of a run's checkpoint, or as find_weights() finds them for a network of the
    state dict `own`. Raises ValueError where there are none.
    """
    if not checkpoint.is_run(content):
        return find_weights(content, own, path)
    checkpoint.check_run(content, TrainedContent, path)
    return checkpoint.network_weights(content)


def load_pretrained(network: nn.Module, content: dict, path: Path, made: Made, classes: Sequence[str] = ()) -> None:
    """Loads the weights in the content of a file as a start for training.

    A classifier for another number of classes keeps its new weights, and a line is printed that says so; another line
    says where the file's classifier is for as many other classes. classes: their names now.
    Raises ValueError for the weights of another network.
    """
    own = network.state_dict()
    state = weights_in(content, own, path)
    for key in made.classifier():
        if key in state and state[key].shape[:1] != own[key].shape[:1] and state[key].ndim:
            print(f"{key}: made new, {path} has {state[key].shape[0]} classes and this run {own[key].shape[0]}")
            state = {**state, key: own[key]}
    load_weights(network, state, path, made, advise=True)
    then = content["classes"] if checkpoint.is_run(content) else classes
    if len(then) == len(classes) and list(then) != list(classes):
        number = next(number for number, name in enumerate(classes) if then[number] != name)
        order = " in another order" if set(then) == set(classes) else ""
        print(
            f"the classifier of {path} is kept, although it was trained for other classes{order}: its output "
            f"{number + 1} stood for {shown(then[number])}, and stands for {shown(classes[number])} in this run"
        )


def create_with(name: str, path: Path, given: dict[str, object]) -> nn.Module:
    """A network by name with the weights of a file, in train mode as models.create() makes it.

    given: arguments of models.create(); a run's checkpoint says those that are missing. Raises ValueError for a file
    that cannot be read, or weights that do not fit.
    """
    content = checkpoint.load(path)
    if checkpoint.is_run(content):
        checkpoint.check_run(content, TrainedContent, path)
        known = {"num_classes": len(content["classes"]), "width": content["settings"].get("width", 1.0)}
        known |= {key: content[key] for key in ("in_channels", "image_size")}
        parts = {key: content["settings"].get(key) for key in PARTS}
        if content["settings"].get("reuse"):
            parts["reuse"] = True
        given = known | {key: value for key, value in parts.items() if value is not None} | given
    network = models.create(name, **given)
    usual = {key: each.default for key, each in inspect.signature(models.create).parameters.items()}
    shape = {key: (usual | given)[key] for key in ("num_classes", "in_channels", "image_size", "width")}
    others = {key: value for key, value in given.items() if key not in (*shape, "literal")}
    made = Made(name, **shape, others=others)
    load_weights(network, weights_in(content, network.state_dict(), path), path, made)
    return network


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path, made: Made, advise: bool = False) -> None:
    """Loads a state dict into a network. Raises ValueError as check_fits() does."""
    check_fits(network.state_dict(), state, path, made, advise)
    network.load_state_dict(state)


def check_fits(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, made: Made, advise: bool = False
) -> None:
    """Raises ValueError that says how a state dict differs from own, the network's, where it does, and why.

    made: how the network was made. advise: whether the command line may say what network the weights are of.
    """
    if text := _describe(state, own):
        reason = _reason(state, made, advise)
        raise ValueError(f"{path}: weights of another network than this {made.name}: {text}; {reason}")


def check_exact(state: Mapping[str, Tensor], network: nn.Module, what: str) -> None:
    """Raises ValueError where a state dict is not one that the network itself has saved."""
    own = network.state_dict()
    text = _describe(state, own)
    if not text and (other := next((key for key in own if state[key].dtype != own[key].dtype), None)):
        text = f"{other} is {state[other].dtype}, not {own[other].dtype}"
    if text:
        raise ValueError(f"{what} is of another network than its settings say: {text}; take another checkpoint")


def _describe(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How a state dict differs: the number of names of each kind, and the first of them; empty where it does not."""
    missing, unexpected, unlike = differences(state, own)
    texts = []
    if missing:
        texts.append(f"{len(missing)} of {len(own)} weights missing ({_first(missing)})")
    if unexpected:
        texts.append(f"{len(unexpected)} unexpected ({_first(unexpected)})")
    if unlike:
        key = unlike[0]
        found, wanted = state[key], own[key]
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        shown = f"{key} is {shape}, not {list(wanted.shape)}"
        if shape == list(wanted.shape):
            shown = f"{key} is {found.dtype}, not {wanted.dtype}"
        texts.append(f"{len(unlike)} of another shape ({shown})")
    return ", ".join(texts)


def _first(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")


def _reason(state: Mapping[str, Tensor], made: Made, advise: bool) -> str:
    """What the weights are of, where another value of an argument of models.create() or another network fits them."""
    shapes = {key: value.shape for key, value in state.items() if isinstance(value, Tensor)}
    known = _classes_and_channels(shapes, made)
    words = {
        "num_classes": "{} classes, not {}",
        "in_channels": "images of {} channels, not {}",
        "image_size": "images of {0}x{0} pixels, not {1}x{1}",
        "width": "a width of {:g}, not {:g}",
    }
    options = {"image_size": "-size", "width": "-width"}
    usual = models.registry.entry(made.name).usual.get("image_size", 32)
    trials = [{}]
    if made.name in models.names():  # the weights of another library's networks depend on neither
        if made.shapes().keys() == shapes.keys():  # no weight's name depends on the size of the images
            trials += [{"image_size": side} for side in (usual, *SIDES)]
        trials += [{"width": width} for width in WIDTHS]
    for trial in trials:
        found = known | trial
        if found and made.shapes(**found) == shapes:
            what = " and ".join(words[key].format(value, getattr(made, key)) for key, value in found.items())
            given = [f"{options[key]} {value:g}" for key, value in trial.items()] if advise and not known else []
            return f"they are for {what}" + (f": give {' '.join(given)}" if given else "")
    if made.name not in models.names():
        reuse = not made.others.get("reuse", False)
        if made.shapes(**known, others=dict(made.others) | {"reuse": reuse}) == shapes:
            word = str(reuse).lower()
            return f"they are of it {'with' if reuse else 'without'} Reuse" + (
                f": give -reuse {word}" if advise else ""
            )
    for name in models.names():
        other = replace(made, name=name, width=1.0, others={})
        if other.shapes().keys() != shapes.keys():  # no weight's name depends on the numbers of classes and channels
            continue
        its = _classes_and_channels(shapes, other)
        if other.shapes(**its) == shapes:
            return f"they are of {name}" + (f": give -net {name}" if advise and not its else "")
    return "give the -net they were made with" if advise else "take another file"


def _classes_and_channels(shapes: dict[str, torch.Size], made: Made) -> dict[str, int]:
    """The numbers of classes and channels that the shapes speak of, where they are not the network's own."""
    own, found = made.shapes(), {}
    for argument, axis in (("num_classes", 0), ("in_channels", 1)):
        value = getattr(made, argument)
        others = made.shapes(**{argument: value + 1})
        key = next((key for key in own if own[key] != others.get(key)), None)
        if key in shapes and len(shapes[key]) == len(own[key]) and shapes[key][axis] not in (0, value):
            found[argument] = shapes[key][axis]
    return found

"""The settings of a run: each knob once, with its unit, its bounds, its place on the command line, its effect.

The knobs stand in a file for each group of -h, in its order.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

from conf import knobs
from conf.settings.augmentation import AugmentationSettings
from conf.settings.machine import MachineSettings
from conf.settings.network import PARTS, NetworkSettings
from conf.settings.run import RunSettings
from conf.settings.training import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Settings(AugmentationSettings, TrainingSettings, MachineSettings, NetworkSettings, RunSettings):
    """The effective settings of one run. Raises ValueError that names the knob for a value that is not allowed.

    Python takes the fields of the last base first.
    """

    def parts(self) -> dict[str, object]:
        """What is chosen in place of the network's own, as models.create takes it."""
        chosen = {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}
        return chosen | ({"reuse": True} if self.reuse else {})

    def __post_init__(self) -> None:
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = knobs.convert(field, types[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        for name in ("lr", "adamw_lr"):
            if getattr(self, name) == 0:
                raise ValueError(f"-{name.replace('_', '-')} 0: the learning rate must be above 0")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum > 0):
            raise ValueError(
                "-nesterov true: goes with -optimizer sgd and a -momentum above 0; give -nesterov false or change those"
            )
        for name in ("mixup", "cutmix"):
            if 0 < getattr(self, name) < 0.01:  # torch's Beta distribution of less is another one
                raise ValueError(f"-{name} {getattr(self, name):g}: must be 0, for none, or at least 0.01")
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"-milestones {knobs.show(self.milestones)}: must rise")
        if list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"-sizes {knobs.show(self.sizes)}: must rise")
        if len(self.sizes) > self.epochs:
            raise ValueError(
                f"-sizes {knobs.show(self.sizes)}: {len(self.sizes)} parts of {self.epochs} epochs; give fewer of them"
            )
        if self.warm > self.epochs:
            raise ValueError(f"-warm {self.warm:g}: longer than the whole run of {self.epochs} epochs; lower it")

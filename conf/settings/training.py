"""The knobs of the schedule, the optimizer and the loss; all may stand in a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from conf import knobs

knob = partial(knobs.knob, group="training")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    epochs: int = knob("passes over the training images", low=1, high=100_000)
    steps: int = knob("batches an epoch (0: one pass over the training images)", default=0, low=0)
    batch_size: int = knob("images a step", short="b", low=1)
    accumulate: int = knob("parts in which a process works through its images of a step", default=1, low=1)
    shuffle: bool = knob("shuffle the training images", default=True, short="s")
    sizes: tuple[int, ...] = knob(
        "sides in pixels to which training images are resized, rising to their own, each for an equal part of the run",
        default=(),
        high=1024,
    )
    optimizer: str = knob(
        "sgd, adam, adamw, or muon for 1x1 convolutions with adamw for all else",
        choices=("sgd", "adam", "adamw", "muon"),
    )
    lr: float = knob("peak learning rate; with muon, of the 1x1 convolutions", high=1e30)
    adamw_lr: float | None = knob(
        "with muon, the peak learning rate of all else (where it is not given: a tenth of -lr)",
        default=None,
        high=1e30,
    )
    momentum: float = knob("momentum of sgd", default=0.9, low=0.0, high=0.9999)
    nesterov: bool = knob("Nesterov's momentum for sgd", default=False)
    weight_decay: float = knob("weight decay", default=0.0, low=0.0)
    decay_norms: bool = knob("weight decay of batch norms and biases, too", default=True)
    schedule: str = knob(
        "shape of the learning rate after the warm-up",
        choices=("step", "cosine", "linear", "constant"),
    )
    warm: float = knob("epochs of linear warm-up, by step", default=0.0, low=0.0)
    least_warm_steps: int = knob(
        "steps that a recipe's warm-up keeps where -epochs shortens it, up to a quarter of the run",
        default=0,
    )
    milestones: tuple[float, ...] = knob(
        "finished epochs after which the step schedule lowers the rate", default=(), low=0.0
    )
    gamma: float = knob("factor of the step schedule at each milestone", default=0.2, low=0.0, high=1.0)
    gate_start: str = knob(
        "where the gates of cheapV3 and its variants, and those without a bound, start: near zero (original) or at one",
        default="original",
        choices=("original", "one"),
    )
    dropout: float | None = knob(
        "probability of the network's dropout layers, 0 for none (where it is not given: their own)",
        default=None,
        high=0.99,
    )
    label_smoothing: float = knob("label smoothing", default=0.0, low=0.0, high=0.99)
    distill_temperature: float = knob(
        "-distill: what the outputs of both networks are divided by", default=4.0, low=0.1, high=100
    )
    distill_share: float = knob(
        "-distill: share of the loss that compares with the teacher, not with the labels",
        default=0.5,
        low=0.01,
        high=1.0,
    )
    clip: float = knob("largest norm of the gradient (0: not clipped)", default=0.0, low=0.0)
    patience: int = knob(
        "epochs in a row without a better score after which the run stops (0: it never stops early)",
        default=0,
    )
    ema: float = knob("decay of averaged weights (0: none)", default=0.0, low=0.0, high=0.99999)

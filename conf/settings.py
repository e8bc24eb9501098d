"""The table of the settings: each knob once, with its unit, its bounds, its place on the command line, its effect."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass

from conf import knobs
from conf.knobs import knob

# The knobs that choose a part of a network in place of its own.
PARTS = ("expansion", "shortcut", "se", "gate", "head", "stem", "reuse_times", "reuse_kernels", "activation_before")


def part(help: str, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None):
    """A knob for one part of a MobileNet or a network made from it; models/parts.py says more of each."""
    text = f"{help} (default: the network's own)"
    return knob(text, default=None, group="network", choices=choices, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The effective settings of one run. Raises ValueError that names the knob for a value that is not allowed."""

    net: str = knob(
        "network: a name from models/, torchvision:NAME or timm:NAME (required)", group="run", changes="result"
    )
    dataset: str = knob(
        "data set: cifar10, cifar100, tiny-imagenet, mnist, fashion-mnist, digits, driving, or a folder of images",
        default="cifar100",
        group="run",
        changes="result",
    )
    data: str = knob("folder of the data sets", default="data", group="run", changes="machine")
    natural_order: bool = knob(
        "sort the classes of a folder of images by the numbers in their names, 2 before 10",
        default=False,
        group="run",
        changes="result",
    )
    skip_broken: bool = knob(
        "leave out the images of a folder that cannot be read, and count them, instead of refusing them",
        default=False,
        group="run",
        changes="machine",
    )
    recipe: str = knob(
        "recipe: a name from conf/recipes/, a YAML file, or the settings.yaml of a run to repeat",
        group="run",
        changes="result",
    )
    weights: str = knob(
        "a checkpoint to start from, or with -test, -export and -predict the one that they are about",
        default="",
        group="run",
        changes="result",
    )
    distill: str = knob(
        "a teacher: the checkpoint of a trained network, after whose outputs this one is trained beside the labels",
        default="",
        group="run",
        changes="result",
    )
    name: str = knob(
        "name of the run's folders, instead of the time", default="", group="run", changes="output", kept=True
    )
    out: str = knob("folder in which runs/ and checkpoints/ lie", default=".", group="run", changes="output", kept=True)
    seed: int = knob(
        "seed of weights, order and augmentation", default=1, group="run", changes="result", low=0, high=2**31 - 1
    )
    val: float = knob(
        "share of the training images held out to choose the best epoch (0: the test set chooses); of a folder of "
        "CLASS/* alone, the share of each class that is the test set (0: a fifth)",
        default=0.0,
        group="run",
        changes="result",
        low=0.0,
        high=0.9,
    )
    save_every: float = knob(
        "minutes between saves within an epoch (0: at every reading of the loss; default: 10)",
        default=10.0,
        group="run",
        changes="output",
        low=0.0,
    )
    keep: int = knob(
        "checkpoints of every tenth epoch kept, the newest (0: all)", default=0, group="run", changes="output", low=0
    )
    log_every: int = knob("steps between readings of the loss", default=50, group="run", changes="output", low=1)
    log_more: bool = knob(
        "at each reading also curves of each block: gate maximum, gradient norm, update-to-weight ratio",
        default=False,
        group="run",
        changes="output",
    )

    width: float = knob("width multiplier", default=1.0, group="network", low=0.01, high=16.0)
    match: str = knob(
        "the width, instead of -width, at which the network costs nearly as much: macs:43.8M or params:1.17M",
        default="",
        group="network",
    )
    size: int = knob(
        "side of the images in pixels (0: the data set's own)", default=0, group="network", low=0, high=1024
    )
    expansion: str | None = part(
        "what widens a block: a 1x1 convolution, Reuse, a grouped 1x1 convolution, channels of zeros, GhostNet's cheap "
        "maps, or nothing (ratio 1)",
        ("conv", "grouped", "zero-pad", "ghost", "none", "reuse"),
    )
    shortcut: str | None = part("MobileNetV2's shortcut where channels change at stride 1", ("conv", "resize"))
    se: str | None = part("MobileNetV3's squeeze-excite: its second layer", ("conv", "reuse"))
    gate: str | None = part("what MobileNetV3's squeeze-excite passes its numbers through", ("hardsigmoid", "none"))
    head: str | None = part("1x1 convolution before the classifier, or Reuse", ("conv", "reuse"))
    stem: str | None = part("3x3 convolution, or one to 3 channels and Reuse", ("conv", "reuse"))
    reuse_times: int | None = part("copies in a block with -expansion reuse", low=1, high=64)
    reuse_kernels: tuple[int, ...] | None = part(
        "with -expansion reuse: the size of each copy's depthwise kernel, odd, as many as copies, such as 3 3 5 5 7 7",
        low=1,
        high=11,
    )
    activation_before: bool | None = part("an activation between a block's expansion and its depthwise convolution")

    reuse: bool = knob(
        "Reuse in the place of every 1x1 expansion of a torchvision:NAME or timm:NAME that it can replace",
        default=False,
        group="network",
    )

    gpu: bool | None = knob(
        "true demands CUDA, false keeps to the CPU; CUDA_VISIBLE_DEVICES chooses devices (default: what is there)",
        default=None,
        group="machine",
    )
    procs: int = knob(
        "processes on this machine, on CUDA with a device each (0: as many as there are devices that share -b evenly "
        "and get at least 128 images of a step each, else one)",
        default=0,
        group="machine",
        high=128,
    )
    sync_bn: bool = knob(
        "batch norm over all processes' images; CUDA only",
        default=False,
        group="machine",
        changes="result",
        untrained=False,
    )
    amp: str = knob(
        "mixed precision; auto: on CUDA bf16, or fp16 where the device has no bf16, and off elsewhere; off: float32, "
        "without TF32 (default: auto to train, off for -test, -export and -predict)",
        default="auto",
        group="machine",
        untrained="off",
        given=True,
        choices=("auto", "bf16", "fp16", "off"),
    )
    workers: int | None = knob(
        "processes that decode a folder of images that streams (0: none beside this one; default: one fewer than each "
        "process of -procs has cores, at least 1 and at most 8)",
        default=None,
        group="machine",
        short="w",
        high=128,
    )
    memory: float = knob(
        "GB (10^9 bytes) of pixels up to which a folder of images is held in memory; a larger one streams from disk "
        "(default: 2)",
        default=2.0,
        group="machine",
        kept=True,
        low=0.0,
    )
    channels_last: bool = knob(
        "channels_last memory format of weights and images; false: NCHW", default=True, group="machine"
    )
    compile: str = knob(
        "torch.compile for training and its evaluations, in this mode; reduce-overhead is for CUDA",
        default="off",
        group="machine",
        untrained="off",
        choices=("off", "default", "reduce-overhead", "max-autotune-no-cudagraphs"),
        switch="default",
    )
    graphs: bool | None = knob(
        "training steps replayed as a CUDA graph, which the host launches at once (default: on CUDA, in one process, "
        "without -compile, -fused false and muon)",
        default=None,
        group="machine",
        untrained=False,
    )
    kernels: bool | None = knob(
        "cheapV2's and cheapV3's widened blocks trained by models/ops/kernels.c, on a CPU; true demands it "
        "(default: where a C compiler is found)",
        default=None,
        group="machine",
        untrained=False,
    )
    fused: bool = knob(
        "the optimizer's step in one kernel; false: torch's choice, one per operation (CUDA) or per parameter",
        default=True,
        group="machine",
        kept=True,
    )
    deterministic: bool = knob("torch's deterministic algorithms only, on every device", default=False, group="machine")
    cudnn_benchmark: bool = knob(
        "on CUDA cuDNN tries its algorithms out for each shape of a batch when a run starts, and takes the fastest, in "
        "place of those that it holds to be so",
        default=False,
        group="machine",
        untrained=False,
    )

    epochs: int = knob("passes over the training images", group="training", low=1, high=100_000)
    steps: int = knob("batches an epoch (0: one pass over the training images)", default=0, group="training", low=0)
    batch_size: int = knob("images a step", group="training", short="b", low=1)
    accumulate: int = knob(
        "parts in which a process works through its images of a step", default=1, group="training", low=1
    )
    shuffle: bool = knob("shuffle the training images", default=True, group="training", short="s")
    sizes: tuple[int, ...] = knob(
        "sides in pixels to which training images are resized, rising to their own, each for an equal part of the run",
        default=(),
        group="training",
        high=1024,
    )
    optimizer: str = knob(
        "sgd, adam, adamw, or muon for 1x1 convolutions with adamw for all else",
        group="training",
        choices=("sgd", "adam", "adamw", "muon"),
    )
    lr: float = knob("peak learning rate; with muon, of the 1x1 convolutions", group="training", high=1e30)
    adamw_lr: float | None = knob(
        "with muon, the peak learning rate of all else (where it is not given: a tenth of -lr)",
        default=None,
        group="training",
        high=1e30,
    )
    momentum: float = knob("momentum of sgd", default=0.9, group="training", low=0.0, high=0.9999)
    nesterov: bool = knob("Nesterov's momentum for sgd", default=False, group="training")
    weight_decay: float = knob("weight decay", default=0.0, group="training", low=0.0)
    decay_norms: bool = knob("weight decay of batch norms and biases, too", default=True, group="training")
    schedule: str = knob(
        "shape of the learning rate after the warm-up",
        group="training",
        choices=("step", "cosine", "linear", "constant"),
    )
    warm: float = knob("epochs of linear warm-up, by step", default=0.0, group="training", low=0.0)
    least_warm_steps: int = knob(
        "steps that a recipe's warm-up keeps where -epochs shortens it, up to a quarter of the run",
        default=0,
        group="training",
    )
    milestones: tuple[float, ...] = knob(
        "finished epochs after which the step schedule lowers the rate", default=(), group="training", low=0.0
    )
    gamma: float = knob(
        "factor of the step schedule at each milestone", default=0.2, group="training", low=0.0, high=1.0
    )
    gate_start: str = knob(
        "where the gates of cheapV3 and its variants start: near zero (original) or at one",
        default="original",
        group="training",
        choices=("original", "one"),
    )
    dropout: float | None = knob(
        "probability of the network's dropout layers, 0 for none (where it is not given: their own)",
        default=None,
        group="training",
        high=0.99,
    )
    label_smoothing: float = knob("label smoothing", default=0.0, group="training", low=0.0, high=0.99)
    distill_temperature: float = knob(
        "-distill: what the outputs of both networks are divided by", default=4.0, group="training", low=0.1, high=100
    )
    distill_share: float = knob(
        "-distill: share of the loss that compares with the teacher, not with the labels",
        default=0.5,
        group="training",
        low=0.01,
        high=1.0,
    )
    clip: float = knob("largest norm of the gradient (0: not clipped)", default=0.0, group="training", low=0.0)
    patience: int = knob(
        "epochs in a row without a better score after which the run stops (0: it never stops early)",
        default=0,
        group="training",
    )
    ema: float = knob("decay of averaged weights (0: none)", default=0.0, group="training", low=0.0, high=0.99999)

    random_resized_crop: float = knob(
        "least share of its area that is cut at random from an image of a folder and resized (0: none; ImageNet: 0.08)",
        default=0.0,
        group="augmentation",
        high=1.0,
    )
    crop: int = knob(
        "pixels of black border before a random crop (0: none)", default=0, group="augmentation", low=0, high=64
    )
    flip: str = knob(
        "horizontal flip; random, which true stands for: each time with probability 1/2; alternating: each image in "
        "every other epoch, its first time by the seed",
        default="off",
        group="augmentation",
        choices=("off", "random", "alternating"),
        switch="random",
    )
    rotation: float = knob(
        "random rotation within +- this many degrees (0: none)", default=0.0, group="augmentation", low=0.0, high=180.0
    )
    trivial_augment: bool = knob(
        "after those, one random operation of TrivialAugment (wide) an image", default=False, group="augmentation"
    )
    erase: float = knob(
        "probability that a random rectangle of an image is erased", default=0.0, group="augmentation", high=1.0
    )
    mixup: float = knob(
        "images and labels mixed in pairs by a share from Beta(X, X) a batch (0: not); training accuracy then counts "
        "the larger label",
        default=0.0,
        group="augmentation",
        high=100.0,
    )
    cutmix: float = knob(
        "a rectangle of one image put into another, of an area from Beta(X, X) a batch (0: not); with -mixup, one of "
        "the two a batch",
        default=0.0,
        group="augmentation",
        high=100.0,
    )
    correction: float = knob(
        "driving: correction of the steering angle's tangent for side cameras (0: centre camera only)",
        default=0.0,
        group="augmentation",
        high=1.0,
    )
    brightness: float = knob(
        "driving: smallest factor of the random brightness (1: none)", default=1.0, group="augmentation", high=1.0
    )
    zero_drop: float = knob(
        "driving: share of the rows with an angle of zero that a pass leaves out",
        default=0.0,
        group="augmentation",
        high=0.99,
    )

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

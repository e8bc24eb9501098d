"""The command line: mistakes get one line and status 2 before anything is written; options mean what they say."""

import dataclasses
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
import models
from conf import FIELDS, PARTS, option
from conf.datasets import DATASETS
from conf.resolve import recipe_names
from conf.resolve import settings as resolve
from engine.saved import checkpoint
from models.summary import parameter_count

ROOT = Path(main.__file__).parent


@pytest.fixture
def place(mistaken, tmp_path, monkeypatch):
    """A working folder with files to be mistaken about."""
    shutil.copytree(mistaken, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("mistaken")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_classes" / "train").mkdir(parents=True)
    (tmp_path / "no_classes" / "test").mkdir()
    write_images(tmp_path / "stranger", train=("cat", "dog"), test=("cat", "fish"))
    write_images(tmp_path / "broken", train=("cat", "dog"), test=("cat", "dog"))
    (tmp_path / "broken" / "train" / "dog" / "bad.png").write_bytes(b"this is no image")
    torch.save(models.create("cheapV2", num_classes=10, in_channels=1).state_dict(), tmp_path / "other.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"no header")
    (tmp_path / "damaged.pth").write_bytes((tmp_path / "other.pth").read_bytes()[:5000])
    (tmp_path / "mine.yaml").write_text("epochs: 3\nlearning_rate: 0.1\n")
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    write_checkpoints(tmp_path)
    write_archives(tmp_path / "data")
    return tmp_path


RECIPES = {
    "list": "- epochs\n- 3\n",
    "code": "!!python/object/apply:os.mkdir [made]\n",
    "outside": "out: /etc\n",
    "elsewhere": "name: ../../elsewhere\n",
    "partly": "epochs: 3\n",
    "words": "epochs: many\n",
}


class Code:
    """What makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("made",)


def write_checkpoints(folder: Path) -> None:
    """Runs to go on with: damaged, of another version, made for other data, with code in it."""
    settings = dataclasses.asdict(resolve({"net": "EffNet", "dataset": "digits", "ema": 0.0}))
    weights = models.create("EffNet", num_classes=10, in_channels=1, image_size=16).state_dict()
    content = {"settings": settings, "network": weights, "classes": list("0123456789"), "steps_per_epoch": 23}
    content |= {"mean": [0.5], "std": [0.5], "image_size": 16, "in_channels": 1, "averaged": None, "averaged_steps": 0}
    content |= dict.fromkeys(("epoch", "batch", "step"), 0) | dict.fromkeys(("loss", "rate", "seconds"), 0.0)
    content |= {"sums": [], "history": [], "scaler": {}, "best": {}, "schedule": {"last_epoch": 0}}
    content |= {"optimizer": {"state": {}, "param_groups": []}}
    changes = {
        "newer": {"settings": settings | {"teleport": True}},
        "unsound": {"settings": settings | {"epochs": 0}},
        "pets": {"classes": ["cat", "dog"]},
        "code": {"network": Code()},
        "stranger_net": {"settings": settings | {"net": "cheapV9"}},
        "earlier_revision": {"settings": settings | {"net": "cheapV3"}, "revision": 1},
        "strange_key": {"history": "none"},
    }
    for name, change in changes.items():
        checkpoint.save(folder / "old" / name / "last.pth", content | change)
    (folder / "old" / "gone").mkdir()
    whole = (folder / "old" / "pets" / "last.pth").read_bytes()
    (folder / "old" / "cut").mkdir()
    (folder / "old" / "cut" / "last.pth").write_bytes(whole[: len(whole) // 2])


def write_archives(folder: Path) -> None:
    """Files under the official names that are not the official files."""
    folder.mkdir()
    (folder / "cifar-10-python.tar.gz").write_bytes(b"not the archive")
    (folder / "tiny-imagenet-200.zip").write_bytes(b"PK\3\4 cut short")
    (folder / "MNIST" / "raw").mkdir(parents=True)
    (folder / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\3 too short"))


def write_images(folder: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    for split, classes in (("train", train), ("test", test)):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def call(capsys, *words: str) -> tuple[int, str]:
    """(exit status, what stood on stderr) of main.py with these words."""
    status = main.main(words)
    return status, capsys.readouterr().err


MISTAKES = [
    ("", "-net: which network? for a first run: python main.py -net cheapV2 -dataset digits"),
    ("-net cheapv33", "did you mean cheapV3"),
    ("-net torchvision:mobilenet_v33 -dataset digits", "did you mean torchvision:mobilenet_v2 or"),
    ("-net torchvision:mobilenet_v2 -dataset digits -width 0.5", "has no width multiplier"),
    ("-net torchvision:vit_b_16 -dataset digits -size 32 -dry", "takes no image of 32x32 pixels"),
    (
        "-net torchvision:resnet18 -dataset digits -size 4 -dry",
        "size 4: too small for torchvision:resnet18; give 8 or more",
    ),
    ("-net torchvision:resnet18 -dataset digits -reuse -dry", "can replace no 1x1 expansion"),
    ("-net cheapV3 -dataset digits -reuse", "cheapV3 is of this project"),
    ("-net cheapV3 -dataset digits -reuse maybe", "-reuse: maybe: must be true or false"),
    ("-nett cheapV3", "-nett: unknown option; did you mean -net"),
    ("-net cheapV3 -ep 3", "-ep: unknown option"),
    ("-net cheapV3 -wdith 0.5", "did you mean -width"),
    ("-net cheapV3 stray", "stray"),
    ("-net", "-net: expected one argument"),
    ("-net cheapV3 -dataset cifar1000", "did you mean cifar100"),
    ("-net cheapV3 -dataset ./nowhere", "no such folder"),
    ("-net cheapV3 -dataset empty", "empty"),
    ("-net cheapV3 -dataset no_classes", "no_classes"),
    ("-net cheapV3 -dataset stranger", "fish"),
    ("-net cheapV3 -dataset broken", "bad.png"),
    ("-net cheapV3 -dataset digits -b 0", "-b 0: must be at least 1"),
    ("-net cheapV3 -dataset digits -b many", "many"),
    ("-net cheapV3 -dataset digits -epochs 0", "-epochs 0: must be at least 1"),
    ("-net cheapV3 -dataset digits -lr -0.1", "-lr -0.1: must be at least 0"),
    ("-net cheapV3 -dataset digits -lr 0", "must be above 0"),
    ("-net cheapV3 -dataset digits -lr nan", "finite"),
    ("-net cheapV3 -dataset digits -lr inf", "finite"),
    ("-net cheapV3 -dataset digits -val 1.5", "at most 0.9"),
    ("-net cheapV3 -dataset digits -val 0.0001", "-val 0.0001"),
    ("-net cheapV3 -dataset digits -width 0.001", "-width 0.001"),
    ("-net cheapV3 -dataset digits -size 4", "too small"),
    ("-net cheapV3 -dataset digits -expansion squeeze", "-expansion squeeze: must be one of conv, grouped"),
    ("-net cheapV3 -dataset digits -reuse-kernels 3 3 5 5 7 13", "-reuse-kernels 13: must be at most 11"),
    ("-net cheapV3 -dataset digits -reuse-kernels 3 3 5 5 7 8", "must be odd numbers"),
    ("-net cheapV3 -dataset digits -reuse-kernels 3 5", "must be one for each copy, of which there are 6"),
    ("-net cheapV3 -dataset digits -reuse-kernels", "expected at least one argument"),
    ("-net MobileNetV2 -dataset digits -reuse-kernels 3 3 5 5 7 7", "goes with expansion reuse only"),
    ("-net MobileNetV3 -dataset digits -expansion none -activation-before", "there is no expansion for it"),
    (
        "-net cheapV3 -dataset digits -reuse-times 1 -activation-before",
        "changes nothing where cheapV3 has only one copy",
    ),
    ("-net MobileNetV3 -dataset digits -gate-start one", "-gate-start one: MobileNetV3 has no gates that could start"),
    ("-net MobileNetV2 -dataset digits -gate-start one -dry", "-gate-start one: MobileNetV2 has no gates"),
    ("-net EffNet -dataset digits -gate-start one -seeds 1 2", "-gate-start one: EffNet has no gates"),
    ("-net torchvision:resnet18 -dataset digits -gate-start one", "-gate-start one: torchvision:resnet18 has no gates"),
    ("-net cheapV3 -dataset digits -s maybe", "true or false"),
    ("-net cheapV3 -dataset digits -recipe orignal", "did you mean original"),
    ("-net cheapV3 -dataset digits -recipe mine.yaml", "unknown knob 'learning_rate'"),
    ("-net cheapV3 -dataset digits -recipe gone.yaml", "no such recipe"),
    ("-net EffNet_steering -dataset digits", "made for angles, and digits has classes"),
    ("-net digits_baseline -dataset driving", "made for classes, and driving has angles"),
    (
        "-net cheapV3 -gpu 0",
        "-gpu: 0: must be true or false, it takes no device's number; the environment variable CUDA_VISIBLE_DEVICES=0",
    ),
    ("-net cheapV3 -gpu 1", "CUDA_VISIBLE_DEVICES=1"),
    ("-net cheapV3 -gpu cuda:2", "CUDA_VISIBLE_DEVICES=2"),
    ("-net cheapV3 -gpu 0,1", "CUDA_VISIBLE_DEVICES=0,1"),
    ("-net cheapV3 -gpu cpu", "give -gpu false"),
    ("-test -weights other.pth -gpu 0", "CUDA_VISIBLE_DEVICES=0"),
    ("-net cheapV9 -dry", "cheapV9: unknown network"),
    ("-net EffNet_steering -dry", "made for angles"),
    ("-net EffNet -width 0.5 -dry", "EffNet has no width multiplier"),
    ("-net cheapV3 -width 0.02 -dry", "give at least 0.0625"),
    ("-net cheapV2 -dataset digits -match params:1K -dry", "-match params:1K: the narrowest network has"),
    ("-net EffNet -dataset empty -match params:1K -dry", "-match params:1K: EffNet has no width multiplier"),
    ("-net cheapV3 -size 5 -dry", "too small"),
    ("-net cheapV3 -b 9 -procs 2 -gpu false -dry", "multiple of the 2 processes"),
    ("-net cheapV3 -dataset digits -weights other.pth -dry", "weights of another network"),
    ("-net cheapV3 -dataset digits -weights gone.pth -dry", "gone.pth: cannot be read"),
    ("-net MobileNetV3 -kernels true -gpu false -dry", "no widened blocks"),
    ("-net cheapV3 -out mine.yaml -dry", "mine.yaml: not a folder"),
    ("-net cheapV3 -name a/b -dry", "plain word"),
    (f"-net cheapV3 -name {'n' * 300} -dry", "at most 100 bytes"),
    (f"-net cheapV3 -b {'9' * 400}", "must be at most 100000"),
    ("-net cheapV3 -memory 1e300", "-memory 1e+300: must be at most"),
    ("-net cheapV3 -steps 1000000000", "must be at most 100000"),
    ("-predict empty -weights other.pth -w 100000", "-w 100000: must be at most 128"),
    ("-net \x1b]0;evil\x07", "\\x1b]0;evil\\x07: unknown network"),
    ("-net cheapV3 -dataset \u202e\x9b2Jdigits", "\\u202e\\x9b2Jdigits: unknown data set"),
    ("-test -weights \x1b[2J.pth", "\\x1b[2J.pth: cannot be read"),
    ("-net cheapV3 -dataset digits -recipe imagenet -dry", "give -random-resized-crop 0"),
    ("-net cheapV3 -dataset digits -nesterov", "goes with -optimizer sgd"),
    ("-net cheapV3 -dataset digits -warm 16", "longer than the whole run"),
    ("-net cheapV3 -dataset digits -milestones 9 3", "must rise"),
    ("-net cheapV3 -milestones 60,120,160", "-milestones 60,120,160: give -milestones 60 120 160, without commas"),
    ("-net cheapV3 -lr=abc", "-lr abc: must be a number"),
    ("cheapV3", "cheapV3: a network, given without its option; type python main.py -net cheapV3"),
    ("cheapv3", "type python main.py -net cheapV3"),
    ("digits", "digits: a data set, given without its option; type python main.py -net cheapV2 -dataset digits"),
    ("epochs 3", "epochs: an option, given without its dash; type -epochs"),
    ("batch_size 3", "batch_size: an option, given without its dash; type -b\n"),
    ("weight-decay 3", "weight-decay: an option, given without its dash; type -weight-decay"),
    ("last.pth", "type -weights last.pth"),
    ("-net cheapV3 -wd 0.1", "-wd: here it is -weight-decay"),
    (
        "-net cheapV3 --device=cuda:1",
        "--device: here it is -gpu true or -gpu false, and the environment variable CUDA_",
    ),
    ("-net cheapV3 -learning_rate 1", "-learning_rate: here it is -lr"),
    ("-list -version", "-list: contradicts -version"),
    ("-list -net cheapV3", "-list: stands alone"),
    ("-completion fish", "invalid choice: 'fish'"),
    ("-net cheapV3 -dataset digits -recipe imagenet", "-random-resized-crop 0.08: not for -dataset digits; give"),
    # none of these data sets is there: they are refused before anything is loaded
    (
        "-net cheapV3 -dataset cifar100 -correction 0.2",
        "not for -dataset cifar100; give -correction 0",
    ),
    ("-net cheapV3 -dataset cifar100 -recipe driving -dry", "-correction 0.25: not for -dataset cifar100"),
    ("-net EffNet -dataset driving -crop 4", "-crop 4: not for -dataset driving; give -crop 0"),
    ("-net EffNet -dataset driving -random-resized-crop 0.5", "-random-resized-crop 0.5: not for -dataset driving"),
    ("-net EffNet -dataset driving -label-smoothing 0.1", "-label-smoothing 0.1: driving has no labels"),
    ("-net EffNet -dataset driving -mixup 0.2", "-mixup 0.2: driving has no labels; give -mixup 0"),
    ("-net EffNet -dataset driving -cutmix 1", "-cutmix 1: driving has no labels; give -cutmix 0"),
    ("-net EffNet -dataset driving -erase 0.1", "-erase 0.1: not for -dataset driving; give -erase 0"),
    ("-net EffNet -dataset driving -trivial-augment", "-trivial-augment 1: not for -dataset driving"),
    ("-net EffNet -dataset driving -distill other.pth", "-distill other.pth: driving has no labels; leave it out"),
    (
        "-net cheapV3 -dataset digits -distill a.pth -distill-temperature 0",
        "-distill-temperature 0.0: must be at least",
    ),
    ("-net cheapV3 -dataset digits -distill a.pth -distill-share 2", "-distill-share 2.0: must be at most 1"),
    ("-net cheapV3 -dataset digits -distill-share 0.5", "-distill-share 0.5: there is no teacher; leave it out"),
    ("-net cheapV3 -dataset digits -distill gone.pth", "-distill gone.pth: cannot be read"),
    ("-net cheapV3 -dataset digits -distill gone.pth -dry", "-distill gone.pth: cannot be read"),
    ("-net cheapV3 -dataset digits -mixup -1", "-mixup -1.0: must be at least 0"),
    ("-net cheapV3 -dataset digits -mixup 0.001", "-mixup 0.001: must be 0, for none, or at least 0.01"),
    ("-net cheapV3 -dataset digits -cutmix 1000", "-cutmix 1000.0: must be at most 100"),
    ("-net cheapV3 -dataset digits -erase 1.5", "-erase 1.5: must be at most 1"),
    ("-net cheapV3 -dataset digits -trivial-augment wide", "wide: must be true or false"),
    ("-net cheapV3 -dataset digits -patience -1", "-patience -1: must be at least 0"),
    ("-net cheapV3 -dataset digits -name a/b", "plain word"),
    ("-net cheapV3 -dataset digits -weights gone.pth", "gone.pth: cannot be read"),
    ("-net cheapV3 -dataset digits -weights other.pth", "weights of another network"),
    ("-net cheapV3 -dataset digits -weights damaged.pth", "damaged"),
    ("-net cheapV3 -dataset digits -weights mine.yaml", "not a checkpoint, or damaged"),
    ("-test", "needs -weights"),
    ("-test -weights other.pth", "holds weights only"),
    ("-test -weights other.pth -net cheapV3 -dataset digits", "they are of cheapV2: give -net cheapV2"),
    ("-test -weights old/pets/last.pth -net cheapV3", "is of a run and says it itself; leave -net out"),
    ("-test -weights other.pth -net cheapV3 -dataset digits -b 3", "-b: contradicts -test"),
    ("-test -weights other.pth -net cheapV3", "holds weights only; say with -net NAME and -dataset D"),
    ("-predict", "expected at least one argument"),
    ("-predict empty", "needs -weights"),
    ("-predict empty -weights other.pth", "holds weights only"),
    ("-predict empty -weights gone.pth", "gone.pth: cannot be read"),
    ("-predict empty -weights other.pth -lr 0.1", "contradicts -predict"),
    ("-predict empty -weights other.pth -test", "-test: contradicts -predict"),
    ("-test -weights other.pth -dry", "-test: contradicts -dry"),
    ("-compare", "no finished run under checkpoints"),
    ("-compare -out gone", "no finished run under gone/checkpoints"),
    ("-compare -lr 0.1", "-lr: contradicts -compare"),
    ("-compare -weights other.pth", "leave out -weights"),
    ("-compare -resume last", "-resume: contradicts -compare"),
    ("-resume last", "no run has saved"),
    ("-resume last -lr 0.1", "contradicts -resume"),
    ("-resume empty", "last.pth: cannot be read"),
    ("-resume nowhere", "no such folder"),
    ("-resume old/gone", "no checkpoint can be read"),
    ("-resume old/cut", "damaged"),
    ("-resume old/newer", "unknown setting 'teleport'"),
    ("-resume old/unsound", "-epochs 0: must be at least 1"),
    ("-resume old/pets", "not the data set that it was"),
    ("-resume old/code", "could run code"),
    ("-resume old/stranger_net", "cheapV9"),
    ("-resume old/earlier_revision", "trained as revision 1 of cheapV3, and this is revision 2"),
    ("-test -weights old/earlier_revision/last.pth", "trained as revision 1 of cheapV3, and this is revision 2"),
    ("-net cheapV3 -dataset digits -weights old/earlier_revision/last.pth", "trained as revision 1 of cheapV3"),
    ("-resume old/strange_key", "its 'history' is a str"),
    ("-test -weights old/pets/last.pth", "2 of another shape (head.classifier"),
    ("-test -weights old/cut/last.pth", "damaged"),
    ("-test -weights old/code/last.pth", "could run code"),
    ("-test -weights old", "cannot be read"),
    ("-net cheapV3 -dataset digits -tta", "-tta: goes with -test alone"),
    ("-predict mine.yaml -weights other.pth -tta", "-tta: goes with -test alone"),
    ("-test -weights other.pth -tta maybe", "-tta: maybe: must be true or false"),
    ("-export onnx", "needs -weights"),
    ("-export tflite -weights other.pth", "onnx"),
    ("-export card -half -weights other.pth", "-half: goes with -export onnx or weights, not card"),
    ("-export card -weights other.pth", "holds weights only"),
    ("-export card -gpu false -weights other.pth", "-gpu: contradicts -export"),
    ("-export card -weights old/pets/last.pth", "of a run that is not finished"),
    ("-test -half -weights other.pth", "-half: goes with -export alone"),
    ("-export weights -weights other.pth", "holds weights only"),
    ("-export weights -gpu false -weights other.pth", "-gpu: contradicts -export"),
    ("-export weights -net cheapV2 -weights other.pth", "-net: contradicts -export"),
    ("-export weights -weights old/pets/last.pth", "of a run that is not finished"),
    ("-test -weights no.safetensors", "cannot be read (no such file)"),
    ("-test -weights cut.safetensors", "no safetensors file, or damaged"),
    ("-resume cut.safetensors", "holds weights without their optimizer"),
    ("-export onnx -test -weights other.pth", "contradicts"),
    ("-net cheapV3 -dataset cifar10", "cifar-10-python.tar.gz"),
    ("-net cheapV3 -dataset tiny-imagenet", "tiny-imagenet-200.zip"),
    ("-net EffNet -dataset mnist", "mnist"),
    ("-net cheapV3 -dataset digits -recipe list.yaml", "must be a list of 'knob: value' lines"),
    ("-net cheapV3 -dataset digits -recipe code.yaml", "not readable as YAML"),
    ("-net cheapV3 -dataset digits -recipe outside.yaml", "unknown knob 'out'"),
    ("-net cheapV3 -dataset digits -recipe elsewhere.yaml", "unknown knob 'name'"),
    ("-net cheapV3 -dataset digits -recipe partly.yaml", "says nothing of"),
    ("-net cheapV3 -dataset digits -recipe words.yaml", "epochs many: must be a whole number"),
    ("-net cheapV3 -dataset digits -recipe other.pth", "no such recipe"),
    ("-net cheapV3 -dataset digits -epochs 1.5", "-epochs 1.5: must be a whole number"),
    ("-net cheapV3 -dataset digits -seed -1", "-seed -1: must be at least 0"),
    ("-net cheapV3 -dataset digits -seed 9999999999", "must be at most"),
    ("-net cheapV3 -dataset digits -keep -1", "-keep -1: must be at least 0"),
    ("-net cheapV3 -dataset digits -clip -1", "-clip -1.0: must be at least 0"),
    ("-net cheapV3 -dataset digits -clip inf", "finite"),
    ("-net cheapV3 -dataset digits -procs -2", "-procs -2: must be at least 0"),
    ("-net cheapV3 -dataset digits -accumulate 0", "-accumulate 0: must be at least 1"),
    ("-net cheapV3 -dataset digits -amp fp8", "fp8: must be one of"),
    ("-net cheapV3 -dataset digits -schedule stairs", "stairs: must be one of"),
    ("-net cheapV3 -dataset digits -optimizer rmsprop", "rmsprop: must be one of"),
    ("-net cheapV3 -dataset digits -optimizer muon -adamw-lr 0", "-adamw-lr 0: the learning rate must be above 0"),
    ("-net cheapV3 -dataset digits -optimizer muon -momentum 0.9", "-momentum 0.9: muon has none"),
    ("-net EffNet_baseline -dataset digits -optimizer muon -dry", "EffNet_baseline has no 1x1 convolution"),
    ("-net cheapV3 -dataset digits -decay-norms maybe", "true or false"),
    ("-net cheapV3 -dataset digits -dropout 1", "-dropout 1.0: must be at most 0.99"),
    ("-net cheapV3 -dataset digits -dropout 0.1", "-dropout 0.1: cheapV3 has no dropout layer"),
    ("-net cheapV3 -dataset digits -dropout 0.1 -dry", "-dropout 0.1: cheapV3 has no dropout layer"),
    ("-net cheapV3 -dataset digits -flip sometimes", "sometimes: must be one of off, random, alternating"),
    ("-net cheapV3 -dataset digits -sizes 16 8", "-sizes 16 8: must rise"),
    ("-net cheapV3 -dataset digits -sizes 8 8 16", "-sizes 8 8 16: must rise"),
    ("-net cheapV3 -dataset digits -sizes 8 12 16 -epochs 2", "-sizes 8 12 16: 3 parts of 2 epochs"),
    ("-net cheapV3 -dataset digits -sizes 8 12", "-sizes 8 12: the last one must be the side of the images, 16"),
    ("-net cheapV3 -dataset digits -sizes 8 16 32 -dry", "must be the side of the images, 16"),
    ("-net cheapV3 -dataset digits -sizes 4 16 -dry", "-sizes 4 16: 4 is too small for cheapV3"),
    ("-net EffNet -dataset digits -sizes 8 16", "EffNet of 16x16 pixels takes no image of 8x8"),
    ("-net EffNet -dataset digits -sizes 8 big", "big: must be a whole number"),
    ("-net cheapV3 -dataset digits -momentum 1.5", "-momentum 1.5: must be at most"),
    ("-net cheapV3 -dataset digits -weight-decay -1", "-weight-decay -1.0: must be at least"),
    ("-net cheapV3 -dataset digits -milestones 1 two", "two"),
    ("-net cheapV3 -dataset digits -gamma 2", "-gamma 2.0: must be at most"),
    ("-net cheapV3 -dataset digits -ema 1", "-ema 1.0: must be at most"),
    ("-net cheapV3 -dataset digits -label-smoothing 1", "-label-smoothing 1.0: must be at most"),
    ("-net cheapV3 -dataset digits -log-every 0", "-log-every 0: must be at least 1"),
    ("-net cheapV3 -dataset digits -log-more often", "-log-more: often: must be true or false"),
    ("-net cheapV3 -dataset digits -save-every -1", "-save-every -1.0: must be at least"),
    ("-net cheapV3 -dataset digits -rotation 200", "-rotation 200.0: must be at most 180"),
    ("-net cheapV3 -dataset digits -crop -1", "-crop -1: must be at least"),
    ("-net cheapV3 -dataset digits -size 5000", "-size 5000: must be at most"),
    ("-net cheapV3 -dataset digits -name ..", "plain word"),
    ("-net cheapV3 -dataset digits -out mine.yaml", "mine.yaml"),
    ("-net cheapV3 -dataset digits -width -1", "-width -1.0: must be at least"),
    ("-net MobileNetV2 -dataset digits -shortcut pool", "-shortcut pool: must be one of conv, resize"),
    ("-net MobileNetV3 -dataset digits -shortcut resize", "shortcut resize: MobileNetV3 has no such part"),
    ("-net cheapV3 -dataset digits -se linear", "-se linear: must be one of conv, reuse"),
    ("-net cheapV2 -dataset digits -se reuse", "se reuse: cheapV2 has no such part"),
    ("-net cheapV3 -dataset digits -gate sigmoid", "-gate sigmoid: must be one of hardsigmoid, none"),
    ("-net MobileNetV2 -dataset digits -gate none", "gate none: MobileNetV2 has no such part"),
    ("-net cheapV3 -dataset digits -head linear", "-head linear: must be one of conv, reuse"),
    ("-net EffNet -dataset digits -head reuse", "head: EffNet has no parts to choose"),
    ("-net cheapV3 -dataset digits -stem 5x5", "-stem 5x5: must be one of conv, reuse"),
    ("-net SqueezeNet -dataset digits -stem reuse", "stem: SqueezeNet has no parts to choose"),
    ("-net cheapV3 -dataset digits -activation-before sometimes", "-activation-before: sometimes: must be true or"),
    ("-net cheapV3 -dataset digits -gate-start two", "-gate-start two: must be one of original, one"),
    ("-net cheapV3 -dataset digits -reuse-times 0", "-reuse-times 0: must be at least 1"),
    ("-net cheapV3 -dataset digits -reuse-times 65", "-reuse-times 65: must be at most 64"),
    ("-net cheapV3 -dataset digits -reuse-times two", "-reuse-times two: must be a whole number"),
    ("-net MobileNetV3 -dataset digits -reuse-times 4", "reuse_times 4: must be at least 1, and goes with expansion"),
    ("-net cheapV3 -dataset digits -match flops:43M", "-match flops:43M: must be macs:NUMBER or params:NUMBER"),
    ("-net cheapV3 -dataset digits -match macs:0", "-match macs:0: must be macs:NUMBER or params:NUMBER"),
    ("-net cheapV3 -dataset digits -match params:1M -width 0.5", "-match params:1M: finds the width itself; leave"),
    ("-net EffNet -dataset digits -match params:1M", "-match params:1M: EffNet has no width multiplier; leave it out"),
    ("-net cheapV3 -dataset digits -match params:1", "-match params:1: the narrowest network has"),
    ("-net cheapV3 -dataset digits -match params:900G", "-match params:900G: the widest network has"),
    ("-net cheapV3 -dataset digits -seeds", "-seeds: expected at least one argument"),
    ("-net cheapV3 -dataset digits -seeds one", "-seeds: invalid int value: 'one'"),
    ("-net cheapV3 -dataset digits -seeds 1 2 1", "-seeds 1 2 1: has a seed twice; give each once"),
    ("-net cheapV3 -dataset digits -seeds 1 -1", "-seed -1: must be at least 0"),
    ("-net cheapV3 -dataset digits -seeds 1 2 -seed 3", "-seed: contradicts -seeds; give one of them"),
    ("-net cheapV3 -dataset digits -seeds 1 2 -dry", "-dry: contradicts -seeds"),
    ("-net cheapV3 -dataset digits -compile fast", "-compile fast: must be one of off, default, reduce-overhead"),
    (
        "-net cheapV3 -dataset digits -compile reduce-overhead -gpu false",
        "for CUDA devices, not for cpu; give -compile",
    ),
    ("-net cheapV3 -dataset digits -graphs maybe", "-graphs: maybe: must be true or false"),
    ("-net cheapV3 -dataset digits -graphs -gpu false", "-graphs true: it is for CUDA devices, not for cpu"),
    ("-net cheapV3 -dataset digits -cudnn-benchmark maybe", "-cudnn-benchmark: maybe: must be true or false"),
    (
        "-net cheapV3 -dataset digits -cudnn-benchmark -deterministic",
        "-cudnn-benchmark true: may choose other algorithms each time; leave it or -deterministic out",
    ),
    ("-resume empty -weights other.pth", "leave out -weights"),
]
if not torch.cuda.is_available():
    MISTAKES.append(("-net cheapV3 -dataset digits -gpu", "no CUDA device"))
    MISTAKES.append(("-net cheapV3 -dataset digits -sync-bn", "CUDA devices only"))


@pytest.mark.usefixtures("downloads_without_waiting")
@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[words or "nothing" for words, _ in MISTAKES])
def test_mistakes(place, capsys, monkeypatch, words, message):
    for word in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(word, "http://127.0.0.1:9")  # nothing listens there
    before = sorted(place.rglob("*"))
    status, error = call(capsys, *words.split())
    assert status == 2
    assert message in error and len(error.splitlines()) == 1 and "Traceback" not in error
    assert error[:-1].isprintable()
    assert sorted(place.rglob("*")) == before


@pytest.mark.usefixtures("downloads_without_waiting")
def test_no_network_says_where_the_file_goes(place, capsys, monkeypatch):
    """A download that cannot be had ends in one line; digits is offered."""
    for word in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(word, "http://127.0.0.1:9")  # nothing listens there
    status, error = call(capsys, "-net", "cheapV3", "-dataset", "cifar100")
    assert status == 2 and len(error.splitlines()) == 1
    assert "cifar-100-python.tar.gz" in error and "digits" in error


def test_dry_prints_the_settings_and_writes_nothing(place, capsys):
    before = sorted(place.rglob("*"))
    assert main.main("--net cheapV3 -dataset digits -s False -b 32 --epochs 30 -dry".split()) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["shuffle"] == "False" and printed["batch_size"] == "32"
    assert printed["warm"] == "6.0"  # two of the recipe's ten epochs are six of thirty
    assert sorted(place.rglob("*")) == before


def test_dry_finds_the_width_where_the_data_set_is_known(place, capsys):
    """Of the digits' ten classes in grey; a narrower and a wider network are further from the budget."""
    assert main.main("-net MobileNetV2 -dataset digits -match params:100K -dry".split()) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    width = float(printed["width"])
    assert width < 0.5

    def distance(width: float) -> int:
        network = models.create("MobileNetV2", num_classes=10, in_channels=1, image_size=16, width=width)
        return abs(parameter_count(network) - 100_000)

    assert all(distance(width) < distance(width * factor) for factor in (0.8, 1.25))
    (place / "photos").mkdir()
    assert main.main("-net MobileNetV2 -dataset photos -match params:100K -dry".split()) == 0
    assert "width: found by -match, once the images are read\n" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["-s", "-s true", "-s True", "--s 1"])
def test_flags_may_stand_alone_or_with_a_value(place, capsys, word):
    assert main.main(f"-net cheapV3 -dataset digits {word} -dry".split()) == 0
    assert "shuffle: True" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        "MobileNetV2",  # whose recipe starts gates at one, where there are any
        "cheapV3 -gate-start one",
        "MobileNetV3 -gate none -gate-start one",
        "MobileNetV3 -se reuse -gate-start one",
        "cheapV2 -reuse-times 1 -activation-before",  # a ReLU stands before the depthwise convolution, copies or not
        "cheapV3 -activation-before false",
    ],
)
def test_knobs_with_an_effect_are_accepted(place, words):
    assert main.main(f"-net {words} -dataset digits -dry".split()) == 0


def test_gpu_is_a_flag():
    given = [vars(main.make_parser().parse_args(f"-net cheapV3 -gpu {word}".split()))["gpu"] for word in GPU]
    assert given == [True, True, True, True, False, False, False]


GPU = ("", "true", "True", "yes", "false", "False", "off")


ALWAYS = set(
    "data gpu procs amp channels_last deterministic workers save_every keep log_every log_more skip_broken".split()
)
TOLD = {"net", "dataset", "natural_order", "random_resized_crop", "width", "size", "reuse", *PARTS}
ALSO = {
    "resume": {"out", "compile", "graphs", "cudnn_benchmark", "dataset", "distill", "kernels"},
    "test": {"weights", *TOLD},
    "export": {"weights", *TOLD},
    "predict": {"weights", *TOLD},
    "compare": {"out"},
    "reproduce": {"out", "data"},
}


@pytest.mark.parametrize("command", main.COMMANDS)
def test_settings_that_may_be_given_with_a_command(command):
    """Those that do not change what was trained, and the command's own arguments."""

    def is_accepted(name: str) -> bool:
        needed = {"weights": "a.pth"} if "weights" in ALSO[command] else {}
        try:
            main.check_commands({command: True}, needed | {name: 1})
        except ValueError:
            return False
        return True

    assert {name for name in FIELDS if is_accepted(name)} == (ALWAYS if command != "reproduce" else set()) | ALSO[
        command
    ]


def test_as_a_program(tmp_path):
    """From any folder, with a terminal's eyes: help works, a mistake has no traceback."""
    program = [sys.executable, str(ROOT / "main.py")]
    done = subprocess.run([*program, "-h"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "-net" in done.stdout and "default" in done.stdout
    done = subprocess.run([*program, "-net", "resnet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_name_that_is_taken(place, capsys):
    folder = place / "checkpoints" / "cheapV3" / "digits-try1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    status, error = call(capsys, *"-net cheapV3 -dataset digits -name try1".split())
    assert status == 2 and "take another name" in error and "-resume" not in error  # there is nothing to go on with
    (folder / "last.pth").write_bytes(b"")
    assert (
        f"or go on with -resume {folder.relative_to(place)}"
        in call(capsys, *"-net cheapV3 -dataset digits -name try1".split())[1]
    )


def test_json_settings_are_plain():
    """What a run saves as its settings can be read by anything."""
    import dataclasses

    from conf.resolve import settings

    assert json.loads(json.dumps(dataclasses.asdict(settings({"net": "cheapV3"}))))["net"] == "cheapV3"


@pytest.mark.parametrize("columns", [80, 120])
def test_help(capsys, monkeypatch, columns):
    """Every option once, with its default; networks and recipes by name; no line is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.main(["-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    starts = [line.split(",")[0].split()[0] for line in lines if line.startswith("  -")]
    for name in FIELDS:
        word = option(name)
        assert starts.count(word) == 1, word
        start = next(number for number, line in enumerate(lines) if re.match(rf"  {word}[ ,]", f"{line} "))
        end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith("      "))
        assert re.search(r"default|required", " ".join(lines[start:end])), word
    text = " ".join(" ".join(lines).split())
    assert all(name in text for name in (*models.names(), *recipe_names())) and "--dataset" not in text
    assert "  -epochs N  " in "\n".join(lines) and "  -b, -batch-size N  " in "\n".join(lines)


def test_list_names_everything(capsys):
    assert main.main(["-list"]) == 0
    found = {line[2:20].strip(): line[20:] for line in capsys.readouterr().out.splitlines() if line[:3].strip()}
    for name in (*models.names(), *DATASETS, *recipe_names()):
        assert len(found[name]) > 10, name
    assert "scikit-learn" in found["digits"] and "300 epochs" in found["original"]


def test_version_tells_commit_and_torch(capsys):
    assert main.main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and re.search(r"commit ([0-9a-f]{12}\+?|unknown);", printed)


def test_a_network_in_small_letters(place, capsys):
    assert main.main("-net cheapv3 -dataset digits -dry".split()) == 0
    printed, error = capsys.readouterr()
    assert "net: cheapV3\n" in printed and error == "-net cheapv3: taken as cheapV3\n"


def test_completion(capsys, tmp_path):
    """What bash makes of the script: the options, and the words that they take."""
    pytest.importorskip("shtab")
    assert main.main(["-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = """
        source ./script
        for line in "main.py -bat" "main.py -net cheapV3_sh" "main.py -net cheapV2 -schedule l"; do
            COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            _shtab_main_py
            echo "${COMPREPLY[@]}"
        done
    """
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["-batch-size", "cheapV3_shuffle cheapV3_shuffle6", "linear"], done.stderr

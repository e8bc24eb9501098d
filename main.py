"""The command line, and nothing else: settings in, one run out. See -h, and README.md for examples."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from conf import FIELDS, is_list, kind, option
from utils import OneLineParser

GROUPS = {
    "run": "what runs, and where",
    "network": "network",
    "machine": "machine",
    "training": "training: the recipe's knobs",
    "augmentation": "augmentation: the recipe's knobs",
}
# What may be changed when a run goes on, is tested or exported: it does not change what was trained.
FREE = (
    *("data", "gpu", "procs", "amp", "channels_last", "deterministic", "workers"),
    *("save_every", "keep", "log_every"),
)
# What runs instead of a training run, and what else may be given with it.
ALSO_FREE = {
    "resume": ("out", "compile"),
    "test": ("weights", "dataset"),
    "export": ("weights", "dataset"),
    "predict": ("weights",),
    "compare": ("out",),
}
COMMANDS = tuple(ALSO_FREE)


def truth(word: str) -> bool:
    """The old command lines' True and False, and mean what they say."""
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{word}: must be true or false")


def spellings(*words: str) -> list[str]:
    """Every option with one dash, as the originals have it, and with two."""
    return [dashes + word for word in dict.fromkeys(words) for dashes in ("-", "--")]


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="main.py",
        description="Trains a network: python main.py -net cheapV3. Every option is accepted with two dashes too.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    command = parser.add_argument_group("instead of training from the start")
    command.add_argument(*spellings("test"), action="store_true", help="evaluate -weights on the test set")
    command.add_argument(
        *spellings("export"), choices=("onnx",), help="write -weights, folded, as an ONNX file beside them"
    )
    command.add_argument(
        *spellings("predict"), nargs="+", metavar="IMAGE", help="what -weights see in images, folders or animations"
    )
    command.add_argument(
        *spellings("compare"), action="store_true", help="every finished run under -out as a table and a plot"
    )
    command.add_argument(*spellings("resume"), metavar="DIR", help="go on with the run in checkpoints/..., or 'last'")
    command.add_argument(*spellings("dry"), action="store_true", help="print the effective settings and stop")
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, field in FIELDS.items():
        add_option(groups[field.metadata["group"]], name, field)
    return parser


def add_option(group, name: str, field: dataclasses.Field) -> None:
    words = [option(name)[1:], name.replace("_", "-")]
    default = "the recipe's" if field.default is dataclasses.MISSING else field.default
    text = field.metadata["help"].replace("%", "%%")
    if field.metadata["group"] in ("training", "augmentation"):
        text += " (default: the recipe's)"
    elif "(" not in text and default not in ("", None, "the recipe's"):
        text += f" (default: {default})"
    if kind(name) is bool:
        group.add_argument(
            *spellings(*words), dest=name, nargs="?", const=True, type=truth, metavar="true|false", help=text
        )
    else:
        shape = dict(nargs="+") if is_list(name) else {}
        metavar = "|".join(field.metadata["choices"]) or {int: "N", float: "X", str: name.upper()}[kind(name)]
        group.add_argument(*spellings(*words), dest=name, type=kind(name), metavar=metavar, help=text, **shape)


def run(words: list[str]) -> int:
    """What the words ask for; returns the exit status. Raises ValueError for the user's mistakes."""
    given = vars(make_parser().parse_args(words))
    commands = {name: given.pop(name) for name in ("dry", *COMMANDS) if name in given}
    check_commands(commands, given)

    from conf.resolve import settings as resolve  # the heavy imports come after the cheap checks

    if "export" in commands:
        from engine import export

        export.export(Path(given.pop("weights")), given)
    elif "predict" in commands:
        from engine import predict

        predict.predict(commands["predict"], Path(given.pop("weights")), given)
    elif "compare" in commands:
        from engine import compare

        compare.compare(Path(given.get("out", ".")))
    elif "test" in commands:
        from engine.commands import test

        test(Path(given.pop("weights")), given)
    elif "resume" in commands:
        return resume(commands["resume"], given, words)
    else:
        settings = resolve(given)
        if "dry" not in commands:
            return train(settings, words)
        for name, value in dataclasses.asdict(settings).items():
            print(f"{name}: {value}")
    return 0


def train(settings, words: list[str]) -> int:
    """In this process, or in as many as the settings and the visible devices want."""
    from engine import commands, distributed

    count = distributed.wanted_processes(settings.procs, settings.gpu)
    if count > 1 and not distributed.is_launched():
        return distributed.launch(count, words)
    commands.train(settings)
    return 0


def resume(folder: str, given: dict[str, object], words: list[str]) -> int:
    from engine import commands, distributed
    from engine.folders import newest_run

    out = Path(given.pop("out", "."))
    count = distributed.wanted_processes(given.get("procs", 0), given.get("gpu"))
    if count > 1 and not distributed.is_launched():
        return distributed.launch(count, words)
    commands.resume(newest_run(out) if folder == "last" else Path(folder), given)
    return 0


def check_commands(commands: dict[str, object], given: dict[str, object]) -> None:
    """Options that contradict each other, or that a command cannot do without."""
    asked = [name for name in (*COMMANDS, "dry") if name in commands]
    if len(asked) > 1:
        raise ValueError(f"-{asked[0]}: contradicts -{asked[1]}; give one, then the other")
    for name in ("resume", "compare"):
        if name in commands and "weights" in given:
            raise ValueError(f"-{name}: finds the weights of runs itself; leave out -weights")
    for name in ("test", "export", "predict"):
        if name in commands and "weights" not in given:
            raise ValueError(f"-{name}: needs -weights FILE, a checkpoint of a run")
    command = next((name for name in COMMANDS if name in commands), None)
    if command is not None:
        allowed = (*FREE, *ALSO_FREE[command])
        for name in given:
            if name not in allowed:
                raise ValueError(
                    f"{option(name)}: contradicts -{command}, which takes it from the checkpoint; leave it out"
                )
    elif "net" not in given:
        raise ValueError("-net: which network? for example: python main.py -net cheapV3 (-h lists the options)")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line argv, by default this program's own; returns the exit status."""
    try:
        return run(sys.argv[1:] if argv is None else list(argv))
    except ValueError as error:
        print(f"main.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"main.py: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # a run under way has its own way to stop (engine/interruption.py)
        print("main.py: stopped, before or after any training", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

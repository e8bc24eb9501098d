"""The command line: it reads the options and calls one of commands/. See -h, and README.md for examples."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from conf import FIELDS, is_list, option, replaceable, value_type
from conf.knobs import MISSING, RECIPE_GROUPS
from utils import OneLineParser

GROUPS = {
    "run": "what runs, and where",
    "network": "network",
    "machine": "machine",
    "training": "training: the recipe's knobs",
    "augmentation": "augmentation: the recipe's knobs",
}
# The commands that run instead of a new training run, each with the settings that are its own arguments.
COMMANDS = {
    "resume": ("out",),
    "test": ("weights", "dataset"),
    "export": ("weights", "dataset"),
    "predict": ("weights",),
    "compare": ("out",),
}


def parse_bool(word: str) -> bool:
    """True or False as the original's command lines spell them, among others; both mean what they say."""
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{word}: must be true or false")


def option_strings(*words: str) -> list[str]:
    """Every option is accepted with one dash, as the original has it, and with two."""
    return [dashes + word for word in dict.fromkeys(words) for dashes in ("-", "--")]


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="main.py",
        description="Trains a network: python main.py -net cheapV3. Every option is accepted with two dashes too.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add_commands(parser.add_argument_group("instead of training from the start"))
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, field in FIELDS.items():
        add_setting(groups[field.metadata["group"]], name, field)
    return parser


def add_commands(group) -> None:
    """Adds the options of COMMANDS, and -dry, to an argparse group."""

    def add(name: str, help: str, **options: object) -> None:
        group.add_argument(*option_strings(name), help=help, **options)

    add("test", "evaluate -weights on the test set", action="store_true")
    add("export", "write -weights, folded, as an ONNX file beside them", choices=("onnx",))
    add("predict", "what -weights see in images, folders or animations", nargs="+", metavar="IMAGE")
    add("compare", "every finished run under -out as a table and a plot", action="store_true")
    add("resume", "go on with the run in checkpoints/..., or 'last'", metavar="DIR")
    add("dry", "print the effective settings and stop", action="store_true")


def add_setting(group, name: str, field: dataclasses.Field) -> None:
    """Adds the option of one knob to an argparse group."""
    default = "the recipe's" if field.default is MISSING else field.default
    text = field.metadata["help"].replace("%", "%%")
    if field.metadata["group"] in RECIPE_GROUPS:
        text += " (default: the recipe's)"
    elif "(" not in text and default not in ("", None, "the recipe's"):
        text += f" (default: {default})"
    wanted = value_type(name)
    if wanted is bool:
        options = dict(nargs="?", const=True, type=parse_bool, metavar="true|false")
    else:
        metavar = "|".join(field.metadata["choices"]) or {int: "N", float: "X", str: name.upper()}[wanted]
        options = dict(type=wanted, metavar=metavar) | (dict(nargs="+") if is_list(name) else {})
    words = option_strings(option(name)[1:], name.replace("_", "-"))
    group.add_argument(*words, dest=name, help=text, **options)


def run(argv: list[str]) -> int:
    """Does what the command line asks for; returns the exit status. Raises ValueError for the user's mistakes."""
    given = vars(make_parser().parse_args(argv))
    asked = {name: given.pop(name) for name in ("dry", *COMMANDS) if name in given}
    check_commands(asked, given)

    from conf.resolve import settings as resolve  # the heavy imports come after the cheap checks

    if "export" in asked:
        from commands import export

        export.export(Path(given.pop("weights")), given)
    elif "predict" in asked:
        from commands import predict

        predict.predict(asked["predict"], Path(given.pop("weights")), given)
    elif "compare" in asked:
        from commands import compare

        compare.compare(Path(given.get("out", ".")))
    elif "test" in asked:
        from commands import evaluate

        evaluate.evaluate(Path(given.pop("weights")), given)
    elif "resume" in asked:
        from commands import train

        folder, out = asked["resume"], Path(given.pop("out", "."))
        count = functools.partial(train.saved_processes, folder, out, given)
        return in_processes(argv, count, functools.partial(train.resume, folder, out, given))
    else:
        settings = resolve(given)
        if "dry" not in asked:
            from commands import train
            from engine.distributed import wanted_processes

            count = functools.partial(wanted_processes, settings.procs, settings.gpu, settings.batch_size)
            return in_processes(argv, count, functools.partial(train.train, settings))
        for name, value in dataclasses.asdict(settings).items():
            print(f"{name}: {value}")
    return 0


def in_processes(argv: list[str], count: Callable[[], int], work: Callable[[], object]) -> int:
    """Calls work(), or where count() is above 1 starts main.py in as many processes; returns the exit status."""
    from engine import distributed

    if not distributed.is_launched() and (processes := count()) > 1:
        return distributed.launch(processes, argv)
    work()
    return 0


def check_commands(asked: dict[str, object], given: dict[str, object]) -> None:
    """Raises ValueError for options that contradict each other, or that a command cannot do without."""
    names = [name for name in (*COMMANDS, "dry") if name in asked]
    if len(names) > 1:
        raise ValueError(f"-{names[0]}: contradicts -{names[1]}; give one, then the other")
    for name in ("resume", "compare"):
        if name in asked and "weights" in given:
            raise ValueError(f"-{name}: finds the weights of runs itself; leave out -weights")
    for name in ("test", "export", "predict"):
        if name in asked and "weights" not in given:
            raise ValueError(f"-{name}: needs -weights FILE, a checkpoint of a run")
    command = next((name for name in COMMANDS if name in asked), None)
    if command is not None:
        allowed = (*COMMANDS[command], *replaceable(training=command == "resume"))
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

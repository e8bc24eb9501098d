"""The commands by their options, and which other options go with each; nothing here takes long to import."""

from __future__ import annotations

from conf import TOLD, option, replaceable
from conf.resolve import WHICH

# The commands that run instead of a new training run, each with the settings that are its own arguments.
COMMANDS = {
    "resume": ("out", "dataset", "distill"),
    "test": ("weights", *TOLD),
    "export": ("weights", *TOLD),
    "predict": ("weights", *TOLD),
    "compare": ("out",),
    "reproduce": ("out", "data"),
}
ALONE = ("list", "completion", "version")  # they print something, and take no other option
# Options that only go with one of the commands, which is named.
ASIDES = {"half": "export", "int8": "export", "with_preprocessing": "export", "jobs": "reproduce", "tta": "test"}

OF_EXPORT = {"half": ("onnx", "weights"), "int8": ("onnx",), "with_preprocessing": ("onnx",)}
# What -export only reads and writes, with the settings that are its arguments: nothing is computed that others change.
READ = {"weights": ("weights", "out", "name"), "card": ("weights",)}


def check_commands(asked: dict[str, object], given: dict[str, object]) -> None:
    """Raises ValueError for options that contradict each other, or that a command cannot do without."""
    names = [name for name in (*COMMANDS, "dry", "seeds", *ALONE) if name in asked]
    if len(names) > 1:
        raise ValueError(f"-{names[0]}: contradicts -{names[1]}; give one, then the other")
    alone = next((name for name in ALONE if name in asked), None)
    if alone is not None and (given or len(asked) > 1):
        raise ValueError(f"-{alone}: stands alone; leave out all else")
    for name in ("resume", "compare"):
        if name in asked and "weights" in given:
            raise ValueError(f"-{name}: finds the weights of runs itself; leave out -weights")
    for name in ("test", "export", "predict"):
        if name in asked and "weights" not in given:
            raise ValueError(f"-{name}: needs -weights FILE, a checkpoint of a run or weights alone")
    command = next((name for name in COMMANDS if name in asked), None)
    for name, its in ASIDES.items():
        if name in asked and its != command:
            raise ValueError(f"{word(name)}: goes with -{its} alone; leave it out")
    if asked.get("jobs", 0) < 0:
        raise ValueError(f"-jobs {asked['jobs']}: must be 0 or more")
    wanted = asked.get("export")
    for name, fitting in OF_EXPORT.items():
        if wanted is not None and name in asked and wanted not in fitting:
            raise ValueError(f"{word(name)}: goes with -export {' or '.join(fitting)}, not {wanted}; leave it out")
    for name in ("int8", "half"):
        if asked.get(name) and asked.get("with_preprocessing"):
            raise ValueError(
                f"-{name}: contradicts -with-preprocessing, its file takes floats; give one, then the other"
            )
    if command is not None:
        computes = command != "reproduce" and wanted not in READ
        machine = replaceable(training=command == "resume") if computes else ()
        own = READ.get(wanted, COMMANDS[command])
        source = "its rows" if command == "reproduce" else "the checkpoint"
        for name in given:
            if name not in (*own, *machine):
                raise ValueError(f"{option(name)}: contradicts -{command}, which takes it from {source}; leave it out")
    elif alone is None and "net" not in given and "recipe" not in given:
        raise ValueError(WHICH)


def word(name: str) -> str:
    """An aside as the command line has it."""
    return f"-{name.replace('_', '-')}"

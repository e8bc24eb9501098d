"""Data flows one way: conf -> datasets -> models -> engine -> commands -> main. Read off the imports of every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# what the files of a folder may import of the project's own
ALLOWED = {
    "conf": {"conf", "utils"},
    "datasets": {"conf", "datasets", "utils"},
    "models": {"models", "utils"},
    "engine": {"conf", "datasets", "models", "engine", "utils"},
    "commands": {"conf", "datasets", "models", "engine", "commands", "utils"},
    "main.py": {"conf", "engine", "commands", "utils"},
    "utils.py": set(),
    "hubconf.py": {"models", "utils"},
}
OWN = {"conf", "datasets", "models", "engine", "commands", "utils", "main", "benchmarks", "tests", "hubconf"}


def files(place: str) -> list[Path]:
    return sorted((ROOT / place).rglob("*.py")) if (ROOT / place).is_dir() else [ROOT / place]


def imported(path: Path) -> set[str]:
    """The first words of all modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("place", ALLOWED)
def test_imports_follow_the_layout(place):
    for path in files(place):
        assert imported(path) & OWN <= ALLOWED[place], path


def test_ops_are_functions_of_tensors():
    """models/ops imports nothing of models/ but itself (and utils), and holds no module of a network."""
    for path in files("models/ops"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OWN:
                assert node.module.startswith(("models.ops", "utils")), f"{path}:{node.lineno}"
            assert not (isinstance(node, ast.ClassDef) and "Module" in ast.dump(node)), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("place", "library"),
    [("conf", "torch"), ("main.py", "torch"), *((place, "argparse") for place in ("datasets", "engine", "commands"))],
)
def test_libraries_stay_out(place, library):
    for path in files(place):
        assert library not in imported(path), path


def test_nothing_is_tied_to_cuda():
    """The device is chosen in one place; nothing calls .cuda()."""
    places = ("models", "datasets", "engine", "commands")
    for path in [*ROOT.glob("*.py"), *(path for place in places for path in files(place))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            assert not (called and node.func.attr == "cuda"), f"{path}:{node.lineno}"

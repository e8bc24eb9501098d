"""hubconf.py: torch.hub finds, explains and builds every network, from any folder and beside any other module."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from tests.helpers.runs import checkpoints

ROOT = Path(models.__file__).parents[1]


@pytest.mark.parametrize("name", models.names())
def test_load_is_create(name):
    torch.manual_seed(3)
    loaded = torch.hub.load(str(ROOT), name, source="local", num_classes=7, in_channels=1, image_size=16)
    torch.manual_seed(3)
    created = models.create(name, num_classes=7, in_channels=1, image_size=16)
    assert str(loaded) == str(created)
    weights = created.state_dict()
    assert list(loaded.state_dict()) == list(weights)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.state_dict().items())


def test_load_takes_the_other_arguments():
    loaded = torch.hub.load(str(ROOT), "cheapV3", source="local", width=0.5, literal=True)
    assert str(loaded) == str(models.create("cheapV3", width=0.5, literal=True))
    with pytest.raises(ValueError, match="too small"):
        torch.hub.load(str(ROOT), "cheapV3", source="local", image_size=4)


@pytest.fixture
def cached(tmp_path):
    """The name under which torch.hub has this folder as a downloaded repository."""
    before = torch.hub.get_dir()
    (tmp_path / "someone_reuse_main").symlink_to(ROOT)
    torch.hub.set_dir(tmp_path)
    yield "someone/reuse:main"
    torch.hub.set_dir(before)


def test_list(cached):
    assert torch.hub.list(cached, skip_validation=True, trust_repo=True) == sorted(["create", *models.names()])


@pytest.mark.parametrize("name", models.names())
def test_help(cached, name):
    text = torch.hub.help(cached, name, skip_validation=True, trust_repo=True)
    assert text.startswith(f"{name}(") and "num_classes" in text.splitlines()[0]
    assert inspect.getmodule(models.registry.entry(name).builder).__doc__.strip() in text
    for argument in inspect.signature(models.create).parameters:
        assert argument == "name" or argument in text


PROGRAM = """
import sys
import torch
{imports}
before = list(sys.path)
network = torch.hub.load({root!r}, "cheapV3_shuffle6", source="local", num_classes=10)
assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
again = torch.hub.load({root!r}, "EffNet", source="local", num_classes=10)
assert sum(parameter.numel() for parameter in again.parameters()) == 151_146
assert sys.path == before
{checks}
"""
BESIDE_OTHERS = """
import models, models.registry, utils
assert models.mine == "models" and models.registry.mine == "registry" and utils.mine == "utils"
assert "models.reuse" not in sys.modules
"""
ALONE = """
import pickle
pickle.loads(pickle.dumps(network))
import sys
assert not {"thop", "flopth", "torchsummary", "torchvision", "tensorboard"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("imports", "checks"),
    [("", ALONE), ("import models, models.registry, utils", BESIDE_OTHERS)],
    ids=["alone", "beside a program's own models and utils"],
)
def test_from_another_folder(tmp_path, imports, checks):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("mine = 'models'\n")
    (tmp_path / "models" / "registry.py").write_text("mine = 'registry'\n")
    (tmp_path / "utils.py").write_text("mine = 'utils'\n")
    (tmp_path / "program.py").write_text(PROGRAM.format(imports=imports, checks=checks, root=str(ROOT)))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WITH_WEIGHTS = """
import sys
import torch
{imports}
network = torch.hub.load({root!r}, "EffNet", source="local", weights={run!r})
assert {run!r} and network.state_dict()["head.classifier.weight"].shape[0] == 10
torch.save({{"model": {{"module." + key: value for key, value in network.state_dict().items()}}}}, "bare.pth")
shape = dict(num_classes=10, in_channels=1, image_size=8)
again = torch.hub.load({root!r}, "EffNet", source="local", weights="bare.pth", **shape)
saved = torch.load({run!r}, weights_only=True)["averaged"]
assert all(torch.equal(value, saved[key]) for key, value in again.state_dict().items())
try:
    torch.hub.load({root!r}, "EffNet", 10, 1, 16, source="local", weights="bare.pth")
except ValueError as error:
    assert "for images of 8x8 pixels, not 16x16" in str(error), error
else:
    raise AssertionError
{checks}
"""
STILL_THEIRS = "assert models.mine == 'models' and utils.mine == 'utils'"


@pytest.mark.parametrize(
    ("imports", "checks"), [("", ""), ("import models, utils", STILL_THEIRS)], ids=["alone", "beside"]
)
def test_weights_of_a_run_and_of_others(finished, tmp_path, imports, checks):
    (tmp_path / "models.py").write_text("mine = 'models'\n")
    (tmp_path / "utils.py").write_text("mine = 'utils'\n")
    run = str(checkpoints(finished) / "last.pth")
    program = WITH_WEIGHTS.format(imports=imports, checks=checks, root=str(ROOT), run=run)
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_loading_leaves_the_programs_own_modules_in_place():
    import engine.saved.schema

    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("engine", "models")}
    torch.hub.load(str(ROOT), "EffNet", source="local", num_classes=10)
    assert engine.saved.schema is sys.modules["engine.saved.schema"]
    assert all(sys.modules.get(name) is module for name, module in before.items())

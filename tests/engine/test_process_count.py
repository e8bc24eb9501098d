"""How many processes train where nobody says, and what contradicts a launcher."""

import pytest
import torch

from conf.resolve import settings
from engine.processes.count import describe_processes, wanted_processes


@pytest.mark.parametrize(
    ("devices", "batch", "expected"),
    [(0, 128, 1), (1, 128, 1), (2, 256, 1), (2, 2048, 2), (3, 3072, 3), (5, 4096, 4), (7, 10240, 5), (8, 8192, 8)],
)
def test_devices_get_a_sensible_share_each(monkeypatch, devices, batch, expected):
    """The plain command uses as many as divide the batch and leave 1,024 images to each; it says which."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    assert wanted_processes(0, None, batch) == expected and batch % expected == 0
    assert wanted_processes(0, False, batch) == 1
    given = {"net": "EffNet", "dataset": "digits", "batch_size": batch}
    said = describe_processes(expected, settings(given))
    assert (f"{expected} of {devices} devices" in said) == (expected < devices)
    assert (f", {expected} processes" in said) == (expected > 1)
    assert "of" not in describe_processes(2, settings(given | {"procs": 2}))


def test_more_processes_than_devices_are_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert wanted_processes(2, None, 128) == 2 and wanted_processes(5, False, 128) == 5
    with pytest.raises(ValueError, match="-procs 5: each process takes a CUDA device of its own, and 2 can be seen"):
        wanted_processes(5, None, 128)


def test_another_number_of_processes_than_the_launcher_s(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="-procs 2: .*WORLD_SIZE=1.*unset"):
        wanted_processes(2, False, 128)
    assert wanted_processes(1, False, 128) == 1

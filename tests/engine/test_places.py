"""Where a run's data is looked for, once the run goes on from another place than it was begun in."""

from pathlib import Path

import pytest

from conf.resolve import settings
from engine.saved.places import Places
from tests.helpers.drive import write_drive

SETTINGS = settings({"net": "EffNet_steering", "dataset": "driving", "data": "drives"})


@pytest.fixture
def begun(tmp_path, monkeypatch) -> Path:
    """A folder with a recorded drive under drives/; the working folder is another one."""
    write_drive(tmp_path / "begun" / "drives" / "driving", 25)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "begun"


def places(begun: Path, folder: str = "nowhere", given: dict | None = None) -> Places:
    content = {"settings": {"net": SETTINGS.net}, "working_folder": str(begun)}
    return Places.of(Path(folder), content, given or {})


def test_where_the_run_was_begun(begun):
    assert places(begun).find_data(SETTINGS).data == str(begun / "drives")


def test_here_comes_first(begun):
    write_drive(Path("drives"), 25)
    assert places(begun).find_data(SETTINGS).data == "drives"


def test_above_the_folders_of_a_project_that_was_moved(begun):
    moved = begun.rename(begun.with_name("moved"))
    run = moved / "checkpoints" / SETTINGS.net / "driving-a"
    assert places(begun, str(run)).find_data(SETTINGS).data == str(moved / "drives")
    assert places(begun, str(run.with_name("b").parent)).find_data(SETTINGS).data == "drives"  # not a run's layout


def test_a_folder_that_is_given_is_taken(begun):
    assert places(begun, given={"data": "drives"}).find_data(SETTINGS).data == "drives"


def test_data_that_is_nowhere_is_told_with_all_places(begun):
    gone = places(begun.with_name("gone"))
    with pytest.raises(ValueError, match="not found; looked for in .*/here/drives and .*/gone/drives .-data DIR"):
        with gone.told(gone.find_data(SETTINGS)):
            raise ValueError("driving: not found")
    with pytest.raises(ValueError, match="^-epochs 0$"):  # another mistake, with the data in its place
        with places(begun).told(SETTINGS):
            raise ValueError("-epochs 0")

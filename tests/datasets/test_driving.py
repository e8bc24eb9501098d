"""Driving logs as they come, and what is read of a drive."""

import shutil

import numpy
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import datasets
from conf.datasets import find_row
from datasets import driving
from datasets.split import held_out_driving
from tests.helpers.drive import CAMERAS, REAL, angle_of, write_drive
from tests.helpers.made_data import assert_same_test_split_alone

ROW = find_row("driving")
HEADER = "center,left,right,steering,throttle,brake,speed\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_drive(tmp_path_factory.mktemp("drive") / "driving")


@pytest.fixture
def drive(written, tmp_path):
    """A drive of the test's own to spoil."""
    return shutil.copytree(written, tmp_path / "driving")


def load(drive, size=32):
    return datasets.load(ROW, drive.parent, size)


def rewrite(drive, change) -> None:
    """Changes the log: `change` gets its lines and returns them."""
    log = drive / "driving_log.csv"
    log.write_text("\n".join(change(log.read_text().splitlines())) + "\n")


def same(one, other) -> bool:
    pairs = [(getattr(one, split), getattr(other, split)) for split in ("train", "test")]
    return all(torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in pairs)


def by_line(change):
    """A change of the log's text from one of the values of each line."""
    return lambda text: "".join(",".join(change(line.split(","))) + "\n" for line in text.splitlines())


def by_header(header: str, places: tuple[int, ...]):
    """A change of the log's text to these columns, each from a place of its own ones."""
    return lambda text: header + "\n" + by_line(lambda values: [values[place] for place in places])(text)


def decimal_comma(value: str) -> str:
    return f'"{value}"'.replace(".", ",")


def numbered(text: str) -> str:
    return "".join(f"{number},{line}\n" for number, line in enumerate(text.splitlines()))


FORMS = {
    "Windows": lambda text: text.replace("IMG/", "C:\\Users\\A B\\Desktop\\new_track\\IMG\\"),
    "semicolons in paths": lambda text: text.replace("IMG/", "C:\\new;track\\IMG\\"),
    "absolute": lambda text: text.replace("IMG/", "/home/someone/my drive/IMG/"),
    "name alone": lambda text: text.replace("IMG/", ""),
    "spaces": lambda text: text.replace(",", ",  ").replace("\n", "  \n"),
    "quoted": by_line(lambda values: [*(f'"/a, b/{value}"' for value in values[:3]), *values[3:]]),
    "header": lambda text: HEADER + text,
    "spaced header": lambda text: HEADER.title().replace(",", ", ") + text,
    "four columns": by_line(lambda values: values[:4]),
    "four with header": lambda text: "center,left,right,steering\n" + by_line(lambda values: values[:4])(text),
    "Windows lines": lambda text: text.replace("\n", "\r\n"),
    "byte order mark": lambda text: "\ufeff" + HEADER + text,
    "empty lines": lambda text: "\n" + text.replace("\n", "\n\n"),
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace(".", ",").replace(",jpg", ".jpg"),
    "tabs and decimal commas": lambda text: text.replace(",", "\t").replace(".", ",").replace(",jpg", ".jpg"),
    "quoted decimal commas": by_line(
        lambda values: [*values[:3], *(f'"{value}"'.replace(".", ",") for value in values[3:])]
    ),
    "semicolons with header": lambda text: (HEADER + text).replace(",", ";"),
    "index and header": lambda text: "," + HEADER + numbered(text),
    "index without header": lambda text: numbered(text),
    "numbers for a header": lambda text: ",0,1,2,3,4,5,6\n" + numbered(text),
    "named index": lambda text: ("Unnamed: 0," + HEADER + numbered(text)).replace(",", ";"),
    "reverse for brake": lambda text: HEADER.replace("brake", "reverse") + text,
    "reverse besides": by_header("center,left,right,steering,throttle,reverse,brake,speed", (0, 1, 2, 3, 4, 5, 5, 6)),
    "names of people": by_header("Steering Angle,Right Image,CENTER_CAMERA,img left", (3, 2, 0, 1)),
    "names without spaces": by_header("centreImagePath,leftImagePath,rightImagePath,SteeringAngle", (0, 1, 2, 3)),
    "small letters": lambda text: text.replace("IMG/", "img/"),
    "old Macintosh lines": lambda text: text.replace("\n", "\r"),
    "lines of separators": lambda text: text + ",,,,,,\n\n \n",
    "a separator at the end": lambda text: text.replace("\n", ",\n"),
    "UTF-16": lambda text: (HEADER + text).encode("utf-16"),
    "UTF-16, big end first": lambda text: b"\xfe\xff" + text.replace(",", "\t").encode("utf-16-be"),
    "no last newline": lambda text: text.rstrip("\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_logs_as_they_come(written, tmp_path, form):
    """Every form of the log says the same rows."""
    text = (written / "driving_log.csv").read_text()
    changed = tmp_path / "driving_log.csv"
    content = FORMS[form](text)
    changed.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert changed.read_bytes() != text.encode()
    rows = driving.read_log(changed)
    assert [row.angle for row in rows] == [angle_of(number) for number in range(50)]
    assert [row.frames for row in rows] == [
        tuple(f"{camera}_{number:03}.jpg" for camera in CAMERAS) for number in range(50)
    ]


def replaced(number: int, column: int, value: str):
    def change(lines: list[str]) -> list[str]:
        values = lines[number].split(",")
        values[column] = value
        return [*lines[:number], ",".join(values), *lines[number + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(7, 3, "1.01"), r"driving_log.csv, line 8: steering angle 1.01 is out of range"),
        (replaced(7, 3, "-25"), "line 8: .* out of range"),
        (replaced(7, 3, "nan"), "line 8: .* out of range"),
        (replaced(7, 3, "left"), "line 8: steering angle 'left' is not a number"),
        (replaced(7, 3, ""), "line 8: steering angle '' is not a number"),
        (replaced(0, 3, "left"), "line 1: steering angle 'left' is not a number"),
        (replaced(7, 1, ""), "line 8: names no frame"),
        (lambda lines: [HEADER.strip(), *replaced(7, 3, "2")(lines)], "line 9: .* out of range"),
        (lambda lines: [*lines, "a.jpg,b.jpg,c.jpg,0,0"], "line 51: has 5 columns; 7, as in the first line,"),
        (lambda lines: ["a.jpg,b.jpg,c.jpg,0,0"] * 30, "line 1: has 5 columns; 4 or 7"),
        (lambda lines: ["center,left,right,steering", *lines], "line 2: has 7 columns; 4, as in the first line"),
        (lambda lines: ["center,left,right,speed", *lines], "line 1: its columns are center, .* speed; each of"),
        (lambda lines: ["center,left,right,steering,angle", *lines], "line 1: its columns are center"),
        (
            lambda lines: [*lines[:7], lines[7].replace(",9.5", ",9,5"), *lines[8:]],
            "line 8: has 8 columns; .*needs quotes",
        ),
        (lambda lines: [lines[0], '"' + lines[1], *lines[2:]], "line 2: "),
        (lambda lines: [",,,0,0,0,0", *lines], "line 1: "),
        (lambda lines: ["\x1b[31mleft,\x07,right", *lines], r"line 1: its columns are \\x1b\[31mleft, \\x07, right;"),
        (lambda lines: lines[:20], "holds 20 rows"),
        (lambda lines: [], "holds 0 rows"),
    ],
)
def test_unsound_rows_are_refused_with_their_line(drive, change, message):
    rewrite(drive, change)
    with pytest.raises(ValueError, match=message):
        load(drive)


def test_frames_in_a_folder_of_small_letters(drive, written):
    (drive / "IMG").rename(drive / "img")
    rewrite(drive, lambda lines: [line.replace("IMG/", "D:\\sim\\img\\") for line in lines])
    assert same(load(drive), load(written))


def test_missing_frames_are_named_counted_and_left_out(drive, capsys):
    """One frame of 150: its row goes, the others stay where they were."""
    whole = driving.read(ROW, driving.find(ROW, drive.parent), 8)
    testing = driving.held_out_stretches(50)
    place = sum(not each for each in testing[:3])
    assert not testing[3]
    (drive / "IMG" / "left_003.jpg").unlink()
    _, train, test = driving.read(ROW, driving.find(ROW, drive.parent), 8)
    error = capsys.readouterr().err
    assert "1 of 150 frames" in error and "left_003.jpg (line 4)" in error and "without 1 rows" in error
    kept = [number for number in range(len(whole[1].targets)) if number // 3 != place]
    assert torch.equal(train.images, whole[1].images[kept]) and torch.equal(train.targets, whole[1].targets[kept])
    assert torch.equal(test.images, whole[2].images)


def test_more_than_one_in_a_hundred_missing_is_refused(drive):
    for number in (3, 30):
        (drive / "IMG" / f"right_{number:03}.jpg").unlink()
    with pytest.raises(ValueError, match=r"2 of 150 frames .*more than 1%: right_003.jpg \(line 4\), right_030.jpg"):
        load(drive)


def test_what_else_is_wrong_with_a_drive(drive, tmp_path):
    with pytest.raises(ValueError, match="driving_log.csv and IMG/, into"):
        datasets.load(ROW, tmp_path / "elsewhere")
    Image.new("RGB", (64, 64)).save(drive / "IMG" / "center_009.jpg")
    with pytest.raises(ValueError, match="center_009.jpg is 64x64 pixels"):
        load(drive)
    (drive / "IMG" / "center_009.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="center_009.jpg is not a readable image"):
        load(drive)
    shutil.rmtree(drive / "IMG")
    with pytest.raises(ValueError, match="no folder .*IMG"):
        load(drive)


def test_the_drive_is_packed_and_read_again(drive, capsys):
    first = load(drive)
    packed = list((drive.parent / "packed").iterdir())
    assert len(packed) == 1 and first.train.targets.dtype == torch.float32
    again = load(drive)
    assert same(first, again) and again.mean == (0.5,) * 3 and again.std == (1.0,) * 3
    rewrite(drive, replaced(0, 3, "0.123"))  # the log is part of what the cache was made from
    assert load(drive).train.targets[0] == pytest.approx(0.123)


def test_test_frames_are_enough_to_test(drive):
    whole = load(drive)
    assert_same_test_split_alone(whole, ROW, drive.parent)
    testing = driving.held_out_stretches(50)
    for path in (drive / "IMG").iterdir():
        if not testing[int(path.stem[-3:])] or not path.name.startswith("center"):
            path.write_bytes(b"no image")
    assert_same_test_split_alone(whole, ROW, drive.parent)


def test_a_drive_by_its_path(drive, tmp_path):
    """Packed apart from others of the same name; the log in the data folder is another's."""
    (tmp_path / "data").mkdir()
    write_drive(tmp_path / "data" / "driving", 30)
    by_path = find_row(str(drive))
    assert by_path.task == "regression" and find_row("driving").name == "driving"
    named = datasets.load(ROW, tmp_path / "data", 16)
    found = datasets.load(by_path, tmp_path / "data", 16)
    assert same(found, datasets.load(ROW, drive, 16)) and not len(found.train.images) == len(named.train.images)
    assert len(list((tmp_path / "data" / "packed").iterdir())) == 2


def test_folders_of_classes_are_no_drive(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "driving" / split / "left").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "driving" / split / "left" / "1.png")
    with pytest.raises(ValueError, match="driving: not found"):
        datasets.load(ROW, tmp_path)


def test_test_rows_are_whole_stretches_of_the_drive():
    for count in (25, 507, 8036):
        testing = driving.held_out_stretches(count)
        assert len(testing) == count and sum(testing) / count == pytest.approx(0.2, abs=0.01)
        changes = sum(one != other for one, other in zip(testing[:-1], testing[1:], strict=True))
        assert changes == 10  # five stretches, none at an end


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.25, 0.5, 0.9])
def test_rows_held_out_by_share_are_stretches_too(share):
    training, validation = held_out_driving(400, share)
    assert torch.equal(torch.cat([training, validation]).sort().values, torch.arange(400))
    assert len(validation) / 400 == pytest.approx(share, abs=0.05)
    assert int((validation.diff() != 1).sum()) < 10
    assert bool(share) == bool(len(validation))


def test_a_share_too_small_is_refused():
    with pytest.raises(ValueError, match="-val 0.0001"):
        held_out_driving(400, 0.0001)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real drive is not laid out")
def test_the_real_drive():
    """507 rows at 320x160, without a header, with Windows' paths of another machine."""
    classes, train, test = driving.read(ROW, driving.find(ROW, REAL), 16)
    assert classes == ("angle",) and train.images.shape == (3 * 405, 3, 16, 16) and test.images.shape[0] == 102
    angles = [float(line.split(",")[3]) for line in (REAL / "driving_log.csv").read_text().splitlines()]
    testing = driving.held_out_stretches(507)
    expected = [angle for angle, is_test in zip(angles, testing, strict=True) if is_test]
    assert test.targets.tolist() == pytest.approx(expected)
    trained = [angle for angle, is_test in zip(angles, testing, strict=True) if not is_test]
    assert train.targets[::3].tolist() == pytest.approx(trained)
    for camera in (1, 2):
        assert torch.equal(train.targets[camera::3], train.targets[::3])


def test_pixels_of_a_frame(written):
    """Rows 80 to 140, resized: against torch's bilinear interpolation of the same rows, within rounding."""
    names = [written / "IMG" / f"{camera}_008.jpg" for camera in CAMERAS]
    _, train, _ = driving.read(ROW, driving.find(ROW, written), 128)
    place = 3 * sum(not each for each in driving.held_out_stretches(50)[:8])
    for camera, name in enumerate(names):
        frame = torch.from_numpy(numpy.array(Image.open(name).convert("RGB"))).permute(2, 0, 1)
        rows = frame[None, :, 80:140].float()
        expected = F.interpolate(rows, size=(128, 128), mode="bilinear", antialias=True)[0]
        assert (train.images[place + camera].float() - expected).abs().max() <= 1.01

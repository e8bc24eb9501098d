"""A folder of images that streams: the same batches as from memory, torchvision's random cuts, bounded memory."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision import transforms

import datasets
import main
from conf.datasets import find_row
from datasets.augment import Augmentation, ImageSource, draw
from datasets.batches import EvaluationBatches, TrainingBatches
from datasets.stream import StreamedImages, StreamSource
from engine.saved import checkpoint
from engine.shown.logs import RunLog
from utils import derived_seed

ROOT = Path(main.__file__).parent
SIDE = 56  # of the images that are trained on; tested on the middle of 64, as 224 of 256
SEED = 5
CLASSES = ("flower", "roof", "sky")
NOTHING = Augmentation(crop=0, flip=False, rotation=0.0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """33 training and 12 test images of 60 to 130 pixels, cut from scikit-learn's two photographs; one is grey."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = load_sample_images().images
    random = np.random.default_rng(0)
    for split, count in (("train", 11), ("test", 4)):
        for name, photo, top in zip(CLASSES, (flower, china, china), (100, 150, 0), strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(60, 130, 2)
                left = random.integers(0, photo.shape[1] - width)
                image = Image.fromarray(photo[top : top + height, left : left + width])
                image = image.convert("L") if number == 2 else image
                image.save(folder / split / name / f"{number}.{'png' if number % 3 else 'jpg'}")
    return folder


def load(photos: Path, data: Path, **streaming) -> datasets.Dataset:
    return datasets.load(find_row(str(photos)), data, SIDE, datasets.Streaming(**streaming))


def source(data: datasets.Dataset, augmentation: Augmentation = NOTHING, workers: int = 0, split: str = "train"):
    """The source of a split of a data set, streamed or not."""
    chosen = getattr(data, split)
    given = (chosen.images, chosen.targets, data.mean, data.std, augmentation, torch.device("cpu"))
    return StreamSource(*given, workers) if isinstance(chosen.images, StreamedImages) else ImageSource(*given)


def training(data: datasets.Dataset, augmentation: Augmentation = NOTHING, workers: int = 0, seed: int = SEED):
    return TrainingBatches(source(data, augmentation, workers), torch.arange(33), 8, seed, shuffle=True)


def equal(first, second) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_random_cut_batches_are_those_from_memory(photos, tmp_path, workers):
    augmentation = Augmentation(crop=4, flip=True, rotation=15.0, trivial_augment=True, erase=0.5)
    packed, streamed = load(photos, tmp_path), load(photos, tmp_path, limit=0, workers=workers)
    assert isinstance(packed.train.images, torch.Tensor) and isinstance(streamed.train.images, StreamedImages)
    assert (packed.classes, packed.mean, packed.std) == (streamed.classes, streamed.mean, streamed.std)
    assert packed.train.images.shape == streamed.train.images.shape
    assert torch.equal(packed.test.images[5], streamed.test.images[5])
    expected, found = training(packed, augmentation), training(streamed, augmentation, workers)
    assert equal(expected.epoch(3), found.epoch(3))
    assert equal(expected.epoch(3, 2), found.epoch(3, 2))
    expected, found = (
        EvaluationBatches(source(data, augmentation, workers, "test"), torch.arange(12), 5)
        for data in (packed, streamed)
    )
    assert equal(expected, found) and len(list(found)) == 3
    index = torch.tensor([7, 0, 3])
    assert equal([expected.source.plain(index)], [found.source.plain(index)])


def test_random_cuts_are_those_of_torchvision(photos, tmp_path):
    """Each image by torchvision's transforms, one by one, from its own seed; then flipped as the batch's draws say."""
    data = load(photos, tmp_path, least_area=0.08)
    augmentation = Augmentation(crop=0, flip=True, rotation=0.0)
    files = sorted((photos / "train").glob("*/*"), key=lambda path: (path.parent.name, str(path)))
    order = torch.randperm(33, generator=torch.Generator().manual_seed(derived_seed(SEED, "order", 1)))
    batch_seed = derived_seed(SEED, "augmentation", 1 * 4 + 2)  # the third of epoch 1's four batches: 8, 8, 8, 9
    flips = draw(8, augmentation, torch.Generator().manual_seed(batch_seed)).flip
    cut = transforms.RandomResizedCrop(SIDE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    after = transforms.Compose([transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
    images, targets = next(training(data, augmentation).epoch(1, 2))
    for place, number in enumerate(order[16:24].tolist()):
        torch.manual_seed(derived_seed(derived_seed(SEED, "decoding", 1), "image", number))
        image = cut(Image.open(files[number]).convert("RGB"))
        image = transforms.functional.hflip(image) if flips[place] else image
        torch.testing.assert_close(images[place], after(image), rtol=0, atol=1e-6)
        assert targets[place] == CLASSES.index(files[number].parent.name)
    assert 0 < flips.sum() < 8


def test_with_random_cuts_the_middle_is_tested_on(photos, tmp_path):
    data = load(photos, tmp_path, least_area=0.08)
    files = sorted((photos / "test").glob("*/*"))
    middle = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(SIDE)])
    expected = torch.stack(
        [torch.from_numpy(np.array(middle(Image.open(path).convert("RGB")))).permute(2, 0, 1) for path in files]
    )
    assert torch.equal(torch.stack([data.test.images[number] for number in range(12)]), expected)
    images, targets = source(data, split="test").plain(torch.arange(12))
    normalise = transforms.Normalize(data.mean, data.std)
    torch.testing.assert_close(images, normalise(expected / 255), rtol=0, atol=1e-6)
    assert targets.tolist() == sorted([0, 1, 2] * 4)


def test_random_cuts_depend_on_seed_epoch_and_image_alone(photos, tmp_path):
    data = load(photos, tmp_path, least_area=0.08)
    before = torch.random.get_rng_state()
    whole = list(training(data).epoch(1))
    for workers in (1, 2):
        assert equal(whole, training(data, workers=workers).epoch(1))
        assert equal(whole[2:], training(data, workers=workers).epoch(1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)  # nothing is drawn from the run's own generator
    in_order = TrainingBatches(source(data), torch.arange(33), 33, SEED, shuffle=False)
    other_seed = TrainingBatches(source(data), torch.arange(33), 33, SEED + 1, shuffle=False)
    (first, _), (again, _), (second, _), (other, _) = (
        next(batches.epoch(epoch)) for batches, epoch in ((in_order, 0), (in_order, 0), (in_order, 1), (other_seed, 0))
    )
    assert torch.equal(first, again)
    assert not any(torch.equal(a, b) for changed in (second, other) for a, b in zip(first, changed, strict=True))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_training_process(photos, tmp_path, number):
    """A terminal or a cluster sends one to all of them; the step that is being done needs its batch all the same."""
    data = load(photos, tmp_path, least_area=0.08)
    batches = training(data, workers=2).epoch(0)
    found = [next(batches), next(batches)]  # one from each, so both are at work
    children = multiprocessing.active_children()
    assert len(children) == 2
    for child in children:
        os.kill(child.pid, number)
    assert equal([*found, *batches], training(data).epoch(0))


def test_the_rule(photos, tmp_path, capsys):
    """45 images of 3 x 56 x 56 bytes: above the limit they stream, packed file or not."""
    size = 45 * 3 * SIDE * SIDE
    for limit, streams in ((size, False), (size - 1, True), (None, False)):
        found = load(photos, tmp_path, limit=limit).train.images
        assert isinstance(found, StreamedImages) == streams
        assert ("streams (-w 0): 45 images, 0.00 GB at 56x56 pixels" in capsys.readouterr().out) == streams
    assert isinstance(load(photos, tmp_path, least_area=0.5).train.images, StreamedImages)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named_in_one_line(photos, tmp_path, workers):
    data = load(photos, tmp_path, least_area=0.08)
    names = data.train.images.names.tolist()
    for number, content, message in ((30, b"no image", "is not a readable image"), (31, None, "could not be read")):
        broken = tmp_path / f"{number}.jpg"
        data.train.images.names = np.array([*names[:number], os.fsencode(broken), *names[number + 1 :]])
        if content:
            broken.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{broken} {message}") as caught:
            list(EvaluationBatches(source(data, workers=workers), torch.arange(33), 8))
        assert "\n" not in str(caught.value)


def test_mean_and_std_are_kept_until_an_image_changes(photos, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "photos"
    for path in photos.glob("*/*/*"):
        (new := folder / path.relative_to(photos)).parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(path.read_bytes())
    first = load(folder, tmp_path, limit=0)
    with monkeypatch.context() as patch:
        patch.setattr(datasets.statistics, "_compute", None)  # not called
        again = load(folder, tmp_path, limit=0)
    assert (first.mean, first.std) == (again.mean, again.std)
    (kept,) = (tmp_path / "packed").iterdir()
    good = kept.read_bytes()
    digit = good.index(b'"mean": [') + 12
    kept.write_bytes(good[:digit] + bytes([good[digit] ^ 1]) + good[digit + 1 :])  # a digit of the mean
    assert load(folder, tmp_path, limit=0).mean == first.mean and kept.read_bytes() == good
    Image.new("RGB", (99, 99), "white").save(folder / "train" / "sky" / "5.png")
    assert all(now > then for now, then in zip(load(folder, tmp_path, limit=0).mean, first.mean, strict=True))
    kept.unlink()
    (tmp_path / "packed").rmdir()
    (tmp_path / "packed").write_bytes(b"in the way")
    load(folder, tmp_path, limit=0)
    assert "going on without it" in capsys.readouterr().err


def test_of_many_images_a_sample_gives_mean_and_std(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.statistics, "SAMPLE", 5)
    data = load(photos, tmp_path, limit=0)
    sample = torch.stack([data.train.images[number] for number in (0, 8, 16, 24, 32)]).double() / 255
    assert data.mean == pytest.approx(sample.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(sample.std((0, 2, 3), correction=0).tolist(), abs=1e-12)
    packed = load(photos, tmp_path)
    assert (packed.mean, packed.std) == (data.mean, data.std)


@pytest.mark.slow
def test_of_more_than_10000_images_the_same_sample_is_used_in_memory(tmp_path):
    """10,050 training images, links to 16 files: of which grey the sample has how many decides mean and std."""
    for number in range(16):
        Image.new("L", (4, 4), number**2).save(tmp_path / f"{number}.bmp")
    draws = np.random.default_rng(0).integers(0, 16, 10_050).tolist()
    for place, number in enumerate([*draws, 0, 0]):
        path = tmp_path / "x" / ("train" if place < 10_050 else "test") / str(place % 2) / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / f"{number}.bmp", path)
    row = find_row(str(tmp_path / "x"))
    packed, streamed = (datasets.load(row, tmp_path, 4, datasets.Streaming(limit=limit)) for limit in (None, 0))
    levels = packed.train.images[:, 0, 0, 0].double() / 255
    kept = levels[np.linspace(0, 10_049, 10_000).round()]
    assert (packed.mean, packed.std) == (streamed.mean, streamed.std)
    assert packed.mean == pytest.approx([kept.mean().item()] * 3, abs=1e-12)
    assert packed.std == pytest.approx([kept.std(correction=0).item()] * 3, abs=1e-12)
    assert abs(levels.mean() - kept.mean()) > 1e-6  # all images give another mean


def with_broken(data: datasets.Dataset, tmp_path: Path, split: str, numbers: dict[int, int], skip: bool):
    """The data set with a cut copy in the place of some images of a split; numbers: bytes left, by number."""
    images = getattr(data, split).images
    names = [os.fsdecode(name) for name in images.names]
    for number, length in numbers.items():
        cut = tmp_path / f"cut{number}{Path(names[number]).suffix}"
        cut.write_bytes(Path(names[number]).read_bytes()[:length])
        names[number] = str(cut)
    images.names, images.skip_broken = np.array([os.fsencode(name) for name in names]), skip
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_left_out_of_a_pass(photos, tmp_path, capsys, workers):
    """A test is of the others only; in training another image of the batch stands in, and the rest is as before."""
    intact = load(photos, tmp_path, limit=0)
    data = with_broken(load(photos, tmp_path, limit=0), tmp_path, "test", {0: 200, 7: 0}, True)
    found = list(EvaluationBatches(source(data, workers=workers, split="test"), torch.arange(12), 5))
    rest = torch.tensor([1, 2, 3, 4, 5, 6, 8, 9, 10, 11])
    expected, targets = source(intact, split="test").plain(rest)
    assert torch.equal(torch.cat([images for images, _ in found]), expected)
    assert torch.equal(torch.cat([targets for _, targets in found]), targets)
    assert torch.equal(data.test.images[5], intact.test.images[6])  # as the pictures of the worst mistakes count them
    error = capsys.readouterr().err
    assert "cut0.jpg is not a readable image" in error and "cut7.jpg" in error and "left out (2 so far)" in error

    data = with_broken(load(photos, tmp_path, limit=0), tmp_path, "train", {3: 200}, True)
    for (images, targets), (whole, labels) in zip(
        training(data, workers=workers).epoch(1), training(intact).epoch(1), strict=True
    ):
        same = (images == whole).flatten(1).all(1)
        assert same.sum() >= len(whole) - 1
        for place in (~same).nonzero().flatten().tolist():
            assert targets[place] == targets[0 if place else 1] and torch.equal(images[place], whole[0 if place else 1])
        assert torch.equal(targets[same], labels[same])
    assert "cut3" in capsys.readouterr().err
    data = with_broken(load(photos, tmp_path, limit=0), tmp_path, "test", {10: 200, 11: 200}, True)  # all of a batch
    found = list(EvaluationBatches(source(data, workers=workers, split="test"), torch.arange(12), 5))
    assert [len(targets) for _, targets in found] == [5, 5]
    data = with_broken(load(photos, tmp_path, limit=0), tmp_path, "train", dict.fromkeys(range(33), 200), True)
    with pytest.raises(
        ValueError, match="is not a readable image.*, as none of its batch of [0-9]+: repair the images"
    ):
        list(training(data, workers=workers).epoch(1))
    data = with_broken(load(photos, tmp_path, limit=0), tmp_path, "train", {4: 200}, False)
    with pytest.raises(ValueError, match="cut4.* -skip-broken true, which goes with -resume too"):
        list(training(data, workers=workers).epoch(1))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no folder here")
def test_a_small_shared_memory_is_not_waited_for(photos, tmp_path, capsys):
    """So many workers that no machine has shared memory for their batches: this process decodes, and starts none."""
    data = load(photos, tmp_path, limit=0)
    assert equal(training(data, workers=10**9).epoch(0), training(data).epoch(0))
    assert multiprocessing.active_children() == []
    assert "/dev/shm is too small for the batches of so many workers" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_work_of_a_worker_that_is_killed_is_done_by_this_process(photos, tmp_path, capsys):
    data = load(photos, tmp_path, least_area=0.08)
    batches = TrainingBatches(source(data, workers=2), torch.arange(33), 2, SEED, shuffle=True).epoch(0)
    found = [next(batches)]
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    alone = TrainingBatches(source(data), torch.arange(33), 2, SEED, shuffle=True).epoch(0)
    assert equal([*found, *batches], alone)
    assert "this process decodes the rest of the pass itself" in capsys.readouterr().err


# Runs of the command line


def start(words: str, out: Path) -> int:
    return main.main([*words.split(), "-out", str(out), "-data", str(out / "data")])


def weights(out: Path) -> dict[str, torch.Tensor]:
    (path,) = out.glob("checkpoints/*/*/last.pth")
    return checkpoint.load(path)["network"]


@pytest.mark.usefixtures("without_pictures")
def test_a_run_gives_the_same_weights_with_any_number_of_workers_and_when_resumed(
    photos, tmp_path, capsys, monkeypatch
):
    run = (
        f"-net EffNet -dataset {photos} -size 32 -recipe imagenet -epochs 2 -b 8 -name try1 -gpu false "
        "-log-every 1 -save-every 0"
    )
    assert start(f"{run} -w 0", tmp_path / "alone") == 0
    steps = RunLog.steps

    def stop_at_6(self, first, losses, rates):  # within the second epoch of four steps
        if first >= 6:
            raise ValueError("stopped")
        steps(self, first, losses, rates)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "steps", stop_at_6)
        assert start(f"{run} -w 2", tmp_path / "workers") == 2
    capsys.readouterr()
    assert main.main(f"-resume last -w 1 -out {tmp_path / 'workers'}".split()) == 0
    assert "going on from epoch 2, batch 3 of 4" in capsys.readouterr().out
    first, second = weights(tmp_path / "alone"), weights(tmp_path / "workers")
    assert all(torch.equal(first[key], second[key]) for key in first)


LARGE = """
import re, resource, sys
from pathlib import Path
from conf.resolve import settings
from engine.job import make_job
def run(folder, workers, memory):
    chosen = settings({"net": "EffNet", "dataset": sys.argv[1] + folder, "data": sys.argv[1] + "/data", "size": 320,
        "recipe": "mnist", "batch_size": 8, "gpu": False, "workers": workers, "memory": memory})
    job = make_job(chosen)
    return sum(len(targets) for batches in (job.training.epoch(0), job.evaluations["Test"]) for _, targets in batches)
def peaks():
    own = re.search("VmHWM:(.*) kB", Path("/proc/self/status").read_text())[1]
    return int(own) * 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
run("/small", 0, 0), run("/small", 2, 0)  # what is needed however many images there are
start = peaks()
for workers, memory in ((0, 0.08), (2, 0.08), (0, 1.0)):
    print(run("/large", workers, memory), *(now - then for now, then in zip(peaks(), start)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads peak memory from /proc")
@pytest.mark.slow
def test_memory_stays_bounded(tmp_path):
    """450 images of 320 x 320 pixels, 138 MB, over a bound of 80 MB: no process grows by so much, where the same
    folder in memory takes nearly all of it (a part finds room below the peak that the small folder reached)."""
    file = tmp_path / "noise.bmp"
    Image.effect_noise((320, 320), 50).convert("RGB").save(file)
    for folder, count in (("small", 20), ("large", 450)):
        for number in range(count):
            path = tmp_path / folder / ("test" if number < 10 else "train") / str(number % 2) / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, path)
    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " streams " not in line]
    alone, workers, packed = (tuple(map(int, line.split())) for line in lines)
    assert {alone[0], workers[0], packed[0]} == {450}
    assert alone[1] < 80e6 and workers[1] < 80e6 and workers[2] < 80e6
    assert packed[1] > 0.8 * 450 * 3 * 320 * 320

"""Peak memory of training beside the size of its data, on a folder of made images that is held in memory.

    python benchmarks/memory.py -megabytes 300 -side 64 -net EffNet

Every figure is the largest resident memory (ru_maxrss) of a process of its own, which trains by the command line:
- importing: a process that imports what training needs, and ends.
- the network's own: training on so few images that they take next to no memory, less importing.
- first start: training that reads the images and packs them; second start: training from the packed file.
The data's share is what a start's peak has beyond both, over the pixels (uint8) of training and test images. 1 is the
data itself, held once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

import models
from benchmarks.measure import positive

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 4
EVALUATED = 32  # test images
STEPS = 4
TRAIN = """
import resource, sys
import main
from commands import train
if sys.argv[1:] and main.main(sys.argv[1:]):
    sys.exit("the run failed")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(words: list[str]) -> float:
    """The largest resident memory in 10^6 bytes of a process that runs main.py with these words, or only imports it.

    Raises ValueError with the last line of what the process said where it fails.
    """
    done = subprocess.run([sys.executable, "-c", TRAIN, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or ["the run failed"])[-1])
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return int(done.stdout.splitlines()[-1]) * unit / 1e6


def make_images(folder: Path, training: int, side: int) -> float:
    """Makes a folder of images of noise, with EVALUATED test images; returns the size of its pixels in 10^6 bytes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", training), ("test", EVALUATED)):
        for label in range(CLASSES):
            (folder / split / str(label)).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / str(number % CLASSES) / f"{number}.bmp")
    return (training + EVALUATED) * side * side * 3 / 1e6


def command(folder: Path, options: argparse.Namespace) -> list[str]:
    """The words of a run of STEPS steps on a folder of images; what it writes lies beside the folder."""
    words = f"-net {options.net} -recipe fast -epochs 1 -steps {STEPS} -b {options.batch} -memory 1000 -gpu false"
    places = ["-dataset", folder, "-data", folder.with_suffix(".data"), "-out", tempfile.mkdtemp(dir=folder.parent)]
    return [*words.split(), *map(str, places)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("-megabytes", type=positive, default=300, help="pixels of the made images, in 10^6 bytes")
    parser.add_argument("-side", type=positive, default=64, help="of an image, in pixels")
    parser.add_argument("-net", choices=models.names(), default="EffNet", help="network", metavar="NET")
    parser.add_argument("-batch", type=positive, default=16, help="images a step")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    few = STEPS * options.batch
    many = max(few, round(options.megabytes * 1e6 / (options.side**2 * 3)) - EVALUATED)
    try:
        with tempfile.TemporaryDirectory() as folder:
            small, large = Path(folder) / "small", Path(folder) / "large"
            small_pixels, pixels = make_images(small, few, options.side), make_images(large, many, options.side)
            importing, without_data = peak([]), peak(command(small, options))
            own = without_data - importing - small_pixels
            print(f"{options.net}, batch {options.batch}; {many + EVALUATED:,} images, {pixels:,.0f} MB of pixels")
            print(f"importing            {importing:8,.0f} MB")
            print(f"the network's own    {own:8,.0f} MB")
            for start in ("first start", "second start"):
                found = peak(command(large, options))
                share = (found - importing - own) / pixels
                print(f"{start:<20} {found:8,.0f} MB   the data's share {share:.2f} times its pixels", flush=True)
    except ValueError as error:
        print(f"memory.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""python models/<file>.py: the figures are right, add up and say what they leave out; nothing is left behind."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models import counters, script, summary
from models.block_table import block_table
from models.reuse import ConvOnCopies, ReuseDepthwise
from tests.models.test_networks import COUNTS, MEANT, NAMES, SUMMED_MACS, forms

FOLDER = Path(models.__file__).parent
FILES = sorted({Path(inspect.getfile(models.registry.entry(name).builder)).stem for name in models.names()})
# parameters at 100 classes once the weights that read copies are added: the head of cheapV2 reads 320 channels 4
# times, cheapV3's last channels 12 times; the shuffle networks' stem 3 channels 16 times
WORTH = {
    "cheapV2": 1_173_732 - 3 * 320 * 100,
    "cheapV3": 1_803_076 - 176_000,
    "cheapV3_small": 640_068 - 11 * 96 * 100,
    "cheapV3_shuffle": 1_414_411 - 176_000 - 15 * 3 * 16,
    "cheapV3_shuffle6": 1_752_715 - 11 * 180 * 100 - 15 * 3 * 24,
    "cheapSqueezeNet": 658_276,
}


def blocks(output: str) -> dict[str, list[str]]:
    """What was printed of each network, without the tables of layers."""
    found = re.findall(r"^(\w+), one image of .*\n((?:.+\n)+)", output, flags=re.MULTILINE)
    return {name: lines.splitlines() for name, lines in found}


def figure(line: str) -> int:
    return int(re.search(r"[\d,]{3,}|\d+", line[10:])[0].replace(",", ""))


def first(lines: list[str], word: str) -> int:
    """The figure of the line that begins with this word."""
    return figure(next(line for line in lines if line.startswith(word)))


def below(lines: list[str], word: str) -> str:
    return lines[next(number for number, line in enumerate(lines) if line.startswith(word)) + 1]


def sums(lines: list[str]) -> dict[str, int]:
    """For each counter the sum of the signed amounts that are printed below it."""
    found, counter = {}, ""
    for line in lines:
        counter = line.split()[0] if line[0] != " " else counter
        amount = re.match(r" +([=+-]) *([\d,]+)  ", line)
        if amount:
            sign = -1 if amount[1] == "-" else 1
            found[counter] = found.get(counter, 0) + sign * int(amount[2].replace(",", ""))
    return found


OFTEN = ("cheapSqueezeNet",)  # a process for each of the others takes long: they run with the slow tests


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=[] if file in OFTEN else pytest.mark.slow) for file in FILES]
)
def test_as_a_script_from_another_folder(tmp_path, file):
    """With the default image and classes; nothing is printed but the summary, nothing is written."""
    words = [sys.executable, str(FOLDER / f"{file}.py"), "-layers"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert not list(tmp_path.iterdir())
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "[INFO]" not in done.stdout and "[WARN]" not in done.stdout and "not supported" not in done.stdout
    printed = blocks(done.stdout)
    assert list(printed) == script.names_of(file, None)
    tables = re.findall(r"Total params: ([\d,]+)", done.stdout)
    for (name, lines), total in zip(printed.items(), tables, strict=True):
        if name in MEANT:
            _, parameters, macs = MEANT[name]
            assert first(lines, "parameters") == parameters == int(total.replace(",", ""))
            assert first(lines, "torch") == macs
            continue
        assert first(lines, "parameters") == COUNTS[name][1] == int(total.replace(",", ""))
        decimals = len(str(COUNTS[name][3]).split(".")[1])
        if name in models.cheap_names():
            assert round(figure(below(lines, "torch")) / 1e6, decimals) == COUNTS[name][3]
            assert figure(below(lines, "parameters")) == WORTH[name]
            if name in SUMMED_MACS:
                assert round(first(lines, "torch") / 1e6, 3) == SUMMED_MACS[name]
        else:
            assert round(first(lines, "torch") / 1e6, decimals) == COUNTS[name][3]
            assert not any("copies" in line for line in lines)
        assert sums(lines) == {counter: first(lines, counter) for counter in ("thop", "flopth")}
        assert re.search(r"^forward +\d+\.\d\d  ms folded for inference, \d+\.\d\d as it is; .* batch 1", lines[-1])


def test_a_network_of_chosen_parts_has_its_own_figures(capsys):
    """MobileNetV2 with Reuse alone: without the 1x1 expansions (weights and batch norm), and the first block's of 1."""
    assert script.main("MobileNetV2", ["-expansion", "reuse", "-size", "16"]) == 0
    lines = blocks(capsys.readouterr().out)["MobileNetV2"]
    channels = [32, 16, 24, 24, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3]
    times = [1] + [6] * 16
    expansions = sum(c * c * t + 2 * c * t for c, t in zip(channels, times, strict=True))
    assert first(lines, "parameters") == COUNTS["MobileNetV2"][1] - expansions


@pytest.mark.parametrize("name", ["cheapV2", "cheapV3_shuffle", "cheapSqueezeNet"])
def test_what_counters_by_class_miss_is_told(name):
    """By name, and as much as thop leaves out; the totals stand above the counters."""
    network, literal = (models.create(name, image_size=16, literal=form) for form in (False, True))
    lines = summary.describe(name, network, 3, 16, literal, table=lambda *_: "").splitlines()
    total, layers = counters.torch_count(network, 3, 16)
    told = next(line for line in lines if re.fullmatch(r" +(\d+ \w+ \([\d.]+ M\)(, )?)+", line))
    macs = sum(float(number) for number in re.findall(r"\(([\d.]+) M\)", told))
    unseen = [part for part in counters.differences(counters.thop_count(network, 3, 16), total, layers) if part[0] < 0]
    assert macs == pytest.approx(-sum(amount for amount, _ in unseen) / 1e6, abs=0.006 * len(unseen))
    assert all(words.partition(":")[0] in told for _, words in unseen)
    order = [
        next(n for n, line in enumerate(lines) if line.startswith(word)) for word in ("parameters", "size", "torch")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize("name", ["MobileNetV2", "cheapV3_shuffle", "SqueezeNet", "EffNet_steering"])
def test_blocks_add_up_to_the_network(name):
    meant = dict(num_classes=100, in_channels=3, image_size=32) | models.registry.entry(name).usual
    network = models.create(name, **meant)
    lines = [line.split() for line in block_table(network, 3, meant["image_size"]).splitlines()[1:]]
    parameters, macs = (sum(int(line[column].replace(",", "")) for line in lines) for column in (-3, -2))
    assert parameters == summary.parameter_count(network)
    assert macs == summary.mac_count(network, 3, meant["image_size"])
    assert abs(sum(float(line[-1].rstrip("%")) for line in lines) - 100) < 0.05 * len(lines) + 0.1
    assert [line[0] for line in lines if line[0].startswith("blocks.")] == [
        f"blocks.{number}" for number in range(len(getattr(network, "blocks", [])))
    ]


def test_outputs_of_blocks_are_the_papers():
    """MobileNetV2's table, at 224 pixels: 112 x 112 x 16 after the first stage, 7 x 7 x 320 at the end."""
    lines = block_table(models.create("MobileNetV2", image_size=224), 3, 224).splitlines()
    assert " 16 x 112 x 112 " in next(line for line in lines if line.startswith("blocks.0"))
    assert " 320 x 7 x 7 " in next(line for line in lines if line.startswith("blocks.16"))


def test_a_file_ends_with_a_table_of_its_networks(capsys):
    assert script.main("cheapV3", ["-literal", "-size", "16", "-classes", "10"]) == 0
    printed = capsys.readouterr().out.rstrip().splitlines()
    for line, name in zip(printed[-4:], script.names_of("cheapV3", None), strict=True):
        network = models.create(name, num_classes=10, image_size=16, literal=True)
        found = [int(word.replace(",", "")) for word in line.split()[-2:]]
        assert line.startswith(name + " ")
        assert found == [summary.parameter_count(network), summary.mac_count(network, 3, 16)]


def by_the_book(network: nn.Module, image_size: int) -> dict[str, int]:
    """What thop and flopth should say of a network, from the shapes of what its layers read and give."""
    book = dict(thop=0, flopth=0)

    def add(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        read, gave = inputs[0].numel(), output.numel()
        if isinstance(module, nn.Conv2d | nn.Linear):
            if isinstance(module, ReuseDepthwise):
                macs = gave * module.kernel_size[0] ** 2
            elif isinstance(module, nn.Conv2d):
                macs = gave * inputs[0].shape[1] // module.groups * module.kernel_size[0] * module.kernel_size[1]
            else:
                macs = gave * inputs[0].shape[1]
            book["thop"] += macs if type(module) in (nn.Conv2d, nn.Linear) else 0
            book["flopth"] += macs + (gave if isinstance(module, nn.Conv2d) and module.bias is not None else 0)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            book["thop"] += 4 * read
            book["flopth"] += 2 * read
        elif isinstance(module, nn.ReLU | nn.LeakyReLU | nn.GELU | nn.Hardswish | nn.Hardsigmoid | nn.MaxPool2d):
            book["flopth"] += read

    handles = [module.register_forward_hook(add) for module in network.modules()]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, image_size, image_size))
    for handle in handles:
        handle.remove()
    return book


FORMS = [(name, literal) for name in NAMES for literal in forms(name)]


@pytest.mark.parametrize(("name", "literal"), FORMS)
def test_counters_by_the_book(name, literal):
    """Totals by closed formulas, and a sum that leads from torch's to each of them."""
    network = models.create(name, image_size=16, literal=literal)
    total, layers = counters.torch_count(network, 3, 16)
    found = dict(thop=counters.thop_count(network, 3, 16), flopth=counters.flopth_count(network, 3, 16))
    assert {counter: count.total for counter, count in found.items()} == by_the_book(network, 16)
    for count in found.values():
        parts = counters.differences(count, total, layers)
        assert total + sum(amount for amount, _ in parts) == count.total
        assert not any("otherwise" in words or "in no layer" in words for _, words in parts)
    unknown = counters.uncounted(found["thop"], layers)
    has_hardswish = any(isinstance(module, nn.Hardswish) for module in network.modules())
    assert has_hardswish == any(words.endswith(" Hardswish") for words in unknown)


class Awkward(nn.Module):
    """What counters stumble over: a functional convolution, a layer that runs twice, one without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.copies = ConvOnCopies(3, 0, 5, times=2)
        self.filters = nn.Parameter(torch.ones(7, 3, 1, 1))
        self.mish = nn.Mish()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mish(self.conv(self.conv(x)))
        return torch.cat([F.conv2d(x, self.filters), self.copies(x)], dim=1)


def test_what_a_counter_cannot_see_is_named():
    network, values = Awkward(), 16 * 16
    once, functional, copies = 27 * 3 * values, 3 * 7 * values, 3 * 5 * values
    total, layers = counters.torch_count(network, 3, 16)
    assert total == 2 * once + functional + copies
    thop, flopth = counters.thop_count(network, 3, 16), counters.flopth_count(network, 3, 16)
    unseen = (-functional, "functional calls: not seen")
    assert counters.differences(thop, total, layers) == [unseen, (-copies, "1 ConvOnCopies: no rule")]
    assert counters.differences(flopth, total, layers) == [(-once, "1 Conv2d: counted otherwise"), unseen]
    assert counters.uncounted(thop, layers) == counters.uncounted(flopth, layers) == ["1 Mish"]
    table = summary.layer_table(network, 3, 16)
    assert table.endswith(f"{81 - 21:+,} in this total: torchsummary adds weight and bias of a layer each time it runs")


def class_calls() -> dict[type, object]:
    """`__call__` of every class of modules there is, as it stands in the class itself."""
    found, ahead = {}, [nn.Module]
    while ahead:
        kind = ahead.pop()
        found[kind] = kind.__dict__.get("__call__")
        ahead += kind.__subclasses__()
    return found


def condition(network: nn.Module) -> list:
    """Everything of a network that a counter might change, but for the values of its tensors."""
    return [
        (name, module.training, list(module._buffers), dict(module._forward_hooks), dict(module._forward_pre_hooks))
        for name, module in network.named_modules()
    ]


@pytest.mark.parametrize("name", ["EffNet", "MobileNetV2", "MobileNetV3_small", "cheapSqueezeNet", "cheapV3_small"])
def test_nothing_is_left_behind(name, capsys, recwarn):
    network, other = models.create(name, image_size=16), models.create("SqueezeNet", image_size=16)
    network.get_submodule("head").eval()  # a mixture, to be found as it was
    seen = []
    next(network.children()).register_forward_hook(lambda *_: seen.append(1) and None)
    before, calls = condition(network), class_calls()
    tensors = {key: (tensor, tensor.clone()) for key, tensor in network.state_dict(keep_vars=True).items()}
    random = torch.get_rng_state()
    assert f"{name}, one image" in summary.describe(name, network, 3, 16)

    assert condition(network) == before
    after = network.state_dict(keep_vars=True)
    assert list(after) == list(tensors)
    for key, (tensor, values) in tensors.items():
        assert after[key] is tensor and torch.equal(tensor, values), key
    assert torch.equal(torch.get_rng_state(), random)
    now = class_calls()
    assert all(now[kind] is call for kind, call in calls.items())
    assert all(type(module).__call__ is nn.Module.__call__ for module in other.modules())
    other(torch.zeros(2, 3, 16, 16))
    assert not any(hasattr(module, word) for module in other.modules() for word in ("flops", "total_ops"))
    printed = capsys.readouterr()
    assert printed.out == printed.err == "" and not recwarn.list


def test_nothing_is_left_behind_by_a_failure():
    """Image too small: flopth fails half-way, its patches are undone all the same."""
    network, calls, out = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 9), nn.ReLU()), class_calls(), sys.stdout
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        counters.flopth_count(network, 3, 4)
    assert class_calls() == calls and sys.stdout is out


def test_flags(capsys):
    state = torch.get_rng_state()
    assert script.main("cheapV3", "cheapV3_small --size 48 -classes 10 -width=0.5".split()) == 0
    assert torch.equal(torch.get_rng_state(), state)
    lines = blocks(capsys.readouterr().out)["cheapV3_small"]
    network = models.create("cheapV3_small", num_classes=10, image_size=48, width=0.5)
    assert first(lines, "parameters") == sum(parameter.numel() for parameter in network.parameters())
    assert first(lines, "torch") == summary.mac_count(network, 3, 48)
    stored = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    size = next(line for line in lines if line.startswith("size"))
    assert f"; {stored / 2**20:.2f} with the buffers" in size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("cheapv33", "no network of this file; it has cheapV3, cheapV3_small"),
        ("MobileNetV2", "a network of models/MobileNetV2.py"),
        ("cheapV3 cheapV3_small", "cheapV3_small"),
        ("-size 7", "size 7: too small"),
        ("-size", "expected one argument"),
        ("-size big", "big"),
        ("-classes 0", "-classes 0: must be at least 1"),
        ("-width 0.01", "width 0.01: leaves no channel"),
        ("-width nan", "-width nan: must be"),
        ("-width -1", "-width -1: must be"),
        ("-wdith 0.5", "-wdith: unknown option; did you mean -width"),
        ("cheapV3 -stem relu", "stem relu: must be one of conv, reuse"),
        ("-si 64", "-si: unknown option; did you mean -size"),
    ],
)
def test_mistakes(capsys, words, message):
    assert script.main("cheapV3", words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("cheapV3.py: ") and message in printed.err


def test_no_width_multiplier(capsys):
    assert script.main("SqueezeNet", ["-width", "0.5"]) == 2
    assert "SqueezeNet has no width multiplier" in capsys.readouterr().err


def test_reader_that_stops_reading(monkeypatch):
    """As in `python models/EffNet.py | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert script.main("EffNet", ["-size", "16"]) == 0


def test_missing_library(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "thop", None)  # as Python marks a module that cannot be imported
    assert script.main("EffNet", ["EffNet", "-size", "16"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1 and "requirements.txt" in printed.err

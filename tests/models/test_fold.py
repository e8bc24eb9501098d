"""The folded network: the same outputs as the network that was trained, from fewer weights."""

import pytest
import torch
from torch import nn

import models
from models.fold import Sizes, fold
from models.layers import GlobalAveragePool
from models.reuse import ConvOnCopies, LinearOnCopies
from models.reuse_block import FoldedReuseInvertedResidual

# relative; in float64 only rounding is left
BOUNDS = {torch.float32: 1e-4, torch.float64: 1e-12}
NORMS = nn.modules.batchnorm._BatchNorm
EFFNETS = ("EffNet", "EffNet_baseline")


def networks() -> list[dict]:
    """Every network in the default form, at odd widths and shapes too, and the cheap ones in the literal form."""
    found = [dict(name=name) for name in models.names()]
    found += [dict(name=name, num_classes=7, in_channels=1, image_size=24) for name in models.names()]
    wide = [name for name in models.names() if models.registry.entry(name).takes("width")]
    found += [dict(name=name, width=0.35) for name in wide]
    return found + [dict(name=name, literal=True) for name in models.cheap_names()]


def trained(dtype: torch.dtype = torch.float32, **options) -> nn.Module:
    """A network with running statistics and weights that are none of the start's, so that folding has to use them."""
    torch.manual_seed(1)
    network = models.create(**options).to(dtype)
    for layer in network.modules():
        if isinstance(layer, NORMS):
            randomise(layer)
        elif isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.normal_(layer.bias)
    return network


def randomise(norm: nn.Module) -> nn.Module:
    norm.running_mean.normal_(std=0.5)
    norm.running_var.uniform_(0.3, 3)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias, std=0.5)
    return norm


def largest_difference(network: nn.Module, folded: nn.Module, images: torch.Tensor) -> float:
    """Of the outputs in eval mode, as a share of the largest output."""
    training = network.training
    with torch.no_grad():
        expected, found = network.eval()(images), folded(images)
    network.train(training)
    assert expected.std() > 0.01 * expected.abs().max() and expected.isfinite().all()
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("options", networks(), ids=lambda options: "-".join(map(str, options.values())))
def test_outputs_stay(options, dtype, monkeypatch):
    """Both of a block's ways: as a whole, and copy by copy."""
    network = trained(dtype, **options)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    text = str(network)
    folded = fold(network)
    images = torch.randn(3, options.get("in_channels", 3), *2 * [options.get("image_size", 32)], dtype=dtype)
    for wide in (0, 1 << 60):
        monkeypatch.setattr(FoldedReuseInvertedResidual, "WIDE", wide)
        assert largest_difference(network, folded, images) < BOUNDS[dtype]
    assert str(network) == text and network.training and not folded.training
    assert not any(weight.requires_grad for weight in folded.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", models.names())
def test_nothing_of_the_training_is_left(name):
    folded = fold(trained(name=name))
    kinds = (nn.Dropout, LinearOnCopies, ConvOnCopies)
    assert not [layer for layer in folded.modules() if isinstance(layer, kinds)]
    norms = [key for key, layer in folded.named_modules() if isinstance(layer, NORMS)]
    if name == "EffNet":  # those before the padded depthwise convolutions
        expected = {f"blocks.{block}.{layer}.bn" for block in range(3) for layer in ("pointwise", "horizontal")}
        assert set(norms) == expected
    elif name == "EffNet_baseline":  # its last goes into the classifier, through the pooling
        assert norms == ["blocks.0.bn", "blocks.1.bn"]
    else:
        assert norms == []


def test_random_numbers_of_the_caller_stay():
    network = trained(name="cheapV3_shuffle")
    state = torch.get_rng_state()
    fold(network)
    assert torch.equal(torch.get_rng_state(), state)


# what stands in a row, and the batch norms that must be left of it
ROWS = {
    "after a convolution": ([nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)], 0),
    "after a grouped one without bias": ([nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)], 0),
    "after a linear layer": ([nn.Flatten(), nn.Linear(256, 5), nn.BatchNorm1d(5)], 0),
    "without weights": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)], 0),
    "of the batch's own statistics": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)], 1),
    "before a convolution": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)], 0),
    "before a depthwise one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 12, 3, stride=2, groups=4)], 0),
    "before a grouped one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, (2, 1), groups=2, bias=False)], 0),
    "before a padded one": ([nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=(1, 0))], 1),
    "before one padded by its own values": (
        [nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")], 0,
    ),
    "before an activation": ([nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1)], 1),
    "before dropout and a linear layer": (
        [nn.Flatten(), nn.Linear(256, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3)], 0,
    ),
    "before a classifier of the whole map": ([nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5)], 0),
    "before a classifier of means": ([nn.BatchNorm2d(4), GlobalAveragePool(), nn.Linear(4, 5)], 0),
    "before pooling": ([nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1)], 0),
    "in rows within rows": (
        [nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(6))), nn.Conv2d(6, 4, 1)], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_batch_norm(row):
    layers, left = ROWS[row]
    torch.manual_seed(0)
    network = nn.Sequential(*layers).double()
    for layer in network.modules():
        if isinstance(layer, NORMS) and layer.affine and layer.track_running_stats:
            randomise(layer)
        elif isinstance(layer, NORMS) and layer.track_running_stats:
            layer.running_mean.normal_()
    folded = fold(network)
    assert sum(isinstance(layer, NORMS) for layer in folded.modules()) == left
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


def test_batch_norm_without_shift_goes_into_a_padded_convolution():
    norm = randomise(nn.BatchNorm2d(4))
    nn.init.zeros_(norm.bias)
    norm.running_mean.zero_()
    network = nn.Sequential(norm, nn.Conv2d(4, 6, 3, padding=1)).double()
    folded = fold(network)
    assert len(folded) == 1
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


def test_negative_scale_stays_before_pooling():
    norm = randomise(nn.BatchNorm2d(4))
    with torch.no_grad():
        norm.weight[2] = -1
    network = nn.Sequential(norm, nn.MaxPool2d(2), nn.Conv2d(4, 6, 1)).double()
    folded = fold(network)
    assert len(folded) == 3
    assert largest_difference(network, folded, torch.randn(5, 4, 8, 8, dtype=torch.float64)) < 1e-12


# weights that read copies: (k - 1) times what one copy is worth; 100 classes
COPIES = {
    "cheapV2": 3 * 320 * 100,
    "cheapV3": 11 * 160 * 100,
    "cheapV3_small": 11 * 96 * 100,
    "cheapV3_shuffle": 11 * 160 * 100 + 15 * 3 * 16,
    "cheapV3_shuffle6": 11 * 180 * 100 + 15 * 3 * 24,
    "cheapSqueezeNet": 715_876 - 658_276,
}


@pytest.mark.parametrize("name", models.names())
def test_sizes(name):
    """A batch norm after a convolution leaves one bias for its two weights, none where a bias was."""
    network = trained(name=name)
    sizes = Sizes.of(network, fold(network))
    assert sizes.stored == sum(weight.numel() for weight in network.parameters())
    if name in COPIES or name not in models.cheap_names():
        assert sizes.copies == COPIES.get(name, 0)
    if name not in EFFNETS:
        with_bias = "SqueezeNet" in name or name.startswith(("EffNet_", "digits_", "steering_"))
        norms = sum(layer.num_features for layer in network.modules() if isinstance(layer, NORMS))
        assert sizes.batch_norms == norms * (2 if with_bias else 1)
    assert sizes.folded == sizes.stored - sizes.copies - sizes.batch_norms
    assert f"{sizes.stored:,} stored, {sizes.folded:,} folded" in str(sizes)

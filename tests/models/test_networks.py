"""Every registered network: its published counts, and that it runs and learns."""

import pytest
import torch
import torch.nn.functional as F

import models
from models.MobileNetV2 import ResizedShortcut
from models.shapes import shapes_alone
from models.summary import mac_count, parameter_count

# name: parameters at 10, 100 and 200 classes; M MACs of the literal form at 32x32 and 100 classes
COUNTS = {
    "MobileNetV2": (2_296_922, 2_412_212, 2_540_312, 91.27),
    "cheapV2": (1_058_442, 1_173_732, 1_301_832, 43.89),
    "MobileNetV3_small": (1_518_594, 1_610_844, 1_713_344, 17.594),
    "MobileNetV3": (4_206_658, 4_321_948, 4_450_048, 66.57),
    "cheapV3": (1_630_186, 1_803_076, 1_995_176, 46.48),
    "cheapV3_small": (536_298, 640_068, 755_368, 11.10),
    "cheapV3_shuffle": (1_241_521, 1_414_411, 1_606_511, 46.52),
    "cheapV3_shuffle6": (1_558_225, 1_752_715, 1_968_815, 59.66),
    "SqueezeNet": (734_986, 781_156, 832_456, 53.28),
    "cheapSqueezeNet": (669_706, 715_876, 767_176, 48.96),
    # EffNet's are published for 10 classes; the classifier has 256 * 4 * 4 weights and a bias for each class
    "EffNet": (151_146, 151_146 + 90 * 4097, 151_146 + 190 * 4097, 6.009),
    "EffNet_baseline": (412_234, 412_234 + 90 * 4097, 412_234 + 190 * 4097, 39.928),
}
# Of the networks that are meant for something else (classes, channels, size): parameters and MACs there
MEANT = {
    "EffNet_digits": (dict(num_classes=10, in_channels=1, image_size=28), 68_090, 974_592),
    "digits_baseline": (dict(num_classes=10, in_channels=1, image_size=28), 147_658, 5_318_016),
    "EffNet_steering": (dict(num_classes=1, in_channels=3, image_size=128), 629_537, 40_716_352),
    "steering_baseline": (dict(num_classes=1, in_channels=3, image_size=128), 865_921, 296_263_744),
}
NAMES = [*COUNTS, *MEANT]
# M MACs of the default form, where the copies' weights are added
SUMMED_MACS = {
    "cheapV2": 43.792,
    "cheapV3": 46.302,
    "cheapV3_shuffle": 45.603,
    "cheapV3_shuffle6": 58.353,
    "cheapSqueezeNet": 46.338,
}


def forms(name: str) -> list[bool]:
    return [True, False] if name in models.cheap_names() else [False]


def test_every_network_has_its_counts_listed():
    assert set(models.names()) == set(NAMES)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    for literal in forms(name):
        built = [models.create(name, num_classes=classes, literal=literal) for classes in (10, 100, 200)]
        assert tuple(parameter_count(network) for network in built) == COUNTS[name][:3]


@pytest.mark.parametrize("name", COUNTS)
def test_macs(name):
    decimals = len(str(COUNTS[name][3]).split(".")[1])
    literal = models.create(name, literal=name in models.cheap_names())
    assert round(mac_count(literal, 3, 32) / 1e6, decimals) == COUNTS[name][3]
    if name in SUMMED_MACS:
        assert round(mac_count(models.create(name), 3, 32) / 1e6, 3) == SUMMED_MACS[name]


@pytest.mark.parametrize("name", MEANT)
def test_counts_of_what_it_is_meant_for(name):
    shape, parameters, macs = MEANT[name]
    network = models.create(name, **shape)
    assert models.registry.entry(name).usual == shape
    assert parameter_count(network) == parameters
    assert mac_count(network, shape["in_channels"], shape["image_size"]) == macs


def test_steering_with_running_statistics():
    """The source reports 630,433: Keras counts the batch norms' running statistics as well."""
    network = models.create("EffNet_steering", **MEANT["EffNet_steering"][0])
    buffers = sum(each.numel() for key, each in network.named_buffers() if "num_batches" not in key)
    assert parameter_count(network) + buffers == 630_433


def test_a_narrow_block_drops_no_row():
    """Height 7: the last row reaches the result through the row of zeros below it; it would else be cut off."""
    block = models.create("EffNet_digits", **MEANT["EffNet_digits"][0]).eval().blocks[2]
    x = torch.rand(1, 64, 7, 7)
    other = x.clone()
    other[:, :, 6] += 1
    y, changed = block(x), block(other)
    assert y.shape == (1, 64, 4, 3)
    assert not torch.equal(y[:, :, 3], changed[:, :, 3]) and torch.equal(y[:, :, :2], changed[:, :, :2])
    # the last row of the result, from the definition: the upper row of the 2x1 kernel alone
    before = block[:4](x)
    upper = F.conv2d(before[:, :, 6:], block.reduce.conv.weight[:, :, :1])
    torch.testing.assert_close(y[:, :, 3:], F.relu(upper))


def test_steering_starts_he_normal():
    """Standard deviations of sqrt(2 / inputs), but for the last layer; activations keep their size through it."""
    torch.manual_seed(0)
    network = models.create("EffNet_steering", **MEANT["EffNet_steering"][0])
    layers = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Linear)]
    for layer in layers[:-1]:
        weight = layer.weight.detach()
        spread = (2 / weight[0].numel()) ** 0.5
        assert weight.std().item() == pytest.approx(spread, rel=4 / weight.numel() ** 0.5), layer
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(("name", "expected"), [("EffNet", 5.640), ("EffNet_baseline", 39.559)])
def test_macs_at_ten_classes(name, expected):
    """As the source has them."""
    assert round(mac_count(models.create(name, num_classes=10), 3, 32) / 1e6, 3) == expected


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name):
    torch.manual_seed(0)
    for literal in forms(name):
        network = models.create(name, num_classes=7, in_channels=1, image_size=16, literal=literal)
        logits = network(torch.rand(3, 1, 16, 16))
        assert logits.shape == (3, 7)
        F.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [8, 17, 64, 224])
def test_other_sizes(name, side):
    network = models.create(name, num_classes=200, image_size=side).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, side, side)).shape == (1, 200)


def test_weights_do_not_share_memory_and_follow_the_seed():
    first, again, other = (_first_weight(seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def _first_weight(seed):
    torch.manual_seed(seed)
    return next(models.create("cheapV3").parameters())


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean cheapV3"):
        models.create("cheapv33")


def test_duplicate_name_is_refused():
    from models.registry import register

    def cheapV3(num_classes, in_channels, image_size):
        raise AssertionError("never built")

    with pytest.raises(ValueError, match="registered already"):
        register(cheapV3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="cheapV3", image_size=7), "too small"),
        (dict(name="cheapV3", width=0.01), "leaves no channel"),
        (dict(name="cheapV3", num_classes=0), "at least 1"),
        (dict(name="MobileNetV2", literal=True), "only one form"),
        (dict(name="SqueezeNet", width=0.5), "no width multiplier"),
    ],
)
def test_impossible_combinations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create(**arguments)


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3", "cheapV2", "cheapV3", "cheapV3_shuffle6"])
@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.4])
def test_width(name, width):
    """Widths are multiples of 8, at least 90 % of what was asked, and the network runs in all its forms."""
    base = models.create(name).state_dict()
    for literal in forms(name):
        network = models.create(name, width=width, literal=literal)
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 100)
        for key, weight in network.state_dict().items():
            if key.endswith("project.conv.weight"):
                assert weight.shape[0] % 8 == 0 and weight.shape[0] >= 0.9 * width * base[key].shape[0], key


@pytest.mark.parametrize("name", [name for name in models.names() if models.registry.entry(name).takes("width")])
def test_widths_whose_rounding_is_uneven(name):
    """At 0.72 cheapV2's 160 and 320 channels are 112 and 232, more than twice as many: its shortcut spans that, too."""
    for width in (0.13, 0.55, 0.72, 0.9, 1.45, 2.6, 4.83):
        with shapes_alone(), torch.no_grad():
            network = models.create(name, num_classes=10, width=width)
            assert network.eval()(torch.empty(1, 3, 32, 32)).shape == (1, 10), width


@pytest.mark.parametrize("channels, out, last, expected", [
    (3, 2, True, [0, 1]), (3, 5, False, [0, 1, 2, 0, 1]), (3, 5, True, [0, 1, 2, 1, 2]), (3, 6, True, [0, 1, 2] * 2),
    (3, 7, True, [0, 1, 2, 0, 1, 2, 2]), (3, 7, False, [0, 1, 2, 0, 1, 2, 0]),
])  # fmt: skip
def test_the_shortcut_without_weights(channels, out, last, expected):
    x = torch.arange(channels).float()[None, :, None, None]
    assert ResizedShortcut(channels, out, last)(x).flatten().tolist() == expected


@pytest.mark.parametrize("name", [name for name in models.names() if models.registry.entry(name).takes("width")])
def test_the_smallest_width_that_is_advised_is_one(name):
    with pytest.raises(ValueError, match="give at least") as refused:
        models.create(name, width=0.001)
    models.create(name, width=float(str(refused.value).rpartition(" ")[2]))

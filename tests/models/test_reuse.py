"""Reuse without a copy is Reuse: the default form of every cheap network equals the literal one, part by part too."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.shufflenetv2 import channel_shuffle

import models
from models import cheapV3
from models.literal import from_literal, literal_channels, to_literal
from models.reuse import ConvOnCopies, LinearOnCopies, Reuse, ReuseDepthwise, shuffled


def random_weights(network):
    """Weights, and running statistics, that make every part count (classifiers start near zero)."""
    torch.manual_seed(7)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        else:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def outcome(network, images, targets, training: bool):
    """Logits, loss and the gradient of every parameter, with dropout drawn from a fixed seed."""
    network.train(training)
    network.zero_grad()
    torch.manual_seed(11)
    logits = network(images)
    loss = F.cross_entropy(logits, targets)
    loss.backward()
    return logits.detach(), loss.detach(), {key: p.grad.clone() for key, p in network.named_parameters()}


def assert_equal_outcomes(first, second, tolerance: float) -> None:
    (logits, loss, gradients), (other_logits, other_loss, other_gradients) = first, second
    assert ((logits - other_logits).norm() / logits.norm()).item() < tolerance
    assert abs(loss - other_loss) / loss < tolerance
    assert worst_difference(gradients, other_gradients) < tolerance


def worst_difference(gradients, others) -> float:
    """The largest relative difference of a parameter's gradient. One that is zero but for rounding (of a bias that a
    batch norm takes away) is measured against the largest."""
    assert gradients.keys() == others.keys()
    largest = max(gradient.norm().item() for gradient in gradients.values())
    return max(
        (gradient - others[key]).norm().item() / max(gradient.norm().item(), 1e-3 * largest)
        for key, gradient in gradients.items()
    )


def both_forms(name, dtype, **options):
    literal = random_weights(models.create(name, literal=True, **options)).to(dtype)
    default = models.create(name, **options).to(dtype)
    default.load_state_dict(from_literal(literal.state_dict(), literal))
    return literal, default


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", models.cheap_names())
def test_default_form_is_the_definition(name, training, cifar_images):
    """In float64 to 1e-9: logits, loss, every gradient, and in training the running statistics."""
    literal, default = both_forms(name, torch.float64)
    targets = torch.arange(len(cifar_images))
    expected = outcome(literal, cifar_images, targets, training)
    found = outcome(*channels_last(default, cifar_images), targets, training)
    assert_equal_outcomes((*expected[:2], from_literal(expected[2], literal)), found, 1e-9)
    statistics = from_literal(literal.state_dict(), literal)
    for key, value in default.state_dict().items():
        assert torch.allclose(value, statistics[key], rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize("name", models.cheap_names())
def test_default_form_in_float32(name, cifar_images):
    """Logits and loss to 1e-4. All gradients together to 1e-2 only: a rounding decides some ReLU or max pooling
    otherwise, and the gradient behind it jumps; float64 is where they are held to 1e-9."""
    targets = torch.arange(len(cifar_images))
    literal, default = both_forms(name, torch.float32)
    logits, loss, gradients = outcome(literal, cifar_images.float(), targets, True)
    found_logits, found_loss, found = outcome(*channels_last(default, cifar_images.float()), targets, True)
    assert ((logits - found_logits).norm() / logits.norm()).item() < 1e-4 and abs(loss - found_loss) / loss < 1e-4
    expected = from_literal(gradients, literal)
    difference = sum((expected[key] - found[key]).square().sum() for key in expected).sqrt()
    assert difference / sum(gradient.square().sum() for gradient in expected.values()).sqrt() < 1e-2


def channels_last(network, images):
    layout = torch.channels_last
    return network.to(memory_format=layout), images.contiguous(memory_format=layout)


@pytest.mark.parametrize("name", ["cheapV2", "cheapV3", "cheapV3_shuffle6"])
def test_forms_agree_at_other_widths_and_sizes(name, cifar_images):
    literal, default = both_forms(name, torch.float64, width=0.5, num_classes=16, image_size=96)
    images = F.interpolate(cifar_images, size=96)
    targets = torch.arange(len(images))
    expected = outcome(literal, images, targets, True)
    found = outcome(default, images, targets, True)
    assert_equal_outcomes((*expected[:2], from_literal(expected[2], literal)), found, 1e-9)


@pytest.mark.parametrize("name", models.cheap_names())
def test_state_dict_there_and_back(name):
    literal = random_weights(models.create(name, literal=True))
    state = literal.state_dict()
    there = from_literal(state, literal)
    back = to_literal(there, models.create(name))
    assert list(back) == list(state) and all(torch.equal(back[key], state[key]) for key in state)
    if name == "cheapV3_shuffle6":  # its order does change
        assert not all(torch.equal(there[key], state[key]) for key in state)


def test_other_networks_have_one_form():
    with pytest.raises(ValueError, match="only one form"):
        from_literal({}, models.create("MobileNetV2"))


@pytest.mark.parametrize("name", models.cheap_names())
def test_no_map_is_repeated(name):
    """The default form holds no Reuse of a feature map, and runs no repetition of one."""
    network = models.create(name).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, Reuse):
            module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].ndim))
    network(torch.rand(2, 3, 32, 32))
    assert set(seen) <= {2}  # gates, N x C numbers


@pytest.mark.parametrize(("times", "groups"), [(1, 1), (6, 1), (4, 3), (2, 12), (16, 6)])
def test_reuse_is_shuffle_then_copies(times, groups):
    x = torch.rand(2, 12, 5, 5)
    assert torch.equal(Reuse(times, groups)(x), torch.cat([channel_shuffle(x, groups)] * times, dim=1))
    if groups in (1, 12):
        assert torch.equal(shuffled(x, groups), x)
    position = torch.argsort(shuffled(torch.arange(12)[None], groups)[0])
    expected = [(c % (12 // groups)) * groups + c // (12 // groups) for c in range(12)]  # networks' formula for p(c)
    assert position.tolist() == expected


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [2, 7, 16])
def test_depthwise_on_reuse(kernel_size, stride, side):
    """Against torch's own depthwise convolution of the repeated map, gradients too.

    Kernels of more columns than oneDNN is fast for, and kernels larger than their map, are among them.
    """
    torch.manual_seed(0)
    layer = ReuseDepthwise(8, 3, kernel_size, stride).double()
    images = torch.randn(2, 8, side, side + 1, dtype=torch.float64, requires_grad=True)
    literal = F.conv2d(images.repeat(1, 3, 1, 1), layer.weight, None, stride, kernel_size // 2, groups=24)
    found, direction = layer(images), torch.randn_like(literal)
    torch.testing.assert_close(found, literal, rtol=1e-9, atol=1e-12)
    wanted = torch.autograd.grad(literal, (images, layer.weight), direction)
    gradients = torch.autograd.grad(found, (images, layer.weight), direction)
    torch.testing.assert_close(gradients, wanted, rtol=1e-9, atol=1e-12)


def test_layers_on_copies():
    """Against the plain layers on real copies; dropout falls on each copy by itself."""
    torch.manual_seed(0)
    y, z = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 7, 2, 2, dtype=torch.float64)
    linear = LinearOnCopies(5, 4, times=3, dropout=0.5).double()
    copies = torch.cat([y] * 3, 1)
    assert torch.allclose(linear.eval()(y), F.linear(copies, linear.weight, linear.bias))
    torch.manual_seed(1)
    found = linear.train()(y)
    torch.manual_seed(1)
    assert torch.allclose(found, F.linear(F.dropout(copies, 0.5), linear.weight, linear.bias))
    convolution = ConvOnCopies(5, 2, 4, times=3, bias=True).double()
    mixed = torch.cat([z[:, :5]] * 3 + [z[:, 5:]], 1)
    assert torch.allclose(convolution(z), F.conv2d(mixed, convolution.weight, convolution.bias))


def test_literal_channels_without_a_shuffle_is_the_identity():
    assert literal_channels(8, 6, 1).tolist() == literal_channels(8, 6, 8).tolist() == list(range(48))


def renamed(state, groups: int):
    """The weights with which a network without a shuffle computes what `state` computes with one.

    Every reader of a map reads channel source[c] in place of c. So every writer gives its channels in that order:
    the 1x1 convolutions that end the stem and the blocks, with their batch norms; and the classifier, which reads
    the last map without a shuffle, has its columns moved. The first block, which does not widen, reads its map without
    a shuffle too: all that it has for each channel is moved.
    """
    result = dict(state)
    for key, tensor in state.items():
        if key.startswith("blocks.0.depthwise.") and tensor.ndim:
            result[key] = tensor[source(tensor.shape[0], groups)]
        if key == "blocks.0.project.conv.weight":
            tensor = tensor[:, source(tensor.shape[1], groups)]
        if (".project." in key or key.startswith("stem.widen.")) and tensor.ndim:
            result[key] = tensor[source(tensor.shape[0], groups)]
    last = [tensor for key, tensor in state.items() if key.endswith("project.bn.weight")][-1].shape[0]
    copies = state["head.classifier.weight"].unflatten(1, (-1, last))
    result["head.classifier.weight"] = copies[:, :, source(last, groups)].flatten(1)
    return result


def source(channels: int, groups: int):
    return shuffled(torch.arange(channels)[None], groups)[0]


@pytest.mark.parametrize("groups, training", [(3, True), (6, True), (6, False)])
def test_the_shuffle_does_nothing(groups, training, cifar_images):
    """cheapV3_shuffle6 with any number of groups is the network without a shuffle whose weights are renamed:
    the same logits, loss, and (renamed) gradients, squeeze-excite and batch statistics included."""

    def build(groups):
        shape = dataclasses.replace(cheapV3.SHUFFLE6_SHAPE, groups=groups)
        network = cheapV3.build(shape, cheapV3.SHUFFLE, 16, 3, 32, width=1.0, literal=True).double()
        network.head.dropout.p = 0.0  # it falls on the renamed vector in another order
        return network

    with_shuffle, without = random_weights(build(groups)), build(1)
    without.load_state_dict(renamed(with_shuffle.state_dict(), groups))
    targets = torch.arange(len(cifar_images))
    expected = outcome(with_shuffle, cifar_images, targets, training)
    found = outcome(without, cifar_images, targets, training)
    assert_equal_outcomes((*expected[:2], renamed(expected[2], groups)), found, 1e-9)
    if groups == 6:  # and the renaming is needed: it is another function with the weights as they were
        without.load_state_dict(with_shuffle.state_dict())
        assert not torch.allclose(outcome(without, cifar_images, targets, training)[0], expected[0], rtol=1e-3)

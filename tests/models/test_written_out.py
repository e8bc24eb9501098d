"""Every cheap network against its definition written out here: which operation follows which, with nothing of models/
but the weights. In training and evaluation, in the literal form and the default one."""

import pytest
import torch
import torch.nn.functional as F

import models
from models.literal import from_literal
from tests.models.test_reuse import random_weights

# kernel, squeeze-excite, activation, stride of cheapV3's rows (the widths are read off the weights)
LARGE = (
    (3, "", "RE", 1), (3, "", "RE", 1), (3, "", "RE", 1), (5, "SE", "RE", 2), (5, "SE", "RE", 1), (5, "SE", "RE", 1),
    (3, "", "HS", 2), (3, "", "HS", 1), (3, "", "HS", 1), (3, "", "HS", 1), (3, "SE", "HS", 1), (3, "SE", "HS", 1),
    (5, "SE", "HS", 2), (5, "SE", "HS", 1), (5, "SE", "HS", 1),
)  # fmt: skip
SMALL = (
    (3, "SE", "RE", 1), (3, "", "RE", 2), (3, "", "RE", 1), (5, "SE", "HS", 2), (5, "SE", "HS", 1), (5, "SE", "HS", 1),
    (5, "SE", "HS", 1), (5, "SE", "HS", 1), (5, "SE", "HS", 2), (5, "SE", "HS", 1), (5, "SE", "HS", 1),
)  # fmt: skip
CHEAP_V2_STRIDES = (1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
FIRES = ("fire", "add", "fire", "pool", "add", "fire", "add", "fire", "pool", "fire")  # add: plus its input


class WrittenOut:
    """A network from a literal form's weights; functions of torch only."""

    def __init__(self, weights: dict, training: bool) -> None:
        self.weights, self.training = weights, training

    def norm(self, x, key):
        w = self.weights
        if self.training:
            return F.batch_norm(x, None, None, w[f"{key}.weight"], w[f"{key}.bias"], training=True)
        running = w[f"{key}.running_mean"], w[f"{key}.running_var"]
        return F.batch_norm(x, *running, w[f"{key}.weight"], w[f"{key}.bias"])

    def conv(self, x, key, stride=1, depthwise=False):
        """Convolution with the padding that keeps the side, and batch norm."""
        w = self.weights[f"{key}.conv.weight"]
        bias = self.weights.get(f"{key}.conv.bias")
        y = F.conv2d(x, w, bias, stride, w.shape[2] // 2, groups=w.shape[0] if depthwise else 1)
        return self.norm(y, f"{key}.bn")

    def linear(self, x, key):
        return F.linear(x, self.weights[f"{key}.weight"], self.weights.get(f"{key}.bias"))


def act(x, letters):
    return F.relu(x) if letters == "RE" else x * F.relu6(x + 3) / 6


def shuffle(x, groups):
    """Channel c is read from position (c mod C/g) g + c div C/g."""
    channels = x.shape[1]
    moved = torch.empty_like(x)
    for c in range(channels):
        moved[:, (c % (channels // groups)) * groups + c // (channels // groups)] = x[:, c]
    return moved


def cheap_v2(net, x):
    x = F.relu(net.conv(x, "stem"))
    for number, stride in enumerate(CHEAP_V2_STRIDES):
        key = f"blocks.{number}"
        y = x if number == 0 else torch.cat([x] * 6, 1)
        y = F.relu(net.conv(y, f"{key}.depthwise", stride, depthwise=True))
        y = net.conv(y, f"{key}.project")
        if stride == 1:
            shortcut = {
                (32, 16): lambda x: x[:, :16],
                (16, 24): lambda x: torch.cat([x, x[:, :8]], 1),
                (64, 96): lambda x: torch.cat([x, x[:, 32:]], 1),
                (160, 320): lambda x: torch.cat([x, x], 1),
            }.get((x.shape[1], y.shape[1]), lambda x: x)
            y = y + shortcut(x)
        x = y
    return net.linear(torch.cat([x] * 4, 1).mean((2, 3)), "head.classifier")


def cheap_v3(net, x, rows, reduction=4, hard_sigmoid=False, reuse_stem=False, groups=1):
    if reuse_stem:
        x = torch.cat([net.conv(x, "stem.first")] * 16, 1)
        x = act(net.conv(x, "stem.widen"), "HS")
    else:
        x = act(net.conv(x, "stem"), "HS")
    for number, (_, se, letters, stride) in enumerate(rows):
        key, y = f"blocks.{number}", x
        if number > 0:
            y = act(torch.cat([shuffle(x, groups)] * 6, 1), letters)
        y = net.conv(y, f"{key}.depthwise", stride, depthwise=True)
        if se:
            gates = F.relu(net.linear(y.mean((2, 3)), f"{key}.se.reduce"))
            gates = torch.cat([gates] * reduction, 1)
            if hard_sigmoid:
                gates = F.relu6(gates + 3) / 6
            y = y * gates[:, :, None, None]
        y = net.conv(act(y, letters), f"{key}.project")
        x = x + y if stride == 1 and x.shape == y.shape else y
    x = act(torch.cat([x] * 6, 1), "HS").mean((2, 3))
    x = act(torch.cat([x] * 2, 1), "HS")
    return net.linear(F.dropout(x, 0.2, net.training), "head.classifier")


def cheap_squeezenet(net, x):
    x = F.max_pool2d(F.relu(net.conv(x, "stem")), 2)
    for number, what in enumerate(FIRES):
        if what == "pool":
            x = F.max_pool2d(x, 2)
            continue
        key = f"fires.{number}"
        squeezed = F.relu(net.conv(x, f"{key}.squeeze"))
        y = torch.cat([squeezed] * 4 + [F.relu(net.conv(squeezed, f"{key}.expand3x3"))], 1)
        x = x + y if what == "add" else y
    w = net.weights
    return F.conv2d(x, w["head.classifier.weight"], w["head.classifier.bias"]).mean((2, 3))


SHUFFLE = dict(reduction=8, hard_sigmoid=True, reuse_stem=True)
NETWORKS = {
    "cheapV2": cheap_v2,
    "cheapV3": lambda net, x: cheap_v3(net, x, LARGE),
    "cheapV3_small": lambda net, x: cheap_v3(net, x, SMALL),
    "cheapV3_shuffle": lambda net, x: cheap_v3(net, x, LARGE, **SHUFFLE),
    "cheapV3_shuffle6": lambda net, x: cheap_v3(net, x, LARGE, groups=6, **SHUFFLE),
    "cheapSqueezeNet": cheap_squeezenet,
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", NETWORKS)
def test_written_out(name, training, cifar_images):
    literal = random_weights(models.create(name, literal=True)).double()
    default = models.create(name).double()
    default.load_state_dict(from_literal(literal.state_dict(), literal))
    weights = {key: tensor.clone() for key, tensor in literal.state_dict().items()}
    logits = []
    for network in (lambda x: NETWORKS[name](WrittenOut(weights, training), x), literal, default):
        if isinstance(network, torch.nn.Module):
            network.train(training)
        torch.manual_seed(3)  # dropout's
        with torch.no_grad():
            logits.append(network(cifar_images))
    for found in logits[1:]:
        torch.testing.assert_close(found, logits[0], rtol=1e-8, atol=1e-8 * logits[0].abs().max().item())

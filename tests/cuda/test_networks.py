"""Every network on CUDA against itself in float64 on the CPU, and the forms of the cheap ones against each other.

How near float32 can come to float64 depends on the network: where an activation has a kink, a number that rounds across
it changes the gradient. So the yardstick is the network itself: what float64 gives for images that differ by NOISE, a
hundred times the rounding of float32.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from engine.device import Precision, to_device
from models.fold import fold
from models.registry import entry

pytestmark = pytest.mark.cuda
SHAPE = dict(num_classes=10, in_channels=3, image_size=32)
NOISE = 1e-5  # of the images, whose standard deviation is 1
IMAGES, STEPS, RATE = 24, 3, 1e-3
EPSILON = torch.finfo(torch.float32).eps


def made(name: str, **more) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64 on the CPU without its random dropout, images and targets for it."""
    shape = SHAPE | entry(name).usual
    torch.manual_seed(0)
    network = models.create(name, **shape, **more).double()
    for module in network.modules():
        for attribute in ("p", "dropout"):  # another device draws other numbers
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
    size, outputs = shape["image_size"], shape["num_classes"]
    images = torch.randn(IMAGES, shape["in_channels"], size, size, dtype=torch.float64)
    targets = torch.randn(IMAGES, dtype=torch.float64) if outputs == 1 else torch.randint(outputs, (IMAGES,))
    return network, images, targets


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets) if outputs.shape[1] > 1 else F.mse_loss(outputs[:, 0], targets)


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([each.detach().double().cpu().flatten() for each in tensors])


def trained(
    network: nn.Module, images: Tensor, targets: Tensor, precision: Precision, steps: int = STEPS
) -> dict[str, Tensor]:
    """Outputs, loss and gradients of the first step, and what so many steps of SGD add to the weights."""
    network = to_device(copy.deepcopy(network), precision.device, channels_last=True).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    before, found = flat(list(network.parameters())), {}
    for _ in range(steps):
        with precision.autocast():
            outputs = network(images)
            loss = loss_of(outputs.to(images.dtype), targets)
        optimizer.zero_grad()
        loss.backward()
        if not found:
            gradients = flat([parameter.grad for parameter in network.parameters()])
            found = {"outputs": flat([outputs]), "loss": flat([loss]), "gradients": gradients}
        optimizer.step()
    return found | {"steps": flat(list(network.parameters())) - before, "rounding": before.norm() * EPSILON}


def distances(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    keys = ("outputs", "loss", "gradients", "steps")
    return {key: float((found[key] - expected[key]).norm() / expected[key].norm()) for key in keys}


def exact(name: str) -> tuple[tuple[nn.Module, Tensor, Tensor], dict[str, Tensor]]:
    network, images, targets = made(name)
    return (network, images, targets), trained(network, images, targets, CPU)


CPU = Precision.choose("off", torch.device("cpu"))


@pytest.mark.parametrize("name", models.names())
def test_float32_is_as_near_float64_as_images_that_hardly_differ(name, device):
    (network, images, targets), expected = exact(name)
    noise = [trained(network, images + NOISE * torch.randn_like(images), targets, CPU) for _ in range(2)]
    bounds = [distances(each, expected) for each in noise]
    targets = targets.float() if targets.is_floating_point() else targets
    on_device = Precision.choose("off", device)
    found = trained(network.float(), images.float().to(device), targets.to(device), on_device)
    rounding = float(expected["rounding"] / expected["steps"].norm())  # of weights, which move by little
    for key, distance in distances(found, expected).items():
        bound = 3 * max(NOISE, *(each[key] for each in bounds)) + (rounding if key == "steps" else 0)
        assert distance < bound, f"{key}: {distance:.1e} is not below {bound:.1e}"


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("name", models.names())
def test_half_precision_has_the_loss_and_the_direction(name, amp, device):
    """As near the exact direction as a CPU comes by the same type: for MobileNetV2 in bf16 that is a cosine of 0.61."""
    (network, images, targets), expected = exact(name)
    targets = targets.float() if targets.is_floating_point() else targets

    def found_on(where: torch.device) -> dict[str, Tensor]:
        return trained(network.float(), images.float().to(where), targets.to(where), Precision.choose(amp, where), 1)

    on_cpu, found = found_on(CPU.device), found_on(device)
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=0.05, atol=0.02)
    cosines = [torch.cosine_similarity(each["gradients"], expected["gradients"], dim=0) for each in (on_cpu, found)]
    assert cosines[1] > max(0.4, cosines[0] - 0.1)


@pytest.mark.parametrize("name", models.cheap_names())
def test_forms_agree(name, device):
    """Literal, default and folded."""
    network, images, _ = made(name)
    literal = made(name, literal=True)[0]
    literal.load_state_dict(network.state_dict())
    images = images.to(device, torch.float32)
    outputs = [each.to(device, torch.float32).eval()(images) for each in (literal, network, fold(network.eval()))]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(outputs[1], outputs[2], rtol=1e-3, atol=1e-4)

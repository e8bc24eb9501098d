"""The widened block with parts of anyone's choice: the fast path leaves what it does not know to modules; it folds."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.backends.debugging import aot_eager

from models import fast_path
from models.fold import fold
from models.layers import GlobalAveragePool
from models.literal import from_literal, to_literal
from models.ops import build
from models.reuse import LinearOnCopies, Reuse, ReuseSqueezeExcite
from models.reuse_block import FoldedReuseInvertedResidual, ReuseInvertedResidual


def block(pre_act=nn.Identity, act=nn.ReLU, stride=1, kernel=3, **options) -> ReuseInvertedResidual:
    torch.manual_seed(0)
    shortcut = nn.Identity() if stride == 1 else None
    return ReuseInvertedResidual(8, 8, 6, kernel, stride, pre_act(), act(), shortcut=shortcut, **options).double()


def outcome(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Output, the gradients of images and parameters, and the buffers after one training step's forward pass."""
    images = images.clone().requires_grad_()
    y = network.train()(images)
    torch.manual_seed(1)
    inputs = [images, *network.parameters()]
    gradients = torch.autograd.grad(y, inputs, torch.randn(y.shape, dtype=y.dtype), allow_unused=True)
    return [y.detach(), *gradients, *network.state_dict().values()]


def with_norm(**options):
    def change(made: ReuseInvertedResidual) -> None:
        made.depthwise.bn = nn.BatchNorm2d(48, **options).double()

    return change


def with_bias(made: ReuseInvertedResidual) -> None:
    torch.manual_seed(2)
    made.project.conv = nn.Conv2d(48, 8, 1).double()
    nn.init.normal_(made.project.conv.bias)


def with_group_norm(made: ReuseInvertedResidual) -> None:
    made.depthwise.bn = nn.GroupNorm(4, 48).double()


class Sigmoid6(nn.Hardswish):
    """A subclass of an activation that the fast path knows, which computes something else."""

    def forward(self, x):
        return F.hardsigmoid(x)


# by what is special: what makes a block, and what is changed in it then
SUPPORTED = {
    "cheapV2's": (block, None),
    "cheapV3's": (partial(block, nn.Hardswish, nn.Hardswish, kernel=5, stride=2), None),
    "squeeze-excite": (partial(block, nn.ReLU, nn.ReLU, se=ReuseSqueezeExcite), None),
    "gates with a sigmoid": (partial(block, nn.ReLU, nn.ReLU, se=partial(ReuseSqueezeExcite, gate=nn.Sigmoid)), None),
    "another momentum": (block, with_norm(momentum=0.3)),
}
LEFT_TO_MODULES = {
    "GELU": (partial(block, nn.GELU, nn.GELU), None),
    "GELU after": (partial(block, nn.Hardswish, nn.GELU), None),
    "a subclass": (partial(block, Sigmoid6, nn.ReLU), None),
    "7x7": (partial(block, kernel=7), None),
    "kernels of several sizes": (partial(block, kernel=(3, 3, 5, 5, 3, 3)), None),
    "other squeeze-excite": (partial(block, se=lambda channels, order: nn.Conv2d(channels, channels, 1)), None),
    "momentum None": (block, with_norm(momentum=None)),
    "no running statistics": (block, with_norm(track_running_stats=False)),
    "no affine": (block, with_norm(affine=False)),
    "a projection with bias": (block, with_bias),
    "group norm": (block, with_group_norm),
    "literal": (partial(block, literal=True), None),
}


@pytest.fixture
def compiler():
    if not build.is_available(torch.float64):
        pytest.skip("no C compiler with OpenMP")


@pytest.mark.parametrize("name", [*SUPPORTED, *LEFT_TO_MODULES])
def test_the_fast_path_is_the_modules_or_leaves_it_to_them(compiler, name):
    make, change = (SUPPORTED | LEFT_TO_MODULES)[name]
    by_modules = make()
    if change is not None:
        change(by_modules)
    by_kernels = copy.deepcopy(by_modules)
    assert fast_path.use_kernels(by_kernels, required=False) == (name in SUPPORTED)
    by_kernels.uses_fast_path = True
    images = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    assert fast_path.supports(by_kernels.train(), images) == (name in SUPPORTED)
    expected, found = outcome(by_modules, images), outcome(by_kernels, images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert not fast_path.supports(by_kernels.eval(), images)


def test_a_module_of_somebody_else_s_is_left_alone():
    """Whatever it calls its attributes."""
    network = nn.Sequential(nn.Conv2d(3, 8, 1))
    network.kernels = (3, 5)
    assert not fast_path.use_kernels(network, required=False) and network.kernels == (3, 5)


def test_the_fast_path_is_not_for_other_types_and_autocast(compiler):
    made = block()
    fast_path.use_kernels(made, required=True)
    images = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    assert fast_path.supports(made, images) and not fast_path.supports(made, images.float())
    assert not fast_path.supports(made, images.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fast_path.supports(made, images)


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_fast_path_is_one_graph_for_the_compiler(compiler, name):
    """torch.compile takes it whole, and computes what it computes without."""
    make, change = SUPPORTED[name]
    eager = make()
    if change is not None:
        change(eager)
    fast_path.use_kernels(eager, required=True)
    images = torch.randn(4, 8, 9, 9, dtype=torch.float64)
    targets = []

    def note_and_run(graph, inputs):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return aot_eager(graph, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(eager), backend=note_and_run, fullgraph=True, dynamic=False)
    found, expected = outcome(compiled, images), outcome(eager, images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert sum("reuse.widen" in target for target in targets) == 1, "the fast path is in the graph"


class Strange(nn.Module):
    """A network of somebody else's: blocks in a list and in attributes, no nn.Sequential around them."""

    def __init__(self, act, groups: int = 1, literal: bool = False) -> None:
        super().__init__()
        options = dict(literal=literal, groups=groups)
        se = partial(ReuseSqueezeExcite, reduction=8)
        self.first = ReuseInvertedResidual(8, 16, 6, 3, 2, act(48 // 6), act(48), **options)
        self.more = nn.ModuleList(
            ReuseInvertedResidual(16, 16, 4, 5, 1, act(16), act(64), se=se, shortcut=nn.Identity(), **options)
            for _ in range(2)
        )
        self.pool = GlobalAveragePool()
        self.classifier = nn.Linear(64, 5) if literal else LinearOnCopies(16, 5, times=4)
        self.head = Reuse(4) if literal else nn.Identity()

    def forward(self, x):
        x = self.first(x)
        for each in self.more:
            x = each(x)
        return self.classifier(self.head(self.pool(x)))


def randomised(network: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight)
    return network.double().eval()


@pytest.mark.parametrize("act", [lambda n: nn.GELU(), lambda n: nn.Hardswish(), nn.PReLU], ids=["GELU", "HS", "PReLU"])
@pytest.mark.parametrize("wide", [0, 1 << 60], ids=["copy by copy", "whole"])
def test_a_network_of_somebody_else_folds(act, wide, monkeypatch):
    """PReLU has a parameter for each widened channel, so that the copies differ in it."""
    monkeypatch.setattr(FoldedReuseInvertedResidual, "WIDE", wide)
    network = randomised(Strange(act))
    images = torch.randn(3, 8, 12, 12, dtype=torch.float64)
    folded = fold(network)
    assert not any(isinstance(m, nn.BatchNorm2d | ReuseInvertedResidual | LinearOnCopies) for m in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-11, atol=1e-11)


def test_a_block_folds_by_itself():
    network = randomised(block(nn.Hardswish, nn.Hardswish))
    before = copy.deepcopy(network.state_dict())
    images = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.fold()(images), network(images), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_network_of_somebody_else_has_both_forms(groups):
    act = lambda n: nn.GELU()  # noqa: E731
    literal, default = randomised(Strange(act, groups, literal=True)), Strange(act, groups).double().eval()
    state = literal.state_dict()
    default.load_state_dict(from_literal(state, default))
    images = torch.randn(3, 8, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(default(images), literal(images), rtol=1e-11, atol=1e-11)
    back = to_literal(default.state_dict(), literal)
    assert all(torch.equal(back[key], state[key]) for key in state)

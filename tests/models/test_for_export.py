"""The forms for other runtimes: the outputs of the folded network, in the steps that those runtimes are good at."""

import importlib.util

import pytest
import torch
from torch import nn

import models
from models.fold import fold
from models.for_export import CopyByCopy, for_onnx, for_xnnpack
from tests.models.test_fold import trained

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["cheapV2", "cheapV3_small", "cheapV3_shuffle", "MobileNetV3_small"])
def test_outputs_stay(name):
    folded = fold(trained(name=name))
    expected = folded(IMAGES)
    for other in (for_onnx(folded, IMAGES.shape[1:]), for_xnnpack(folded)):
        torch.testing.assert_close(other(IMAGES), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


def test_onnx_repeats_no_large_map():
    """cheapV3's blocks from 32x32 to 8x8 pixels; the last two, at 4x4, are small."""
    blocks = for_onnx(fold(models.create("cheapV3").eval()), IMAGES.shape[1:]).blocks
    assert [number for number, block in enumerate(blocks) if isinstance(block, CopyByCopy)] == list(range(1, 13))


@pytest.mark.parametrize("name", ["cheapV2", "cheapV3"])
def test_xnnpack_form_cuts_nothing_up(name):
    """No step that XNNPACK does not take: no part of a map or of a weight, no tensor beside itself, no plain sum."""
    form = for_xnnpack(fold(models.create(name).eval()))
    batch = torch.export.Dim("batch", max=64)
    graph = torch.export.export(form, (IMAGES[:2],), dynamic_shapes=({0: batch},)).graph
    steps = [node for node in graph.nodes if node.op == "call_function"]
    names = {str(node.target) for node in steps}
    assert not [each for each in names if any(word in each for word in ("slice", "split", "chunk", "sum", "select"))]
    for node in steps:
        if "cat" in str(node.target):
            assert 2 <= len(set(node.args[0])) == len(node.args[0]) <= 5
        if "conv2d" in str(node.target):
            assert node.args[1].op == "placeholder"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("executorch") is None, reason="needs executorch")
@pytest.mark.parametrize("name", ["MobileNetV2", "cheapV2", "cheapV3"])
def test_xnnpack_takes_it_in_two_pieces(name):
    """As MobileNetV2: all up to the pool, and the classifier after the reshaping of a free batch."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    form: nn.Module = for_xnnpack(fold(models.create(name).eval()))
    batch = torch.export.Dim("batch", max=64)
    program = torch.export.export(form, (IMAGES[:2],), dynamic_shapes=({0: batch},))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).exported_program()
    assert sum("executorch_call_delegate" in str(node.target) for node in lowered.graph.nodes) == 2

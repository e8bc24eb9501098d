"""What -graphs and -compile are refused with, and how true and false of older checkpoints are read."""

import pytest
import torch

from conf.resolve import settings
from engine.graphs import check_graphs, is_graphed

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def chosen(**more: object):
    return settings({"net": "EffNet", "dataset": "digits", **more})


@pytest.mark.parametrize(
    ("device", "processes", "more", "named"),
    [
        (CPU, 1, {}, "for CUDA devices, not for cpu"),
        (CUDA, 2, {}, "-procs 1"),
        (CUDA, 1, {"compile": "reduce-overhead"}, "-compile reduce-overhead"),
        (CUDA, 1, {"fused": False}, "-fused false"),
        (CUDA, 1, {"optimizer": "muon"}, "-optimizer muon"),
    ],
)
def test_what_graphs_do_not_go_with(device, processes, more, named):
    with pytest.raises(ValueError, match=named):
        check_graphs(chosen(graphs=True, **more), device, processes)
    check_graphs(chosen(**more), device, processes)


def test_a_run_with_graphs_goes_on_without_cuda():
    check_graphs(chosen(graphs=True), CPU, 1, goes_on=True)
    assert not is_graphed(chosen(graphs=True), CPU, 1) and is_graphed(chosen(graphs=True), CUDA, 1)


@pytest.mark.parametrize(
    ("device", "processes", "more", "graphed"),
    [
        (CUDA, 1, {}, True),
        (CUDA, 1, {"graphs": False}, False),
        (CUDA, 2, {}, False),
        (CUDA, 1, {"compile": "default"}, True),
        (CUDA, 1, {"compile": "default", "graphs": False}, False),
        (CUDA, 1, {"compile": "reduce-overhead"}, False),
        (CUDA, 1, {"fused": False}, False),
        (CPU, 1, {}, False),
    ],
)
def test_steps_are_replayed_by_default_where_they_can_be(device, processes, more, graphed):
    check_graphs(chosen(**more), device, processes)
    assert is_graphed(chosen(**more), device, processes) is graphed


@pytest.mark.parametrize(("given", "mode"), [(True, "default"), (False, "off"), ("reduce-overhead", "reduce-overhead")])
def test_compile_by_mode(given, mode):
    assert chosen(compile=given).compile == mode

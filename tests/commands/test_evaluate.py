"""-test: the figures of finished weights."""

from commands.evaluate import evaluate
from engine import checkpoint
from tests.helpers.runs import checkpoints, result


def test_weights_trained_with_sync_bn_are_tested_on_a_cpu(finished, tmp_path):
    """Torch has synchronised batch norm on CUDA devices only; evaluation does not need it."""
    content = checkpoint.load_run(checkpoints(finished) / "last.pth")
    content["settings"]["sync_bn"] = True
    checkpoint.save(tmp_path / "last.pth", content)
    assert abs(evaluate(tmp_path / "last.pth", {"gpu": False})["loss"] - result(finished)["test loss"]) < 1e-6

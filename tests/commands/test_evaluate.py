"""-test: the figures of finished weights."""

import torch

import main
from commands.evaluate import evaluate
from engine.saved import checkpoint
from engine.saved.trained import load_trained
from tests.helpers.drive import write_drive
from tests.helpers.runs import checkpoints, result, start


def test_weights_trained_with_sync_bn_are_tested_on_a_cpu(finished, tmp_path):
    """Torch has synchronised batch norm on CUDA devices only; evaluation does not need it."""
    content = checkpoint.load_run(checkpoints(finished) / "last.pth")
    content["settings"]["sync_bn"] = True
    checkpoint.save(tmp_path / "last.pth", content)
    assert abs(evaluate(tmp_path / "last.pth", {"gpu": False})["loss"] - result(finished)["test loss"]) < 1e-6


def test_each_image_together_with_its_mirror_image(finished, capsys):
    """The mean of the probabilities, written out; the plain figures stay what they are without -tta."""
    weights = checkpoints(finished) / "last.pth"
    words = ["-test", "-weights", str(weights), "-gpu", "false"]
    assert main.main(words) == 0
    plain = capsys.readouterr().out
    assert main.main([*words, "-tta"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == plain.splitlines()
    trained = load_trained(weights, {"gpu": False})
    right = loss = count = 0
    with torch.inference_mode():
        for images, targets in trained.test_batches():
            both = torch.softmax(trained.network(images), 1), torch.softmax(trained.network(images.flip(-1)), 1)
            probabilities = (both[0].double() + both[1].double()) / 2
            right += (probabilities.argmax(1) == targets).sum().item()
            loss -= probabilities.gather(1, targets[:, None]).log().sum().item()
            count += len(targets)
    assert last.startswith("mean of each image's probabilities and its mirror image's: loss ")
    assert f" loss {loss / count:.4f}  top-1 error {100 - 100 * right / count:.2f} %" in last
    assert f"top-1 error {100 - 100 * right / count:.2f} %" not in plain  # mirrored digits are others


def test_a_network_of_angles_is_not_mirrored(tmp_path, capsys, finished, without_pictures):
    write_drive(tmp_path / "driving")
    words = "-net EffNet_steering -dataset driving -size 16 -epochs 1 -steps 2 -b 32 -warm 0 -name a -gpu false"
    start(f"{words} -data {tmp_path}", tmp_path)
    weights = next(tmp_path.glob("checkpoints/*/*/last.pth"))
    capsys.readouterr()
    assert main.main(["-test", "-weights", str(weights), "-tta", "true", "-gpu", "false"]) == 2
    assert "-tta true: is for classes" in capsys.readouterr().err

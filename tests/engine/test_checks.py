"""What a run is refused for before anything is written."""

import pytest

import main
from conf.datasets import find_row
from conf.resolve import settings
from engine.checks import check_run, check_single_images
from engine.saved.weights import Made

pytestmark = pytest.mark.usefixtures("without_pictures")


def test_one_image_is_too_few_for_maps_of_one_pixel(tmp_path, capsys):
    words = f"-net cheapSqueezeNet -dataset digits -recipe digits -epochs 1 -steps 2 -b 1 -gpu false -out {tmp_path}"
    assert main.main(words.split()) == 0, "maps of more pixels train with one image"
    (tmp_path / "small").mkdir()
    capsys.readouterr()
    words = words.replace("cheapSqueezeNet", "cheapV3") + "/small -size 8"
    assert main.main(words.split()) == 2
    assert "-b 1: at 8x8 pixels cheapV3 has maps of one pixel" in capsys.readouterr().err
    assert not any((tmp_path / "small").iterdir())
    check_single_images(Made("cheapV3", 10, 1, 8), settings({"net": "cheapV3", "dataset": "digits"}), smallest=2)


def test_accumulate_fits_a_process_s_share():
    given = {"net": "cheapV3", "dataset": "digits", "gpu": False, "batch_size": 16, "accumulate": 4}
    check_run(settings(given), find_row("digits"), processes=2)
    with pytest.raises(ValueError, match="a process's 4 images of -b 16 make 2 parts .*; give at most 2$"):
        check_run(settings(given), find_row("digits"), processes=4)
    check_run(settings(given), find_row("digits"), processes=4, goes_on=True)


def test_a_network_that_is_named_can_be_trained_on_the_data_set():
    with pytest.raises(ValueError) as error:
        check_run(settings({"net": "EffNet_steerin", "dataset": "digits"}), find_row("digits"), processes=1)
    assert "EffNet_digits" in str(error.value) and "EffNet_steering" not in str(error.value)

"""engine/shown/cards.py: settings as words that the command line takes back, and tables that Markdown reads."""

import main
from conf import convert
from engine.shown.cards import markdown_table, table, words


def test_the_words_of_settings_are_taken_back_by_the_command_line():
    given = {
        "net": "cheapV3",
        "batch_size": 64,
        "fused": False,
        "nesterov": True,
        "lr": 0.1 + 0.2,
        "milestones": [0.5, 3],
    }
    found = vars(main.make_parser().parse_args(words(given)))
    assert {name: convert(name, value) for name, value in found.items()} == given | {"milestones": (0.5, 3.0)}
    assert words({"lr": 0.1 + 0.2, "milestones": (0.123456, 3.0)}, ".4g") == [
        "-lr",
        "0.3",
        "-milestones",
        "0.1235",
        "3",
    ]


def test_a_bar_within_a_cell_is_escaped_once():
    assert table([{"setting": "-a|b", "": "c|d"}]) == "| setting |  |\n| --- | --- |\n| \\-a\\|b | c\\|d |"
    assert markdown_table(["a  "], [["`b`"]]) == "| a   |\n| --- |\n| `b` |"

"""Values are those of YAML 1.2's core schema, and what is written is read back alike."""

import math

import pytest
import yaml

from conf.yaml_file import read_mapping, to_text

# the examples of https://yaml.org/spec/1.2.2/#1032-tag-resolution, and others of the same patterns
EXAMPLES = [
    (None, "null Null NULL ~"),
    (True, "true True TRUE"),
    (False, "false False FALSE"),
    (0, "0 0o0 0x0 -0 +0 0. -0.0 00"),
    (7, "0o7 7 +7 007 7.0 7e0 .7e1 70E-1"),
    (0x3A, "0x3A 0x3a 58"),
    (0o17, "0o17 15 0xF"),
    (-19, "-19 -19.0 -1.9e1"),
    (0.5, ".5 +.5 0.5 5e-1 5E-1"),
    (1e-3, "1e-3 1E-3 1.0e-3 0.001 .1e-2"),
    (12e3, "+12e03 12E+3"),
    (-2e5, "-2E+05"),
    (math.inf, ".inf .Inf .INF +.INF"),
    (-math.inf, "-.inf -.Inf"),
]
# of these YAML 1.1 reads some as numbers, truth values or dates
WORDS = (
    "1_000 12:30 12:30:45 1:30.5 0b11 -0x1F 0o8 0O7 1e 1e3.5 . inf nan +.nan yes no on off y tRUE 2026-01-31 <<".split()
)


def read(tmp_path, text: str) -> dict:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_mapping(path)


@pytest.mark.parametrize(("value", "spellings"), EXAMPLES, ids=[spellings for _, spellings in EXAMPLES])
def test_values_of_the_core_schema(tmp_path, value, spellings):
    found = read(tmp_path, f"knob: [{', '.join(spellings.split())}]")["knob"]
    assert found == [value] * len(spellings.split())
    for each, spelling in zip(found, spellings.split(), strict=True):
        is_float = not spelling.startswith("0x") and bool(set(spelling.lower()) & set(".e"))
        assert type(value) in (bool, type(None)) or isinstance(each, float) == is_float, spelling


def test_what_is_no_number_is_empty_or_a_word(tmp_path):
    assert read(tmp_path, "knob:") == {"knob": None}
    assert all(map(math.isnan, read(tmp_path, "knob: [.nan, .NaN, .NAN]")["knob"]))
    assert read(tmp_path, f"knob: [{', '.join(WORDS)}]")["knob"] == WORDS


def test_what_is_written_is_read_back(tmp_path):
    """By a reader of YAML 1.1 too, whose words are others."""
    spellings = [word for _, each in EXAMPLES for word in each.split()]
    written = {
        "words": [*spellings, *WORDS, ".nan", ""],
        "values": [*(value for value, _ in EXAMPLES), 1e-30, -0.1, 1e300],
        "off": "on",
    }
    text = to_text(written)
    assert list(read(tmp_path, text).items()) == list(written.items())
    assert yaml.safe_load(text) == written

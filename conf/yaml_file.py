"""Reads and writes small YAML files that hold names and values: a recipe, the settings that a run has left.

They are YAML without what such a file never needs and what harms: tags, aliases (with which a few lines unfold to
gigabytes) and a name that stands twice (YAML keeps the last one and says nothing). Values are those of YAML 1.2; PyYAML
alone reads YAML 1.1, in which 1e-3 is a word, 010 is eight and 1:30 is ninety.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

LARGEST = 100_000  # bytes
# The core schema, https://yaml.org/spec/1.2.2/#1032-tag-resolution; what matches none of them is a word.
CORE_SCHEMA = {
    "null": "null|Null|NULL|~|",
    "bool": "true|True|TRUE|false|False|FALSE",
    "int": "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


def read_mapping(path: Path) -> dict[object, object]:
    """The names and values of a file. Raises ValueError, without the path, for a file that cannot be taken as one."""
    if path.exists() and not path.is_file():  # a folder; or a pipe or device, which would be waited for
        raise ValueError("not a file")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"larger than {LARGEST:,} bytes")
        content = yaml.load(data.decode("utf-8-sig"), PlainLoader)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not readable as YAML (not UTF-8 from byte {error.start} on)") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"not readable as YAML ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(content, dict):
        raise ValueError("must be a list of 'knob: value' lines, such as 'epochs: 30'")
    return content


class PlainLoader(yaml.SafeLoader):
    """yaml.SafeLoader without what the file's docstring names."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, f"alias *{event.anchor}: write the value out", None)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"tag {event.tag}: only plain values are allowed", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        counts = collections.Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.most_common(1):
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key[:60]} stands twice: keep one", None)
        return super().construct_mapping(node, deep)


class PlainDumper(yaml.SafeDumper):
    """yaml.SafeDumper, which quotes a word that YAML 1.1 would read as something else, and here YAML 1.2 too."""


def to_text(mapping: Mapping[str, object]) -> str:
    """The text of a file, in the order of the mapping, that read_mapping() reads and readers of YAML 1.1 read alike."""
    return yaml.dump(mapping, Dumper=PlainDumper, sort_keys=False)


def whole_number(_: PlainLoader, node: yaml.ScalarNode) -> int | str:
    """A number of hundreds of digits stays the word that it is: no knob takes it, and Python may not either."""
    base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
    return int(node.value, base) if len(node.value) < 100 else node.value


PlainLoader.yaml_implicit_resolvers = {}
PlainLoader.add_constructor("tag:yaml.org,2002:int", whole_number)
for kind, pattern in CORE_SCHEMA.items():
    for side in (PlainLoader, PlainDumper):
        side.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), None)

"""Scalars: YAML in which a value without quotes stays the text that is written there.

YAML 1.1 reads `NO` as false, `0123` as 83, `12:30` as 750 and `1.10` as 1.1. Here only `true`, `false`, `null` and
numbers in the one spelling that records have are more than text; names in a mapping are always text. What a tag says
(`!!int`), holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

import yaml
from yaml.resolver import Resolver

from flows.steps.front_yaml import FrontMatterLoader

_TAG = "tag:yaml.org,2002:"
_TEXT = _TAG + "str"
_EXACT = 2**53  # a double holds every whole number below
_YAML_1_1 = Resolver()
_DOUBTFUL = frozenset(_TAG + kind for kind in ("bool", "int", "float"))
_FLOAT = re.compile(r"^-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]$")


class _AsWritten(FrontMatterLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - the library's own declaration, without what it has there
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*(_TAG + kind for kind in ("null", "bool", "str", "seq", "map")), None)
    }

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        for name, _value in node.value:
            if isinstance(name, yaml.ScalarNode):
                name.tag = _TEXT

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Return what is written."""
        return self.construct_scalar(node)

    def construct_whole(self, node: yaml.ScalarNode) -> Any:
        """Return a whole number; one of more than 64 bits stays text, as in records."""
        number = self.construct_yaml_int(node)
        return number if -(2**63) <= number < 2**64 else node.value

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number as records have it; one with more digits than a double holds stays text."""
        number = self.construct_yaml_float(node)
        if _FLOAT.match(node.value) and Decimal(repr(number)) != Decimal(node.value):
            return node.value
        return int(number) if number.is_integer() and abs(number) < _EXACT else number


for _kind, _words, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:0|-?[1-9][0-9]*)$", list("-0123456789")),
    ("float", _FLOAT.pattern, list("-0123456789")),
    ("merge", r"^<<$", ["<"]),
):
    _AsWritten.add_implicit_resolver(_TAG + _kind, re.compile(_words), _first)
_AsWritten.add_constructor(_TAG + "int", _AsWritten.construct_whole)
_AsWritten.add_constructor(_TAG + "float", _AsWritten.construct_number)
for _kind in ("timestamp", "binary"):
    # A record has a date as text, and bytes as the base64 that is written here.
    _AsWritten.add_constructor(_TAG + _kind, _AsWritten.construct_text)


def load_yaml(text: str) -> Any:
    """Read YAML; raises yaml.YAMLError, or ValueError for a tag whose value does not fit."""
    return yaml.load(text, _AsWritten)  # noqa: S506 - it is a safe loader, and makes plain values only


def compose_yaml(text: str) -> yaml.Node | None:
    """Read YAML as nodes, which know their lines."""
    return yaml.compose(text, _AsWritten)


def doubtful_scalars(node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield what stands there without quotes and YAML 1.1 would read as a number or a truth value, with its path.

    A date is none of these: records have it as text, as it is written.
    """
    match node:
        case yaml.MappingNode(value=pairs):
            for name, value in pairs:
                yield from doubtful_scalars(value, f"{path}.{name.value}")
        case yaml.SequenceNode(value=items):
            for number, item in enumerate(items):
                yield from doubtful_scalars(item, f"{path}[{number}]")
        case yaml.ScalarNode(tag=tag, style=None, value=text) if tag == _TEXT and _has_no_tag(node):
            read: Any = _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
            if read in _DOUBTFUL:
                yield path, node
        case _:
            pass


def _has_no_tag(node: yaml.ScalarNode) -> bool:
    # A tag belongs to what the marks enclose.
    return bool(node.end_mark.index - node.start_mark.index == len(node.value))

"""Read the YAML of a front matter, and keep an unquoted value as text where YAML 1.1 would change it.

YAML 1.1 reads `NO` as false, `0123` as 83, `12:30` as 750 and `1.10` as 1.1. Here all of these are text. Only `true`,
`false`, `null` and numbers that are spelled as in records have another type. Names in a mapping are always text.
Explicit tags (`!!int`) keep their meaning. Under `output` every value is text, so an answer's choice `7` is the text
"7". `{type: list[str]}` is accepted there, although YAML rejects it.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

import yaml
from yaml.resolver import Resolver

TEXTS = frozenset({"output"})
"""The top-level keys under which every value is text."""

_TAG = "tag:yaml.org,2002:"
_TEXT = _TAG + "str"
_EXACT = 2**53  # a double holds every whole number below this
_YAML_1_1 = Resolver()
_DOUBTFUL = frozenset(_TAG + kind for kind in ("bool", "int", "float"))
_LIST_TYPE = re.compile(r"list\[\w+\]")
_FLOAT = re.compile(r"^-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]$")


class _AsWritten(yaml.SafeLoader):
    """A safe loader: it makes only plain values."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*(_TAG + kind for kind in ("null", "bool", "str", "seq", "map")), None)
    }

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._is_text = False

    def scan_plain(self) -> Any:
        """Read an unquoted word; `list[str]` is one word, also inside braces."""
        found = _LIST_TYPE.match(self.prefix(32)) if self.flow_level else None
        if found is None:
            return super().scan_plain()
        start = self.get_mark()
        self.forward(found.end())
        self.allow_simple_key = False
        return yaml.ScalarToken(found.group(), plain=True, start_mark=start, end_mark=self.get_mark())

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value, and note whether it is under a key whose values are texts."""
        outer = self._is_text
        if self._depth == 1 and getattr(index, "value", None) in TEXTS:
            self._is_text = True
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
            self._is_text = outer

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Return a value's tag from its spelling."""
        if self._is_text and kind is yaml.ScalarNode:
            return _TEXT
        resolver: Any = super()  # untyped in PyYAML's stubs
        return resolver.resolve(kind, value, implicit)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Reject a key that appears twice under `output`; YAML would keep the last."""
        node = super().compose_mapping_node(anchor)
        if self._is_text:
            names = [key.value for key, _value in node.value]
            for number, (key, _value) in enumerate(node.value):
                if key.value in names[:number]:
                    raise yaml.composer.ComposerError(None, None, f"{key.value!r} appears twice", key.start_mark)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge the mapping that `<<` names, and read each name in a mapping as text."""
        super().flatten_mapping(node)
        for name, _value in node.value:
            if isinstance(name, yaml.ScalarNode):
                name.tag = _TEXT

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Return the text as written."""
        return self.construct_scalar(node)

    def construct_whole(self, node: yaml.ScalarNode) -> Any:
        """Return a whole number; one of more than 64 bits stays text, as in records."""
        number = self.construct_yaml_int(node)
        return number if -(2**63) <= number < 2**64 else node.value

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return a number as records have it; one with more digits than a double can hold stays text."""
        number = self.construct_yaml_float(node)
        if _FLOAT.match(node.value) and Decimal(repr(number)) != Decimal(node.value):
            return node.value
        return int(number) if number.is_integer() and abs(number) < _EXACT else number


# YAML 1.1's own rules are left out.
_AsWritten.yaml_implicit_resolvers = {}
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
    # A record has a date as text, and bytes as base64 text.
    _AsWritten.add_constructor(_TAG + _kind, _AsWritten.construct_text)


def as_yaml_1_1(text: str) -> Any:
    """Return the value that YAML 1.1 reads for unquoted text; raises ValueError for an impossible date."""
    tag = _tag_in_yaml_1_1(text)
    if tag not in yaml.SafeLoader.yaml_constructors:
        return text  # `=` and `<<`, which have a meaning only as names
    return yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, text))


def _tag_in_yaml_1_1(text: str) -> Any:
    return _YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]


def load_yaml(text: str) -> Any:
    """Read YAML; raises yaml.YAMLError, or ValueError for a tag whose value does not fit."""
    loader = _AsWritten(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class FieldPlaces:
    """Finds the fields of a front matter in the text of its file, by lines counted from 1."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        end = text.find("\n---", 3)
        tree = yaml.compose(text[: end + 1], _AsWritten)
        self._text = text
        self._nodes = {key.value: (key, value) for key, value in getattr(tree, "value", [])}

    def line_of(self, field: str) -> int | None:
        """Return the line of a field; None if it is left out."""
        found = self._nodes.get(field)
        return found[0].start_mark.line + 1 if found else None

    def first_line_of_text(self, field: str) -> int:
        """Return the line where a field's text begins: for a block, the line below the field's name."""
        found = self._nodes.get(field)
        if found is None:
            return 1
        return int(found[1].start_mark.line) + (2 if found[1].style in ("|", ">") else 1)

    def is_cut(self, field: str) -> bool:
        """Whether YAML read the end of a field's text as a comment: an unquoted text before a ` #`."""
        found = self._nodes.get(field)
        if found is None or getattr(found[1], "style", "") is not None or not isinstance(found[1].value, str):
            return False
        rest = self._text[found[1].end_mark.index :].partition("\n")[0]
        return rest.lstrip().startswith("#")

    def doubtful_scalars(self) -> Iterator[tuple[str, str, int]]:
        """Yield unquoted texts in examples that may be meant as other values, each with its path, text and line."""
        _name, examples = self._nodes.get("examples", (None, None))
        for number, example in enumerate(getattr(examples, "value", ()), start=1):
            for name, value in getattr(example, "value", ()):
                if name.value in ("record", "inputs"):
                    for path, node in _doubtful_scalars(value, name.value):
                        yield f"example {number}, {path}", node.value, node.start_mark.line + 1


def _doubtful_scalars(node: yaml.Node, path: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    """Yield unquoted texts that YAML 1.1 would read as a number or a truth value, each with its path.

    Dates are not among them: records have them as text too.
    """
    match node:
        case yaml.MappingNode(value=pairs):
            for name, value in pairs:
                yield from _doubtful_scalars(value, f"{path}.{name.value}")
        case yaml.SequenceNode(value=items):
            for number, item in enumerate(items):
                yield from _doubtful_scalars(item, f"{path}[{number}]")
        case yaml.ScalarNode(tag=tag, style=None, value=text) if tag == _TEXT:
            # The marks enclose the tag too.
            has_tag = node.end_mark.index - node.start_mark.index != len(text)
            if not has_tag and _tag_in_yaml_1_1(text) in _DOUBTFUL:
                yield path, node

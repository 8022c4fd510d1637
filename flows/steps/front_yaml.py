"""The YAML of a front matter: as everywhere, but for `output`, where each value is the text that stands there.

YAML reads NO as false, 1.10 as 1.1 and 2026-03-01 as a date, and takes `{type: list[str]}` for a mistake. A choice that
is written `NO` must be `NO` in the answer.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

AS_WRITTEN = frozenset({"output"})
"""The keys at the top under which each scalar stays text."""

_TEXT = "tag:yaml.org,2002:str"
_LIST_TYPE = re.compile(r"list\[\w+\]")


class FrontMatterLoader(yaml.SafeLoader):
    """A safe loader: it makes nothing but plain values."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._is_text = False

    def scan_plain(self) -> Any:
        """Read an unquoted word; `list[str]` is one in braces too."""
        found = _LIST_TYPE.match(self.prefix(32)) if self.flow_level else None
        if found is None:
            return super().scan_plain()
        start = self.get_mark()
        self.forward(found.end())
        self.allow_simple_key = False
        return yaml.ScalarToken(found.group(), plain=True, start_mark=start, end_mark=self.get_mark())

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value, and note whether it stands under a key whose values are texts."""
        outer = self._is_text
        if self._depth == 1 and getattr(index, "value", None) in AS_WRITTEN:
            self._is_text = True
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1
            self._is_text = outer

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Tell what a value is by its spelling."""
        if self._is_text and kind is yaml.ScalarNode:
            return _TEXT
        resolver: Any = super()  # untyped in PyYAML's stubs
        return resolver.resolve(kind, value, implicit)

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that stands twice where the user names fields; YAML would keep the last."""
        node = super().compose_mapping_node(anchor)
        if self._is_text:
            names = [key.value for key, _value in node.value]
            for number, (key, _value) in enumerate(node.value):
                if key.value in names[:number]:
                    raise yaml.composer.ComposerError(None, None, f"{key.value!r} stands twice", key.start_mark)
        return node

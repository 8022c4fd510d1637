"""Compare two JSON values key by key, and strings in them word by word.

The order of keys is no difference, but it is reported. True is not 1, and 1 is not 1.0. List items are aligned, so that
one new item at the front is one addition.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from presswork.differences.alignment import align
from presswork.differences.operations import Operation
from presswork.differences.text_differences import compare_texts

ChangeKind = Literal["added", "removed", "changed", "retyped"]
DEEPEST = 50
"""Levels of nesting that are compared key by key; what is deeper is compared as a whole."""
SHORT_VALUE = 80
"""A value whose JSON has no more characters than this is written in one line."""
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One difference: the value at `path` was added, removed, changed, or changed its type.

    A position in `path` is the new list's, for a removed item the old list's. `old` of an added value and `new` of a
    removed one are None. `operations` compare the values as text; strings as they are, others as JSON.
    """

    path: Path
    kind: ChangeKind
    old: Any
    new: Any
    operations: tuple[Operation, ...]

    @property
    def place(self) -> str:
        """The path as people write it: `messages[0].content`; empty for the whole value."""
        return place_of_path(self.path)


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """All changes between two JSON values, in the order of the new one.

    `unchanged` are the keys of the outermost level that are equal. `reordered` is true if only the order of keys
    differs somewhere.
    """

    changes: tuple[ValueChange, ...]
    unchanged: tuple[str, ...]
    reordered: bool

    @property
    def is_equal(self) -> bool:
        """Whether both values are equal; the order of keys does not count."""
        return not self.changes


def compare_values(old: Any, new: Any) -> ValueDifference:
    """Compare two values as JSON has them: dicts, lists, texts, numbers, booleans, None."""
    changes = tuple(_changes(old, new, ()))
    unchanged: tuple[str, ...] = ()
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        touched = {change.path[0] for change in changes if change.path}
        unchanged = tuple(name for name in new if name in old and name not in touched)
    reordered = not changes and _text_of(old, in_order=True) != _text_of(new, in_order=True)
    return ValueDifference(changes, unchanged, reordered)


def place_of_path(path: Path) -> str:
    """Write a path as people do; a key that is no plain name stands in quotes."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        elif part.isidentifier():
            written += f".{part}" if written else part
        else:
            written += f"[{json.dumps(part, ensure_ascii=False)}]"
    return written


def _changes(old: Any, new: Any, path: Path) -> Iterator[ValueChange]:
    if len(path) < DEEPEST and isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _in_mappings(old, new, path)
    elif len(path) < DEEPEST and isinstance(old, list) and isinstance(new, list):
        yield from _in_lists(old, new, path)
    elif _text_of(old) != _text_of(new):
        kind: ChangeKind = "changed" if _type_of(old) == _type_of(new) else "retyped"
        yield ValueChange(path, kind, old, new, tuple(compare_texts(*_as_texts(old, new))))


def _in_mappings(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> Iterator[ValueChange]:
    for name, value in new.items():
        if name in old:
            yield from _changes(old[name], value, (*path, name))
        else:
            yield _added(value, (*path, name))
    for name, value in old.items():
        if name not in new:
            yield _removed(value, (*path, name))


def _in_lists(old: list[Any], new: list[Any], path: Path) -> Iterator[ValueChange]:
    """Compare what stands between equal items pair by pair, the rest is added or removed."""
    end = (len(old), len(new), 0)
    old_at = new_at = 0
    for in_old, in_new, length in [*align([*map(_text_of, old)], [*map(_text_of, new)]), end]:
        pairs = min(in_old - old_at, in_new - new_at)
        for shift in range(pairs):
            yield from _changes(old[old_at + shift], new[new_at + shift], (*path, new_at + shift))
        for place in range(old_at + pairs, in_old):
            yield _removed(old[place], (*path, place))
        for place in range(new_at + pairs, in_new):
            yield _added(new[place], (*path, place))
        old_at, new_at = in_old + length, in_new + length


def _added(value: Any, path: Path) -> ValueChange:
    return ValueChange(path, "added", None, value, tuple(compare_texts("", _shown(value))))


def _removed(value: Any, path: Path) -> ValueChange:
    return ValueChange(path, "removed", value, None, tuple(compare_texts(_shown(value), "")))


def _as_texts(old: Any, new: Any) -> tuple[str, str]:
    """Write two values so that their difference shows: a text as it is, unless it stands against a number."""
    if isinstance(old, str) != isinstance(new, str) and not any(
        isinstance(each, Mapping | list) for each in (old, new)
    ):
        return _text_of(old), _text_of(new)
    return _shown(old), _shown(new)


def _shown(value: Any) -> str:
    """Write a value for people: a text as it is, an object in lines unless it is short."""
    if isinstance(value, str):
        return value
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= SHORT_VALUE else json.dumps(value, ensure_ascii=False, indent=2)


def _text_of(value: Any, *, in_order: bool = False) -> str:
    # Not orjson: it refuses large numbers and half surrogate pairs, which a damaged ledger may hold.
    return json.dumps(value, ensure_ascii=False, sort_keys=not in_order)


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "object" if isinstance(value, Mapping) else type(value).__name__

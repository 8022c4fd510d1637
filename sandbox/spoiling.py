"""Spoil a good answer, as models sometimes do: break a constraint, break the JSON, or cut the text."""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

from sandbox.draws import Draw
from sandbox.shapes import AnyShape, List, Numeric, Object, OneOf, Text

# No string is made longer than this just to be too long.
_LONGEST = 20_000
Break = Callable[[], Any]


def broken(shape: AnyShape, value: Any, draw: Draw) -> Any:
    """The answer with one constraint broken. Without constraints, a field is missing or has the wrong type."""
    breaks = list(_breaks(shape, value))
    if breaks:
        holder, key, make = draw.choice(breaks)
        if holder is None:
            return make()
        holder[key] = make()
        return value
    if isinstance(shape, Object) and shape.required:
        del value[draw.choice(sorted(shape.required))]
        return value
    return [value] if isinstance(value, dict) else {"answer": value}


def cut(text: str, tokens: int) -> str:
    """The first tokens of a text, at 4 bytes each."""
    return text.encode("utf-8", "surrogatepass")[: tokens * 4].decode("utf-8", "ignore")


def not_json(text: str) -> str:
    """A chatty preface and JSON whose end is missing."""
    return f"Here is the answer you asked for:\n\n{text[: max(1, len(text) - 2 - len(text) // 8)]}"


def _breaks(shape: AnyShape, value: Any, holder: Any = None, key: Any = None) -> Iterator[tuple[Any, Any, Break]]:
    """All ways to break a constraint: the holder, its key, and a function that makes the wrong value."""
    match shape:
        case Object():
            for name, part in shape.fields:
                yield from _breaks(part, value[name], value, name)
        case List():
            yield from ((holder, key, make) for make in _list_breaks(shape, value))
            for i, (part, item) in enumerate(zip(shape.positions or repeat(shape.item), value, strict=False)):
                yield from _breaks(part, item, value, i)
        case Text():
            yield from ((holder, key, make) for make in _text_breaks(shape, value))
        case Numeric():
            yield from ((holder, key, make) for make in _number_breaks(shape))
        case OneOf():
            fitting = [option for option in shape.options if isinstance(option, Object) and _is(option, value)]
            if len(fitting) == 1:
                yield from _breaks(fitting[0], value, holder, key)
        case _:
            return


def _is(record: Object, value: Any) -> bool:
    return isinstance(value, dict) and {name for name, _ in record.fields} == value.keys()


def _text_breaks(shape: Text, value: str) -> Iterator[Break]:
    low, high = shape.chars.low, shape.chars.high
    if shape.firm and high is not None and high < _LONGEST:
        yield lambda: _longer(value or "word", high)
    if shape.firm and low > 0:
        short = value[: low - 1].strip()
        yield lambda: short
    pattern = shape.pattern
    if pattern is not None:
        spoilt = [text for text in (f"!{value}", f"{value}!", "!", "") if not pattern.search(text)]
        if spoilt:
            yield lambda: spoilt[0]


def _longer(text: str, high: int) -> str:
    """The text repeated until it is longer than `high`."""
    return " ".join([text] * (high // len(text) + 1)) + " and more besides"


def _number_breaks(shape: Numeric) -> Iterator[Break]:
    low, high = shape.low, shape.high
    if shape.firm and high is not None:
        yield lambda: int(high) + 2
    if shape.firm and low is not None:
        yield lambda: int(low) - 2


def _list_breaks(shape: List, value: list[Any]) -> Iterator[Break]:
    low, high = shape.count.low, shape.count.high
    if shape.firm and high is not None and value:
        yield lambda: (value * (high + 2))[: high + 1]
    if shape.firm and low > 0:
        yield lambda: value[: low - 1]

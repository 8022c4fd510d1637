"""Validate answers: an answer becomes content only if it passes every constraint of its pydantic class.

The API enforces a schema's shape, not its bounds: lengths, counts and ranges are only words in descriptions. So each
answer is judged here, and a failing answer lists its faults for the repair. If an endpoint ignores the schema, the JSON
may be inside a fence or a sentence; it is also looked for there.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

OutputClass = type[BaseModel]
FAULTS_NAMED = 10  # a repair lists at most this many faults
STARTS = 100  # a JSON value is looked for in at most this many places of a text
LONGEST_NAME = 60

_SURROGATE = re.compile("[\ud800-\udfff]")
_OPENING = re.compile(r"[{\[]")
# The only one of pydantic's messages that quotes the answer.
_UNQUOTED = {"union_tag_invalid": "Its tag is none of those that the schema names"}


@dataclass(frozen=True, slots=True)
class Content:
    """A valid answer, as plain JSON values, and the sha256 of their canonical JSON.

    `unwrapped` means that it was inside a fence or a sentence.
    """

    output: Any
    hash: str
    unwrapped: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of an answer: where (a dotted path) and what. It quotes no value."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """The faults of an answer that is not content."""

    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "; ".join(f"{fault.where}: {fault.what}" if fault.where else fault.what for fault in self.faults)


def validate_answer(output_class: OutputClass, text: str) -> Content | Invalid:
    """Judge an answer's text. JSON that keeps every constraint is content, even inside a fence or a sentence."""
    if not text.strip():
        return Invalid((Fault("", "The answer has no text"),))
    judged = _judge(output_class, text)
    if isinstance(judged, Invalid):
        judged = _judge_inside(output_class, text) or judged
    if isinstance(judged, Content) and isinstance(validate_stored(output_class, judged.output), Invalid):
        # It would be a miss in every later run, which would pay for it again.
        return Invalid((Fault("", f"does not pass {output_class.__name__} a second time, as it was read the first"),))
    return judged


def validate_stored(output_class: OutputClass, output: Any) -> Content | Invalid:
    """Judge a stored answer again, because today's validators may be stricter."""
    try:
        return _judge(output_class, orjson.dumps(output))
    except TypeError as error:
        return Invalid((Fault("", f"is no JSON value: {error}"),))


def is_content(output_class: OutputClass, text: str) -> bool:
    """Whether a stored answer's JSON is still content: today's validators may be stricter."""
    with suppress(BaseException):  # validators are users' code: one answer must not stop the others
        output_class.model_validate_json(text)
        return True
    return False


def hash_of_stored(text: str) -> str:
    """Return the hash of stored content, from its JSON."""
    return _hash_of(orjson.loads(text))


def _hash_of(output: Any) -> str:
    return hashlib.sha256(orjson.dumps(output, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _judge(output_class: OutputClass, text: str | bytes) -> Content | Invalid:
    try:
        # As it will be read again: with its aliases, and without computed fields.
        output = output_class.model_validate_json(text).model_dump(mode="json", by_alias=True, round_trip=True)
        if faults := tuple(_unstorable(output, ()))[:FAULTS_NAMED]:
            return Invalid(faults)
        return Content(output, _hash_of(output))
    except ValidationError as error:
        # Without the input: faults go into messages and logs, but the answer must stay in its attempt.
        found = error.errors(include_input=False, include_context=False, include_url=False)[:FAULTS_NAMED]
        return Invalid(tuple(_fault(item["loc"], _UNQUOTED.get(item["type"], item["msg"])) for item in found))
    except BaseException as error:  # noqa: BLE001 - validators are users' code: one answer must not stop the others
        return Invalid((Fault("", f"{output_class.__name__} fails on it with {type(error).__name__}"),))


def _judge_inside(output_class: OutputClass, text: str) -> Content | Invalid | None:
    """Judge the JSON inside a text. None if there is none, or if it is unclear which value is meant."""
    values = _values_inside(text)
    judged = [_judge(output_class, value) for value in values if value.strip() != text.strip()]
    valid = {found.hash: replace(found, unwrapped=True) for found in judged if isinstance(found, Content)}
    if len(valid) == 1:
        return next(iter(valid.values()))
    return judged[0] if len(judged) == 1 else None


def _values_inside(text: str) -> list[str]:
    """Return the outermost JSON objects and arrays of a text; none if an unmatched bracket is around them.

    A truncated value must not pass for content because of a complete value inside it.
    """
    decoder, values, around, at = json.JSONDecoder(), [], [], 0
    for _start in range(STARTS):
        found = _OPENING.search(text, at)
        if found is None:
            break
        try:
            _value, end = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            around.append(text[at : found.end()])
            at = found.end()
        else:
            values.append(text[found.start() : end])
            around.append(text[at : found.start()])
            at = end
    around.append(text[at:])
    left = "".join(around)
    is_whole = "{" not in left and "}" not in left and left.count("[") == left.count("]")
    return values if is_whole else []


def _unstorable(value: Any, path: tuple[str | int, ...]) -> Iterator[Fault]:
    """Yield values that pydantic accepts but no database can store as JSON."""
    match value:
        case dict():
            for label, inner in value.items():
                yield from _unstorable(label, path)
                yield from _unstorable(inner, (*path, label))
        case list():
            for number, inner in enumerate(value):
                yield from _unstorable(inner, (*path, number))
        case str() if "\x00" in value:
            yield _fault(path, "contains a NUL character")
        case str() if _SURROGATE.search(value):
            yield _fault(path, "contains half a surrogate pair")
        case float() if not math.isfinite(value):
            yield _fault(path, "is not a finite number")
        case int() if value.bit_length() > 63:
            yield _fault(path, "is a number of more than 64 bits")


def _fault(path: tuple[str | int, ...], what: str) -> Fault:
    # The path contains a name that the model invented, which may have any length.
    where = ".".join(str(part)[:LONGEST_NAME] for part in path)
    what = what.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    # A validator may quote half a surrogate pair, which can't be sent to the model or stored.
    return Fault(_SURROGATE.sub("\ufffd", where), _SURROGATE.sub("\ufffd", what))

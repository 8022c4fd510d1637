"""Validate answers: what the model answered is content only if pydantic says so, every constraint included.

The API enforces a schema's shape, not its bounds: lengths, counts and ranges reach it as words in descriptions
only. So each answer is judged here, and an answer that fails says what was wrong, for the repair. Where an endpoint
ignores the schema, the JSON may stand in a fence or in a sentence: it is looked for there.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

OutputClass = type[BaseModel]
FAULTS_NAMED = 10  # faults that a repair is told of at most
STARTS = 100  # places of a text at most where a JSON value is looked for
LONGEST_NAME = 60

_SURROGATE = re.compile("[\ud800-\udfff]")
_OPENING = re.compile(r"[{\[]")
# The only message of pydantic's own that quotes the answer.
_UNQUOTED = {"union_tag_invalid": "Its tag is none of those that the schema names"}


@dataclass(frozen=True, slots=True)
class Content:
    """A valid answer, as plain JSON values, and the sha256 of their canonical JSON.

    `unwrapped` says that it was not the whole answer: a fence or a sentence stood around it.
    """

    output: Any
    hash: str
    unwrapped: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with an answer: where (a dotted path) and what. It quotes no value."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """An answer that is no content, and why."""

    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "; ".join(f"{fault.where}: {fault.what}" if fault.where else fault.what for fault in self.faults)


def validate_answer(output_class: OutputClass, text: str) -> Content | Invalid:
    """Judge an answer as it came: JSON that keeps every constraint is content, also in a fence or in a sentence."""
    if not text.strip():
        return Invalid((Fault("", "The answer has no text"),))
    judged = _judge(output_class, text)
    if isinstance(judged, Invalid):
        judged = _judge_inside(output_class, text) or judged
    if isinstance(judged, Content) and isinstance(validate_stored(output_class, judged.output), Invalid):
        # It would be a miss in every later run, and paid for each time.
        return Invalid((Fault("", f"does not pass {output_class.__name__} a second time, as it was read the first"),))
    return judged


def validate_stored(output_class: OutputClass, output: Any) -> Content | Invalid:
    """Judge an answer that was kept: today's validators may be stricter than those that let it pass."""
    try:
        return _judge(output_class, orjson.dumps(output))
    except TypeError as error:
        return Invalid((Fault("", f"is no JSON value: {error}"),))


def is_content(output_class: OutputClass, text: str) -> bool:
    """Whether an answer that was kept is content, by its JSON: today's validators may be stricter."""
    try:
        output_class.model_validate_json(text)
    except BaseException:  # noqa: BLE001 - validators are users' own code: one answer must not stop the others
        return False
    return True


def hash_of_stored(text: str) -> str:
    """Return the hash of content that was kept, by its JSON."""
    return _hash_of(orjson.loads(text))


def _hash_of(output: Any) -> str:
    return hashlib.sha256(orjson.dumps(output, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _judge(output_class: OutputClass, text: str | bytes) -> Content | Invalid:
    try:
        # As it will be read again: by its aliases, and without what the class computes.
        output = output_class.model_validate_json(text).model_dump(mode="json", by_alias=True, round_trip=True)
        if faults := tuple(_unstorable(output, ()))[:FAULTS_NAMED]:
            return Invalid(faults)
        return Content(output, _hash_of(output))
    except ValidationError as error:
        # Without the input: a fault goes to messages and logs, the answer itself stays in the attempt.
        told = error.errors(include_input=False, include_context=False, include_url=False)[:FAULTS_NAMED]
        return Invalid(tuple(_fault(item["loc"], _UNQUOTED.get(item["type"], item["msg"])) for item in told))
    except BaseException as error:  # noqa: BLE001 - validators are users' own code: one answer must not stop the others
        return Invalid((Fault("", f"{output_class.__name__} fails on it with {type(error).__name__}"),))


def _judge_inside(output_class: OutputClass, text: str) -> Content | Invalid | None:
    """Judge the JSON that stands inside a text; None where there is none, or it is not clear which one is meant."""
    values = _values_inside(text)
    judged = [_judge(output_class, value) for value in values if value.strip() != text.strip()]
    valid = {found.hash: replace(found, unwrapped=True) for found in judged if isinstance(found, Content)}
    if len(valid) == 1:
        return next(iter(valid.values()))
    return judged[0] if len(judged) == 1 else None


def _values_inside(text: str) -> list[str]:
    """Return the outermost JSON objects and arrays of a text; none where a bracket is left over around them.

    A value that is cut off must not pass for content by a whole one that stands in it.
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
    """Find what pydantic lets pass and no database keeps as JSON."""
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
    # A name that the model made up stands in the path, and may be of any length.
    where = ".".join(str(part)[:LONGEST_NAME] for part in path)
    what = what.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    # It is sent to the model and kept: neither takes half a surrogate pair, which a validator may quote.
    return Fault(_SURROGATE.sub("\ufffd", where), _SURROGATE.sub("\ufffd", what))

"""Validate: what the model answered is content only if pydantic says so, every constraint included.

The API enforces a schema's shape, not its bounds: lengths, counts and ranges reach it as words in descriptions
only. So each answer is judged here, and an answer that fails says what was wrong, for the repair.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from flows.errors import OutputClassError

OutputClass = type[BaseModel]
OUTPUTS = "flows.outputs"
NAMED = 10  # faults that a repair is told of at most


@dataclass(frozen=True, slots=True)
class Content:
    """A valid answer, as plain JSON values, and the sha256 of their canonical JSON."""

    output: Any
    hash: str


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


def load_output_class(name: str) -> OutputClass:
    """Find a class of flows/outputs.py; OutputClassError says which there are."""
    module = importlib.import_module(OUTPUTS)
    found = getattr(module, name, None)
    if inspect.isclass(found) and issubclass(found, BaseModel):
        return found
    known = sorted(
        label
        for label, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, BaseModel) and value.__module__ == OUTPUTS
    )
    raise OutputClassError(f"There is no output class {name!r} in flows/outputs.py; there are: {', '.join(known)}.")


def validate_answer(output_class: OutputClass, text: str) -> Content | Invalid:
    """Judge an answer as it came: JSON that keeps every constraint is content."""
    try:
        return _content(output_class.model_validate_json(text))
    except ValidationError as error:
        return _invalid(error)


def validate_stored(output_class: OutputClass, output: Any) -> Content | Invalid:
    """Judge an answer that was kept: today's validators may be stricter than those that let it pass."""
    try:
        return _content(output_class.model_validate_json(orjson.dumps(output)))
    except ValidationError as error:
        return _invalid(error)


def _content(answer: BaseModel) -> Content:
    output = answer.model_dump(mode="json")
    return Content(output, hashlib.sha256(orjson.dumps(output, option=orjson.OPT_SORT_KEYS)).hexdigest())


def _invalid(error: ValidationError) -> Invalid:
    # Without the input: a fault goes to messages and logs, the answer itself stays in the attempt.
    found = error.errors(include_input=False, include_context=False, include_url=False)
    return Invalid(tuple(Fault(".".join(map(str, item["loc"])), item["msg"]) for item in found[:NAMED]))

"""Apply the conditions of `.where()` to a step's generations.

A condition is the flow's code and may fail on one generation. Then only that record fails, in the step that follows the
condition.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from db.readers.stored_generations import StepGeneration
from db.words import CONDITION
from presswork.errors import RecordError
from presswork.output_classes.validate import OutputClass


@dataclass(frozen=True, slots=True)
class Generated:
    """A generation as a condition sees it: `output` is an instance of the step's output class."""

    key: str
    record: Mapping[str, Any]
    output: Any


Condition = Callable[[Generated], object]


def judged(generation: StepGeneration, output_class: OutputClass, conditions: Sequence[Condition]) -> Generated | None:
    """Return a stored generation as conditions see it, or None if a condition does not keep it.

    Raises RecordError if it no longer fits its class, or if a condition fails on it; the error quotes no record.
    """
    try:
        # From JSON, as when it was validated: only there may a class accept a date as text.
        output = output_class.model_validate_json(orjson.dumps(generation.output))
    except Exception as error:  # noqa: BLE001 - validators are users' code: one generation must not stop the others
        raise RecordError(
            f"The output of {generation.step} no longer fits {output_class.__name__}: {type(error).__name__}.",
            kind=CONDITION,
        ) from None
    seen = Generated(generation.record_key, generation.record or {}, output)
    for condition in conditions:
        try:
            holds = bool(condition(seen))
        except Exception as error:  # noqa: BLE001 - a condition is users' code: one generation must not stop the others
            code = getattr(condition, "__code__", None)
            place = f" in {Path(code.co_filename).name}, line {code.co_firstlineno}," if code is not None else ""
            raise RecordError(
                f"The condition of `.where()`{place} fails with {type(error).__name__}.", kind=CONDITION
            ) from None
        if not holds:
            return None
    return seen

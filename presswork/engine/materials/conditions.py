"""Conditions: what `.where()` keeps of a step's generations, and what becomes of one that it can't judge.

A condition is the flow's own code and may fail on one generation, as a template may: that record fails alone, in the
step that the condition stands before.
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
    """Return a stored generation as conditions see it, None where one does not keep it.

    RecordError where it no longer fits its class, or where a condition fails on it; it quotes nothing of the record.
    """
    try:
        # As it was judged, from JSON: a class may take a date as text there, and nowhere else.
        output = output_class.model_validate_json(orjson.dumps(generation.output))
    except Exception as error:  # noqa: BLE001 - validators are users' own code: one generation must not stop the others
        raise RecordError(
            f"The output of {generation.step} can't be read as {output_class.__name__}: {type(error).__name__}.",
            kind=CONDITION,
        ) from None
    seen = Generated(generation.record_key, generation.record or {}, output)
    for condition in conditions:
        try:
            holds = bool(condition(seen))
        except Exception as error:  # noqa: BLE001 - the flow's own code: one generation must not stop the others
            code = getattr(condition, "__code__", None)
            place = f" in {Path(code.co_filename).name}, line {code.co_firstlineno}," if code is not None else ""
            raise RecordError(
                f"The condition of `.where()`{place} fails with {type(error).__name__}.", kind=CONDITION
            ) from None
        if not holds:
            return None
    return seen

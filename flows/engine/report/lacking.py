"""The generations of a run that brought no content, as its summary and `presswork history` name them.

Apart from summary.py, which loads the SDK.
"""

from __future__ import annotations

from pydantic import BaseModel
from sqlalchemy import Engine

from db.readers.failures import without_content
from db.words import STATUSES, SUCCEEDED

LACKING = tuple(status for status in STATUSES if status != SUCCEEDED)
"""How a generation ends that brought no content."""


class Failure(BaseModel):
    """A generation that brought no content."""

    generation_id: str
    step: str
    record_key: str
    status: str
    kind: str | None
    message: str | None


def list_failures(ledger: Engine, run_id: str, limit: int = 10) -> list[Failure]:
    """List a run's first generations without content."""
    return [
        Failure(**dict(zip(Failure.model_fields, row, strict=True))) for row in without_content(ledger, run_id, limit)
    ]

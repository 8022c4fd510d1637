"""Tell the rows of trials from those of all other runs.

A trial is a run of `presswork templates try`. Its generations and attempts are history as any others, and its answers
are found by their prompts. But they are no record's content: whatever derives from history what was current when must
leave them out.
"""

from typing import Any

from sqlalchemy import ColumnElement, select

from db.tables.run_tables import StoredRun
from db.words import TRY


def is_of_trial(run_id: Any) -> ColumnElement[bool]:
    """Select the rows whose run is a trial, given their column with the run's id."""
    # By the primary key, because the trials of a ledger have no index. Aliased, because the statement may have runs.
    run = StoredRun.__table__.alias()
    return select(run.c.id).where(run.c.id == run_id, run.c.trigger == TRY).exists()

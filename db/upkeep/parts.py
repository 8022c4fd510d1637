"""Go through the ledger in parts, so that the work can be stopped at any moment and needs little memory."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select, true

from db.tables import Generation, StandingContent

ROWS_AT_ONCE = 20_000
"""The rows of a table in one part, plus the rows of one more record."""
Begin = Callable[[], AbstractContextManager[Connection]]
"""A function that begins a transaction."""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a step of a flow on an endpoint whose record keys are above `after`, and not above `until`."""

    flow: str
    step: str
    endpoint: str
    after: str | None = None
    until: str | None = None

    def has(self, table: Any) -> ColumnElement[bool]:
        """Select the part's rows of a table."""
        step = (table.flow == self.flow, table.step == self.step, table.endpoint == self.endpoint)
        return and_(*step, self.has_key(table.record_key))

    def has_key(self, key: Any) -> ColumnElement[bool]:
        """Select rows only by their keys."""
        above = [] if self.after is None else [key > self.after]
        return and_(true(), *above, *([] if self.until is None else [key <= self.until]))


def go_through(
    begin: Begin, steps: Iterable[Part], work: Callable[[Connection, Part], int], report: Callable[[int], None]
) -> None:
    """Do some work on each part of the steps, each in its own transaction.

    `work` returns the amount that it has done; `report` is called with the total so far.
    """
    done = 0
    for step in steps:
        part: Part | None = step
        while part is not None:
            with begin() as connection:
                part = replace(part, until=_end_of(connection, part))
                done += work(connection, part)
            report(done)
            part = None if part.until is None else replace(part, after=part.until, until=None)


def _end_of(connection: Connection, part: Part) -> str | None:
    ends = []
    for table in (Generation, StandingContent):
        keys = select(table.record_key).where(part.has(table)).order_by(table.record_key)
        ends.append(connection.scalar(keys.offset(ROWS_AT_ONCE).limit(1)))
    return min((end for end in ends if end is not None), default=None)

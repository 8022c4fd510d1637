"""List the runs: filtered, sorted, a page at a time."""

from dataclasses import dataclass

from sqlalchemy import Engine

from db.readers.figures import RunLine, list_runs
from presswork.audit.page import Page, PeriodQuery, ShortText

AT_ONCE_RUNS = 50


class RunsQuery(PeriodQuery):
    """The filters of the list of runs."""

    flow: ShortText | None = None


@dataclass(frozen=True)
class RunsView:
    """A page of the list."""

    runs: tuple[RunLine, ...]


@dataclass(frozen=True)
class RunChoices:
    """What the form offers."""

    flows: tuple[str, ...]


def read_runs(engine: Engine, query: RunsQuery) -> RunsView:
    """Read the newest runs."""
    return RunsView(tuple(list_runs(engine, flow=query.flow, limit=AT_ONCE_RUNS)))


def read_choices(_engine: Engine) -> RunChoices:
    """Read the flows that have runs."""
    return RunChoices(())


RUNS = Page("/runs", RunsQuery, read_runs, "runs.html", read_choices)

"""List the runs: filtered, sorted, a page at a time."""

from dataclasses import dataclass

from sqlalchemy import Engine

from db.readers.audit.filter_values import values_of_filters
from db.readers.audit.filters import RunFilter
from db.readers.audit.run_lists import RunSort, list_runs_page
from db.readers.figures import RunLine
from presswork.audit.page import Page, PeriodQuery, ShortText


class RunsQuery(PeriodQuery):
    """The filters of the list of runs; `before` is where the page begins."""

    flow: ShortText | None = None
    status: ShortText | None = None
    trigger: ShortText | None = None
    endpoint: ShortText | None = None
    sort: RunSort = "started"
    before: ShortText | None = None


@dataclass(frozen=True, slots=True)
class RunsView:
    """A page of the list; `before` is where the next one begins. `count` is None if there are too many to count.

    Trials are in it only if the query asks for them; `leaves_out_trials` says that some would fit.
    """

    runs: tuple[RunLine, ...]
    before: str | None
    count: int | None
    leaves_out_trials: bool


def read_runs(engine: Engine, query: RunsQuery) -> RunsView:
    """Read a page of the runs that fit."""
    wanted = RunFilter(
        flow=query.flow,
        status=query.status,
        trigger=query.trigger,
        endpoint=query.endpoint,
        since=query.since,
        until=query.until,
    )
    found = list_runs_page(engine, wanted, query.sort, query.before)
    return RunsView(tuple(found.lines), found.before, found.count, found.leaves_out_trials)


RUNS = Page("/runs", RunsQuery, read_runs, "runs.html", values_of_filters)

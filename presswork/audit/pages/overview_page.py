"""The overview of a period: what it cost, what came of it, what failed, and what is current now."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Engine

from db.clock import now
from db.readers.audit.filter_values import values_of_filters
from db.readers.audit.filters import Filter
from db.readers.audit.overviews import (
    ContentCount,
    FigureLine,
    RecentFailure,
    count_content,
    figures_by_each,
    recent_failures,
)
from db.words import TRY
from presswork.audit import links
from presswork.audit.charts import BarChart
from presswork.audit.next_runs import NextRun
from presswork.audit.page import Page, PeriodQuery, ShortText
from presswork.audit.pages.overview_charts import cost_chart, outcome_chart, spans_of
from presswork.audit.pages.period_figures import Figures, add_figures, dearest, read_figures

DEFAULT_DAYS = 30
FAILED_LATELY = 8
DEAREST = 10
_GROUPINGS = (("day",), ("flow",), ("step", "template"), ("model",), ("endpoint",))
_BEFORE_ALL = date(2020, 1, 1)
_PRESETS = (("7 days", 7), ("30 days", 30), ("90 days", 90), ("12 months", 365))
_DAY = timedelta(days=1)
AskNext = Callable[[], Sequence[NextRun] | None]
"""Says which runs come next; None if that is not known."""


class OverviewQuery(PeriodQuery):
    """A period, which counts as the whole UTC days that it touches; the last 30 days without one."""

    flow: ShortText | None = None
    endpoint: ShortText | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A link to a common period."""

    name: str
    href: str
    is_shown: bool


@dataclass(frozen=True, slots=True)
class OverviewView:
    """The figures of the days from `first` to `last`; of those in `total`, `tried` are of trials.

    `content` is None if there is too much to count.
    """

    first: date
    last: date
    flow: str | None
    endpoint: str | None
    total: Figures
    tried: FigureLine
    by_day: tuple[Figures, ...]
    by_flow: tuple[Figures, ...]
    by_template: tuple[Figures, ...]
    by_model: tuple[Figures, ...]
    by_endpoint: tuple[Figures, ...]
    failed_lately: tuple[RecentFailure, ...]
    content: tuple[ContentCount, ...] | None
    next_runs: tuple[NextRun, ...] | None
    presets: tuple[Preset, ...]

    @property
    def after(self) -> date:
        """The day after the last one."""
        return self.last + _DAY


@dataclass(frozen=True, slots=True)
class OverviewCharts:
    """What is drawn of the view."""

    cost: BarChart
    outcomes: BarChart


def read_overview(engine: Engine, query: OverviewQuery) -> OverviewView:
    """Read the figures of a period, without what runs next."""
    today = now().date()
    first = query.since.date() if query.since is not None else today - timedelta(days=DEFAULT_DAYS - 1)
    last = today if query.until is None else min((query.until - timedelta(microseconds=1)).date(), today)
    chosen = Filter(flow=query.flow, endpoint=query.endpoint, since=_begin(first), until=_begin(last + _DAY))
    content = count_content(engine, query.flow, query.endpoint)
    by_day, by_flow, by_template, by_model, by_endpoint = read_figures(engine, _GROUPINGS, chosen)
    return OverviewView(
        first=first,
        last=last,
        flow=query.flow,
        endpoint=query.endpoint,
        total=add_figures(by_day),
        tried=figures_by_each(engine, [()], replace(chosen, trigger=TRY))[0][0],
        by_day=tuple(by_day),
        by_flow=dearest(by_flow),
        by_template=_that_cost(by_template),
        by_model=dearest(by_model),
        by_endpoint=dearest(by_endpoint),
        failed_lately=tuple(recent_failures(engine, chosen, FAILED_LATELY)),
        content=None if content is None else tuple(content),
        presets=tuple(_presets(query, today)),
        next_runs=None,
    )


def _that_cost(lines: Sequence[Figures]) -> tuple[Figures, ...]:
    return tuple(line for line in dearest(lines)[:DEAREST] if line.usage.cost_usd or line.usage.unpriced)


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _presets(query: OverviewQuery, today: date) -> Iterable[Preset]:
    """Yield links to common periods, by their dates, so that they stay the same in a report."""
    for name, days in (*_PRESETS, ("All", (today - _BEFORE_ALL).days + 1)):
        first = today - timedelta(days=days - 1)
        href = links.overview(since=first.isoformat(), flow=query.flow, endpoint=query.endpoint)
        asked = query.since.date() if query.since is not None else today - timedelta(days=DEFAULT_DAYS - 1)
        yield Preset(name, href, query.until is None and asked == first)


def draw_overview(view: OverviewView) -> OverviewCharts:
    """Draw cost and outcomes."""
    unit, spans = spans_of(view.first, view.last, view.by_day, flow=view.flow, endpoint=view.endpoint)
    return OverviewCharts(cost_chart(unit, spans), outcome_chart(unit, spans))


def overview_page(ask_next: AskNext | None) -> Page[OverviewQuery]:
    """Make the page; `ask_next` says which runs come next."""

    def read(engine: Engine, query: OverviewQuery) -> OverviewView:
        if ask_next is None:
            return read_overview(engine, query)
        # Prefect may take its second while the ledger is read.
        with ThreadPoolExecutor(1) as asking:
            upcoming = asking.submit(ask_next)
            view = read_overview(engine, query)
            found = upcoming.result()
        return replace(view, next_runs=None if found is None else tuple(found))

    return Page("/", OverviewQuery, read, "overview.html", values_of_filters, draw_overview)

"""Draw cost and outcomes of a period, by day, or by month if it is long."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal

from markupsafe import Markup

from presswork.audit import links
from presswork.audit.charts import Bar, BarChart, bar_chart
from presswork.audit.markup import money, number
from presswork.audit.pages.period_figures import Figures, add_figures

BY_DAY_UP_TO = 93
"""A longer period is drawn by month."""
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ChartSpan:
    """A bar's days, from `first` to the one before `after`, their figures, and the address of their rows."""

    label: str
    first: date
    after: date
    figures: Figures
    rows: str = ""


def spans_of(first: date, last: date, by_day: Sequence[Figures], **filters: str | None) -> tuple[str, list[ChartSpan]]:
    """Return the unit of the bars, day or month, and the bars. A long period begins with its first figures.

    `filters` are those of the page: the rows of a bar have them too.
    """
    days = {str(each.alike.day): each for each in by_day}
    unit = "day" if (last - first).days < BY_DAY_UP_TO else "month"
    spans = _days(first, last, days) if unit == "day" else _months(last, days)
    return unit, [
        replace(span, rows=links.generations(**filters, since=span.first.isoformat(), until=span.after.isoformat()))
        for span in spans
    ]


def _days(first: date, last: date, days: dict[str, Figures]) -> Iterator[ChartSpan]:
    day = first
    while day <= last:
        yield ChartSpan(day.isoformat(), day, day + _DAY, days.get(day.isoformat()) or add_figures([]))
        day += _DAY


def _months(last: date, days: dict[str, Figures]) -> Iterator[ChartSpan]:
    months: dict[str, list[Figures]] = {}
    for name, each in days.items():
        months.setdefault(name[:7], []).append(each)
    month = date.fromisoformat(f"{min(months, default=f'{last:%Y-%m}')}-01")
    while month <= last:
        after = (month + timedelta(days=32)).replace(day=1)
        yield ChartSpan(f"{month:%Y-%m}", month, after, add_figures(months.get(f"{month:%Y-%m}", [])))
        month = after


def cost_chart(unit: str, spans: Sequence[ChartSpan]) -> BarChart:
    """Draw the cost of each span."""
    costs = [each.figures.usage.cost_usd or Decimal(0) for each in spans]
    bars = [
        Bar(
            span.label,
            [("", cost)],
            [
                money(span.figures.usage.cost_usd, span.figures.usage.unpriced),
                number(span.figures.usage.requests),
                money(span.figures.saved.usd, span.figures.saved.unpriced),
            ],
            f"{span.label}: ${cost:,.4f}, {span.figures.usage.requests:,} requests",
            span.rows if span.figures.usage.requests else None,
        )
        for span, cost in zip(spans, costs, strict=True)
    ]
    return bar_chart(
        f"Cost by {unit}",
        bars,
        by=f"{unit.title()} (UTC)",
        columns=("Cost", "Requests", "Saved by the prompt cache"),
        top=money(max(costs, default=Decimal(0))),
        said=f"Cost by {unit}, in US dollars. The table below has the same figures.",
    )


def outcome_chart(unit: str, spans: Sequence[ChartSpan]) -> BarChart:
    """Draw how the generations of each span ended."""
    most = max((span.figures.ended.generations for span in spans), default=0)
    return bar_chart(
        f"Generations by {unit}",
        [_outcomes(span) for span in spans],
        by=f"{unit.title()} (UTC)",
        columns=("New", "Cached", "Without content", "Unchanged, no row", "Failed again, no row"),
        top=number(most),
        keys=(("", "new"), ("three", "cached"), ("two", "without content")),
        said=f"Generations by {unit}. The table below has the same figures.",
    )


def _outcomes(span: ChartSpan) -> Bar:
    ended = span.figures.ended
    new, cached, without = ended.succeeded, ended.cached, ended.without_content
    values: list[Markup | str] = [number(each) for each in (new, cached, without, ended.unchanged, ended.failed_again)]
    return Bar(
        span.label,
        [("", new), ("three", cached), ("two", without)],
        values,
        f"{span.label}: {new:,} new, {cached:,} cached, {without:,} without content",
        span.rows if ended.generations else None,
    )

"""The figures of a period, grouped, each with what the prompt cache saved; and their sums."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import Engine

from db.readers.audit.filters import Filter
from db.readers.audit.overviews import Ended, FigureLine, figures_by_each
from db.readers.audit.sums import Alike, CacheUseSum, cache_use_by, values_of
from db.readers.figures import TotalUsage
from presswork.report.cache_savings import PromptCacheSavings, savings_of

_NO_SAVINGS = (Decimal(0), 0)
Summed = TypeVar("Summed", TotalUsage, Ended, PromptCacheSavings)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of what is alike, and what the prompt cache saved."""

    alike: Alike
    usage: TotalUsage
    ended: Ended
    saved: PromptCacheSavings


def read_figures(engine: Engine, groupings: Sequence[Sequence[str]], chosen: Filter) -> list[list[Figures]]:
    """Return the figures of a period for each grouping by some of day, flow, endpoint, step, template and model."""
    lines = figures_by_each(engine, groupings, chosen)
    # Each use is read and priced once, grouped by all of these; pricing takes longer than adding up.
    uses = cache_use_by(engine, list(dict.fromkeys(name for by in groupings for name in by)), chosen)
    saved = list(zip(uses, savings_of(use.use for use in uses), strict=True))
    return [_with_savings(of_grouping, by, saved) for of_grouping, by in zip(lines, groupings, strict=True)]


def _with_savings(
    lines: Sequence[FigureLine], by: Sequence[str], saved: Sequence[tuple[CacheUseSum, PromptCacheSavings]]
) -> list[Figures]:
    values = values_of(by)
    of_line: dict[Any, tuple[Decimal, int]] = {}
    for use, each in saved:
        key = values(use.alike)
        usd, unpriced = of_line.get(key, _NO_SAVINGS)
        of_line[key] = usd + each.usd, unpriced + each.unpriced
    return [
        Figures(line.alike, line.usage, line.ended, PromptCacheSavings(*of_line.get(values(line.alike), _NO_SAVINGS)))
        for line in lines
    ]


def dearest(lines: Sequence[Figures]) -> tuple[Figures, ...]:
    """Sort figures by cost, the greatest first."""
    return tuple(sorted(lines, key=lambda each: each.usage.cost_usd or Decimal(0), reverse=True))


def add_figures(lines: Sequence[Figures]) -> Figures:
    """Add figures up. What is unknown in one of them is left out, and counted as unpriced."""
    return Figures(
        Alike(),
        _added(TotalUsage(cost_usd=Decimal(0)), [each.usage for each in lines]),
        _added(Ended(), [each.ended for each in lines]),
        _added(PromptCacheSavings(Decimal(0), 0), [each.saved for each in lines]),
    )


def _added(nothing: Summed, lines: Sequence[Summed]) -> Summed:
    """Add dataclasses of numbers up, field by field; a field is None if it is in all of them."""
    found: dict[str, Any] = {}
    for each in fields(nothing):
        known = [value for line in lines if (value := getattr(line, each.name)) is not None]
        found[each.name] = sum(known, getattr(nothing, each.name)) if known or not lines else None
    return replace(nothing, **found)

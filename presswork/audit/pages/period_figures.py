"""The figures of a period, grouped, each with what the prompt cache saved; and their sums."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import Engine

from db.readers.audit.filters import Filter
from db.readers.audit.overviews import Ended, FigureLine, figures_by_each
from db.readers.audit.sums import Alike, CacheUseSum, cache_use_by_each
from db.readers.figures import PromptCacheUse, TotalUsage
from presswork.report.cache_savings import PromptCacheSavings, add_savings

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
    lines, uses = figures_by_each(engine, groupings, chosen), cache_use_by_each(engine, groupings, chosen)
    return [_with_savings(*each) for each in zip(lines, uses, strict=True)]


def _with_savings(lines: Sequence[FigureLine], uses: Sequence[CacheUseSum]) -> list[Figures]:
    of_line: dict[Alike, list[PromptCacheUse]] = {}
    for each in uses:
        of_line.setdefault(each.alike, []).append(each.use)
    return [Figures(line.alike, line.usage, line.ended, add_savings(of_line.get(line.alike, []))) for line in lines]


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

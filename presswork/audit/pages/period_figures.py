"""The figures of a period, grouped, each with what the prompt cache saved; and their sums."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import Engine

from db.readers.audit.filters import Filter
from db.readers.audit.overviews import Ended, figures_by
from db.readers.audit.sums import Alike, cache_use_by
from db.readers.figures import PromptCacheUse, TotalUsage
from presswork.report.savings import PromptCacheSavings, add_savings

Summed = TypeVar("Summed", TotalUsage, Ended, PromptCacheSavings)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of what is alike, and what the prompt cache saved."""

    alike: Alike
    usage: TotalUsage
    ended: Ended
    saved: PromptCacheSavings


def read_figures(engine: Engine, by: Sequence[str], chosen: Filter) -> list[Figures]:
    """Return the figures of a period, grouped by some of day, flow, endpoint, step, template and model."""
    uses: dict[Alike, list[PromptCacheUse]] = {}
    for each in cache_use_by(engine, by, chosen):
        uses.setdefault(each.alike, []).append(each.use)
    lines = figures_by(engine, by, chosen)
    return [Figures(line.alike, line.usage, line.ended, add_savings(uses.get(line.alike, []))) for line in lines]


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


def regrouped(lines: Sequence[Figures], by: Sequence[str]) -> list[Figures]:
    """Add figures up by fewer dimensions than they were read by: one read answers several questions."""
    found: dict[Alike, list[Figures]] = {}
    for line in lines:
        alike = Alike(**{name: getattr(line.alike, name) for name in by})
        found.setdefault(alike, []).append(line)
    return [replace(add_figures(alike_lines), alike=alike) for alike, alike_lines in found.items()]

"""What the endpoint's prompt cache saved, from groups of requests with the same prices."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from db.readers.figures import PromptCacheUse
from presswork.prices import Usage, find_rates, saved_by_prompt_cache


@dataclass(frozen=True, slots=True)
class PromptCacheSavings:
    """What reads saved, minus the extra cost of writes; below 0 if writing cost more.

    `unpriced` counts the reads and writes whose price is not known. They are not in `usd`.
    """

    usd: Decimal
    unpriced: int


def add_savings(uses: Iterable[PromptCacheUse]) -> PromptCacheSavings:
    """Add up what these requests saved by the prompt cache."""
    total, unpriced = Decimal(0), 0
    for use in _with_equal_prices(uses):
        saved = _saved(use)
        total += saved or 0
        unpriced += 0 if saved is not None else use.reads + use.writes
    return PromptCacheSavings(total, unpriced)


def saved_by_reads(uses: Sequence[PromptCacheUse]) -> Decimal | None:
    """Add up what reads of the prompt cache saved, minus the cost of writes; None if a price is not known."""
    found = add_savings(uses)
    return None if found.unpriced else found.usd


def _with_equal_prices(uses: Iterable[PromptCacheUse]) -> list[PromptCacheUse]:
    """Merge the days between two changes of the price list: pricing a group takes longer than adding a hundred."""
    found: dict[tuple[Any, ...], PromptCacheUse] = {}
    for use in uses:
        rates = find_rates(use.model, use.day, use.speed)
        alike = (use.model, use.service_tier, use.inference_geo, use.speed, use.prompt_tokens, id(rates))
        before = found.get(alike)
        found[alike] = use if before is None else _merged(before, use)
    return list(found.values())


def _merged(one: PromptCacheUse, other: PromptCacheUse) -> PromptCacheUse:
    return replace(
        one,
        written_5m=one.written_5m + other.written_5m,
        written_1h=one.written_1h + other.written_1h,
        read=one.read + other.read,
        writes=one.writes + other.writes,
        reads=one.reads + other.reads,
    )


def _saved(use: PromptCacheUse) -> Decimal | None:
    used = Usage(
        input_tokens=0,
        cache_creation_5m_tokens=use.written_5m,
        cache_creation_1h_tokens=use.written_1h,
        cache_read_tokens=use.read,
        service_tier=use.service_tier,
        inference_geo=use.inference_geo,
        speed=use.speed,
    )
    return saved_by_prompt_cache(use.model, used, use.day, prompt_tokens=use.prompt_tokens)

"""What the endpoint's prompt cache saved, from groups of requests with the same prices."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from db.readers.figures import PromptCacheUse
from presswork.prices import Usage, find_rates, saved_by_prompt_cache

_Saved = tuple[Decimal | None, Decimal | None, Decimal | None]


@dataclass(frozen=True, slots=True)
class PromptCacheSavings:
    """What reads saved, minus the extra cost of writes; below 0 if writing cost more.

    `unpriced` counts the reads and writes whose price is not known. They are not in `usd`.
    """

    usd: Decimal
    unpriced: int


def add_savings(uses: Iterable[PromptCacheUse]) -> PromptCacheSavings:
    """Add up what these requests saved by the prompt cache."""
    found = savings_of(uses)
    return PromptCacheSavings(sum((each.usd for each in found), Decimal(0)), sum(each.unpriced for each in found))


def saved_by_reads(uses: Sequence[PromptCacheUse]) -> Decimal | None:
    """Add up what reads of the prompt cache saved, minus the cost of writes; None if a price is not known."""
    found = add_savings(uses)
    return None if found.unpriced else found.usd


def savings_of(uses: Iterable[PromptCacheUse]) -> list[PromptCacheSavings]:
    """Return what each of these uses saved; equal prices are looked up once, because that takes longest."""
    known: dict[tuple[Any, ...], _Saved] = {}
    return [_savings(use, _prices(use, known)) for use in uses]


def _savings(use: PromptCacheUse, saved: _Saved) -> PromptCacheSavings:
    usd = Decimal(0)
    for a_token, tokens in zip(saved, (use.written_5m, use.written_1h, use.read), strict=True):
        if tokens and a_token is None:
            return PromptCacheSavings(Decimal(0), use.reads + use.writes)
        usd += tokens * a_token if tokens and a_token is not None else 0
    return PromptCacheSavings(usd, 0)


def _prices(use: PromptCacheUse, known: dict[tuple[Any, ...], _Saved]) -> _Saved:
    # Two days have the same rates, the same object, unless the price list changed in between.
    rates = find_rates(use.model, use.day, use.speed)
    alike = (use.model, use.service_tier, use.inference_geo, use.speed, use.prompt_tokens, id(rates))
    found = known.get(alike)
    if found is None:
        found = known[alike] = _saved_by_token(use)
    return found


def _saved_by_token(use: PromptCacheUse) -> _Saved:
    """Return what one token saves that was written for 5 minutes, written for an hour, and read."""
    nothing = Usage(input_tokens=0, service_tier=use.service_tier, inference_geo=use.inference_geo, speed=use.speed)
    one, two, three = (
        saved_by_prompt_cache(use.model, each, use.day, prompt_tokens=use.prompt_tokens)
        for each in (
            replace(nothing, cache_creation_5m_tokens=1),
            replace(nothing, cache_creation_1h_tokens=1),
            replace(nothing, cache_read_tokens=1),
        )
    )
    return one, two, three

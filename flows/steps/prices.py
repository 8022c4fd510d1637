"""Prices: what a request's usage costs, by the dated price lists of genai-prices.

A rate is looked up once for each model and day and then kept. A price that is unknown is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

PRICE_VERSION = f"genai-prices {version('genai-prices')}"
BATCH_DISCOUNT = Decimal("0.5")
"""Message Batches cost half; source: Anthropic's pricing page."""
PRICED_TIERS = frozenset({None, "standard", "batch"})
"""Priority Tier is paid by a commitment, at a price that no list knows."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the endpoint says a request used, in tokens. All that went in is the sum of the first four.

    The last three set the price: the tier, where inference ran, and how fast; None is ordinary.
    """

    input_tokens: int
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0
    cache_read_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars a million tokens, for each way in which tokens are billed."""

    input: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal
    output: Decimal

    def cost(self, usage: Usage) -> Decimal:
        """Return US dollars."""
        return (
            self.input * usage.input_tokens
            + self.cache_write_5m * usage.cache_creation_5m_tokens
            + self.cache_write_1h * usage.cache_creation_1h_tokens
            + self.cache_read * usage.cache_read_tokens
            + self.output * usage.output_tokens
        ) / 1_000_000


def cost_of(model: str, usage: Usage, day: date) -> Decimal | None:
    """Return US dollars at the price of the day, or None where the price of the model or its tier is not known."""
    rates = find_rates(model, day)
    if rates is None or usage.service_tier not in PRICED_TIERS:
        return None
    total = rates.cost(usage)
    return total * BATCH_DISCOUNT if usage.service_tier == "batch" else total


def saved_by_prompt_cache(model: str, usage: Usage, day: date) -> Decimal | None:
    """Return by how much the prompt cache made a usage cheaper than plain input, in US dollars.

    Less than 0 where more was paid for writing than reading saved; None where the price is not known.
    """
    cached = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens + usage.cache_read_tokens
    plain = replace(
        usage,
        input_tokens=usage.input_tokens + cached,
        cache_creation_5m_tokens=0,
        cache_creation_1h_tokens=0,
        cache_read_tokens=0,
    )
    full, paid = cost_of(model, plain, day), cost_of(model, usage, day)
    return None if full is None or paid is None else full - paid


@lru_cache(maxsize=256)
def find_rates(model: str, day: date) -> Rates | None:
    """Return a model's rates on a day; None where they are unknown, or not one number each (prices by length)."""
    try:
        price = calc_price(
            PricedUsage(input_tokens=1),
            model_ref=model,
            provider_id="anthropic",
            genai_request_timestamp=datetime.combine(day, time(12), UTC),
        ).model_price
    except LookupError:
        return None
    rates = (
        price.input_mtok,
        price.cache_write_mtok,
        price.cache_write_1h_mtok,
        price.cache_read_mtok,
        price.output_mtok,
    )
    known = [rate for rate in rates if isinstance(rate, Decimal)]
    return Rates(*known) if len(known) == len(rates) else None

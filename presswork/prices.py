"""Prices: what a request's usage costs, by the dated price lists of genai-prices.

A rate is looked up once for each model, day and speed and then kept. A price that is unknown is None, never 0.
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.types import ModelPrice, calc_unit_price

from presswork.catalog import plain_model_name

PRICE_VERSION = f"genai-prices {version('genai-prices')}"
BATCH_DISCOUNT = Decimal("0.5")
"""Message Batches cost half; source: Anthropic's pricing page."""
PRICED_TIERS = frozenset({None, "standard", "batch"})
"""Priority Tier is paid by a commitment, at a price that no list knows."""
GEO_FACTORS = {None: Decimal(1), "global": Decimal(1), "not_available": Decimal(1), "us": Decimal("1.1")}
"""Where inference ran, and what that multiplies all prices by; source: Anthropic's page on data residency."""
ORDINARY_SPEEDS = frozenset({None, "standard"})
_BEDROCK = re.compile(r"(?:^|/)((?:[a-z-]+\.)?anthropic\.claude[^/]*)$")


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

    @property
    def prompt_tokens(self) -> int:
        """All that went in, by which prices by prompt length are chosen."""
        cached = self.cache_creation_5m_tokens + self.cache_creation_1h_tokens + self.cache_read_tokens
        return self.input_tokens + cached


def cost_of(model: str, usage: Usage, day: date, *, prompt_tokens: int | None = None) -> Decimal | None:
    """Return US dollars at the price of the day, or None where a price is not known.

    That is so for an unknown model, and for a tier, a place or a speed that no price list knows. `prompt_tokens` is
    the length of one prompt where `usage` is the sum of several requests.
    """
    rates, factor = find_rates(model, day, usage.speed), _factor(model, usage)
    if rates is None or factor is None:
        return None
    billed = (
        (rates.input_mtok, usage.input_tokens),
        (rates.cache_write_mtok, usage.cache_creation_5m_tokens),
        (rates.cache_write_1h_mtok, usage.cache_creation_1h_tokens),
        (rates.cache_read_mtok, usage.cache_read_tokens),
        (rates.output_mtok, usage.output_tokens),
    )
    if any(rate is None and tokens for rate, tokens in billed):
        return None
    # A long prompt's rate holds for all tokens of its request, those of the answer too.
    length = usage.prompt_tokens if prompt_tokens is None else prompt_tokens
    return factor * sum((calc_unit_price(rate, tokens, length, 1_000_000) for rate, tokens in billed), Decimal(0))


def saved_by_prompt_cache(model: str, usage: Usage, day: date, *, prompt_tokens: int | None = None) -> Decimal | None:
    """Return by how much the prompt cache made a usage cheaper than plain input, in US dollars.

    Less than 0 where more was paid for writing than reading saved; None where the price is not known.
    """
    plain = replace(
        usage,
        input_tokens=usage.prompt_tokens,
        cache_creation_5m_tokens=0,
        cache_creation_1h_tokens=0,
        cache_read_tokens=0,
    )
    full = cost_of(model, plain, day, prompt_tokens=prompt_tokens)
    paid = cost_of(model, usage, day, prompt_tokens=prompt_tokens)
    return None if full is None or paid is None else full - paid


@lru_cache(maxsize=256)
def find_rates(model: str, day: date, speed: str | None = None) -> ModelPrice | None:
    """Return a model's rates on a day, by its id or one that a gateway gives it; None where they are unknown."""
    standard = _listed(model, day, {})
    if standard is None or speed in ORDINARY_SPEEDS:
        return standard
    other = _listed(model, day, {"speed": speed or ""})
    # The library passes over what its list does not know.
    return None if other == standard else other


def _factor(model: str, usage: Usage) -> Decimal | None:
    """What tier and place multiply the rates by; None where that is not known."""
    geo = GEO_FACTORS.get(usage.inference_geo)
    if geo is None or usage.service_tier not in PRICED_TIERS:
        return None
    if geo != 1 and _BEDROCK.search(model):
        # The ids of Bedrock tell the place themselves: the price list has counted it already.
        return None
    if usage.service_tier != "batch":
        return geo
    # There is no fast mode in batches, so that no list has its price.
    return geo * BATCH_DISCOUNT if usage.speed in ORDINARY_SPEEDS else None


def _listed(model: str, day: date, context: dict[str, str]) -> ModelPrice | None:
    on_bedrock = _BEDROCK.search(model.lower())
    try:
        found = calc_price(
            PricedUsage(input_tokens=1),
            model_ref=on_bedrock[1] if on_bedrock else plain_model_name(model),
            provider_id="aws" if on_bedrock else "anthropic",
            genai_request_timestamp=datetime.combine(day, time(12), UTC),
            price_context=context,
        )
    except LookupError:
        return None
    # The library takes the beginning of a name for the whole: claude-sonnet-4-6-fast for claude-sonnet-4-6.
    return found.model_price if plain_model_name(found.model.id) == plain_model_name(model) else None

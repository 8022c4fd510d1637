"""Compute the cost of a request's usage from the dated price lists of genai-prices.

A rate is looked up once for each model, day and speed. An unknown price is None, never 0.
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
"""Tiers with a listed price. Priority Tier is paid by a commitment, at a price that is in no list."""
GEO_FACTORS = {None: Decimal(1), "global": Decimal(1), "not_available": Decimal(1), "us": Decimal("1.1")}
"""The factor of all prices for each place of inference; source: Anthropic's page on data residency."""
ORDINARY_SPEEDS = frozenset({None, "standard"})
_BEDROCK = re.compile(r"(?:^|/)((?:[a-z-]+\.)?anthropic\.claude[^/]*)$")


@dataclass(frozen=True, slots=True)
class Usage:
    """A request's usage in tokens, as the endpoint reports it.

    `input_tokens` do not include cached tokens: the whole input is `prompt_tokens`. `service_tier`, `inference_geo` and
    `speed` change the price; None means the standard one.
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
        """The whole input, which selects the price if prices depend on a prompt's length."""
        cached = self.cache_creation_5m_tokens + self.cache_creation_1h_tokens + self.cache_read_tokens
        return self.input_tokens + cached


@lru_cache(maxsize=256)  # the gate and the attempt's row ask for the same answer
def cost_of(model: str, usage: Usage, day: date, *, prompt_tokens: int | None = None) -> Decimal | None:
    """Return the cost in US dollars at the price of the day, or None if a price is not known.

    A price is not known for an unknown model, or for a tier, a place or a speed that no price list has.
    `prompt_tokens` is the length of one prompt if `usage` is the sum of several requests.
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
    # A long prompt's rate applies to all tokens of its request, including the answer's.
    length = usage.prompt_tokens if prompt_tokens is None else prompt_tokens
    return factor * sum((calc_unit_price(rate, tokens, length, 1_000_000) for rate, tokens in billed), Decimal(0))


def saved_by_prompt_cache(model: str, usage: Usage, day: date, *, prompt_tokens: int | None = None) -> Decimal | None:
    """Return how much the prompt cache saved, compared with plain input, in US dollars.

    It is less than 0 if writing cost more than reading saved, and None if the price is not known.
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


@lru_cache(maxsize=10_000)  # a page over some years asks for each day and model
def find_rates(model: str, day: date, speed: str | None = None) -> ModelPrice | None:
    """Return a model's rates on a day, by its id or a gateway's id for it. None if they are unknown."""
    standard = _listed(model, day, {})
    if standard is None or speed in ORDINARY_SPEEDS:
        return standard
    other = _listed(model, day, {"speed": speed or ""})
    # The library ignores a speed that is not in its list, and returns the standard rates.
    return None if other == standard else other


def _factor(model: str, usage: Usage) -> Decimal | None:
    """Return the factor of the rates for a tier and a place. None if it is not known."""
    geo = GEO_FACTORS.get(usage.inference_geo)
    if geo is None or usage.service_tier not in PRICED_TIERS:
        return None
    if geo != 1 and _BEDROCK.search(model):
        # Bedrock's ids contain the place, so the price list already includes its factor.
        return None
    if usage.service_tier != "batch":
        return geo
    # Batches have no fast mode, so no list has its price.
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
    # The library matches by prefix: it takes claude-sonnet-4-6-fast for claude-sonnet-4-6.
    return found.model_price if plain_model_name(found.model.id) == plain_model_name(model) else None

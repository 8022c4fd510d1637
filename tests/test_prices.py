"""Costs by dated price lists; the figures are those of the models' price pages on the day they were written here."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import TieredPrices

from presswork.catalog import (
    MODELS,
    estimate_tokens,
    find_model,
    is_other_model,
    likely_tokens,
    most_tokens,
    plain_model_name,
)
from presswork.prices import PRICE_VERSION, Usage, cost_of, find_rates, saved_by_prompt_cache

DAY = date(2026, 11, 22)
MILLION = 1_000_000
# model: in, out, written for 5 minutes, for an hour, read; US dollars a million tokens
PRICES = {
    "claude-sonnet-4-6": ("3", "15", "3.75", "6", "0.30"),
    "claude-opus-4-6": ("5", "25", "6.25", "10", "0.50"),
    "claude-haiku-4-5": ("1", "5", "1.25", "2", "0.10"),
    "claude-sonnet-5-5": ("2", "10", "2.5", "4", "0.10"),
}


@pytest.mark.parametrize("model", PRICES)
@pytest.mark.parametrize(
    ("usage", "column"),
    [
        (Usage(MILLION), 0),
        (Usage(0, output_tokens=MILLION), 1),
        (Usage(0, cache_creation_5m_tokens=MILLION), 2),
        (Usage(0, cache_creation_1h_tokens=MILLION), 3),
        (Usage(0, cache_read_tokens=MILLION), 4),
    ],
    ids=["input", "output", "written for 5m", "written for 1h", "read"],
)
def test_each_way_of_billing_has_its_price(model: str, usage: Usage, column: int) -> None:
    assert cost_of(model, usage, DAY) == Decimal(PRICES[model][column])


def test_cost_is_the_sum_to_the_last_digit() -> None:
    cost = cost_of("claude-sonnet-4-6", Usage(1, 1, 1, 1, 1), DAY)

    assert cost == Decimal("0.00002805")
    assert isinstance(cost, Decimal)


def test_thinking_is_part_of_the_output_and_not_paid_twice() -> None:
    assert cost_of("claude-sonnet-4-6", Usage(0, output_tokens=100, thinking_tokens=90), DAY) == Decimal("0.0015")


@pytest.mark.parametrize("model", PRICES)
def test_batch_is_half_of_the_price(model: str) -> None:
    usage = Usage(MILLION, output_tokens=MILLION)
    batch = Usage(MILLION, output_tokens=MILLION, service_tier="batch")

    assert cost_of(model, batch, DAY) == (cost_of(model, usage, DAY) or 0) / 2


@pytest.mark.parametrize(("tier", "known"), [(None, True), ("standard", True), ("priority", False), ("next", False)])
def test_tier_without_a_price_list_is_unknown_rather_than_wrong(tier: str | None, known: bool) -> None:
    cost = cost_of("claude-sonnet-4-6", Usage(MILLION, service_tier=tier), DAY)

    assert cost == (Decimal(3) if known else None)


def test_nothing_used_costs_nothing() -> None:
    assert cost_of("claude-sonnet-4-6", Usage(0), DAY) == 0


@pytest.mark.parametrize("model", ["claude-of-next-year", "gpt-4o", "", "sonnet"])
def test_unknown_price_is_none_and_never_nothing(model: str) -> None:
    assert cost_of(model, Usage(MILLION), DAY) is None


# By prompt length


def using(**used: Any) -> Usage:
    """A usage of no tokens but these."""
    return Usage(**{"input_tokens": 0, **used})


ALL_BUT_OUTPUT = ("input_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens", "cache_read_tokens")


@pytest.mark.parametrize(
    ("model", "day", "most", "short", "long"),
    [
        ("claude-haiku-5-5", DAY, 100_000, ("0.1", "0.5"), ("0.5", "2.5")),
        ("claude-sonnet-4-5", DAY, 200_000, ("3", "15"), ("6", "22.5")),
        # Until 2026-03-13 a prompt of more than 200,000 tokens had a price of its own.
        ("claude-sonnet-4-6", date(2026, 3, 1), 200_000, ("3", "15"), ("6", "22.5")),
        ("claude-sonnet-4-6", DAY, 200_000, ("3", "15"), ("3", "15")),
    ],
)
def test_a_long_prompts_price_holds_for_all_tokens_of_its_request(
    model: str, day: date, most: int, short: tuple[str, str], long: tuple[str, str]
) -> None:
    for tokens, (rate_in, rate_out) in ((most, short), (most + 1, long)):
        cost = cost_of(model, Usage(tokens, output_tokens=1000), day)
        assert cost == (Decimal(rate_in) * tokens + Decimal(rate_out) * 1000) / MILLION


@pytest.mark.parametrize("kind", ALL_BUT_OUTPUT)
def test_a_prompts_length_is_all_that_goes_in_cached_or_not(kind: str) -> None:
    just, over = ({"input_tokens": 50_000, kind: 100_000 - 50_000 * (kind != "input_tokens") + more} for more in (0, 1))

    # Five times the price, for one more token.
    ratio = (cost_of("claude-haiku-5-5", using(**over), DAY) or 0) / (
        cost_of("claude-haiku-5-5", using(**just), DAY) or 1
    )
    assert 4.9 < ratio < 5.1


def test_a_sum_of_requests_is_priced_by_the_length_of_one() -> None:
    thousand = Usage(50_000_000, output_tokens=MILLION)

    assert cost_of("claude-haiku-5-5", thousand, DAY, prompt_tokens=50_000) == Decimal("5.5")
    assert cost_of("claude-haiku-5-5", thousand, DAY) == Decimal("27.5")


def test_lists_change_their_price_at_whole_thousands_of_tokens() -> None:
    # The ledger adds up what the cache saved by thousands of a prompt's tokens.
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    for provider in get_snapshot().providers:
        for model in provider.models if provider.id in {"anthropic", "aws"} else ():
            for rate in vars(model.get_prices(moment)).values():
                if isinstance(rate, TieredPrices):
                    assert all(tier.start % 1000 == 0 for tier in rate.tiers)


# By place and speed


@pytest.mark.parametrize("kind", [*ALL_BUT_OUTPUT, "output_tokens"])
@pytest.mark.parametrize("model", PRICES)
def test_inference_in_the_us_costs_a_tenth_more_on_every_kind_of_token(model: str, kind: str) -> None:
    used = {kind: MILLION}
    ordinary = cost_of(model, using(**used), DAY)

    assert ordinary
    assert cost_of(model, using(**used, inference_geo="us"), DAY) == ordinary * Decimal("1.1")
    assert cost_of(model, using(**used, inference_geo="global"), DAY) == ordinary
    assert cost_of(model, using(**used, inference_geo="not_available"), DAY) == ordinary


@pytest.mark.parametrize(
    "modifier",
    [
        {"inference_geo": "eu"},
        {"inference_geo": "US"},
        {"inference_geo": ""},
        {"speed": "fast"},
        {"speed": "turbo"},
        {"speed": ""},
        {"service_tier": "priority"},
        {"service_tier": "batch", "speed": "fast"},
    ],
)
def test_a_modifier_that_no_list_knows_makes_the_cost_unknown(modifier: dict[str, str]) -> None:
    assert cost_of("claude-sonnet-4-6", using(input_tokens=MILLION, **modifier), DAY) is None


@pytest.mark.parametrize(
    ("kind", "dollars"), [("input_tokens", 8), ("output_tokens", 40), ("cache_read_tokens", "0.4")]
)
def test_fast_has_its_own_price_where_the_list_knows_it(kind: str, dollars: int | str) -> None:
    fast = {kind: MILLION, "speed": "fast"}

    assert cost_of("claude-opus-5-5", using(**fast), DAY) == Decimal(dollars)
    assert cost_of("claude-opus-5-5", using(**fast, inference_geo="us"), DAY) == Decimal(dollars) * Decimal("1.1")
    assert cost_of("claude-opus-5-5", using(**fast, service_tier="batch"), DAY) is None
    assert cost_of("claude-opus-5-5", using(**(fast | {"speed": "standard"})), DAY) == Decimal(dollars) / 2


# By the ids of gateways


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6-20260217", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6-2026-02-17", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6-latest", "claude-sonnet-4-6"),
        ("claude-sonnet-4-6@20260217", "claude-sonnet-4-6"),
        ("anthropic/claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("vertex_ai/claude-sonnet-4-6@default", "claude-sonnet-4-6"),
        ("anthropic/claude-4.6-sonnet-20260217", "claude-sonnet-4-6"),
        ("openrouter/anthropic/claude-sonnet-4.6", "claude-sonnet-4-6"),
        ("us.anthropic.claude-sonnet-4-6-v1:0", "claude-sonnet-4-6"),
        ("us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("bedrock/global.anthropic.claude-sonnet-4-6-v1:0:200k", "claude-sonnet-4-6"),
        ("Claude-Sonnet-4-6", "claude-sonnet-4-6"),
        ("claude-opus-4-0", "claude-opus-4"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet"),
        ("anthropic.claude-v2:1", "claude-v2:1"),
        ("claude-sonnet-4-6-fast", "claude-sonnet-4-6-fast"),
        ("claude-sonnet-4-60", "claude-sonnet-4-60"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("", ""),
    ],
)
def test_id_of_a_gateway_names_its_model(name: str, plain: str) -> None:
    assert plain_model_name(name) == plain


@pytest.mark.parametrize(
    "name",
    [
        "anthropic/claude-sonnet-4-6",
        "claude-sonnet-4-6@20260101",
        "claude-sonnet-4-6-latest",
        "claude-sonnet-4-6-20260217",
        "openrouter/anthropic/claude-4.6-sonnet-20260217",
        "global.anthropic.claude-sonnet-4-6-v1:0",
    ],
)
def test_id_of_a_gateway_has_its_models_price(name: str) -> None:
    assert cost_of(name, Usage(MILLION, MILLION, MILLION, MILLION, MILLION), DAY) == Decimal("28.05")


@pytest.mark.parametrize(
    "name",
    [
        "us.anthropic.claude-sonnet-4-6-v1:0",
        "eu.anthropic.claude-sonnet-4-6-20260217-v1:0",
        "bedrock/us.anthropic.claude-sonnet-4-6-v1:0",
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-6-v1:0",
    ],
)
def test_id_of_a_region_of_bedrock_has_that_regions_price(name: str) -> None:
    # AWS's own list: regional profiles cost a tenth more than `global.` ones, which cost what Anthropic asks.
    assert cost_of(name, Usage(MILLION, MILLION, MILLION, MILLION, MILLION), DAY) == Decimal("28.05") * Decimal("1.1")
    assert cost_of(name, Usage(MILLION, inference_geo="us"), DAY) is None


@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-4o",
        "anthropic/gpt-4o",
        "claude-sonnet-4-60",
        "claude-sonnet-4-6-fast",
        "us.anthropic.claude-sonnet-4-60-v1:0",
        "moon.anthropic.claude-sonnet-4-6-v1:0",
        "someone/claude-sonnet-4-6-distilled-llama",
        "anthropic/claude-sonnet-4.6:batch",
    ],
)
def test_another_model_has_no_price_by_accident(name: str) -> None:
    assert cost_of(name, Usage(MILLION), DAY) is None


def test_a_kind_of_token_without_a_rate_is_unknown_only_where_it_is_used() -> None:
    # AWS's list has no price for writing for an hour here.
    haiku = "us.anthropic.claude-3-5-haiku-20241022-v1:0"

    assert cost_of(haiku, Usage(MILLION, MILLION), DAY) == Decimal("1.8")
    assert cost_of(haiku, Usage(MILLION, cache_creation_1h_tokens=1), DAY) is None


def test_dated_name_of_a_model_has_the_models_price() -> None:
    assert cost_of("claude-haiku-4-5-20251001", Usage(MILLION), DAY) == 1


def test_rate_is_looked_up_once_for_a_model_and_day() -> None:
    find_rates.cache_clear()

    for _ in range(3):
        cost_of("claude-sonnet-4-6", Usage(1), DAY)

    assert find_rates.cache_info().misses == 1


def test_price_list_is_named() -> None:
    assert version("genai-prices") in PRICE_VERSION


# The catalog


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5-fast", None),
        ("claude-haiku", None),
        ("20251001", None),
        ("", None),
    ],
)
def test_model_is_found_by_its_name_or_a_dated_one(name: str, known: str | None) -> None:
    assert find_model(name) == (MODELS[known] if known else None)


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_estimate_is_a_token_for_four_characters(characters: int, tokens: int) -> None:
    assert estimate_tokens(characters) == tokens


@pytest.mark.parametrize(
    ("usage", "saved"),
    [
        (Usage(input_tokens=10, cache_read_tokens=1_000_000), "2.7"),
        (Usage(input_tokens=10, cache_creation_5m_tokens=1_000_000), "-0.75"),
        (Usage(input_tokens=10, cache_read_tokens=1_000_000, service_tier="batch"), "1.35"),
        (Usage(input_tokens=10, cache_read_tokens=1_000_000, inference_geo="us"), "2.97"),
        (Usage(input_tokens=10), "0"),
    ],
)
def test_the_prompt_cache_saves_what_reads_cost_less_and_writes_cost_more(usage: Usage, saved: str) -> None:
    assert saved_by_prompt_cache("claude-sonnet-4-6", usage, date(2026, 11, 22)) == Decimal(saved)


def test_what_the_prompt_cache_saves_is_unknown_where_the_price_is() -> None:
    assert saved_by_prompt_cache("no-such-model", Usage(1, cache_read_tokens=5), date(2026, 11, 22)) is None
    assert saved_by_prompt_cache("claude-sonnet-4-6", Usage(1, 1, inference_geo="eu"), DAY) is None


def test_what_the_prompt_cache_saves_follows_the_prompts_length() -> None:
    read = Usage(0, cache_read_tokens=MILLION)

    assert saved_by_prompt_cache("claude-haiku-5-5", read, DAY, prompt_tokens=100_000) == Decimal("0.09")
    assert saved_by_prompt_cache("claude-haiku-5-5", read, DAY, prompt_tokens=101_000) == Decimal("0.45")


# How long a text is


@pytest.mark.parametrize(
    ("text", "likely", "most"),
    [("", 0, 0), ("word " * 100, 166, 250), ("價" * 100, 100, 300), ("Größe " * 100, 266, 600), ("\ud800", 1, 3)],
)
def test_bounds_of_a_text_in_tokens(text: str, likely: int, most: int) -> None:
    assert (likely_tokens(text), most_tokens(text)) == (likely, most)
    assert estimate_tokens(len(text)) <= most


@pytest.mark.parametrize(
    "name",
    [
        "claude-sonnet-4-6",
        "claude-sonnet-4-6-20260217",
        "claude-sonnet-4-6-latest",
        "claude-sonnet-4-6@20260101",
        "claude-sonnet-4-6-v1:0",
        "us.anthropic.claude-sonnet-4-6-v1:0",
        "anthropic/claude-sonnet-4-6",
        "vertex_ai/claude-sonnet-4-6@20260101",
        "bedrock/eu.anthropic.claude-sonnet-4-6-20260217-v1:0",
        "openrouter/anthropic/claude-4.6-sonnet-20260217",
    ],
)
def test_model_is_known_however_a_cloud_or_a_gateway_writes_it(name: str) -> None:
    assert find_model(name) is MODELS["claude-sonnet-4-6"]
    assert not is_other_model(name, "claude-sonnet-4-6")
    assert is_other_model(name, "claude-haiku-4-5")


@pytest.mark.parametrize(
    "name", ["", "claude", "claude-sonnet-4-7", "claude-sonnet-6", "my-claude-sonnet-4-6", "gpt-6"]
)
def test_model_that_is_another_is_not_taken_for_a_known_one(name: str) -> None:
    assert find_model(name) is None
    assert is_other_model("claude-sonnet-4-6", name)
    assert not is_other_model(name, "claude-sonnet-4-6")

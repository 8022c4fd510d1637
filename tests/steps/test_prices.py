"""Costs by dated price lists; the figures are those of the models' price pages on the day they were written here."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from importlib.metadata import version

import pytest

from flows.steps.catalog import DEFAULT_MODEL, MODELS, estimate_tokens, find_model, is_other_model
from flows.steps.prices import PRICE_VERSION, Usage, cost_of, find_rates, saved_by_prompt_cache

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


def test_price_by_length_is_unknown_rather_than_wrong() -> None:
    # Until 2026-03-13 a prompt of more than 200,000 tokens had a price of its own.
    assert cost_of("claude-sonnet-4-6", Usage(MILLION), date(2026, 3, 1)) is None


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


def test_every_model_of_the_catalog_has_a_price() -> None:
    assert set(MODELS) == set(PRICES)
    assert DEFAULT_MODEL in MODELS


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
        (Usage(input_tokens=10), "0"),
    ],
)
def test_the_prompt_cache_saves_what_reads_cost_less_and_writes_cost_more(usage: Usage, saved: str) -> None:
    assert saved_by_prompt_cache("claude-sonnet-4-6", usage, date(2026, 11, 22)) == Decimal(saved)


def test_what_the_prompt_cache_saves_is_unknown_where_the_price_is() -> None:
    assert saved_by_prompt_cache("no-such-model", Usage(1, cache_read_tokens=5), date(2026, 11, 22)) is None


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
    "name", ["", "claude", "claude-sonnet-4-7", "claude-sonnet-4", "my-claude-sonnet-4-6", "gpt-6"]
)
def test_model_that_is_another_is_not_taken_for_a_known_one(name: str) -> None:
    assert find_model(name) is None
    assert is_other_model("claude-sonnet-4-6", name)
    assert not is_other_model(name, "claude-sonnet-4-6")

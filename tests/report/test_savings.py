"""What the prompt cache saved is the sum over all requests, however they are grouped."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from db.readers.figures import PromptCacheUse
from presswork.report.cache_savings import PromptCacheSavings, add_savings, saved_by_reads

USE = PromptCacheUse("claude-sonnet-4-6", None, None, None, date(2026, 3, 1), 2000, 1000, 0, 100_000, 1, 100)


def test_days_with_the_same_prices_are_priced_together() -> None:
    days = [replace(USE, day=USE.day + timedelta(days=number), read=1000 * number) for number in range(60)]
    assert add_savings(days).usd == sum((add_savings([day]).usd for day in days), Decimal(0))
    assert add_savings([USE, USE]).usd == 2 * add_savings([USE]).usd


def test_unknown_prices_are_counted_and_left_out() -> None:
    unknown = replace(USE, model="another-model")
    found = add_savings([USE, unknown])
    assert (found.usd, found.unpriced) == (add_savings([USE]).usd, 101)
    assert saved_by_reads([USE, unknown]) is None


def test_writes_that_nobody_reads_cost_more_than_they_save() -> None:
    assert add_savings([replace(USE, read=0, reads=0)]).usd < 0
    assert add_savings([]) == PromptCacheSavings(Decimal(0), 0)

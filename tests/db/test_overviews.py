"""The overview of a period: figures by several groupings, what failed last, the dearest templates, current content."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from db.clock import now
from db.readers.audit import overviews
from db.readers.audit.filters import Filter, FilterError
from db.readers.audit.overviews import (
    count_content,
    figures_by_each,
    recent_failures,
)
from db.readers.audit.sums import cache_use_by
from tests.db.rows import DAY, Book, figures_by, sha

GROUPINGS = (("day",), ("flow", "endpoint"), ("step", "template"), ("model",), ())


@pytest.fixture
def ledger_of_two_flows(ledger: Engine) -> Engine:
    """A closed run with failures and reused answers, and an open run of another flow on another endpoint."""
    closed = Book(ledger)
    made = closed.add("a", settled={"cost_usd": Decimal("0.1"), "cache_read_tokens": 900, "latency_ms": 100})
    closed.add(
        "b", status="refused", output=None, error_kind="refusal", error_message="No.", settled={"latency_ms": 301}
    )
    closed.reuse("c", made)
    closed.confirm("a", made)
    closed.close()
    later = Book(ledger)
    later.confirm("a", made)
    later.close()
    is_open = Book(ledger, flow="letters", endpoint="anthropic")
    is_open.add(
        *("x",),
        step="letter",
        template_hash=sha("letter"),
        created_at=DAY + timedelta(days=1),
        settled={"cost_usd": Decimal("0.3"), "cache_creation_5m_tokens": 900},
    )
    is_open.add("y", step="letter", status="failed", output=None, error_kind="timeout", created_at=DAY)
    return ledger


def test_several_groupings_are_those_that_are_read_one_by_one(ledger_of_two_flows: Engine) -> None:
    each = figures_by_each(ledger_of_two_flows, GROUPINGS)
    assert each == [figures_by(ledger_of_two_flows, by) for by in GROUPINGS]
    ((total,),) = each[-1:]
    for lines in each:
        assert sum((line.usage.cost_usd or Decimal(0) for line in lines), Decimal(0)) == total.usage.cost_usd
        assert sum(line.ended.records for line in lines) == total.ended.records == 6
    uses = [cache_use_by(ledger_of_two_flows, by) for by in GROUPINGS]
    assert {sum(each.use.read for each in group) for group in uses} == {900}


def test_records_are_counted_by_how_they_ended(ledger_of_two_flows: Engine) -> None:
    letters, copy = figures_by(ledger_of_two_flows, ["flow"])
    assert (letters.alike.flow, copy.alike.flow) == ("letters", "product_copy")
    assert (copy.ended.succeeded, copy.ended.cached, copy.ended.unchanged, copy.ended.failed) == (1, 1, 1, 1)
    assert (letters.ended.generations, letters.ended.without_content) == (2, 1)


def test_newest_failures_come_first_from_open_and_closed_runs(ledger_of_two_flows: Engine) -> None:
    found = recent_failures(ledger_of_two_flows)
    assert [(each.flow, each.record_key, each.status, each.message) for each in found] == [
        ("letters", "y", "failed", None),
        ("product_copy", "b", "refused", "No."),
    ]
    assert recent_failures(ledger_of_two_flows, limit=1) == found[:1]
    assert recent_failures(ledger_of_two_flows, Filter(flow="product_copy")) == found[1:]
    assert recent_failures(ledger_of_two_flows, Filter(status="invalid")) == []
    with pytest.raises(FilterError, match="not kept by key"):
        recent_failures(ledger_of_two_flows, Filter(key="b"))


def test_failures_after_a_period_do_not_hide_those_in_it(ledger: Engine) -> None:
    # Ids are of now, so the times are too.
    began = now()
    for number in range(8):
        book = Book(ledger)
        failed: dict[str, Any] = {"status": "failed", "output": None, "error_kind": "why"}
        for minutes in (0, 40) if number >= 4 else (0,):
            book.add(f"{number}/{minutes}", created_at=began + timedelta(minutes=minutes, seconds=number), **failed)
        book.close()
    later = began + timedelta(minutes=30)

    found = recent_failures(ledger, Filter(until=later), limit=6)
    assert [each.record_key for each in found] == [f"{number}/0" for number in (7, 6, 5, 4, 3, 2)]
    found = recent_failures(ledger, Filter(since=later), limit=6)
    assert [each.record_key for each in found] == [f"{number}/40" for number in (7, 6, 5, 4)]


def test_content_is_counted_by_step(ledger_of_two_flows: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    letters, copy = count_content(ledger_of_two_flows) or []
    assert (copy.flow, copy.records, copy.current, copy.confirmed, copy.failing, copy.without) == (
        *("product_copy", 3, 2, 1, 1, 1),
    )
    assert (letters.step, letters.endpoint, letters.records) == ("letter", "anthropic", 2)
    assert count_content(ledger_of_two_flows, flow="letters") == [letters]
    assert count_content(ledger_of_two_flows, endpoint="nowhere") == []
    monkeypatch.setattr(overviews, "COUNTED_AT_MOST", 2)
    assert count_content(ledger_of_two_flows) is None
    assert count_content(ledger_of_two_flows, flow="letters") == [letters]


def test_overview_of_an_empty_ledger_is_empty(ledger: Engine) -> None:
    assert (count_content(ledger), recent_failures(ledger)) == ([], [])
    assert [len(lines) for lines in figures_by_each(ledger, GROUPINGS)] == [0, 0, 0, 0, 1]

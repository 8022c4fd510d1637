"""Runs that resume each other: what they have spent together, and since when they refresh."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, update

from db.clock import new_id
from db.ledger.lifecycle import join_run
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.readers.chains import (
    Spent,
    refreshing_since,
    spent_by_chain,
    spent_by_leases,
    spent_by_run,
)
from db.readers.figures import usage
from db.readers.look_up import look_up
from db.tables import StoredRun
from tests.db.rows import DAY, Book, settled_row, sha

FLOW_RUN, OTHER_FLOW_RUN = (f"00000000-0000-7000-8000-00000000000{digit}" for digit in "12")
OWN = "the run's own lease"
NO_ANSWER = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))


def spend(book: Book, dollars: str, **own: Any) -> None:
    book.add(new_id(), settled={"cost_usd": Decimal(dollars)} | own)


def open_attempt(book: Book, likely: str | None, lease_id: str | None = OWN, **settled: Any) -> None:
    """Write an attempt that may have ended, without a generation."""
    batch = WriteBatch()
    cost = None if likely is None else Decimal(likely)
    by = book.lease.id if lease_id == OWN else lease_id
    attempt_id = book.attempt(batch, "p", new_id(), likely_cost_usd=cost, lease_id=by)
    if settled:
        batch.settled.append(settled_row(attempt_id, **(NO_ANSWER | settled)))
    write(book.ledger, batch)


def total(ledger: Engine, book: Book) -> Decimal:
    return spent_by_chain(ledger, book.run_id).total_usd


def test_run_that_resumes_none_has_spent_nothing_before(book: Book) -> None:
    spend(book, "1")
    Book(book.ledger)
    assert spent_by_chain(book.ledger, book.run_id) == Spent()
    assert spent_by_chain(book.ledger, new_id()) == Spent()


def test_chain_has_all_runs_that_are_linked_and_no_other(book: Book) -> None:
    spend(book, "1")
    second = Book(book.ledger, resumes_run_id=book.run_id)
    spend(second, "0.1")
    third = Book(book.ledger, resumes_run_id=second.run_id)
    spend(third, "0.01")
    # The first was resumed twice: what either of them spends is spent for the same job.
    sibling = Book(book.ledger, resumes_run_id=book.run_id)
    spend(sibling, "0.001")
    # The same flow at its next schedule is another job.
    spend(Book(book.ledger), "5")

    assert total(book.ledger, third) == Decimal("1.101")
    assert total(book.ledger, sibling) == Decimal("1.11")
    assert total(book.ledger, book) == Decimal("0.111")


def test_chain_counts_the_shards_of_each_run(book: Book) -> None:
    spend(book, "1")
    spend(Book(book.ledger, parent_run_id=book.run_id), "0.1")
    resumed = Book(book.ledger, resumes_run_id=book.run_id)
    shard = Book(book.ledger, parent_run_id=resumed.run_id)
    spend(shard, "0.01")
    spend(resumed, "0.5")

    # Its own requests are left out, because the run counts them itself.
    assert total(book.ledger, resumed) == Decimal("1.11")
    # A shard's own cap is a part of the whole run's cap.
    assert total(book.ledger, shard) == 0


def test_chain_that_leads_back_to_itself_ends(book: Book) -> None:
    other = Book(book.ledger, resumes_run_id=book.run_id)
    spend(other, "1")
    with book.ledger.begin() as connection:
        connection.execute(update(StoredRun).where(StoredRun.id == book.run_id).values(resumes_run_id=other.run_id))

    assert total(book.ledger, book) == 1
    assert refreshing_since(book.ledger, book.run_id) is not None


@pytest.mark.parametrize(
    ("likely", "settled", "spent"),
    [
        ("0.02", {}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"error_type": "crashed"}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"error_type": "timeout"}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"error_type": "connection"}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"error_type": "abandoned"}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"error_type": "proxy", "http_status": 502}, Spent(likely_usd=Decimal("0.02"))),
        ("0.02", {"http_status": 200, "input_tokens": 5}, Spent(likely_usd=Decimal("0.02"))),
        (
            "0.02",
            {"http_status": 200, "input_tokens": 5, "error_type": "wrong_endpoint"},
            Spent(Decimal(0), Decimal("0.02")),
        ),
        ("0.02", {"http_status": 200, "cost_usd": Decimal("0.01")}, Spent(known_usd=Decimal("0.01"))),
        ("0.02", {"error_type": "not_sent"}, Spent()),
        ("0.02", {"error_type": "connect"}, Spent()),
        ("0.02", {"error_type": "rate_limit_error", "http_status": 429}, Spent()),
        ("0.02", {"error_type": "overloaded_error", "http_status": 529}, Spent()),
        ("0.02", {"error_type": "invalid_request_error", "http_status": 400}, Spent()),
        (None, {"error_type": "crashed"}, Spent()),
    ],
)
def test_what_a_request_counts_for_in_a_chain(
    book: Book, likely: str | None, settled: dict[str, Any], spent: Spent
) -> None:
    open_attempt(book, likely, **settled)
    resumed = Book(book.ledger, resumes_run_id=book.run_id)
    assert spent_by_chain(book.ledger, resumed.run_id) == spent


def test_likely_costs_add_up_exactly(book: Book) -> None:
    for _ in range(30):
        open_attempt(book, "0.0000123457", error_type="crashed")
    resumed = Book(book.ledger, resumes_run_id=book.run_id)
    assert spent_by_chain(book.ledger, resumed.run_id).likely_usd == Decimal("0.0003703710")
    assert usage(book.ledger, book.run_id).likely_usd == Decimal("0.0003703710")


def test_what_some_of_a_runs_leases_have_spent_is_added_up(book: Book) -> None:
    other = Book(book.ledger)
    for lease_id, dollars in ((FLOW_RUN, "1"), (OTHER_FLOW_RUN, "0.1"), (book.lease.id, "7")):
        batch = WriteBatch()
        attempt = book.attempt(batch, dollars, new_id(), lease_id=lease_id)
        batch.settled.append(settled_row(attempt, cost_usd=Decimal(dollars)))
        write(book.ledger, batch)
        open_attempt(book, "0.001", lease_id=lease_id, error_type="crashed")
    spend(other, "20")

    both = spent_by_leases(book.ledger, book.run_id, [FLOW_RUN, OTHER_FLOW_RUN])
    assert both == Spent(Decimal("1.1"), Decimal("0.002"))
    assert spent_by_leases(book.ledger, book.run_id, []) == Spent()
    assert spent_by_leases(book.ledger, other.run_id, [FLOW_RUN]) == Spent()


def test_spending_of_a_run_can_leave_out_one_lease(book: Book) -> None:
    spend(book, "1")
    helper = join_run(book.ledger, book.run_id, new_id(), "helper 1")
    open_attempt(book, "0.01", lease_id=helper.id, error_type="crashed")
    # An earlier release wrote no lease.
    open_attempt(book, "0.002", lease_id=None, error_type="crashed")
    spend(Book(book.ledger), "5")

    def spent(except_lease: str | None) -> Decimal:
        return spent_by_run(book.ledger, book.run_id, except_lease=except_lease).total_usd

    assert spent(None) == Decimal("1.012")
    assert spent(book.lease.id) == Decimal("0.012")
    assert spent(helper.id) == Decimal("1.002")


# Refreshes


def refreshes(refresh: bool | None) -> dict[str, Any]:
    return {} if refresh is None else {"options": {"refresh": refresh, "limit": None}}


@pytest.mark.parametrize(
    ("chain", "first"),
    [
        ([True], 0),
        ([False, True], 1),
        ([True, True, True], 0),
        ([False, True, True], 1),
        ([True, False, True], 0),
        # A flow without options refreshes by its own code, each time.
        ([None, None], 0),
    ],
)
def test_refresh_began_with_the_first_run_that_refreshed(ledger: Engine, chain: list[bool | None], first: int) -> None:
    runs: list[Book] = []
    for number, refresh in enumerate(chain):
        before = runs[-1].run_id if runs else None
        started = DAY + timedelta(hours=number)
        runs.append(Book(ledger, resumes_run_id=before, parameters=refreshes(refresh), started_at=started))

    assert refreshing_since(ledger, runs[-1].run_id) == DAY + timedelta(hours=first)


def test_refresh_of_a_run_that_is_not_known_has_no_beginning(ledger: Engine) -> None:
    assert refreshing_since(ledger, new_id()) is None


# What failed after it was perhaps billed


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("connection", True),
        ("timeout", True),
        ("proxy", True),
        ("connect", False),
        ("rate_limit_error", False),
        ("overloaded_error", False),
        ("invalid_request_error", False),
        ("render", False),
    ],
)
def test_failure_that_was_perhaps_billed_counts_like_a_bad_outcome(book: Book, kind: str, counts: bool) -> None:
    for run in (book, Book(book.ledger)):
        run.add("a", status="failed", output=None, error_kind=kind, settled=NO_ANSWER | {"error_type": kind})

    found = look_up(book.ledger, [sha("a")]).get(sha("a"))

    assert (found.bad_outcomes if found else 0) == (2 if counts else 0)
    if found:
        assert found.last_bad == f"failed ({kind})"


@pytest.mark.parametrize("kind", ["wrong_model", "unexpected_stop_reason", "refused_by_ledger"])
def test_failure_that_was_answered_counts_like_a_bad_outcome(book: Book, kind: str) -> None:
    book.add("a", status="failed", output=None, error_kind=kind)
    found = look_up(book.ledger, [sha("a")])[sha("a")]
    assert found.bad_outcomes == 1
    assert (found.wrong_model is not None) == (kind == "wrong_model")


@pytest.mark.parametrize(("earlier", "counts"), [("timeout", 1), (None, 1), ("connect", 0)])
def test_failure_counts_by_all_of_its_requests_not_by_the_last_one(
    book: Book, earlier: str | None, counts: int
) -> None:
    generation = book.add(
        "a",
        status="failed",
        output=None,
        error_kind="overloaded_error",
        settled=NO_ANSWER | {"error_type": "overloaded_error"},
    )
    batch = WriteBatch()
    attempt_id = book.attempt(batch, "a", generation, ordinal=2)
    batch.settled.append(settled_row(attempt_id, **(NO_ANSWER | {"error_type": earlier})))
    write(book.ledger, batch)

    found = look_up(book.ledger, [sha("a")]).get(sha("a"))

    assert (found.bad_outcomes if found else 0) == counts


def test_attempt_of_a_crash_is_no_bad_outcome(book: Book) -> None:
    for _ in range(5):
        open_attempt(book, "0.01", error_type="crashed")
    assert look_up(book.ledger, [sha("p")]) == {}


@pytest.mark.parametrize(
    ("likely", "told"),
    [([], Decimal(0)), (["0.01", "0.02"], Decimal("0.03")), ([None], None), ([None, "0.01"], Decimal("0.01"))],
)
def test_usage_says_what_was_likely_billed(book: Book, likely: list[str | None], told: Decimal | None) -> None:
    open_attempt(book, "9", error_type="not_sent")
    open_attempt(book, "9", cost_usd=Decimal("0.5"), http_status=200)
    for cost in likely:
        open_attempt(book, cost, error_type="crashed")

    found = usage(book.ledger, book.run_id)

    assert (found.likely_usd, found.perhaps_billed, found.cost_usd) == (told, len(likely), Decimal("0.5"))

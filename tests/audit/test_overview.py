"""The overview's figures are sums over attempts and generations, each a link to its rows, for any period."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from db.clock import now
from db.session import rows_of
from db.tables import Attempt
from presswork.audit.next_runs import NextRun
from tests.audit.conftest import Room
from tests.audit.hostile import HOSTILE, faults_in
from tests.db.rows import DAY, Book

COUNT = re.compile(
    r'<td[^>]*>(?:<span>)?<a (?:class="(?:lacks|cause)" )?href="(/generations\?[^"]+)"><data value="(\d+)">'
)
"""A count in a cell that is a link to a list."""
MARCH = "since=2026-03-01&until=2026-04-01"


def test_figures_are_those_of_the_attempts(book: Book, pages: TestClient) -> None:
    draw = random.Random(3)
    for number in range(30):
        cost = Decimal(draw.randrange(1, 10**9)).scaleb(-10)
        book.add(f"k{number}", settled={"cost_usd": cost, "output_tokens": draw.randrange(1, 900)})
    attempts = rows_of(book.ledger, select(Attempt.cost_usd, Attempt.input_tokens, Attempt.output_tokens))

    for closed in (False, True):
        if closed:
            book.close()
        found = pages.get(f"/.json?{MARCH}").status_code, pages.get(f"/overview.json?{MARCH}").json()
        assert found[0] == 404
        whole = found[1]["total"]["usage"]
        assert Decimal(str(whole["cost_usd"])) == sum(row.cost_usd for row in attempts)
        assert whole["output_tokens"] == sum(row.output_tokens for row in attempts)
        assert found[1]["total"]["ended"]["succeeded"] == 30
        assert [line["alike"]["day"] for line in found[1]["by_day"]] == ["2026-03-01"]


def test_the_same_figures_stand_in_each_grouping(book: Book, pages: TestClient) -> None:
    book.add("k1")
    book.add("k2", step="other")
    book.add("k3", settled={"cost_usd": None})

    found = pages.get(f"/overview.json?{MARCH}").json()

    for name in ("by_flow", "by_template", "by_model", "by_endpoint"):
        assert sum(line["usage"]["cost_usd"] or 0 for line in found[name]) == found["total"]["usage"]["cost_usd"], name
        assert sum(line["usage"]["unpriced"] for line in found[name]) == 1, name
    assert "1 requests unpriced" in pages.get(f"/?{MARCH}").text.replace('<data value="1">1</data>', "1")


def test_a_figure_is_a_link_to_its_rows(book: Book, pages: TestClient) -> None:
    book.add("k1", status="failed", output=None, output_hash=None, error_kind="render")

    html = pages.get(f"/?{MARCH}&flow=product_copy").text

    period = "since=2026-03-01&amp;until=2026-04-01"
    assert f'href="/generations?flow=product_copy&amp;{period}"' in html
    assert f'href="/generations?status=without_content&amp;flow=product_copy&amp;{period}"' in html
    assert 'href="/generations?flow=product_copy&amp;since=2026-03-01&amp;until=2026-03-02"' in html


def test_each_count_is_the_number_of_the_rows_that_it_leads_to(book: Book, pages: TestClient) -> None:
    for number in range(3):
        book.add(f"good {number}")
    for number, status in enumerate(("failed", "invalid", "refused", "refused")):
        book.add(f"bad {number}", status=status, output=None, output_hash=None, error_kind=f"cause {number}")

    counts = set()
    for path in ("/?since=2026-03-01", "/templates", "/templates/product_copy"):
        for address, count in COUNT.findall(pages.get(path).text):
            listed = unescape(address).replace("/generations", "/generations.json", 1)
            assert len(pages.get(listed).json()["generations"]) == int(count), (path, address)
            counts.add(int(count))
    assert {7, 4} <= counts


def test_requests_without_a_generation_lead_to_no_rows(book: Book, pages: TestClient) -> None:
    book.add("k1", status="skipped", output=None, output_hash=None, prompt=None)

    html = pages.get(f"/?{MARCH}").text

    by_model = html[html.index("no answer, or nothing rendered") :].split("</tr>")[0]
    assert "href" not in by_model
    assert '<data value="1">1</data>' in by_model


def test_a_bar_stands_for_each_day_and_a_long_period_is_drawn_by_month(book: Book, pages: TestClient) -> None:
    book.add("k1")

    assert pages.get(f"/?{MARCH}").text.count('class="hit"') == 2 * 31
    by_month = pages.get("/?since=2020-01-01&until=2026-06-01").text
    assert by_month.count('class="hit"') == 2 * 3
    assert "Cost by month" in by_month


def test_the_sandbox_is_said(book: Book, pages: TestClient) -> None:
    book.add("k1")

    assert "nothing was billed" in pages.get(f"/?{MARCH}").text


def test_what_failed_lately_is_shown_with_its_cause_as_text(book: Book, pages: TestClient) -> None:
    for number, hostile in enumerate(HOSTILE):
        failed: dict[str, Any] = {"status": "failed", "output": None, "output_hash": None, "created_at": now()}
        book.add(f"{number} {hostile}", **failed, error_kind=hostile, error_message=hostile)
        book.add(f"other {number}", step=hostile, created_at=now())

    html = pages.get("/").text

    assert faults_in(html) == []
    assert "What failed lately" in html


@pytest.mark.parametrize(
    "query",
    [
        "since=0001-01-01",
        "until=9999-12-31T23:59:59.999999",
        "since=0001-01-01T00:00%2B14:00",
        "since=2999-01-01",
        "until=1970-01-01",
        "since=2026-03-01T12:00&until=2026-03-01T13:00",
        "flow=%00&endpoint=%F0%9F%92%A9",
        "flow=%FF",
        "since=2026-03-01&since=",
        "since=%E2%80%AE",
    ],
)
def test_no_query_breaks_the_page(book: Book, pages: TestClient, query: str) -> None:
    book.add("k1")

    for suffix in ("", ".json", ".sql"):
        path = "/overview" + suffix if suffix else "/"
        assert pages.get(f"{path}?{query}").status_code in {200, 422}, suffix


def test_the_last_thirty_days_are_shown_without_a_period(book: Book, pages: TestClient) -> None:
    found = pages.get("/overview.json").json()

    first, last = (date.fromisoformat(found[name]) for name in ("first", "last"))
    assert last - first == timedelta(days=29)
    assert [preset["name"] for preset in found["presets"] if preset["is_shown"]] == ["30 days"]
    assert "Nothing was generated in this period" in pages.get("/").text


class TestNext:
    """What runs next is shown if Prefect says it, else left out."""

    @staticmethod
    def page(room: Room, ledger_url: str, runs: Sequence[NextRun] | None) -> Any:
        return room(ledger_url, ask_next=lambda: runs).get("/").text

    def test_it_is_left_out_without_an_answer(self, room: Room, ledger_url: str) -> None:
        assert "What runs next" not in self.page(room, ledger_url, None)

    def test_it_is_shown_as_text(self, room: Room, ledger_url: str) -> None:
        due = datetime(2026, 12, 1, 6, tzinfo=UTC)
        runs = [NextRun("id", "<script>x", "nightly", due, "Scheduled", "http://127.0.0.1:4200/runs/flow-run/id")]

        html = self.page(room, ledger_url, runs)

        assert "2026-12-01 06:00:00" in html
        assert "&lt;script&gt;x" in html


def test_unpriced_savings_are_said_and_others_still_counted(book: Book, pages: TestClient) -> None:
    book.add("k1", settled={"cache_read_tokens": 1_000_000, "ended_at": DAY})
    book.add("k2", settled={"cache_read_tokens": 1_000_000, "model": "unheard-of", "cost_usd": None})

    saved = pages.get(f"/overview.json?{MARCH}").json()["total"]["saved"]

    assert saved["unpriced"] == 1
    assert saved["usd"] > 0

"""The list of runs can be filtered, sorted and paged; one run shows its figures, its steps and what went wrong."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from db.clock import new_id, now
from db.session import begin_write
from db.tables import StoredRun
from tests.audit.conftest import Room
from tests.audit.hostile import HOSTILE, faults_in
from tests.db.rows import Book, run_row, sha, start_run


def ids(pages: TestClient, query: str) -> list[str]:
    found: list[dict[str, Any]] = pages.get(f"/runs.json?{query}").json()["runs"]
    return [run["id"] for run in found]


def change(book: Book, **values: Any) -> None:
    with begin_write(book.ledger) as connection:
        connection.execute(update(StoredRun).where(StoredRun.id == book.run_id).values(**values))


def failed(book: Book, key: str, **own: Any) -> str:
    return book.add(key, **{"status": "failed", "output": None, "output_hash": None, "error_kind": "render"} | own)


def test_runs_are_filtered_and_sorted(book: Book, pages: TestClient) -> None:
    book.add("k1", settled={"cost_usd": Decimal(2)})
    other = Book(book.ledger, flow="newsletter", trigger="schedule", endpoint="anthropic")
    failed(other, "k1")

    assert ids(pages, "") == [other.run_id, book.run_id]
    assert ids(pages, "sort=cost") == [book.run_id, other.run_id]
    assert ids(pages, "sort=failures") == [other.run_id, book.run_id]
    assert ids(pages, "flow=newsletter") == ids(pages, "trigger=schedule") == ids(pages, "endpoint=anthropic")
    assert ids(pages, "flow=newsletter") == [other.run_id]
    assert ids(pages, "status=failed") == []
    assert ids(pages, f"since={now() + timedelta(days=1):%Y-%m-%d}") == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=finished", "is no status. Available: running"),
        ("trigger=cat", "is no trigger"),
        ("sort=colour", "sort:"),
        ("sort=cost&before=nonsense", "is not the end of a page"),
        ("before=nonsense", "is not the end of a page"),
        ("flow=colour", "There is no flow &#39;colour&#39; in this ledger. Available: product_copy."),
        ("flow=" + "x" * 2_001, "flow: "),
    ],
)
def test_a_filter_that_can_t_be_right_is_said(book: Book, pages: TestClient, query: str, said: str) -> None:
    answer = pages.get(f"/runs?{query}")

    assert answer.status_code == 422
    assert said in answer.text


def test_pages_lead_to_the_end_of_the_list(book: Book, pages: TestClient) -> None:
    for _ in range(60):
        start_run(book.ledger, run_row(status="completed", ended_at=now()), new_id())

    first = pages.get("/runs.json?sort=cost").json()
    second = pages.get(f"/runs.json?sort=cost&before={first['before']}").json()

    assert (len(first["runs"]), len(second["runs"]), second["before"]) == (50, 11, None)
    assert not {run["id"] for run in first["runs"]} & {run["id"] for run in second["runs"]}
    html = pages.get("/runs?sort=cost").text
    assert 'rel="next"' in html
    assert "sort=cost&amp;before=" in html


def test_one_run_shows_its_figures_and_what_went_wrong(book: Book, pages: TestClient) -> None:
    first = book.add("k1", settled={"cost_usd": Decimal("0.5")})
    book.reuse("k2", first)
    for number in range(7):
        failed(book, f"bad{number}", error_message="No such column.", settled={"cost_usd": Decimal("0.25")})

    for closed in (False, True):
        if closed:
            book.close()
        found = pages.get(f"/runs/{book.run_id}.json").json()
        assert found["run"]["usage"]["cost_usd"] == 2.25
        assert [(each["status"], each["origin"], each["count"]) for each in found["steps"][0]["counts"]] == [
            ("failed", "live", 7),
            ("succeeded", "cache", 1),
            ("succeeded", "live", 1),
        ]
        assert [(each["kind"], each["count"]) for each in found["losses"]] == [("render", 7)]

    html = pages.get(f"/runs/{book.run_id}").text
    of_step = f"run={book.run_id}&amp;step=product_copy"
    assert f'href="/generations?{of_step}&amp;status=failed&amp;origin=live"' in html
    assert "No such column." in html
    assert "made up, and nothing was billed" in html


def test_counts_by_cause_lead_to_as_many_rows(book: Book, pages: TestClient) -> None:
    for number in range(3):
        failed(book, f"bad{number}")
    failed(book, "odd", error_kind="server_error")
    failed(book, "unknown", error_kind=None)
    failed(book, "again")
    book.add("again", prompt="again", prompt_hash=sha("again"))

    page = pages.get(f"/runs/{book.run_id}")
    losses = pages.get(f"/runs/{book.run_id}.json").json()["losses"]
    of_run = f"run={book.run_id}&amp;step=product_copy&amp;status=failed"

    assert {loss["kind"]: loss["count"] for loss in losses} == {"render": 3, "server_error": 1, None: 1}
    for loss in losses:
        query = f"{of_run}&amp;cause={loss['kind'] or 'none'}"
        assert f'<a href="/generations?{query}"><data value="{loss["count"]}">' in page.text
        listed = pages.get("/generations.json?" + query.replace("&amp;", "&")).json()["generations"]
        assert len(listed) == loss["count"]


def test_figures_of_a_run_lead_to_as_many_rows(book: Book, pages: TestClient) -> None:
    lost = failed(book, "K1")
    source = book.add("K1", prompt="again", prompt_hash=sha("again"))
    book.reuse("K2", source)
    book.reuse("K3", source)
    failed(book, "bad")

    html = pages.get(f"/runs/{book.run_id}").text
    of_run, of_step = f"run={book.run_id}", f"run={book.run_id}&step=product_copy"
    for query, count in (
        (f"{of_run}&status=succeeded&origin=live", 1),
        (f"{of_run}&status=succeeded&origin=cache", 2),
        (f"{of_step}&status=succeeded", 3),
        (f"{of_step}&status=without_content", 1),
        (f"{of_step}&replaced=yes", 5),
    ):
        assert f'href="/generations?{query.replace("&", "&amp;")}"' in html, query
        listed = pages.get(f"/generations.json?{query}").json()["generations"]
        assert len(listed) == count, query
        assert (lost in [each["line"]["id"] for each in listed]) == ("replaced" in query)


def test_long_names_of_steps_fit_into_their_boxes(book: Book, pages: TestClient) -> None:
    book.add("K1", step="a" * 100)

    html = pages.get(f"/runs/{book.run_id}").text

    boxes = re.findall(r'<rect x="[0-9]+" y="[0-9]+" width="([0-9]+)"', html)
    assert len(boxes) == 2
    assert all(int(width) > 100 * 9 for width in boxes)


def test_replaced_generations_are_listed_if_asked_for(book: Book, pages: TestClient) -> None:
    first = failed(book, "K1")
    second = book.add("K1", prompt="again", prompt_hash=sha("again"))

    def listed(query: str) -> list[str]:
        return [each["line"]["id"] for each in pages.get(f"/generations.json?{query}").json()["generations"]]

    assert listed("") == listed("cause=&key=K1") == [second]
    assert listed("replaced=yes") == [second, first]
    assert listed("replaced=yes&cause=render") == [first]
    assert pages.get("/generations?replaced=perhaps").status_code == 422


def test_a_run_is_found_by_the_end_of_its_id(book: Book, pages: TestClient) -> None:
    assert pages.get(f"/runs/{book.run_id[-12:]}.json").json()["run"]["id"] == book.run_id


@pytest.mark.parametrize("asked", ["nonsense", "01999999-0000-7000-8000-000000000000", "%3Cscript%3E", "x" * 900])
def test_a_run_that_does_not_exist_is_not_found(book: Book, pages: TestClient, asked: str) -> None:
    answer = pages.get(f"/runs/{asked}")

    assert answer.status_code == 404
    assert "There is no run" in answer.text
    assert "<script" not in answer.text


def test_an_address_with_a_zero_byte_is_no_filter(book: Book, pages: TestClient) -> None:
    for path in ("/runs/%00", "/runs?flow=%00", "/?endpoint=%00", "/runs?%00=1"):
        assert pages.get(path).status_code == 422, path


def test_runs_that_resume_each_other_are_linked(book: Book, pages: TestClient) -> None:
    later = Book(book.ledger, resumes_run_id=book.run_id)

    assert pages.get(f"/runs/{later.run_id}.json").json()["resumes"] == [book.run_id]
    assert pages.get(f"/runs/{book.run_id}.json").json()["resumed_by"] == [later.run_id]
    assert f'href="/runs/{later.run_id}"' in pages.get(f"/runs/{book.run_id}").text


def test_a_run_leads_to_its_page_in_prefect(book: Book, room: Room, ledger_url: str) -> None:
    flow_run = new_id()
    change(book, prefect_flow_run_id=flow_run)

    assert f'href="http://127.0.0.1:4200/runs/flow-run/{flow_run}"' in (
        room(ledger_url, prefect_url="http://127.0.0.1:4200").get(f"/runs/{book.run_id}").text
    )
    assert f"/runs/flow-run/{flow_run}" not in room(ledger_url).get(f"/runs/{book.run_id}").text


def test_a_suspended_run_says_until_when_and_why(book: Book, pages: TestClient) -> None:
    book.close()
    change(book, status="suspended", ended_at=None, suspended_for="waits for <b>Ada</b>", due_at=now())

    html = pages.get(f"/runs/{book.run_id}").text

    assert "waits for &lt;b&gt;Ada&lt;/b&gt;" in html
    assert "Suspended" in html


def test_hostile_names_keys_and_messages_are_text(room: Room, ledger_url: str, ledger: Any) -> None:
    book = Book(ledger, flow=HOSTILE[0], parameters={HOSTILE[1]: HOSTILE[2]}, code_version=HOSTILE[4])
    for number, hostile in enumerate(HOSTILE):
        failed(book, f"{number}{hostile}", step=hostile, error_kind=hostile, error_message=hostile)
        book.add(f"{number}", step=hostile)
    pages = room(ledger_url)

    for path in (f"/runs/{book.run_id}", "/runs"):
        html = pages.get(path).text
        assert faults_in(html) == [], path
    assert pages.get(f"/runs/{book.run_id}.json").json()["run"]["flow"] == HOSTILE[0]
    # A comment of the SQL can't be ended by what stands in the address.
    assert "\nDROP" not in pages.get("/runs.sql?flow=%0ADROP").text.split("\n\n")[0]

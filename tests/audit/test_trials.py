"""Pages show a trial as a trial: never as content, in sums as what it cost, in lists where it is asked for."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from starlette.testclient import TestClient

from db.clock import now
from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from db.words import TRY
from tests.audit.hostile import HOSTILE, faults_in
from tests.db.rows import Book, sha

INVALID: dict[str, Any] = {"status": "invalid", "output": None, "output_hash": None}
MARK = '<span class="mark calm">try</span>'


@pytest.fixture
def trial(book: Book) -> Book:
    """A trial, next to a run that has content of the record a."""
    book.add("a", settled={"cost_usd": Decimal(2)}, output={"t": "real text"}, created_at=now())
    book.close()
    return Book(book.ledger, trigger=TRY)


def tried(trial: Book, key: str = "a", **own: Any) -> str:
    new: dict[str, Any] = {"output": {"t": "tried text"}, "template_hash": sha("fifth"), "created_at": now()}
    return trial.add(key, prompt=f"tried {key}", **(new | own))


def json(pages: TestClient, address: str) -> Any:
    return pages.get(address).json()


def test_life_lists_trials_apart(trial: Book, pages: TestClient) -> None:
    ids = [tried(trial, record=f'{{"n":{number}}}') for number in range(7)]

    found, shown = json(pages, "/records.json?key=a"), pages.get("/records?key=a").text

    (life,) = found["lives"]
    assert (life["contents"], life["failures"], life["confirmed"]) == (1, 0, 0)
    assert life["current"]["generation_id"] not in ids
    assert [line["id"] for line in found["trials"]] == ids[:1:-1]
    assert found["trial_count"] == 7
    assert "that somebody tried, which were never its content" in shown
    assert "trigger=try" in shown


def test_record_that_was_only_tried_has_no_life(trial: Book, pages: TestClient) -> None:
    hostile = " ".join(HOSTILE).replace("\r\n", " ")
    only = tried(trial, "only", output={"t": hostile})
    star = tried(trial, "b*")
    tried(trial, "b 2")

    page = pages.get("/records?key=only")

    assert page.status_code == 200
    assert faults_in(page.text) == []
    found = json(pages, "/records.json?key=only")
    assert (found["lives"], [line["id"] for line in found["trials"]]) == ([], [only])
    # A key may end in a star, which in a filter stands for all that follows.
    assert [line["id"] for line in json(pages, "/records.json?key=b*")["trials"]] == [star]
    assert pages.get("/records?key=a&flow=another").status_code == 404


def test_page_of_a_generation_says_that_it_is_a_trial(trial: Book, book: Book, pages: TestClient) -> None:
    written, first = json(pages, "/generations.json?key=a")["generations"][0]["line"]["id"], tried(trial)
    second = tried(Book(trial.ledger, trigger=TRY), output={"t": "sixth text"})

    page, real = pages.get(f"/generations/{second}").text, pages.get(f"/generations/{written}").text

    assert MARK in page
    assert "its answers are no record's content" in page.replace("&#39;", "'")
    assert ("current content" in page, "current content" in real) == (False, True)
    # A trial stands next to what it followed; a run's answer next to those of runs.
    assert f'rel="prev" href="/generations/{first}"' in page
    assert MARK not in real
    assert 'rel="next"' not in real
    difference = pages.get(f"/difference?b={second}").text
    assert (written in difference, difference.count(MARK)) == (True, 1)


def test_generations_can_be_chosen_by_what_started_them(trial: Book, pages: TestClient) -> None:
    generation = tried(trial)

    def listed(query: str) -> list[str]:
        return [each["line"]["id"] for each in json(pages, f"/generations.json?{query}")["generations"]]

    assert len(listed("")) == 2
    assert listed("trigger=try") == listed("trigger=try&key=a") == listed("words=tried&trigger=try") == [generation]
    assert generation not in listed("trigger=command")
    trial.close()
    assert listed("trigger=try") == listed("trigger=try&step=product_copy") == [generation]
    assert listed("trigger=shard") == []
    assert "is no trigger" in pages.get("/generations?trigger=cat").text
    assert pages.get("/generations").text.count(MARK) == 1


def test_runs_leave_trials_out_and_say_so(trial: Book, book: Book, pages: TestClient) -> None:
    tried(trial)

    def listed(query: str) -> list[str]:
        return [run["id"] for run in json(pages, f"/runs.json?{query}")["runs"]]

    for sort in ("started", "cost", "failures", "duration"):
        assert listed(f"sort={sort}") == [book.run_id]
        assert listed(f"sort={sort}&trigger=try") == [trial.run_id]
    assert json(pages, "/runs.json")["count"] == 1
    assert "Trials of templates are left out" in pages.get("/runs?flow=product_copy").text
    assert "Trials of templates" not in pages.get("/runs?trigger=try").text
    assert not json(pages, f"/runs.json?until={now() - timedelta(days=1):%Y-%m-%d}")["leaves_out_trials"]
    page = pages.get(f"/runs/{trial.run_id}").text
    assert MARK in page
    assert "This is a trial of a template" in page


def test_overview_adds_trials_up_and_says_what_they_cost(trial: Book, pages: TestClient) -> None:
    tried(trial, settled={"cost_usd": Decimal(3)})
    tried(trial, "b", **INVALID)
    for _closed in range(2):
        found, page = json(pages, "/overview.json?since=2026-01-01"), pages.get("/?since=2026-01-01").text
        assert round(found["total"]["usage"]["cost_usd"], 10) == 5.01
        assert round(found["tried"]["usage"]["cost_usd"], 10) == 3.01
        assert found["tried"]["ended"]["without_content"] == 1
        assert found["failed_lately"] == []
        assert [(each["records"], each["failing"]) for each in found["content"]] == [(1, 0)]
        assert "Trials of templates are included" in page
        trial.close()


def test_overview_without_trials_says_nothing_of_them(book: Book, pages: TestClient) -> None:
    book.add("a")
    assert "Trials of templates" not in pages.get("/?since=2026-01-01").text


def test_version_that_was_only_tried_is_not_in_use(trial: Book, pages: TestClient) -> None:
    tried(trial)
    for version in ("fifth", "never"):
        row = TemplateRow(hash=sha(version), name="product_copy", sources={"a.md.j2": version}, first_seen_at=now())
        add_templates(trial.ledger, [row])
    for _closed in range(2):
        versions = json(pages, "/templates/product_copy.json")["versions"]
        told = {
            each["hash"]: (each["use"]["runs"], each["use"]["figures"]["tried"], each["before"]) for each in versions
        }
        assert told == {
            sha("template"): (1, 0, None),
            sha("fifth"): (0, 1, sha("template")),
            sha("never"): (0, 0, None),
        }
        assert versions[0]["hash"] == sha("template")
        page = pages.get("/templates/product_copy").text
        assert ("only tried" in page, MARK in page) == (True, True)
        (line,) = json(pages, "/templates.json")["templates"]
        assert (line["last_used"], line["figures"]["generations"]) == (sha("template"), 2)
        trial.close()


def test_template_that_was_only_tried_is_listed_with_its_figures(trial: Book, pages: TestClient) -> None:
    tried(trial, step="new_template")
    page = pages.get("/templates").text
    (line,) = [each for each in json(pages, "/templates.json")["templates"] if each["name"] == "new_template"]
    assert (line["last_used"], line["last_used_at"], line["figures"]["generations"]) == (None, None, 1)
    assert "only tried" in page
    assert pages.get("/templates/new_template").status_code == 200


def test_versions_are_compared_by_trials_too(trial: Book, pages: TestClient) -> None:
    tried(trial)
    page = pages.get(f"/templates/product_copy/compare?a={sha('template')}&b={sha('fifth')}")
    assert page.status_code == 200
    assert ("real" in page.text, "tried" in page.text, page.text.count(MARK)) == (True, True, 2)

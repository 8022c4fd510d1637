"""The pages of templates show versions and their figures, and the same records under two of them."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from db.clock import now
from db.ledger.connecting import open_ledger
from db.ledger.rows import TemplateRow, WriteBatch
from db.ledger.writing import add_templates, write
from tests.audit.conftest import Room
from tests.audit.test_generation_pages import HOSTILE, check_harmless
from tests.db.rows import Book, sha

ODD_NAME = f"a/b?c#d <b>{HOSTILE}"[:200]


def add_version(ledger: Engine, words: str, name: str = "product_copy", days: int = 0) -> str:
    """Store a version of a template; return its hash."""
    seen = now() + timedelta(days=days)
    row = TemplateRow(hash=sha(words), name=name, sources={f"{name}.md.j2": words}, first_seen_at=seen)
    add_templates(ledger, [row])
    return sha(words)


@pytest.fixture
def versions(ledger: Engine) -> tuple[str, str]:
    """Two versions with the same three records, one of them without content under the newer; the older one first."""
    older, newer = add_version(ledger, "one"), add_version(ledger, "two")
    first = Book(ledger)
    for key in "abc":
        first.add(key, template_hash=older, prompt=f"old {key}", output={"title": f"The cup of {key}", "same": 1})
    first.add("only old", template_hash=older)
    first.close()
    second = Book(ledger)
    second.add("a", template_hash=newer, prompt="new a", output={"title": "The mug of a", "same": 1})
    second.add("b", template_hash=newer, prompt="new b", output={"title": "The cup of b", "same": 1})
    bad: dict[str, Any] = {"status": "invalid", "output": None, "output_hash": None, "error_message": "no title"}
    second.add("c", template_hash=newer, prompt="new c", record='{"other":1}', **bad)
    second.close()
    return older, newer


def text_of(page: str) -> str:
    """Return the words of a page, without its elements."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.replace("<br>", " ")))


def test_list_shows_each_template_with_its_figures(versions: tuple[str, str], pages: TestClient) -> None:
    page = pages.get("/templates")
    found = pages.get("/templates.json").json()["templates"]

    assert page.status_code == 200
    assert [(line["name"], line["versions"], line["last_used"]) for line in found] == [("product_copy", 3, versions[1])]
    assert "/generations?step=product_copy" in page.text
    assert "1 14 %" in text_of(page.text)
    assert "product_copy sandbox" in text_of(page.text)


def test_period_leaves_out_what_was_not_used_in_it(versions: tuple[str, str], pages: TestClient) -> None:
    page = pages.get("/templates?since=2020-01-01&until=2020-02-01")

    assert page.status_code == 200
    assert "not in this period" in page.text
    assert pages.get("/templates?since=2020-03-01&until=2020-02-01").status_code == 422


def test_template_shows_its_versions_beside_each_other(versions: tuple[str, str], pages: TestClient) -> None:
    older, newer = versions

    page = pages.get("/templates/product_copy")
    chosen = pages.get(f"/templates/product_copy?version={older[:9]}")

    assert page.status_code == chosen.status_code == 200
    assert f"/templates/product_copy/compare?a={older}&amp;b={newer}" in page.text
    assert f"/difference?of=template&amp;a={older}&amp;b={newer}&amp;name=product_copy" in page.text
    assert f"/generations?step=product_copy&amp;template={newer}" in page.text
    assert ">two</pre>" in page.text
    assert ">one</pre>" in chosen.text
    assert "1 33 %" in text_of(page.text)
    assert [each["hash"] for each in pages.get("/templates/product_copy.json").json()["versions"]][:2] == [newer, older]


def test_step_without_a_stored_template_has_a_page(book: Book, pages: TestClient) -> None:
    book.add("a", step="made_in_code", template_hash=sha("unknown"))

    page = pages.get("/templates/made_in_code")

    assert page.status_code == 200
    assert "the step was made in code" in page.text
    assert "made_in_code" in pages.get("/templates").text


def test_difference_to_a_version_without_a_source_is_not_offered(book: Book, pages: TestClient) -> None:
    book.add("a", step="made_in_code", template_hash=sha("one"))
    book.add("b", step="made_in_code", template_hash=sha("two"))

    page = pages.get("/templates/made_in_code").text

    assert "in the answers" in page
    assert "of=template" not in page


def test_same_records_stand_side_by_side(versions: tuple[str, str], pages: TestClient) -> None:
    older, newer = versions

    page = pages.get(f"/templates/product_copy/compare?a={older[:8]}&b={newer}")

    assert page.status_code == 200
    said = text_of(page.text)
    assert "3 records with a generation of both versions, the newest of each; 1 with equal answers" in said
    assert "[removed: cup]" in said
    assert "[added: mug]" in said
    assert "no title" in said
    assert "the record changed too" in said
    assert "only old" not in said
    assert "Equal: same" in said


def test_comparison_without_versions_offers_them(versions: tuple[str, str], pages: TestClient) -> None:
    older, newer = versions

    shown = pages.get("/templates/product_copy/compare")

    assert shown.status_code == 200
    assert re.findall(r'<option value="(\w+)" selected>', shown.text) == [older, newer]
    assert 'action="/templates/product_copy/compare"' in shown.text
    half = pages.get(f"/templates/product_copy/compare?b={older[:12]}").text
    assert f'<option value="{older[:12]}" selected>' in half
    data = pages.get("/templates/product_copy/compare.json").json()
    assert (data["name"], data["versions"][:2]) == ("product_copy", [newer, older])


def test_one_version_has_nothing_to_be_compared_with(book: Book, pages: TestClient) -> None:
    book.add("a", step="coded", template_hash=sha("only"))

    assert "one version only" in pages.get("/templates/coded/compare").text


def test_compared_records_are_paged_without_loss(ledger: Engine, pages: TestClient) -> None:
    older, newer = add_version(ledger, "one"), add_version(ledger, "two")
    keys = [f"k{number:02}" for number in range(45)]
    for version in (older, newer):
        book, batch = Book(ledger), WriteBatch()
        for key in keys:
            book.generation(batch, key, template_hash=version)
        write(ledger, batch)
        book.close()

    found: list[str] = []
    path = f"/templates/product_copy/compare.json?a={older}&b={newer}"
    more = path
    while more:
        view = pages.get(more).json()
        found += [pair["record"]["record_key"] for pair in view["pairs"]]
        more = f"{path}&after={quote(view['after'])}" if view["after"] else ""
    assert found == keys
    assert 'rel="next"' in pages.get(path.replace(".json", "")).text


def test_answers_too_long_to_compare_are_a_link(ledger: Engine, pages: TestClient) -> None:
    older, newer = add_version(ledger, "one"), add_version(ledger, "two")
    for number, version in enumerate((older, newer)):
        book = Book(ledger)
        book.add("long", template_hash=version, prompt=version, output={"text": f"{number} words " * 60_000})
        book.close()

    page = pages.get(f"/templates/product_copy/compare?a={older}&b={newer}").text

    assert "too long for this page" in page
    assert "/difference?of=answer" in page
    assert len(page) < 50_000


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/templates/nothing", 404, "was ever used"),
        ("/templates/nothing/compare?a=00&b=11", 404, "was ever used"),
        ("/templates/product_copy?version=zz", 422, "Available: "),
        ("/templates/product_copy?version=", 200, "Source of version"),
        ("/templates/product_copy/compare?a=zz&b=yy", 422, "There is no template version"),
        ("/templates/product_copy/compare?a={older}&b={older}", 422, "compared with itself"),
        ("/templates/product_copy/compare?a={older}&b={newer}&after=x", 422, "not the end of a page"),
        ("/templates/product_copy/compare?a={older}&b={other}", 404, "no version"),
        ("/templates/product_copy?x=1", 422, "no such filter"),
    ],
)
def test_wrong_address_is_a_clear_page(
    versions: tuple[str, str], book: Book, pages: TestClient, path: str, status: int, said: str
) -> None:
    # A version of another step, without a stored template.
    book.add("z", step="made_in_code", template_hash=sha("unknown"))

    page = pages.get(path.format(older=versions[0], newer=versions[1], other=sha("unknown")))

    assert page.status_code in {status, 422} if status == 404 else page.status_code == status
    assert said in text_of(page.text) or "There is no template version" in page.text
    check_harmless(page.text)


def test_hostile_names_sources_and_answers_appear_as_text(ledger: Engine, pages: TestClient) -> None:
    older, newer = (add_version(ledger, f"{HOSTILE} {each}", ODD_NAME) for each in "12")
    for number, version in enumerate((older, newer)):
        book, batch = Book(ledger), WriteBatch()
        output = {HOSTILE: f"{HOSTILE} {number}", "list": [HOSTILE, number]}
        book.generation(batch, HOSTILE, step=ODD_NAME, template_hash=version, output=output)
        book.generation(
            batch, "x", step=ODD_NAME, template_hash=version, output=None, error_message=HOSTILE, status="failed"
        )
        book.generation(batch, "y", step=ODD_NAME, template_hash=version, output=[HOSTILE])
        write(ledger, batch)
        book.close()
    address = f"/templates/{quote(ODD_NAME, safe='')}"

    for path in ("/templates", address, f"{address}?version={older}", f"{address}/compare?a={older}&b={newer}"):
        page = pages.get(path)
        assert page.status_code == 200, path
        assert "alert(1)" in page.text
        check_harmless(page.text)
        for suffix in (".json", ".sql"):
            before, question, query = path.partition("?")
            assert f'href="{before}{suffix}'.replace("%2F", "/") in page.text
            assert pages.get(f"{before}{suffix}{question}{query}").status_code == 200


def test_sql_of_each_page_can_be_run(versions: tuple[str, str], ledger: Engine, pages: TestClient) -> None:
    older, newer = versions
    for path in (
        "/templates.sql",
        "/templates/product_copy.sql",
        f"/templates/product_copy/compare.sql?a={older}&b={newer}",
    ):
        sql = pages.get(path)
        assert sql.status_code == 200
        statements = [each for each in sql.text.split(";\n\n") if each.strip()]
        assert statements
        with ledger.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%") if ledger.name == "postgresql" else statement)


def test_key_that_is_no_text_can_be_compared(room: Room, tmp_path: Path, sqlite_template: Path) -> None:
    """SQLite keeps bytes that are not UTF-8, as a damaged or foreign ledger has them."""
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger.sqlite')}"
    engine = open_ledger(url)
    older, newer = add_version(engine, "one"), add_version(engine, "two")
    for version in (older, newer):
        Book(engine).add("half", template_hash=version)
    with engine.begin() as connection:
        connection.execute(text("UPDATE generations SET record_key = CAST(X'78EDA08079' AS TEXT)"))
    engine.dispose()

    assert room(url).get(f"/templates/product_copy/compare?a={older}&b={newer}").status_code == 200

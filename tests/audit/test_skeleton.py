"""Every page answers in three forms, and says clearly what is wrong, whatever the query and whatever the ledger is."""

from __future__ import annotations

import base64
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from db.ledger.connecting import check, open_ledger
from presswork.audit.guards import POLICY, Password
from presswork.audit.page import NotFoundError, Page, PeriodQuery
from presswork.audit.read_ledger import ReadLedger
from presswork.audit.rendering import make_environment
from presswork.audit.responses import Answering
from tests.audit.conftest import Room
from tests.db.rows import Book


def basic(user: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


def test_a_page_is_html_json_and_sql(book: Book, pages: TestClient) -> None:
    book.add("k1")

    html, data, sql = (pages.get(f"/runs{suffix}") for suffix in ("", ".json", ".sql"))

    assert html.status_code == data.status_code == sql.status_code == 200
    assert book.run_id in html.text
    assert data.json()["runs"][0]["id"] == book.run_id
    assert sql.headers["content-type"] == "text/plain; charset=utf-8"
    assert "alembic_version" not in sql.text


def test_the_sql_of_a_page_can_be_run(book: Book, pages: TestClient) -> None:
    book.add("k1")

    sql = pages.get("/runs.sql?flow=product_copy").text

    statements = [each for each in sql.split(";\n\n") if each.strip()]
    assert len(statements) > 1
    with book.ledger.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%") if "postgres" in book.ledger.name else statement)


def test_empty_fields_of_a_form_leave_the_address(pages: TestClient) -> None:
    answer = pages.get("/runs?flow=&since=2026-03-01&until=", follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?since=2026-03-01")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("since=yesteryear", "since: &#39;yesteryear&#39; is not a date"),
        ("since=2026-04-01&until=2026-03-01", "The period is the wrong way round"),
        ("flavour=sweet", "flavour: this page has no such filter"),
        ("flow=a&flow=b", "flow: given more than once"),
        ("since=9999-12-31T23:59-23:00", "too far"),
    ],
)
def test_a_wrong_filter_is_said_above_its_form(pages: TestClient, query: str, said: str) -> None:
    answer = pages.get(f"/runs?{query}")

    assert answer.status_code == 422
    assert said in answer.text
    assert "<form class=" in answer.text
    assert pages.get(f"/runs.json?{query}").json().keys() == {"error"}
    assert pages.get(f"/runs.sql?{query}").status_code == 422


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/generations?before=nothing", "before: it is no id of a generation."),
        ("/difference?a=abc", "Give the newer one, b, too."),
        ("/records?flow=product_copy", "Enter the key of a record"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(pages: TestClient, address: str, said: str) -> None:
    answer = pages.get(address)

    assert answer.status_code == 422
    assert said in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/static/nothing.css", "/static/..%2fapp.py", "/runs.xml"])
def test_an_address_that_leads_nowhere_is_a_page(pages: TestClient, path: str) -> None:
    answer = pages.get(path)

    assert answer.status_code == 404
    assert "leads nowhere" in answer.text
    assert answer.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(pages: TestClient, method: str) -> None:
    answer = pages.request(method, "/runs")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_is_get_without_a_body(pages: TestClient) -> None:
    answer = pages.head("/runs")

    assert (answer.status_code, answer.text) == (200, "")


def test_another_host_is_refused_on_loopback_too(pages: TestClient) -> None:
    answer = pages.get("/runs", headers={"host": "evil.example"})

    assert answer.status_code == 400
    assert answer.headers["content-security-policy"] == POLICY
    for host in ("127.0.0.1:4201", "localhost:4201", "[::1]:4201"):
        assert pages.get("/runs", headers={"host": host}).status_code == 200


def test_a_password_is_asked_for_on_every_path(room: Room, ledger_url: str) -> None:
    pages = room(ledger_url, password=Password("äda", "geheim"))

    for path in ("/runs", "/static/audit.css", "/nothing"):
        refused = pages.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
    assert pages.get("/runs", headers=basic("äda", "geheim")).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        basic("ada", "geheim"),
        basic("äda", "geheim2"),
        basic("", ""),
        {"authorization": "Basic !!!"},
        {"authorization": "Bearer geheim"},
        {"authorization": "Basic"},
        {"authorization": "Basic " + base64.b64encode("äda:geheim".encode("latin-1")).decode()},
    ],
)
def test_a_wrong_password_opens_nothing(given: dict[str, str]) -> None:
    password = Password("äda", "geheim")

    assert not password.opens(given["authorization"])
    assert "geheim" not in repr(password)


@pytest.mark.parametrize(
    ("back", "leads_to"),
    [
        ("/runs?flow=a%26b", "/runs?flow=a%26b"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/\r\nset-cookie: a=b", "/"),
        ("/\t/evil.example", "/"),
        ("", "/"),
    ],
)
def test_choosing_a_theme_leads_back_to_this_site_alone(pages: TestClient, back: str, leads_to: str) -> None:
    answer = pages.get("/theme", params={"theme": "dark", "back": back}, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, leads_to)
    assert "theme=dark" in answer.headers["set-cookie"]


def test_a_theme_stays_until_the_reader_follows_the_system_again(pages: TestClient) -> None:
    pages.get("/theme?theme=dark&back=/runs")
    assert '<html lang="en" data-theme="dark">' in pages.get("/runs").text

    pages.get("/theme?theme=system&back=/runs")

    assert '<html lang="en">' in pages.get("/runs").text
    pages.cookies.set("theme", '"><script>')
    assert '<html lang="en">' in pages.get("/runs").text


def test_a_fault_of_a_page_is_said_without_a_trace(
    room: Room, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_engine: Any, _query: Any) -> None:
        raise RuntimeError("with a customer's text")

    broken = Page("/broken", PeriodQuery, read, "trouble.html")
    monkeypatch.setattr("presswork.audit.app.PAGES", (broken,))

    answer = room(ledger_url).get("/broken")

    assert answer.status_code == 500
    assert "This page has a fault" in answer.text
    assert "customer" not in answer.text
    assert answer.headers["content-security-policy"] == POLICY


def test_many_readers_at_once_are_all_answered(book: Book, pages: TestClient) -> None:
    book.add("k1")

    with ThreadPoolExecutor(16) as readers:
        answers = list(readers.map(lambda _: pages.get("/runs").status_code, range(48)))

    assert set(answers) == {200}


class TestLedger:
    """The ledger may not exist yet, may be of another version, damaged or replaced; the pages recover by themselves."""

    def test_one_that_does_not_exist_is_said_and_not_made(
        self, room: Room, tmp_path: Path, sqlite_template: Path
    ) -> None:
        file = tmp_path / "later.sqlite"
        pages = room(f"sqlite:///{file}")

        answer = pages.get("/runs")

        assert answer.status_code == 503
        assert "There is no ledger yet" in answer.text
        assert not file.exists()
        shutil.copy(sqlite_template, file)
        assert pages.get("/runs").status_code == 200

    def test_one_without_tables_is_not_migrated(self, room: Room, tmp_path: Path) -> None:
        file = tmp_path / "empty.sqlite"
        file.touch()

        answer = room(f"sqlite:///{file}").get("/runs")

        assert answer.status_code == 503
        assert "has no tables yet" in answer.text
        assert file.stat().st_size == 0

    def test_one_of_a_newer_version_is_said(self, room: Room, ledger_url: str) -> None:
        engine = open_ledger(ledger_url)
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        engine.dispose()

        answer = room(ledger_url).get("/runs")

        assert answer.status_code == 503
        assert "a newer Presswork migrated it" in answer.text

    def test_a_damaged_one_is_said_and_recovers(self, room: Room, tmp_path: Path, sqlite_template: Path) -> None:
        file = tmp_path / "ledger.sqlite"
        file.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
        pages = room(f"sqlite:///{file}")

        answer = pages.get("/runs")

        assert answer.status_code == 503
        assert "can&#39;t be read" in answer.text
        assert "Traceback" not in answer.text
        other = tmp_path / "other.sqlite"
        shutil.copy(sqlite_template, other)
        other.replace(file)
        assert pages.get("/runs").status_code == 200

    def test_one_that_is_damaged_inside_is_said(self, room: Room, tmp_path: Path, sqlite_template: Path) -> None:
        file = tmp_path / "ledger.sqlite"
        whole = sqlite_template.read_bytes()
        pages = room(f"sqlite:///{shutil.copy(sqlite_template, file)}")
        assert pages.get("/runs").status_code == 200
        file.write_bytes(whole[:4096] + b"\x00" * (len(whole) - 4096))

        answers = {pages.get("/runs").status_code for _ in range(3)}

        assert answers <= {200, 503}

    def test_one_with_a_damaged_value_is_said(self, room: Room, tmp_path: Path, sqlite_template: Path) -> None:
        url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger.sqlite')}"
        engine = open_ledger(url)
        generation_id = Book(engine).add("TEA-001")
        with engine.begin() as connection:
            connection.execute(text("UPDATE generations SET output = :half"), {"half": '{"title": "Assa'})
        engine.dispose()

        answer = room(url).get(f"/generations/{generation_id}")

        assert answer.status_code == 503
        assert "A value in the ledger is damaged" in answer.text
        assert "Assa" not in answer.text

    def test_one_that_is_replaced_is_read_anew(self, room: Room, tmp_path: Path, sqlite_template: Path) -> None:
        file, other = tmp_path / "ledger.sqlite", tmp_path / "other.sqlite"
        pages = room(f"sqlite:///{shutil.copy(sqlite_template, file)}")
        assert pages.get("/runs.json").json()["runs"] == []
        engine = open_ledger(f"sqlite:///{shutil.copy(sqlite_template, other)}")
        book = Book(engine)
        engine.dispose()
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()

        other.replace(file)

        assert [run["id"] for run in pages.get("/runs.json").json()["runs"]] == [book.run_id]

    @pytest.mark.parametrize(
        "url", ["postgresql://u:s3cret@127.0.0.1:1/none", "nonsense", "mysql+pymysql://u:s3cret@127.0.0.1/x"]
    )
    def test_one_that_can_t_be_reached_is_said_without_its_password(self, room: Room, url: str) -> None:
        answer = room(url).get("/runs")

        assert answer.status_code == 503
        assert "s3cret" not in answer.text
        assert "Check PRESSWORK_DATABASE_URL" in answer.text
        assert "psycopg" not in answer.text
        assert "connect_timeout" not in answer.text

    def test_one_that_is_no_file_is_said(self, room: Room, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        for name, said in (("", "it is a folder"), ("pipe", "it is no ordinary file")):
            answer = room(f"sqlite:///{tmp_path / name}").get("/runs")
            assert answer.status_code == 503
            assert said in answer.text
            assert "Check PRESSWORK_DATABASE_URL" in answer.text


class TestPages:
    """What the skeleton makes of what a page's own function returns or raises."""

    @staticmethod
    def ask(ledger_url: str, read: Any, query: str = "") -> Any:
        page = Page("/made", PeriodQuery, read, "trouble.html", lambda _engine: ())
        ledger = ReadLedger(lambda: ledger_url)
        answering = Answering(ledger, make_environment({"prefect_url": None}))
        with (
            closing(ledger),
            TestClient(Starlette(routes=answering.routes(page)), base_url="http://localhost") as client,
        ):
            return client.get(f"/made.json{query}")

    def test_what_does_not_exist_is_404(self, ledger_url: str) -> None:
        def read(_engine: Any, _query: Any) -> None:
            raise NotFoundError("There is no generation 'x'.")

        answer = self.ask(ledger_url, read)

        assert (answer.status_code, answer.json()) == (404, {"error": "There is no generation 'x'."})

    def test_a_slow_read_is_stopped_and_says_what_to_narrow(self, ledger_url: str, monkeypatch: Any) -> None:
        monkeypatch.setattr("presswork.audit.responses.PAGE_WITHIN_S", 0.2)

        def read(engine: Any, _query: Any) -> None:
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            with engine.connect() as connection:
                connection.execute(text(endless))

        answer = self.ask(ledger_url, read)

        assert answer.status_code == 503
        assert "Choose a shorter period" in answer.json()["error"]
        assert "If this machine is busy now, try again" in answer.json()["error"]

    def test_opening_the_ledger_takes_no_time_from_the_page(self, ledger_url: str, monkeypatch: Any) -> None:
        monkeypatch.setattr("presswork.audit.responses.PAGE_WITHIN_S", 0.1)

        def check_slowly(engine: Any, url: str) -> str:
            time.sleep(0.2)
            return check(engine, url)

        monkeypatch.setattr("presswork.audit.read_ledger.check", check_slowly)

        assert self.ask(ledger_url, lambda _engine, _query: {}).status_code == 200


def test_choices_of_a_form_are_read_once_while_the_same_ledger_is_open(ledger: Engine, ledger_url: str) -> None:
    reads: list[Engine] = []

    def read(engine: Engine) -> int:
        reads.append(engine)
        return len(reads)

    opened = ReadLedger(lambda: ledger_url)
    assert [opened.choices(read, opened.engine()) for _time in range(2)] == [1, 1]
    opened.close()
    assert opened.choices(read, opened.engine()) == 2
    opened.close()
    assert ledger not in reads

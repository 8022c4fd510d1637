"""A record's key is one column or several, as text, without the trailing blanks of a CHAR(n) column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from db.clock import new_id, now
from db.ledger.lifecycle import begin_or_resume, close_run
from presswork.errors import StoppingCallError
from presswork.options import Helper
from sandbox import Sandbox
from tests.conftest import drop_postgres_database, new_postgres_database
from tests.db.rows import run_row
from tests.engine.conftest import open_workshop
from tests.engine.workshop import NOTE, USER, Workshop


def template(workshop: Workshop, select: str, key: str) -> None:
    note = NOTE.format(user=USER, max_tokens=256)
    note = note.replace("SELECT id, name FROM items", select).replace("key: id", f"key: {key}")
    # This creates the SQLite file.
    workshop.source.connect().close()
    (workshop.templates / "note.md.j2").write_text(note, encoding="utf-8")


@pytest.fixture
def on_postgres(
    quick: None,
    sandbox: Sandbox,
    sqlite_ledger_url: str,
    postgres_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """A workshop whose source is on PostgreSQL and whose ledger is on SQLite."""
    url = new_postgres_database(postgres_server)
    made = open_workshop(sandbox, sqlite_ledger_url, url, tmp_path, monkeypatch, request)
    yield made
    made.dispose()
    drop_postgres_database(postgres_server, url)


async def test_key_of_several_columns_is_joined_and_escaped(workshop: Workshop) -> None:
    rows = r"SELECT 1 AS a, 'x' AS b, 'n1' AS name UNION ALL SELECT 1, 'y|z', 'n2' UNION ALL SELECT 2, 'back\', 'n3'"
    template(workshop, rows, "[a, b]")

    summary = await workshop.run()

    assert (summary.succeeded, summary.exit_status) == (3, 0)
    assert set(workshop.outputs("note")) == {"1|x", r"1|y\|z", r"2|back\\"}
    assert (await workshop.run()).cached == 3


async def test_empty_text_is_a_key(workshop: Workshop) -> None:
    template(workshop, "SELECT '' AS id, 'nameless' AS name", "id")

    await workshop.run()

    assert set(workshop.outputs("note")) == {""}


@pytest.mark.postgres
async def test_blanks_of_a_char_key_are_trimmed_and_what_stood_under_them_is_said(on_postgres: Workshop) -> None:
    workshop = on_postgres
    with workshop.source.begin() as connection:
        connection.execute(text("CREATE TABLE items (id CHAR(5), name VARCHAR(9))"))
        connection.execute(text("INSERT INTO items VALUES ('a', 'one'), ('b', 'two')"))
    # The keys of an earlier release: a text keeps its blanks.
    template(workshop, "SELECT CAST(RPAD(id, 5) AS VARCHAR) AS id, name FROM items", "id")
    before = await workshop.run()
    assert set(workshop.outputs("note")) == {"a    ", "b    "}
    assert before.notes == []

    template(workshop, "SELECT id, name FROM items", "id")
    summary = await workshop.run()

    assert (summary.cached, summary.requests) == (2, 0)
    assert set(workshop.outputs("note")) == {"a", "b", "a    ", "b    "}
    (note,) = summary.notes
    assert "note: 2 keys with content end in blanks" in note
    joined = "SELECT record_key FROM current_content WHERE record_key NOT LIKE '% '"
    assert {row["record_key"] for row in workshop.rows(joined)} == {"a", "b"}


@pytest.mark.postgres
async def test_padded_keys_are_told_of_by_a_run_that_resumes_another_and_not_by_a_helper(on_postgres: Workshop) -> None:
    workshop = on_postgres
    with workshop.source.begin() as connection:
        connection.execute(text("CREATE TABLE items (id CHAR(5), name VARCHAR(9))"))
        connection.execute(text("INSERT INTO items VALUES ('a', 'one'), ('b', 'two')"))
    template(workshop, "SELECT CAST(RPAD(id, 5) AS VARCHAR) AS id, name || '!' AS name FROM items", "id")
    await workshop.run()

    template(workshop, "SELECT id, name FROM items", "id")
    workshop.sandbox.configure(spend_limit=1)
    with pytest.raises(StoppingCallError):
        await workshop.run()
    workshop.sandbox.configure(spend_limit=0)
    stopped = str(workshop.value("SELECT max(id) FROM runs"))
    run = run_row(flow="note")
    lease = begin_or_resume(workshop.ledger, run, new_id())
    helper = Helper(run=run.id, select="note.md.j2", number=1, of=2)
    assert (await workshop.run(helper=helper)).notes == []
    close_run(workshop.ledger, lease, "completed", now())
    with workshop.source.begin() as connection:
        # Now the resumed run can only read the spool of the stopped one.
        connection.execute(text("DROP TABLE items"))

    (note,) = (await workshop.run(resumes=stopped)).notes

    assert "note: 2 keys with content end in blanks" in note

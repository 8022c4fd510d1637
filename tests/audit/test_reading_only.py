"""A database user who may only read is enough for the audit room, as docs/audit.md sets it up."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, make_url

from db.search.indexing import index_all
from presswork.settings import ROOT
from tests.audit.conftest import Room
from tests.db.rows import Book

pytestmark = pytest.mark.postgres


@pytest.fixture
def auditor(ledger: Engine) -> Iterator[str]:
    """The URL of the ledger for a user who may only read it."""
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has no users")
    name = f"auditor_{uuid.uuid4().hex[:8]}"
    with ledger.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'reads-only'")
    grant(ledger, name)
    url = make_url(ledger.url).set(username=name, password="reads-only")
    yield url.render_as_string(hide_password=False)
    with ledger.begin() as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {name}")
        connection.exec_driver_sql(f"DROP ROLE {name}")


def test_user_who_may_only_read_reads_every_page(auditor: str, ledger: Engine, room: Room) -> None:
    book = Book(ledger, flow="product_copy")
    generation_id = book.add("TEA-001", step="product_copy")
    pages = room(auditor)
    for path in ("/", "/runs", f"/generations/{generation_id}", "/generations?words=About", "/templates"):
        answer = pages.get(path)
        assert answer.status_code == 200, f"{path}\n{answer.text}"
        assert "reads-only" not in answer.text


def test_index_that_was_made_later_does_not_hide_what_is_found(auditor: str, ledger: Engine, room: Room) -> None:
    Book(ledger).add("TEA-001")
    index_all(ledger)
    pages = room(auditor)
    for _turn in ("without a right to read the index", "with it"):
        answer = pages.get("/generations?words=About")
        assert answer.status_code == 200
        assert "TEA-001" in answer.text
        grant(ledger, str(make_url(auditor).username))


def grant(ledger: Engine, name: str) -> None:
    (said,) = re.findall(r"GRANT SELECT ON [^`]*", (ROOT / "docs" / "audit.md").read_text(encoding="utf-8"))
    with ledger.begin() as connection:
        connection.exec_driver_sql(said.replace("auditor", name))

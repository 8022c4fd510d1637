"""The audit room of a ledger, asked without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from presswork.audit.app import create_app
from tests.db.rows import Book

Room = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def patient_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages take longer than a reader would wait: a busy machine is no fault of theirs."""
    monkeypatch.setattr("presswork.audit.responses.PAGE_WITHIN_S", 60.0)


@pytest.fixture
def room() -> Iterator[Room]:
    """Open the audit room of a ledger's URL."""
    opened: list[TestClient] = []

    def enter(url: str | Callable[[], str], **given: Any) -> TestClient:
        read = url if callable(url) else lambda: url
        client = TestClient(create_app(read, **given), base_url="http://localhost", raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield enter
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def pages(room: Room, ledger_url: str) -> TestClient:
    """The audit room of the ledger that `ledger` and `book` write to."""
    return room(ledger_url)


@pytest.fixture
def book(ledger: Engine) -> Book:
    """A ledger with a run in it."""
    return Book(ledger)

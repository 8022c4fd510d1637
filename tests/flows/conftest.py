"""What the flows' tests share with the engine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import Sandbox
from tests.conftest import drop_postgres_database, new_postgres_database
from tests.engine.conftest import open_workshop, quick, sandbox, shop, workshop
from tests.engine.workshop import Workshop

__all__ = ["quick", "sandbox", "shop", "workshop"]


@pytest.fixture
def workshop_on_postgres(
    prefect_api: str,
    quick: None,
    sandbox: Sandbox,
    postgres_server: str,
    postgres_template: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    """A workshop for several workers; source and ledger are one database."""
    url = new_postgres_database(postgres_server, f"TEMPLATE {postgres_template}")
    made = open_workshop(sandbox, url, url, tmp_path, monkeypatch, request)
    yield made
    made.dispose()
    drop_postgres_database(postgres_server, url)

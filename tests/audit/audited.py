"""The demo's ledger as an auditor finds it: a record and a template have changed, and some answers were refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.samples import load_samples
from db.words import TRY
from flows.product_copy import Products, product_copy
from flows.support_replies import support_replies
from presswork import RunOptions
from presswork.settings import ROOT
from tests.db.rows import Book, sha
from tests.engine.conftest import quick, sandbox, workshop, workshop_on_each
from tests.engine.workshop import Workshop

__all__ = ["audited", "audited_on_each", "quick", "sandbox", "workshop", "workshop_on_each"]

KEY = "TEA-001"
HOSTILE = (
    "<script>alert(1)</script> \u202egnp.exe \u200b\x1b[31m =cmd|' /C calc'!A0 javascript:alert(1) "
    "<svg onload=alert(1)>"
)
PLACEHOLDER = re.compile(r"\b(HASH_A|HASH_B|ID_A|ID_B|ID|RUN|WORDS|2026-06-01|2026-09-01|2026-11-15)\b")


@dataclass(frozen=True)
class Audited:
    """The ledger, and what stands in it for the words in capitals and the dates of docs/audit.md."""

    shop: Workshop
    values: dict[str, str]

    def filled(self, written: str) -> str:
        return PLACEHOLDER.sub(lambda found: self.values[found[1]], written)

    def rows(self, block: str) -> list[dict[str, Any]]:
        with self.shop.ledger.connect() as connection:
            statement = self.filled(block).replace("%", "%%")
            return [dict(row) for row in connection.exec_driver_sql(statement).mappings()]


@pytest.fixture
async def audited(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Audited:
    """The ledger on SQLite."""
    return await fill(workshop, monkeypatch, tmp_path / "own-templates")


@pytest.fixture
async def audited_on_each(workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Audited:
    """The ledger on SQLite, and on PostgreSQL."""
    return await fill(workshop_on_each, monkeypatch, tmp_path / "own-templates")


async def fill(shop: Workshop, monkeypatch: pytest.MonkeyPatch, templates: Path) -> Audited:
    load_samples(shop.source)
    shutil.copytree(ROOT / "templates", templates)
    monkeypatch.setenv("PRESSWORK_TEMPLATES_DIR", str(templates))
    tea, coffee = Products(category="tea"), Products(category="coffee")
    for selection in (tea, coffee):
        await shop.call(product_copy, selection)
    with shop.source.begin() as connection:
        connection.execute(text("UPDATE products SET features = 'green tea; 2 minutes' WHERE sku = :key"), {"key": KEY})
    await shop.call(product_copy, tea)
    template = templates / "product_copy.md.j2"
    template.write_text(template.read_text(encoding="utf-8").replace("\nName: ", "\nThe name: "), encoding="utf-8")
    await shop.call(product_copy, tea)
    await shop.call(support_replies, options=RunOptions(limit=8))
    shop.sandbox.configure(refused=1)
    refused = await shop.call(product_copy, Products(category="pantry"))
    written = shop.rows(
        "SELECT id, template_hash, output FROM generations WHERE record_key = :key ORDER BY id", key=KEY
    )
    first, last = written[0], written[-1]
    word = max(re.findall(r"[A-Za-z]+", str(shop.outputs("product_copy")[KEY]["description"])), key=len)
    today = datetime.now(UTC).date()
    since, until = str(today - timedelta(days=30)), str(today + timedelta(days=1))
    values = {
        "HASH_A": first["template_hash"][:12],
        "HASH_B": last["template_hash"][:12],
        "ID_A": first["id"],
        "ID_B": last["id"],
        "ID": last["id"],
        "RUN": refused.run_id,
        "WORDS": word,
        "2026-06-01": since,
        "2026-09-01": until,
        "2026-11-15": until,
    }
    return Audited(shop, values)


def add_hostile(shop: Workshop) -> str:
    """Add a record whose every text is hostile, and a long one, and a trial of it; the id of its newest generation."""
    book = Book(shop.ledger, flow="product_copy")
    book.add(
        HOSTILE, step="product_copy", record='{"name": "old"}', output={"title": HOSTILE, "description": "a" * 3000}
    )
    book.add(
        HOSTILE, step="product_copy", status="failed", output=None, error_kind=HOSTILE[:30], error_message=HOSTILE * 3
    )
    trial = Book(shop.ledger, flow="product_copy", trigger=TRY)
    trial.add(HOSTILE, step="product_copy", output={"title": HOSTILE}, prompt="a trial", template_hash=sha("a trial"))
    trial.close()
    return book.add(HOSTILE, step="product_copy", record='{"name": "new"}', output={"title": HOSTILE * 2, HOSTILE: [1]})

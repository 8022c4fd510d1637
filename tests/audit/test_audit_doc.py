"""The ten questions of docs/audit.md are answered by their page, their command and their SQL, on the demo's ledger."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.samples import load_samples
from flows.product_copy import Products, product_copy
from flows.support_replies import support_replies
from presswork import RunOptions
from presswork.settings import ROOT
from tests.audit.conftest import Room
from tests.commands.conftest import call
from tests.engine.conftest import open_workshop, quick, sandbox, workshop_on_each
from tests.engine.workshop import Workshop

__all__ = ["open_workshop", "quick", "sandbox", "workshop_on_each"]

PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
QUESTION = re.compile(r"^## (\d+)\. .*?(?=^## )", re.MULTILINE | re.DOTALL)
SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)
PLACEHOLDER = re.compile(r"\b(HASH_A|HASH_B|ID_A|ID_B|ID|RUN|WORDS|2026-06-01|2026-09-01|2026-11-15)\b")
KEY = "TEA-001"


def questions() -> dict[str, str]:
    return {found[1]: found[0] for found in QUESTION.finditer(PAGE)}


def listed(question: str, kind: str) -> list[str]:
    """The pages or the commands that answer a question."""
    (line,) = re.findall(rf"^- {kind}: (.*)$", question, re.MULTILINE)
    return [word for word in re.findall(r"`([^`]+)`", line) if word.startswith(("/", "presswork"))]


def suffixed(path: str, suffix: str) -> str:
    before, mark, query = path.partition("?")
    return f"{before}{suffix}{mark}{query}"


@dataclass(frozen=True)
class Audited:
    """The ledger of the demo after a record, then a template has changed, and some answers were refused."""

    shop: Workshop
    values: dict[str, str]

    def filled(self, written: str) -> str:
        return PLACEHOLDER.sub(lambda found: self.values[found[1]], written)

    def rows(self, block: str) -> list[dict[str, Any]]:
        with self.shop.ledger.connect() as connection:
            statement = self.filled(block).replace("%", "%%")
            return [dict(row) for row in connection.exec_driver_sql(statement).mappings()]


@pytest.fixture
async def audited(workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Audited:
    shop = workshop_on_each
    load_samples(shop.source)
    templates = tmp_path / "own-templates"
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
    refused = await shop.call(product_copy, coffee)
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


def test_page_has_ten_questions_each_with_a_page_a_command_and_sql() -> None:
    assert list(questions()) == [str(number) for number in range(1, 11)]
    for question in questions().values():
        assert listed(question, "Page")
        assert listed(question, "Command")
        assert SQL.findall(question)


def test_every_query_answers_its_question(audited: Audited) -> None:
    found = {number: [audited.rows(block) for block in SQL.findall(asked)] for number, asked in questions().items()}

    assert all(rows for answers in found.values() for rows in answers), found
    (then,) = found["1"][0]
    assert (then["id"], then["record"] is not None) == (audited.values["ID"], True)
    versions, pairs = found["3"]
    assert [row["template_hash"][:12] for row in versions] == [audited.values["HASH_A"], audited.values["HASH_B"]]
    assert {row["record_key"] for row in pairs} >= {KEY}
    assert {row["step"] for row in found["5"][0]} == {"support_triage", "support_reply"}
    assert {row["status"] for row in found["7"][0]} == {"refused"}
    assert len(found["8"][0]) == 3
    assert KEY not in {row["record_key"] for row in found["9"][0]}
    sent, texts = found["10"]
    assert len(texts) == 2
    assert all(row["hash"] in str(sent[0]["request"]) for row in texts)


def test_every_command_answers_its_question(audited: Audited, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for question in questions().values():
        for command in listed(question, "Command"):
            program, *arguments = shlex.split(audited.filled(command))
            result = call(*arguments)
            assert (program, result.exit_code) == ("presswork", 0), f"{command}\n{result.output}"
            assert result.stdout.strip() or "--to" in arguments, command


def test_every_page_answers_its_question(audited: Audited, room: Room) -> None:
    pages = room(audited.shop.ledger_url)
    for question in questions().values():
        for page in listed(question, "Page"):
            path = audited.filled(page)
            for suffix in ("", ".json", ".sql"):
                answer = pages.get(suffixed(path, suffix))
                assert answer.status_code == 200, f"{suffixed(path, suffix)}\n{answer.text}"

"""The ten questions of docs/audit.md are answered by their page, their command and their SQL, on the demo's ledger."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from presswork.settings import ROOT
from tests.audit.audited import KEY, Audited, audited_on_each, quick, sandbox, workshop_on_each
from tests.audit.conftest import Room
from tests.commands.conftest import call

__all__ = ["audited_on_each", "quick", "sandbox", "workshop_on_each"]

PAGE = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
QUESTION = re.compile(r"^## (\d+)\. .*?(?=^## )", re.MULTILINE | re.DOTALL)
SQL = re.compile(r"```sql\n(.*?)```", re.DOTALL)


def questions() -> dict[str, str]:
    return {found[1]: found[0] for found in QUESTION.finditer(PAGE)}


def listed(question: str, kind: str) -> list[str]:
    """The pages or the commands that answer a question."""
    (line,) = re.findall(rf"^- {kind}: (.*(?:\n  .*)*)$", question, re.MULTILINE)
    return [word for word in re.findall(r"`([^`]+)`", line) if word.startswith(("/", "presswork"))]


def suffixed(path: str, suffix: str) -> str:
    before, mark, query = path.partition("?")
    return f"{'/overview' if suffix and before == '/' else before}{suffix}{mark}{query}"


def test_page_has_ten_questions_each_with_a_page_a_command_and_sql() -> None:
    assert list(questions()) == [str(number) for number in range(1, 11)]
    for question in questions().values():
        assert listed(question, "Page")
        assert listed(question, "Command")
        assert SQL.findall(question)


def test_every_query_answers_its_question(audited_on_each: Audited) -> None:
    found = {
        number: [audited_on_each.rows(block) for block in SQL.findall(asked)] for number, asked in questions().items()
    }

    assert all(rows for answers in found.values() for rows in answers), found
    (then,) = found["1"][0]
    assert (then["id"], then["record"] is not None) == (audited_on_each.values["ID"], True)
    versions, pairs = found["3"]
    assert [row["template_hash"][:12] for row in versions] == [
        audited_on_each.values["HASH_A"],
        audited_on_each.values["HASH_B"],
    ]
    assert {row["record_key"] for row in pairs} >= {KEY}
    assert {row["step"] for row in found["5"][0]} == {"support_triage", "support_reply"}
    assert {row["status"] for row in found["7"][0]} == {"refused"}
    assert len(found["8"][0]) == 3
    assert KEY not in {row["record_key"] for row in found["9"][0]}
    sent, texts = found["10"]
    assert len(texts) == 2
    assert all(row["hash"] in str(sent[0]["request"]) for row in texts)


def test_every_command_answers_its_question(
    audited_on_each: Audited, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for question in questions().values():
        for command in listed(question, "Command"):
            program, *arguments = shlex.split(audited_on_each.filled(command))
            result = call(*arguments)
            assert (program, result.exit_code) == ("presswork", 0), f"{command}\n{result.output}"
            assert result.stdout.strip() or "--to" in arguments, command


def test_every_page_answers_its_question(audited_on_each: Audited, room: Room) -> None:
    pages = room(audited_on_each.shop.ledger_url)
    for question in questions().values():
        for page in listed(question, "Page"):
            path = audited_on_each.filled(page)
            for suffix in ("", ".json", ".sql"):
                answer = pages.get(suffixed(path, suffix))
                assert answer.status_code == 200, f"{suffixed(path, suffix)}\n{answer.text}"

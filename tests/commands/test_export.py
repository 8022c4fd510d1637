"""`presswork export`, `cost`, `history` and `audit bundle`: what people and programs read, and bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.clock import now
from db.readers.audit.exports import EXPORT_COLUMNS
from tests.commands.conftest import Desk, begin, call, ended, presswork, set_all
from tests.db.rows import DAY, Book, sha
from tests.waiting import until

EXPORT = ("export", "--to")
HOSTILE = "=cmd|' /C calc'!A0 \x1b[2J\u202e\u200b<script>alert(1)</script>"


@pytest.fixture
def kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose ledger has two contents, one failure and one hostile key."""
    set_all(monkeypatch, {"PRESSWORK_STATE_DIR": str(desk.folder / "state")})
    with desk.opened() as ledger:
        book = Book(ledger, flow="copy", endpoint="anthropic")
        book.add("TEA-1", settled={"cost_usd": Decimal("0.1000000001")}, created_at=now())
        book.add("TEA-2", settled={"cost_usd": Decimal("0.2")}, created_at=now())
        book.add("bad", created_at=now(), status="failed", output=None, error_kind="render", settled={"cost_usd": None})
        Book(ledger).add(HOSTILE, created_at=now(), output={"title": HOSTILE}, error_message=HOSTILE)
    return desk


def told(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json").stdout, parse_float=Decimal)


def test_export_says_what_it_wrote(kept: Desk) -> None:
    target = kept.folder / "all.jsonl"

    answer = told(*EXPORT, str(target))

    assert set(answer) == {"file", "format", "bytes", "rows", "newest", "began_at", "resumed"}
    assert (answer["rows"], answer["format"], answer["bytes"]) == (4, "jsonl", target.stat().st_size)
    assert len(target.read_bytes().splitlines()) == 4


def test_export_takes_the_filters_of_the_lists(kept: Desk) -> None:
    for number, (flags, rows) in enumerate(
        [
            (["--flow", "copy"], 3),
            (["--status", "failed"], 1),
            (["--key", "TEA-*"], 2),
            (["--since", "2h"], 4),
            (["--until", "2h"], 0),
            (["--template", sha("template")[:8], "--endpoint", "sandbox"], 1),
        ]
    ):
        assert told(*EXPORT, str(kept.folder / f"{number}.csv"), *flags)["rows"] == rows


def test_export_to_standard_output_prints_rows_alone(kept: Desk) -> None:
    lines = call(*EXPORT, "-").stdout.splitlines()
    table = call(*EXPORT, "-", "--format", "csv").stdout

    assert [list(json.loads(line)) for line in lines] == [list(EXPORT_COLUMNS)] * 4
    assert len(list(csv.reader(io.StringIO(table)))) == 5
    assert "\x1b" not in table
    assert "\u202e" not in table


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a target that exists": ((*EXPORT, "source.sqlite", "--format", "csv"), "exists, and nothing is overwritten"),
    "a folder that does not exist": ((*EXPORT, "nowhere/all.csv"), "The folder nowhere does not exist"),
    "an unknown format": ((*EXPORT, "all.xlsx"), "'xlsx' is no format of an export. Available: jsonl, csv, parquet"),
    "no format": ((*EXPORT, "all"), "'' is no format"),
    "Parquet on the screen": ((*EXPORT, "-", "--format", "parquet"), "can't be written to standard output"),
    "a mark for Excel in JSON": ((*EXPORT, "all.jsonl", "--bom"), "--bom is for CSV"),
    "a resumed screen": ((*EXPORT, "-", "--restart"), "never resumed"),
    "a status that is none": ((*EXPORT, "all.csv", "--status", "fine"), "'fine' is no status. Available: succeeded"),
    "a date that is none": ((*EXPORT, "all.csv", "--since", "soon"), "--since: 'soon' is no date or moment; examples:"),
    "a period backwards": (
        ("history", "--since", "2026-03-02", "--until", "2026-03-01"),
        "The period ends at 2026-03-01 00:00, before it begins",
    ),
    "a template that is none": ((*EXPORT, "all.csv", "--template", "0000"), "There is no template version '0000'"),
    "a run that is none": (("cost", "--run", "0123456789"), "There is no run '0123456789'"),
    "nothing to add up by": (("cost", "--by", "day,status"), "'status' is nothing to add up by. Available: day"),
    "a filter of generations for runs": (("history", "--model", "x"), "--model filters generations. Add --generations"),
    "a filter of runs for generations": (("history", "--generations", "--sort", "cost"), "is for runs"),
    "a filter of lists for one run": (("history", "abcdef", "--flow", "x"), "a single run is no list"),
    "an unknown record": (("audit", "bundle", "--key", "SKU-9", "--to", "b.json"), "No record with the key 'SKU-9'"),
    "a bundle that exists": (("audit", "bundle", "--key", "TEA-1", "--to", "source.sqlite"), "exists, and nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_call_says_what_to_do_and_writes_nothing(kept: Desk, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    kept.notes({1: "one"})
    monkeypatch.chdir(kept.folder)
    before = sorted(kept.folder.rglob("*"))
    arguments, message = WRONG[case]

    result = call(*arguments)

    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert sorted(kept.folder.rglob("*")) == before


READING = (
    "history",
    "history --generations",
    "history abcdef",
    "history copy --key TEA-1",
    "show abcdef",
    "cost",
    "export --to all.jsonl",
    "audit bundle --key TEA-1 --to b.json",
    "db check",
    "db rebuild",
)


@pytest.mark.parametrize("damage", ["no database", "half a file", "garbage in the middle"])
def test_damaged_ledger_is_said_to_be_damaged(kept: Desk, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.chdir(kept.folder)
    with closing(sqlite3.connect(kept.ledger)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = kept.ledger.read_bytes()
    page = 4096
    kept.ledger.write_bytes(
        {
            "no database": b"this is no database " * 1_000,
            "half a file": data[: len(data) // 2],
            "garbage in the middle": data[:page] + b"\xff" * (len(data) - page),
        }[damage]
    )

    for arguments in READING:
        result = call(*arguments.split())
        assert result.exit_code == 2, (arguments, result.output)
        assert f"The ledger sqlite:///{kept.ledger} is damaged" in result.stderr
        assert "restore" in result.stderr
        assert "Traceback" not in result.stderr
    assert not (kept.folder / "all.jsonl").exists()
    assert not (kept.folder / "b.json").exists()


def test_ledger_of_another_version_is_named(kept: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kept.folder)
    with kept.opened() as ledger, ledger.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    for arguments in (["cost"], ["export", "--to", "all.jsonl"], ["audit", "bundle", "--key", "x", "--to", "b.json"]):
        result = call(*arguments)
        assert (result.exit_code, "newer Presswork" in result.stderr) == (2, True)


async def test_killed_export_resumes(kept: Desk, tmp_path: Path) -> None:
    """A real process, killed when it has noted its first rows."""
    with kept.opened() as ledger:
        book = Book(ledger)
        with ledger.begin() as connection:
            connection.execute(
                text(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000) "
                    "INSERT INTO generations (id, run_id, flow, step, endpoint, record_key, template_hash, status, "
                    "origin, created_at, replaced_by) SELECT printf('f%035d', i), :run, 'f', 's', 'sandbox', 'k' || i, "
                    ":template, 'failed', 'live', :day, '' FROM n"
                ),
                {"run": book.run_id, "template": sha("template"), "day": str(DAY.replace(tzinfo=None)) + ".000000"},
            )
    target, notes = tmp_path / "all.jsonl", tmp_path / "all.jsonl.part.json"

    process = begin(*EXPORT, str(target))
    await until(lambda: notes.exists() and json.loads(notes.read_bytes())["rows"] > 0)
    os.kill(process.pid, signal.SIGKILL)
    ended(process)
    assert not target.exists()

    answer = json.loads(presswork([*EXPORT, str(target), "--json"]).stdout)

    assert answer["rows"] == 150_004
    assert answer["resumed"] > 0
    ids = [json.loads(line)["generation_id"] for line in target.read_bytes().splitlines()]
    assert len(ids) == len(set(ids)) == 150_004
    assert ids == sorted(ids)


def test_cost_adds_up_exactly_and_says_what_is_missing(kept: Desk) -> None:
    answer = told("cost", "--by", "flow,endpoint")
    shown = call("cost", "--by", "flow").stdout

    assert set(answer) == {"by", "days_from", "days_before", "lines", "total"}
    assert [(line["flow"], line["endpoint"], line["cost_usd"]) for line in answer["lines"]] == [
        ("copy", "anthropic", Decimal("0.3000000001")),
        ("product_copy", "sandbox", Decimal("0.01")),
    ]
    assert (answer["total"]["cost_usd"], answer["total"]["sandbox_usd"]) == (Decimal("0.3100000001"), Decimal("0.01"))
    assert answer["total"]["unpriced"] == 1
    assert "1 unpriced" in shown
    assert "of the sandbox, which bills nothing" in shown


def test_cost_of_nothing_is_said(kept: Desk) -> None:
    assert "Nothing was requested." in call("cost", "--since", "2030-01-01").stdout
    assert told("cost", "--since", "2030-01-01")["total"]["cost_usd"] == 0


def test_history_lists_generations_by_filter_and_in_pages(kept: Desk) -> None:
    first = call("history", "--generations", "--flow", "copy", "--limit", "2", "--json")
    lines = json.loads(first.stdout)
    rest = json.loads(call("history", "--generations", "--flow", "copy", "--before", lines[-1]["id"], "--json").stdout)

    assert [line["record_key"] for line in lines + rest] == ["bad", "TEA-2", "TEA-1"]
    assert f"--before {lines[-1]['id']}" in first.stderr
    shown = call("history", "--generations").stdout
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown
    assert "No generations match --key nobody." in call("history", "--generations", "--key", "nobody").stdout
    unknown = call("history", "--generations", "--flow", "nowhere")
    assert unknown.exit_code == 2
    assert "There is no flow 'nowhere' in this ledger. Available: copy" in unknown.stderr


def test_bundle_holds_a_life_and_nothing_of_others(kept: Desk) -> None:
    target = kept.folder / "tea.json"

    answer = told("audit", "bundle", "--key", "TEA-1", "--to", str(target))
    bundle = json.loads(target.read_bytes(), parse_float=Decimal)

    assert set(answer) == {"file", "ledger", "key", "generations", "bytes"}
    assert set(bundle) == {
        *("presswork_bundle", "what", "made_at", "made_by", "ledger", "record_key", "flow", "figures"),
        *("generations", "life", "runs", "templates"),
    }
    assert [each["generation"]["record_key"] for each in bundle["generations"]] == ["TEA-1"]
    assert bundle["generations"][0]["output"] == {"title": "About TEA-1"}
    assert bundle["figures"]["cost_usd"] == Decimal("0.1000000001")
    assert [period["status"] for period in bundle["life"]] == ["succeeded"]
    assert (len(bundle["runs"]), len(bundle["templates"])) == (1, 1)
    assert b"TEA-2" not in target.read_bytes()


def test_bundle_of_a_key_that_ends_like_a_pattern_is_of_that_key_alone(kept: Desk) -> None:
    with kept.opened() as ledger:
        Book(ledger, flow="copy").add("TEA-*", created_at=now())
    target = kept.folder / "tea.json"

    assert told("audit", "bundle", "--key", "TEA-*", "--to", str(target))["generations"] == 1
    bundle = json.loads(target.read_bytes(), parse_float=Decimal)
    assert [each["generation"]["record_key"] for each in bundle["generations"]] == ["TEA-*"]
    assert (bundle["figures"]["generations"], bundle["figures"]["cost_usd"]) == (1, Decimal("0.01"))

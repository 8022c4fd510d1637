"""Commands that read the ledger list trials where they are asked for, and tell them from content everywhere."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from db.clock import now
from db.words import TRY
from tests.commands.conftest import Desk, call
from tests.db.rows import Book, sha


@pytest.fixture
def tried(desk: Desk) -> dict[str, str]:
    """A run with content of the record a; a trial of it and of one that has none. Ids of the generations, and runs."""
    with desk.opened() as ledger:
        run = Book(ledger)
        written = run.add("a", output={"title": "In the shop"}, created_at=now(), settled={"cost_usd": Decimal(2)})
        run.close()
        trial = Book(ledger, trigger=TRY)
        new: dict[str, Any] = {"output": {"title": "Tried"}, "template_hash": sha("new"), "created_at": now()}
        again, only = trial.add("a", prompt="new", **new), trial.add("only\x1b[2J", prompt="only", **new)
        trial.close()
    return {"run": run.run_id, "written": written, "trial": trial.run_id, "again": again, "only": only}


def printed(*words: str) -> Any:
    return json.loads(call(*words, "--json").stdout)


def test_runs_are_listed_without_trials_and_say_so(tried: dict[str, str]) -> None:
    listed = call("history")

    assert [line["id"] for line in printed("history")] == [tried["run"]]
    assert "Trials of templates are left out. Add `--trigger try` to list them." in listed.stderr
    assert [line["id"] for line in printed("history", "--trigger", "try")] == [tried["trial"]]
    assert "left out" not in call("history", "--trigger", "try").stderr
    assert "by try" in call("history", tried["trial"]).stdout


def test_ledger_with_trials_only_has_no_runs_but_says_what_it_has(desk: Desk) -> None:
    with desk.opened() as ledger:
        Book(ledger, trigger=TRY).close()
    listed = call("history")
    assert "No runs yet" in listed.stdout
    assert "Trials of templates are left out" in listed.stderr


def test_generations_are_listed_with_what_they_are_of(tried: dict[str, str]) -> None:
    shown = call("history", "--generations").stdout

    assert shown.count("live, try") == 2
    lines = printed("history", "--generations", "--trigger", "try")
    assert [(line["id"], line["trigger"]) for line in lines] == [(tried["only"], "try"), (tried["again"], "try")]
    assert [line["id"] for line in printed("history", "--generations", "--trigger", "command")] == [tried["written"]]
    assert ", a trial)" in " ".join(call("show", tried["again"]).stdout.split())
    assert ", a trial)" not in " ".join(call("show", tried["written"]).stdout.split())


def test_life_of_a_record_has_no_trial_but_counts_them(tried: dict[str, str]) -> None:
    (period,) = printed("history", "product_copy", "--key", "a")
    assert (period["generation_id"], period["until"]) == (tried["written"], None)
    shown = " ".join(call("history", "product_copy", "--key", "a").stdout.split())
    assert "1 of its generations is of a trial" in shown
    assert "history --generations --key KEY --trigger try" in shown
    only = call("history", "product_copy", "--key", "only\x1b[2J")
    assert (only.exit_code, "1 of its generations" in only.stdout, "\x1b" in only.stdout) == (0, True, False)
    assert printed("history", "product_copy", "--key", "only\x1b[2J") == []


def test_trial_is_compared_with_the_content_before_it(tried: dict[str, str]) -> None:
    shown = call("diff", tried["again"]).stdout
    assert "In the shop" in shown
    assert "Tried" in shown
    assert " ".join(shown.split()).count(", a trial,") == 1
    assert "try" in call("search", "tried").stdout.splitlines()[0]


def test_cost_of_trials_is_in_the_sum_and_can_be_told_apart(tried: dict[str, str]) -> None:
    found = printed("cost", "--by", "trigger")
    assert {line["trigger"]: Decimal(str(line["cost_usd"])) for line in found["lines"]} == {
        "command": Decimal(2),
        "try": Decimal("0.02"),
    }
    assert Decimal(str(found["total"]["cost_usd"])) == Decimal("2.02")
    assert printed("cost", "--trigger", "try", "--by", "flow")["total"]["requests"] == 2


def test_export_says_of_each_row_what_started_its_run(tried: dict[str, str], tmp_path: Path) -> None:
    for name, flags in (("all.csv", ()), ("tried.csv", ("--trigger", "try"))):
        assert call("export", "--to", str(tmp_path / name), *flags).exit_code == 0
    every, only = (
        list(csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines()))
        for name in ("all.csv", "tried.csv")
    )
    assert [row["trigger"] for row in every] == ["command", "try", "try"]
    assert {row["generation_id"] for row in only} == {tried["again"], tried["only"]}


def test_bundle_has_trials_among_the_generations_and_in_no_life(tried: dict[str, str], tmp_path: Path) -> None:
    call("audit", "bundle", "--key", "a", "--to", str(tmp_path / "a.json"))
    bundle = json.loads((tmp_path / "a.json").read_bytes())
    assert [each["generation"]["id"] for each in bundle["generations"]] == [tried["written"], tried["again"]]
    assert [period["generation_id"] for period in bundle["life"]] == [tried["written"]]
    assert {run["trigger"] for run in bundle["runs"]} == {"command", "try"}


def test_versions_of_a_template_tell_what_was_only_tried(tried: dict[str, str]) -> None:
    used, new = printed("templates", "history", "product_copy")
    assert (used["hash"], used["use"]["runs"], used["use"]["figures"]["tried"]) == (sha("template"), 1, 0)
    assert (new["hash"], new["use"]["runs"], new["use"]["figures"]["tried"]) == (sha("new"), 0, 2)
    assert "2 of these generations are of trials" in " ".join(
        call("templates", "history", "product_copy").stdout.split()
    )

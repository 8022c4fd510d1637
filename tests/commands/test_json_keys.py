"""The keys that commands print with `--json` stay, because programs read them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from presswork.operate.overview import Overview, ShownRun, ShownWorker
from tests.commands.conftest import Desk, call, set_all
from tests.db.rows import Book, settled_row, sha

LINE = "id flow endpoint trigger status started_at ended_at generations succeeded cached usage"
USAGE = (
    "requests input_tokens output_tokens cache_creation_tokens cache_read_tokens cost_usd unpriced perhaps_billed "
    "rate_limited likely_usd"
)
ROW_OF_RUN = (
    "id flow deployment trigger status mode endpoint parameters code_version prefect_flow_run_id parent_run_id "
    "resumes_run_id started_at ended_at process epoch alive_until lease_boot lease_until_s suspended_for due_at"
)

IN_A_RUN = "steps failures failures_unlisted shards progress workers"
PERIOD = (
    "flow step endpoint status since until record_hash template_hash generation_id run_id written_by error_kind "
    "error_message confirmed confirmed_at origin before before_template reasons failures same_answer "
    "sources_stored"
)
CHANGE = "path place kind old new operations"
TRIED_TOKENS = "input_tokens output_tokens cache_read_tokens cache_creation_tokens"
TRIAL = (
    "run_id template template_hash endpoint system records missing note with_content without_content requests "
    f"{TRIED_TOKENS} cost_usd unpriced session_usd wall_s stopped"
)
TRIED = (
    f"key generation_id status cached prompt output raw faults error requests {TRIED_TOKENS} cost_usd answer_tokens "
    "answer_usd latency_ms"
)


@dataclass
class Stored:
    """Write a run to the desk's ledger, with one generation that has content and one that has none."""

    run: str
    generation: str


@pytest.fixture
def stored(desk: Desk) -> Stored:
    with desk.opened() as ledger:
        book, batch = Book(ledger), WriteBatch()
        good = book.generation(batch, "good")
        batch.settled.append(settled_row(book.attempt(batch, "good", good)))
        book.generation(batch, "bad", status="failed", output=None, output_hash=None, error_kind="render")
        write(ledger, batch)
    return Stored(book.run_id, good)


@pytest.fixture(autouse=True)
def no_endpoint(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the endpoint: these tests ask none."""
    set_all(monkeypatch, {"PRESSWORK_STATE_DIR": str(desk.folder / "state")})
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")


def printed(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json").stdout)


def keys(given: Iterable[str] | Mapping[str, Any]) -> str:
    return " ".join(sorted(given))


def words(text: str) -> str:
    return keys(text.split())


def test_history_prints_a_line_for_each_run(stored: Stored) -> None:
    (line,) = printed("history")

    assert keys(line) == words(LINE)
    assert keys(line["usage"]) == words(USAGE)
    assert line["id"] == stored.run


def test_history_of_a_run_prints_its_row_steps_and_failures(stored: Stored) -> None:
    found = printed("history", stored.run)

    assert keys(found) == keys({*LINE.split(), *ROW_OF_RUN.split(), *IN_A_RUN.split()})
    assert keys(found["usage"]) == words(USAGE)
    assert [keys(step) for step in found["steps"]] == [words("step status origin count")] * 2
    assert [keys(each) for each in found["failures"]] == [words("generation_id step record_key status kind message")]


def test_show_prints_all_that_a_generation_stands_on(stored: Stored) -> None:
    found = printed("show", stored.generation)

    assert keys(found) == words(
        "generation run template record request source attempts parents children output before after"
    )
    assert keys(found["generation"]) == words(
        "id run_id flow step endpoint record_key record_hash template_hash prompt_hash status origin output "
        "output_hash source_generation_id error_kind error_message created_at replaced_by lease_id confirmed "
        "confirmed_at"
    )
    assert keys(found["run"]) == words(ROW_OF_RUN)
    assert keys(found["template"]) == words("hash name sources first_seen_at")
    assert [keys(attempt) for attempt in found["attempts"]] == [
        words(
            "id run_id generation_id prompt_hash ordinal kind started_at ended_at http_status error_type model "
            "message_id request_id request_changes stop_reason input_tokens output_tokens thinking_tokens "
            "cache_creation_5m_tokens cache_creation_1h_tokens cache_read_tokens cost_usd likely_cost_usd "
            "price_version service_tier inference_geo speed latency_ms output_text validation_errors lease_id"
        )
    ]


def test_status_prints_services_models_and_the_outlook(desk: Desk) -> None:
    desk.template("old", "---\noutput: SubjectLine\nmodel: claude-sonnet-4-5\n---\n")
    found = printed("status")

    assert keys(found) == words("well api services kept audit_error outlook models")
    assert keys(found["services"]) == words("server worker audit supervisor")
    assert [keys(model) for model in found["models"]] == [words("model words lifecycle retires_on templates")]
    # Without a server there is no outlook.
    shown = (
        (Overview, "pool_paused workers deployments running waiting next failed"),
        (ShownRun, "id name deployment state at message"),
        (ShownWorker, "name online heard"),
    )
    for outlook, named in shown:
        assert keys(field.name for field in fields(outlook)) == words(named)


def test_templates_print_what_each_takes_or_why_it_can_not_be_read(desk: Desk) -> None:
    desk.template("asks", "---\noutput: SubjectLine\nparams:\n  style: {type: str, default: short}\n---\n")
    desk.template("broken", "---\noutput: [\n---\n")
    found = {template["name"]: template for template in printed("templates", "list")}

    assert keys(found["asks"]) == words("name description output model source selects params")
    assert keys(found["asks"]["params"]["style"]) == words("type required default")
    assert keys(found["broken"]) == words("name error")


def test_lint_prints_findings(desk: Desk) -> None:
    desk.template("broken", "---\noutput: [\n---\n")
    found = printed("templates", "lint", "broken")

    assert keys(found) == words("templates errors findings")
    assert [keys(finding) for finding in found["findings"]] == [words("file line level code message")]


def test_templates_show_prints_the_request(desk: Desk) -> None:
    desk.notes({1: "one"})

    assert keys(printed("templates", "show", "notes", "--key", "1")) == words("endpoint request prompt_hash nulls")


def test_try_prints_a_trial_with_its_records(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", desk.sandbox)
    desk.notes({1: "one"})
    found = printed("templates", "try", "notes")
    (record,) = found["records"]

    assert keys(found) == words(TRIAL)
    assert keys(record) == words(TRIED)
    assert keys(record["answer_tokens"]) == words(TRIED_TOKENS)
    sides = printed("templates", "try", "notes", "--against", found["template_hash"])
    assert keys(sides) == words("against old new changes")
    assert keys(sides["against"]) == words("label note")
    assert [keys(change) for change in sides["changes"]] == [words("key prompt_changed changes unchanged reordered")]


@pytest.mark.usefixtures("stored")
def test_check_and_upgrade_print_where_the_ledger_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys(printed("db", "check")) == words("ledger revision current")
    monkeypatch.setenv("PRESSWORK_DATABASE_URL", f"sqlite:///{tmp_path / 'new.sqlite'}")
    assert keys(printed("db", "upgrade")) == words("ledger revision current")


@pytest.mark.usefixtures("stored")
def test_recover_prints_what_it_imported() -> None:
    assert keys(printed("db", "recover")) == words("recovered refused refused_rows")


@pytest.mark.usefixtures("stored")
def test_upkeep_prints_what_it_found_and_whether_it_was_done() -> None:
    size, compact, prune, rebuild = (printed("db", name) for name in ("size", "compact", "prune", "rebuild"))

    assert keys(size) == words("ledger tables bytes free_bytes compactable compactable_bytes leftovers")
    assert {keys(table) for table in size["tables"]} == {words("table holds rows bytes")}
    assert keys(compact) == words("ledger applied rows bytes steps")
    assert [keys(step) for step in compact["steps"]] == [words("flow step endpoint rows repeats bytes")]
    assert keys(prune) == words("ledger applied tables")
    assert {keys(table) for table in prune["tables"]} == {words("table rows bytes")}
    assert keys(rebuild) == words("ledger applied wrong records missing unknown standing failing first rollups")
    assert keys(rebuild["rollups"]) == words("runs wrong first")


def test_history_of_a_record_prints_its_periods(stored: Stored) -> None:
    (period,) = printed("history", "product_copy", "--key", "good")

    assert keys(period) == words(PERIOD)
    assert period["generation_id"] == stored.generation


def test_diff_prints_both_sides_and_the_operations(stored: Stored, desk: Desk) -> None:
    with desk.opened() as ledger:
        other = Book(ledger).add("good", output={"title": "Another"}, record='{"n":1}')

    found = printed("diff", stored.generation, other)

    assert keys(found) == words("of a b equal changes unchanged reordered")
    assert keys(found["a"]) == words(
        "id written_by created_at flow step endpoint record_key status origin run_id trigger template_hash "
        "error_message"
    )
    assert [keys(change) for change in found["changes"]] == [words(CHANGE)]
    assert [keys(each) for change in found["changes"] for each in change["operations"]] == [words("kind old new")]
    versions = printed("diff", sha("template"), sha("template"), "--of", "template")
    assert keys(versions["a"]) == words("name hash first_seen_at")

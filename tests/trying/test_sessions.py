"""Try a template on a few records: what is asked, what is told of it, what it costs, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db.database_errors import KeyValueError, LedgerTooNewError, SelectError
from flows.newsletter import Articles, newsletter
from presswork.errors import (
    ConfigurationError,
    ParameterError,
    StoppedError,
    TemplateError,
    TrialError,
    UntoldCostError,
)
from presswork.settings import ROOT, load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import SKIPPED_BY_CAP, Asked, Trial, TriedRecord
from tests.engine.workshop import NOTE, Workshop

OTHER_USER = "Another line about {{ record.name }}."
IN_A_PROCESS = """
import asyncio, sys
from presswork.settings import load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked

async def main():
    async with TrySession(load_settings()) as session:
        await session.run(Asked("note"))

asyncio.run(main())
print(sorted({"prefect", "flows.content"} & set(sys.modules)))
"""


async def tried(template: str = "note", **asked: Any) -> Trial:
    """Make a trial in a session of its own."""
    async with TrySession(load_settings()) as session:
        return await session.run(Asked(template, **asked))


def content_rows(workshop: Workshop) -> list[dict[str, Any]]:
    return workshop.rows("SELECT * FROM content ORDER BY step, record_key")


async def test_trial_asks_the_first_records_and_tells_all_about_them(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(5)
    told: list[TriedRecord] = []
    async with TrySession(load_settings()) as session:
        trial = await session.run(Asked("note"), on_record=told.append)

    assert [record.key for record in trial.records] == ["00000", "00001", "00002"]
    assert {record.generation_id for record in told} == {record.generation_id for record in trial.records}
    first = trial.records[0]
    assert (first.status, first.is_cached, first.faults, first.error, first.raw) == ("succeeded", False, (), None, None)
    assert (first.system, first.prompt) == ("You write subject lines.", "A line about item 0.")
    assert first.sent is not None
    assert [(piece.text, piece.source) for piece in first.sent.user.pieces][1] == ("item 0", "record")
    assert first.output["subject"].startswith("A line about item 0")
    assert (trial.requests, workshop.requests, first.requests) == (3, 3, 1)
    assert trial.tokens.output_tokens == sum(record.tokens.output_tokens for record in trial.records)
    assert trial.cost_usd == trial.session_usd == sum(record.cost_usd or 0 for record in trial.records)
    assert workshop.rows("SELECT trigger, status, flow, prefect_flow_run_id FROM runs") == [
        {"trigger": "try", "status": "completed", "flow": "note", "prefect_flow_run_id": None}
    ]
    assert content_rows(workshop) == []


async def test_trial_loads_no_prefect(workshop: Workshop) -> None:
    workshop.numbered(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IN_A_PROCESS, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    assert (printed.decode().strip(), process.returncode) == ("[]", 0), said.decode()[-2000:]
    assert workshop.requests == 1


async def test_content_is_not_asked_for_again_nor_touched(workshop: Workshop) -> None:
    workshop.numbered(4)
    await workshop.run()
    before = content_rows(workshop)
    trial = await tried()
    assert {(record.is_cached, record.requests) for record in trial.records} == {(True, 0)}
    assert {trial.cost_usd, *(record.cost_usd for record in trial.records)} == {Decimal(0)}
    assert (trial.requests, workshop.requests) == (0, 4)
    assert trial.records[0].output == workshop.outputs("note")["00000"]

    workshop.template(OTHER_USER)
    edited = await tried()
    assert edited.records[0].prompt == "Another line about item 0."
    assert (edited.requests, workshop.requests) == (3, 7)
    assert content_rows(workshop) == before


async def test_named_keys_are_tried_in_their_order(workshop: Workshop) -> None:
    workshop.numbered(5)
    trial = await tried(keys=("00004", "00001", "00004"))
    assert [record.key for record in trial.records] == ["00004", "00001"]


async def test_unknown_key_is_named_and_leaves_no_run(workshop: Workshop) -> None:
    workshop.numbered(1)
    with pytest.raises(ConfigurationError, match="finds no record whose id is 'no\N{SYMBOL FOR ESCAPE}"):
        await tried(keys=("00000", "no\x1b[2Jsuch"))
    assert (workshop.value("SELECT count(*) FROM runs"), workshop.requests) == (0, 0)


async def test_select_without_records_says_so(workshop: Workshop) -> None:
    workshop.items({})
    with pytest.raises(ConfigurationError, match="finds no records: there is nothing to try"):
        await tried()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (("FROM items", "FROM lost"), SelectError, r"note.md.j2: the select fails: no such table: lost"),
        (("SELECT id, name", "SELECT 'one' AS id, name"), KeyValueError, "the key 'id' is not unique"),
        (("record.name", "record.nam"), TemplateError, r"note.md.j2, line 8: "),
        (("key: id", "key: id\nparams: {tone: {type: str}}"), ParameterError, "tone"),
        (
            ("select: SELECT id, name FROM items\nkey: id\n", ""),
            TemplateError,
            "Name a run of the flow with `--run ID`",
        ),
        (("{% endblock %}", ""), TemplateError, "note.md.j2"),
    ],
)
async def test_mistake_is_told_before_anything_is_written(
    workshop: Workshop, change: tuple[str, str], error: type[Exception], said: str
) -> None:
    workshop.numbered(2)
    file = workshop.templates / "note.md.j2"
    file.write_text(file.read_text().replace(*change), encoding="utf-8")
    with pytest.raises(error, match=said):
        await tried()
    assert (workshop.value("SELECT count(*) FROM runs"), workshop.requests) == (0, 0)


async def test_record_that_cannot_be_rendered_fails_alone(workshop: Workshop) -> None:
    workshop.items({"a": "one", "b": "2", "c": "three"})
    workshop.template("{{ 1 // (record.name | length - 1) }} {{ record.name }}")
    trial = await tried()
    assert [record.status for record in trial.records] == ["succeeded", "failed", "succeeded"]
    failed = trial.records[1]
    assert (failed.prompt, failed.sent, failed.output, failed.requests) == ("", None, None, 0)
    assert failed.error is not None
    assert "note.md.j2, line 8" in failed.error


@pytest.mark.parametrize(
    ("fault", "status", "requests"),
    [("invalid", "invalid", 3), ("malformed", "invalid", 3), ("truncated", "truncated", 2), ("refused", "refused", 1)],
)
async def test_answer_that_is_no_content_is_told_as_it_came(
    workshop: Workshop, fault: str, status: str, requests: int
) -> None:
    workshop.numbered(1)
    workshop.sandbox.configure(**{fault: 1})
    trial = await tried()
    (record,) = trial.records
    assert (record.status, record.output, record.requests) == (status, None, requests)
    assert record.error
    assert bool(record.faults) == (status == "invalid")
    assert record.raw is not None
    assert record.cost_usd == trial.cost_usd
    assert record.cost_usd is not None
    assert record.cost_usd > 0
    assert workshop.rows("SELECT * FROM content") == []


async def test_unavailable_endpoint_is_told_at_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "3600")
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    workshop.numbered(1)
    workshop.sandbox.configure(overloaded=1)
    (record,) = (await tried()).records
    assert (record.status, record.requests, record.raw) == ("failed", 2, None)
    assert record.error is not None
    assert "overloaded" in record.error


async def test_key_that_is_refused_stops_the_trial(workshop: Workshop) -> None:
    workshop.numbered(1)
    workshop.sandbox.configure(spend_limit=1)
    with pytest.raises(Exception, match="usage limits"):
        await tried()
    assert workshop.value("SELECT status FROM runs") == "failed"


async def test_all_trials_of_a_session_share_the_cap_and_a_link(workshop: Workshop) -> None:
    workshop.numbered(3)
    async with TrySession(load_settings()) as session:
        first = await session.run(Asked("note", max_cost=0.02))
        assert first.cost_usd is not None
        workshop.template(OTHER_USER)
        cap = float(first.cost_usd) + 0.000001
        second = await session.run(Asked("note", max_cost=cap))
        third = await session.run(Asked("note", max_cost=0.02))
    assert first.stopped is None
    assert second.stopped is not None
    assert "cost cap" in second.stopped
    assert "--resume" not in second.stopped
    assert {(record.status, record.error) for record in second.records} == {("skipped", SKIPPED_BY_CAP)}
    assert (second.requests, second.session_usd) == (0, first.cost_usd)
    assert third.stopped is None
    assert third.session_usd == first.cost_usd + (third.cost_usd or 0)
    links = workshop.rows("SELECT id, resumes_run_id FROM runs ORDER BY id")
    assert [link["resumes_run_id"] for link in links] == [None, first.run_id, first.run_id]


async def test_later_trials_are_about_the_same_records(workshop: Workshop) -> None:
    workshop.items({"b": "two", "c": "three"})
    async with TrySession(load_settings()) as session:
        await session.run(Asked("note", limit=2))
        # A new first record, and one that has changed since.
        workshop.items({"a": "one"})
        workshop.template(OTHER_USER)
        second = await session.run(Asked("note", limit=2))
        file = workshop.templates / "note.md.j2"
        file.write_text(file.read_text().replace("FROM items", "FROM items WHERE id < 'c'"), encoding="utf-8")
        third = await session.run(Asked("note", limit=2))
        file.write_text(file.read_text().replace("id < 'c'", "id < 'b'"), encoding="utf-8")
        with pytest.raises(ConfigurationError, match="finds no record whose id is 'b' or 'c'"):
            await session.run(Asked("note", limit=2))
        file.write_text(file.read_text().replace("id < 'b'", "id > 'a'"), encoding="utf-8")
        last = await session.run(Asked("note", limit=2))
    assert [record.key for record in second.records] == ["b", "c"]
    assert ([record.key for record in third.records], third.missing) == (["b"], ("c",))
    assert ([record.key for record in last.records], last.missing) == (["b", "c"], ())


async def test_endpoint_is_opened_once_in_a_session(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(1)
    async with TrySession(load_settings()) as session:
        await session.run(Asked("note"))
        # The endpoint of the session stays; a new one would be asked for at this address.
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
        workshop.template(OTHER_USER)
        assert (await session.run(Asked("note"))).records[0].status == "succeeded"


async def test_ledger_that_was_migrated_meanwhile_is_not_written(workshop: Workshop) -> None:
    workshop.numbered(1)
    async with TrySession(load_settings()) as session:
        await session.run(Asked("note"))
        with workshop.ledger.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = 'of_a_newer_release'"))
        workshop.template(OTHER_USER)
        with pytest.raises(LedgerTooNewError):
            await session.run(Asked("note"))
    assert (workshop.requests, workshop.value("SELECT count(*) FROM runs")) == (1, 1)


async def test_other_version_of_the_template_is_tried_from_its_folder(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.md.j2").write_text(NOTE.format(user=OTHER_USER, max_tokens=256), encoding="utf-8")
    async with TrySession(load_settings()) as session:
        old = await session.run(Asked("note"), templates_dir=other)
        new = await session.run(Asked("note"))
    assert (old.records[0].prompt, new.records[0].prompt) == ("Another line about item 0.", "A line about item 0.")
    assert old.template_hash != new.template_hash
    assert workshop.value("SELECT count(*) FROM templates") == 2


async def test_refresh_asks_again_once_in_a_session(workshop: Workshop) -> None:
    workshop.numbered(2)
    await tried()
    async with TrySession(load_settings()) as session:
        assert (await session.run(Asked("note", refresh=True))).requests == 2
        assert (await session.run(Asked("note", refresh=True))).requests == 0


async def test_params_are_those_that_are_set(workshop: Workshop) -> None:
    workshop.numbered(3)
    file = workshop.templates / "note.md.j2"
    front = "FROM items WHERE id > :after\nkey: id\nparams: {after: {type: str}}"
    file.write_text(file.read_text().replace("FROM items\nkey: id", front), encoding="utf-8")
    trial = await tried(sets={"after": "00001"})
    assert [record.key for record in trial.records] == ["00002"]
    assert workshop.value("SELECT count(*) FROM runs WHERE parameters LIKE '%00001%'") == 1


@pytest.mark.parametrize("step", ["newsletter_digest", "newsletter_subject"])
async def test_step_of_a_flow_gets_the_inputs_of_a_past_run(shop: Workshop, step: str) -> None:
    await shop.call(newsletter, Articles(section="tea"))
    run_id = shop.value("SELECT max(id) FROM runs")
    before, asked = content_rows(shop), shop.requests
    trial = await tried(step, inputs_of=run_id[:18], limit=50)
    assert trial.records
    assert {record.is_cached for record in trial.records} == {True}
    assert [record.key for record in trial.records] == [
        row["record_key"]
        for row in shop.rows(
            "SELECT record_key FROM generations WHERE run_id = :id AND step = :step ORDER BY record_key",
            id=run_id,
            step=step,
        )
    ]
    assert (shop.requests, content_rows(shop)) == (asked, before)
    assert shop.value("SELECT flow FROM runs WHERE id = :id", id=trial.run_id) == "newsletter"


async def test_run_at_the_same_time_does_not_pay_twice(workshop: Workshop) -> None:
    workshop.numbered(6)
    workshop.sandbox.configure(latency_ms=150)
    trying = asyncio.create_task(tried(limit=4))
    await workshop.asked(1)
    summary, trial = await asyncio.gather(workshop.run(), trying)
    assert workshop.requests == 6
    assert (summary.succeeded + summary.cached, len(trial.records)) == (6, 4)
    assert set(workshop.outputs("note")) == {f"{number:05}" for number in range(6)}


async def test_record_is_told_while_others_are_asked(workshop: Workshop) -> None:
    workshop.items({"a": "one", "b": "2"})
    workshop.template("{{ 1 // (record.name | length - 1) }} {{ record.name }}")
    workshop.sandbox.configure(latency_ms=5_000)
    told = asyncio.Event()
    async with TrySession(load_settings()) as session:
        trying = asyncio.create_task(session.run(Asked("note"), on_record=lambda _record: told.set()))
        await asyncio.wait_for(told.wait(), 30)
        assert not trying.done()
        assert workshop.sandbox.stats()["served"]["answers"] == 0
        await trying


async def test_answers_of_a_stopped_trial_are_kept(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.sandbox.configure(latency_ms=300)
    trying = asyncio.create_task(tried())
    await workshop.asked(2)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(StoppedError):
        await trying
    workshop.sandbox.configure(latency_ms=0)
    assert (await workshop.run()).cached == 2


async def test_killed_trial_loses_only_what_was_in_flight(workshop: Workshop) -> None:
    workshop.numbered(2)
    workshop.sandbox.configure(latency_ms=60_000)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IN_A_PROCESS, cwd=ROOT)
    await workshop.asked(2)
    process.kill()
    await process.wait()
    workshop.sandbox.configure(latency_ms=0)
    summary = await workshop.run()
    assert (summary.succeeded, workshop.requests) == (2, 4)
    states = workshop.rows("SELECT trigger, status FROM runs ORDER BY id")
    assert [(state["trigger"], state["status"]) for state in states] == [("try", "crashed"), ("command", "completed")]
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0


async def test_no_run_resumes_a_trial(workshop: Workshop) -> None:
    workshop.numbered(1)
    trial = await tried()
    with pytest.raises(TrialError, match="Start a new run"):
        await workshop.run(resumes=trial.run_id)


async def test_model_without_a_price_is_tried_unless_the_cap_must_hold(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    monkeypatch.setattr("presswork.pacing.spending.cost_of", lambda *_given: None)
    with pytest.raises(UntoldCostError, match="no price of claude-sonnet-4-6"):
        await tried(keeps_cap=True)
    assert workshop.requests == 0
    trial = await tried()
    assert (trial.records[0].status, trial.requests) == ("succeeded", 1)
    assert trial.note == "There is no cost cap, because the costs of claude-sonnet-4-6 are unknown."


async def test_unknown_costs_are_found_out_once_and_each_record_is_told_once(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.items({"a": "one", "b": "2"})
    # As a gateway that reports no usage: an answer is there, and paid for, when the trial learns that.
    monkeypatch.setattr("presswork.claude.answers.read_usage", lambda *_given: None)
    workshop.sandbox.configure(latency_ms=600)
    told: list[str] = []
    async with TrySession(load_settings()) as session:
        for version in ("First", "Second"):
            # The second record fails before the answer about the first one is there.
            workshop.template(version + ": {{ 1 // (record.name | length - 1) }} {{ record.name }}")
            trial = await session.run(Asked("note"), on_record=lambda record: told.append(record.key))
            assert trial.note == "There is no cost cap, because the costs of claude-sonnet-4-6 are unknown."
            assert [record.status for record in trial.records] == ["succeeded", "failed"]
            assert not trial.is_capped
    assert (sorted(told), workshop.requests) == (["a", "a", "b", "b"], 2)
    states = [row["status"] for row in workshop.rows("SELECT status FROM runs ORDER BY id")]
    assert states == ["failed", "completed", "completed"]

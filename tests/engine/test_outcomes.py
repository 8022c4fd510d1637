"""Every outcome that a prompt can have: its status, its attempts, its cost, and the effect on a later run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest

from presswork.settings import ROOT
from tests.engine.workshop import Workshop

BILLED = ("input_tokens", "output_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens", "cache_read_tokens")


@dataclass(frozen=True)
class End:
    """A fault of every request and its expected outcome; `kinds` are a record's attempts."""

    fault: str
    status: str
    error_kind: str
    kinds: tuple[str, ...]
    stop_reason: str | None = None
    error_type: str | None = None

    def __str__(self) -> str:
        return self.fault


RETRIED = ("call", "retry", "retry", "retry")  # one of our retries in each of Prefect's two tries
ENDS = [
    End("truncated", "truncated", "max_tokens", ("call", "escalation"), "max_tokens"),
    End(
        "context_exceeded",
        "truncated",
        "model_context_window_exceeded",
        ("call",),
        "model_context_window_exceeded",
    ),
    End("refused", "refused", "refusal:", ("call",), "refusal"),
    End("invalid", "invalid", "validation", ("call", "repair", "repair"), "end_turn"),
    End("malformed", "invalid", "validation", ("call", "repair", "repair"), "end_turn"),
    End("paused", "failed", "unexpected_stop_reason", ("call",), "pause_turn"),
    End("tool_use", "failed", "unexpected_stop_reason", ("call",), "tool_use"),
    End("overloaded", "failed", "overloaded_error", RETRIED, None, "overloaded_error"),
    End("server_error", "failed", "api_error", RETRIED, None, "api_error"),
    End("rate_limited", "failed", "rate_limit_error", RETRIED, None, "rate_limit_error"),
    End("dropped_before", "failed", "connection", RETRIED, None, "connection"),
    End("dropped_after", "failed", "connection", RETRIED, None, "connection"),
]


@pytest.mark.parametrize("end", ENDS, ids=str)
async def test_bad_end_is_recorded_as_such_and_asked_again_by_a_new_run(
    workshop: Workshop, end: End, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRIES", "1")
    workshop.numbered(2)
    workshop.sandbox.configure(**{end.fault: 1})

    summary = await workshop.run()
    assert getattr(summary, end.status) == 2
    assert (summary.succeeded, summary.cached, summary.exit_status) == (0, 0, 1)
    assert workshop.value("SELECT count(*) FROM current_content") == 0
    for row in workshop.rows("SELECT * FROM generations"):
        assert (row["status"], row["origin"], row["output"], row["output_hash"]) == (end.status, "live", None, None)
        assert row["error_kind"].startswith(end.error_kind)
        assert row["error_message"]
        attempts = workshop.rows("SELECT * FROM attempts WHERE generation_id = :id ORDER BY ordinal", id=row["id"])
        assert [attempt["kind"] for attempt in attempts] == list(end.kinds)
        assert [attempt["ordinal"] for attempt in attempts] == list(range(1, len(end.kinds) + 1))
        for attempt in attempts:
            assert attempt["ended_at"] is not None
            assert (attempt["stop_reason"], attempt["error_type"]) == (end.stop_reason, end.error_type)
            assert (attempt["cost_usd"] is not None) == (end.stop_reason is not None)
            assert (attempt["validation_errors"] is not None) == (end.status == "invalid")
    assert_equal_books(workshop)

    workshop.sandbox.configure(**{end.fault: 0})
    again = await workshop.run()
    assert (again.succeeded, again.cached, again.requests) == (2, 0, 2)


async def test_prompt_is_given_up_after_three_bad_outcomes_until_refresh(workshop: Workshop) -> None:
    workshop.numbered(1)
    for fault in ("refused", "truncated", "invalid"):
        workshop.sandbox.configure(**{"refused": 0, "truncated": 0, "invalid": 0, fault: 1})
        assert getattr(await workshop.run(), fault) == 1

    asked = workshop.requests
    workshop.sandbox.configure(invalid=0)
    summary = await workshop.run()
    assert (summary.skipped, summary.requests, summary.exit_status) == (1, 0, 1)
    assert workshop.requests == asked
    (row,) = workshop.rows("SELECT * FROM generations WHERE status = 'skipped'")
    assert row["error_kind"] == "given_up"
    assert "--refresh" in row["error_message"]

    assert (await workshop.run(refresh=True)).succeeded == 1
    # Now there is paid content, so the next run has a hit.
    assert (await workshop.run()).cached == 1


@pytest.mark.parametrize("fault", ["refused", "truncated", "invalid"])
async def test_one_bad_outcome_is_enough_where_the_setting_says_so(
    workshop: Workshop, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_GIVE_UP_AFTER", "1")
    workshop.numbered(1)
    workshop.sandbox.configure(**{fault: 1})
    assert getattr(await workshop.run(), fault) == 1
    assert (await workshop.run()).skipped == 1


async def test_failed_requests_are_not_given_up(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"REQUEST_RETRIES": "0", "CHUNK_RETRIES": "0", "GIVE_UP_AFTER": "1"}.items():
        monkeypatch.setenv(f"PRESSWORK_{name}", value)
    workshop.numbered(1)
    workshop.sandbox.configure(overloaded=1)
    for _run in range(2):
        assert (await workshop.run()).failed == 1


async def test_repair_says_what_was_wrong_and_escalation_gives_more_room(workshop: Workshop) -> None:
    workshop.numbered(30)
    workshop.sandbox.configure(invalid=0.3, truncated=0.3)
    await workshop.run()

    repair = workshop.rows("SELECT * FROM attempts WHERE kind = 'repair' LIMIT 1")[0]
    assert "can't be used" in repair["request_changes"]
    escalation = workshop.rows("SELECT * FROM attempts WHERE kind = 'escalation' LIMIT 1")[0]
    assert "512" in escalation["request_changes"]


@pytest.mark.chinook
@pytest.mark.parametrize("seed", range(5))
async def test_all_succeed_under_faults_and_the_books_agree(
    workshop: Workshop, chinook_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "templates", workshop.templates, dirs_exist_ok=True)
    monkeypatch.setenv("PRESSWORK_SOURCE_CHINOOK_URL", chinook_url)
    monkeypatch.setenv("PRESSWORK_REPAIRS", "3")
    monkeypatch.setenv("PRESSWORK_ESCALATIONS", "3")
    workshop.sandbox.configure(
        seed=seed,
        rate_limited=0.10,
        overloaded=0.02,
        dropped_before=0.01,
        dropped_after=0.01,
        invalid=0.03,
        truncated=0.02,
    )
    summary = await workshop.run("album_notes")

    assert (summary.succeeded, summary.records, summary.exit_status) == (347, 347, 0)
    assert workshop.value("SELECT count(*) FROM current_content") == 347
    faults = workshop.sandbox.stats()["by_fault"]
    assert set(faults) >= {"rate_limited", "overloaded", "invalid", "truncated"}
    assert_equal_books(workshop)
    assert workshop.sandbox.stats()["repeated_bodies"] == 0
    assert summary.requests == workshop.requests
    assert summary.rate_limited == faults["rate_limited"]


def assert_equal_books(workshop: Workshop) -> None:
    """Assert that the attempts and the sandbox have the same requests, answers and perhaps-billed requests."""
    stats = workshop.sandbox.stats()
    assert (
        workshop.value("SELECT count(*) FROM attempts WHERE error_type IS NULL OR error_type <> 'not_sent'")
        == (stats["requests"])
    )
    sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in BILLED)
    (served,) = workshop.rows(f"SELECT {sums} FROM attempts")
    assert served == {name: stats["served"][name] for name in BILLED}
    perhaps = workshop.value("SELECT count(*) FROM attempts WHERE error_type = 'connection'")
    assert perhaps == stats["by_status"].get("dropped", 0)
    assert stats["dropped"]["answers"] <= perhaps
    assert stats["dropped"]["answers"] == stats["by_fault"].get("dropped_after", 0)

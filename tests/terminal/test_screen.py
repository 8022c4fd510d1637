"""Printing: data appears literally and is never interpreted; figures are easy to read."""

from __future__ import annotations

import io
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from db.readers.figures import RunLine, TotalUsage
from presswork.commands.ledger.listings import runs_table
from presswork.commands.run.watching import Watcher, time_left
from presswork.errors import StoppingCallError, UntoldCostError
from presswork.escaping import visible
from presswork.report.prefect.artifacts import summary_markdown
from presswork.report.progress import Progress
from presswork.report.summary import Failure, PaceSummary, StepSummary, Summary
from presswork.terminal import screen
from presswork.terminal.endings import describe
from presswork.terminal.summary_view import headline, print_summary


@pytest.mark.parametrize("width", [80, 100, 120])
def test_list_of_runs_shows_ids_and_statuses_whole_whatever_the_terminal(width: int) -> None:
    started = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    usage = TotalUsage(requests=100_000, cost_usd=Decimal("1234.5678"))
    line = RunLine(
        "01a21506-bf87-73b1-beb4-8a50700d2a9e", "a_long_name_of_a_flow", "sandbox", "command", "completed", started,
        started, 100_000, 99_000, 0, usage,
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=width)

    console.print(runs_table([line], width))

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(whole in shown for whole in ("8a50700d2a9e", "completed", "99,000", "$1,234.5678"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]text[/bold]", "plain [bold]text[/bold]"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("\x00\r", "␀␍"),
        ("\u202eevil", "⟨U+202E⟩evil"),
        ("\x9b31m", "⟨U+009B⟩31m"),
        ("\ud800", "⟨U+D800⟩"),
        ("שלום 🍵 👩‍🍳", "שלום 🍵 👩‍🍳"),
    ],
)
def test_control_characters_are_seen_and_not_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_has_plain_times_and_money(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_json({"cost": Decimal("0.25"), "when": datetime(2026, 11, 22, tzinfo=UTC)})

    assert json.loads(capsys.readouterr().out) == {"cost": 0.25, "when": "2026-11-22T00:00:00+00:00"}


def test_a_text_is_never_broken_in_a_pipe() -> None:
    console = Console(file=io.StringIO(), width=20)

    screen.print_text(console, "a word " * 20 + "\n\nend", indent=2)

    assert console.file.getvalue() == "  " + "a word " * 20 + "\n\n  end\n"  # type: ignore[attr-defined]


def summary(**changes: object) -> Summary:
    counts = "cached succeeded invalid truncated refused failed skipped left_out requests input_tokens output_tokens"
    counts += " cache_read_tokens cache_creation_tokens unpriced perhaps_billed rate_limited"
    values: dict[str, object] = dict.fromkeys(counts.split(), 0)
    values |= {"run_id": "0" * 36, "flow": "notes", "endpoint": "anthropic", "status": "completed", "records": 2}
    values |= {"cost_usd": Decimal("0.5"), "wall_s": 1.0, "pace": {}, "steps": [], "failures": []}
    return Summary.model_validate(values | changes)


def printed(found: Summary) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_summary(console, found)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"succeeded": 2}, "✔ notes completed: 2 records in 1.0 s"),
        ({"succeeded": 2, "wall_s": 3_725.0}, "✔ notes completed: 2 records in 1 h 2 min"),
        ({"succeeded": 1, "failed": 1}, "▲ notes completed"),
        ({"cached": 2}, "all from the cache, no requests sent"),
        ({"status": "capped"}, "■ notes stopped by its cost cap"),
        ({"status": "failed"}, "✘ notes failed"),
    ],
)
def test_the_headline_says_how_a_run_ended(changes: dict[str, object], says: str) -> None:
    assert says in headline(summary(**changes)).plain


def test_the_sandbox_is_named_loudly_and_claude_is_not() -> None:
    assert "made up, and nothing was billed" in printed(summary(endpoint="sandbox"))
    assert "made up" not in printed(summary())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"perhaps_billed": 3, "likely_usd": Decimal("0.0234")}, "3 requests whose answer was lost, likely $0.0234"),
        ({"perhaps_billed": 1, "likely_usd": None}, "1 request whose answer was lost\n"),
    ],
)
def test_a_summary_shows_what_was_perhaps_billed(changes: dict[str, object], says: str) -> None:
    assert says in printed(summary(**changes))
    assert "perhaps billed" not in printed(summary())
    likely = changes["likely_usd"]
    assert summary(**changes).for_programs()["likely_usd"] == (likely if likely is None else float(str(likely)))


def test_a_summary_shows_cost_savings_and_failures() -> None:
    step = StepSummary(step="notes", generations=2, cached=1, refused=1)
    failure = Failure(
        generation_id="1" * 36,
        step="notes",
        record_key="[b]1",
        status="refused",
        kind="refusal",
        message="It [i]refused",
    )

    text = printed(
        summary(
            cached=1,
            refused=1,
            requests=1,
            steps=[step],
            failures=[failure],
            unpriced=1,
            saved_by_ledger_usd=Decimal("0.25"),
            cache_creation_tokens=900,
            saved_by_prompt_cache_usd=Decimal("-0.01"),
        )
    )

    assert "$0.5000 and 1 requests of unknown price" in text
    assert "$0.2500 by 1 answer from the ledger" in text
    assert "nothing by the prompt cache: writing it cost $0.0100 more" in text
    assert "1 generation without content" in text
    assert "[b]1" in text
    assert "It [i]refused" in text
    assert "111111111111" in text
    assert "presswork show ID" in text
    assert "truncated" not in text


def test_pace_is_shown_against_the_limit_where_one_is_known() -> None:
    pace = {"requests_per_minute": 410.0, "limit_per_minute": 1000.0, "share_of_limit": 0.41, "waited_s": 12.0}

    assert "410 requests a minute, 41 % of the limit of 1,000; waited 12 s for it" in printed(summary(pace=pace))
    assert "of the limit" not in printed(summary())


@pytest.mark.parametrize(
    ("pace", "words"),
    [
        ({}, ""),
        (
            {"requests_per_minute": 284.0, "limit_per_minute": 290.0, "limit_from": "found", "rate_limited": 12},
            "284 requests a minute; held at 290 requests a minute: the endpoint answers 429 above it; 12 answered 429",
        ),
        (
            {"requests_per_minute": 9000.0, "rate_limited": 950, "refused_anyway": 0.104},
            "9,000 requests a minute; 950 answered 429, about 10 % whatever the rate",
        ),
        (
            {"requests_per_minute": 3.0, "limit_per_minute": 3.5, "limit_from": "own", "share_of_limit": 0.857},
            "3 requests a minute, 86 % of your own limit of 3.5",
        ),
        (
            {"waiting_s": 42.3, "waiting_for": "the endpoint's limit of 1 request a minute"},
            "the next request waits 42 s for the endpoint's limit of 1 request a minute",
        ),
        ({"waiting_s": 2.0, "waiting_for": "your own limit of 60 requests a minute"}, ""),
    ],
)
def test_pace_says_why_it_is_slow(pace: dict[str, Any], words: str) -> None:
    assert PaceSummary(**pace).words() == words
    progress = Progress("id", "notes", "sandbox", step="notes", total=10, pace=PaceSummary(**pace))
    watcher = Watcher()
    watcher.begin(progress)
    assert words.replace("; ", ", ") in watcher.line()


def test_an_unknown_price_is_not_nothing() -> None:
    assert "unknown (no price for the model" in printed(summary(cost_usd=None))


def test_a_line_of_progress_says_counts_cost_and_what_it_waits_for() -> None:
    watcher = Watcher()
    assert "Opening" in watcher.line()
    progress = Progress("id", "notes", "sandbox", step="notes", total=10, done_in_step=3)
    progress.counts = Counter(succeeded=2, cached=1)
    progress.cost_usd = Decimal("0.125")
    watcher.begin(progress)

    line = watcher.line()

    assert line.startswith("notes: notes 3/10, 1 from the cache, 2 new")
    assert "$0.1250" in line
    progress.is_stopping = lambda: True
    assert "Stopping" in watcher.line()


@pytest.mark.parametrize(
    ("total", "rate", "shown"), [(100, 1.0, "1:30"), (100000, 1.0, "27:46:30"), (None, 1.0, ""), (100, 0.0, "")]
)
def test_time_left_is_said_where_it_is_known(total: int | None, rate: float, shown: str) -> None:
    assert time_left(Progress("id", "f", "e", total=total, done_in_step=10), rate) == shown


def test_notes_are_shown_each_on_a_line() -> None:
    text = printed(summary(notes=["The endpoint ignores a field.", "Another [red]note[/red]."]))

    assert "note" in text
    assert "The endpoint ignores a field." in text
    assert "Another [red]note[/red]." in text


def test_notes_stand_in_json_and_on_the_runs_page() -> None:
    found = summary(notes=["one | two"])

    assert found.for_programs()["notes"] == ["one | two"]
    assert "| note | one \\| two |" in summary_markdown(found)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoppingCallError("HTTP 401 authentication_error", kind="authentication_error"), "authentication_error"),
        (StoppingCallError("HTTP 429 budget_exceeded", kind="budget_exceeded"), "budget_exceeded"),
        (StoppingCallError("refused alike", kind="invalid_request_error"), "invalid_request_error"),
        (UntoldCostError(), "untold_cost"),
    ],
)
def test_key_account_budget_and_untold_cost_end_with_2(error: Exception, kind: str) -> None:
    status, told, message = describe(error)

    assert (status, told) == (2, kind)
    assert message


def test_only_the_runs_own_cap_ends_with_3() -> None:
    assert summary(status="capped").exit_status == 3
    assert summary(status="completed", failed=1).exit_status == 1
    assert summary(status="failed").exit_status == 1

"""`presswork demo`: with nothing configured, twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import presswork

# Two whole demos: on a machine that is busy with other things they take minutes.
pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(400)]
# Set, though to nothing: a developer's .env must not reach the command.
NOTHING = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_BASE_URL": ""}


def test_demo_runs_with_nothing_configured_and_the_second_costs_nothing(tmp_path: Path, prefect_server: str) -> None:
    ledger = f"sqlite:///{tmp_path / 'demo.sqlite'}"

    # The first on a Prefect server that it starts itself, the second on one that is there.
    first = presswork(["demo"], PRESSWORK_DATABASE_URL=ledger, **NOTHING)
    second = presswork(["demo", "--json"], PRESSWORK_DATABASE_URL=ledger, PREFECT_API_URL=prefect_server, **NOTHING)

    assert first.returncode == 0, first.stderr
    told = first.stderr.splitlines()
    assert told[0].startswith("No ANTHROPIC_API_KEY is set, so the sandbox answers")
    assert told[1].endswith("40 products, 30 support tickets, 24 articles.")
    assert told[2].startswith("Starting Prefect's server")
    expected = ("✔ product_copy completed", "✔ support_replies completed", "✔ newsletter completed")
    closing = [line for line in told[3:] if line.startswith("✔")]
    assert [line.startswith(start) for line, start in zip(closing, expected, strict=True)] == [True] * 3
    assert not [
        line for line in told[3:] if not line.startswith(("✔", "product_copy", "support_replies", "newsletter"))
    ]
    for part in ("Product copy", "Reply to ticket", "the subject line that was chosen", "nothing was billed"):
        assert part in first.stdout
    for command in ("presswork show ", "presswork history", "sqlite3 ", "current_content"):
        assert command in first.stdout

    assert second.returncode == 0
    assert second.stderr == ""
    runs = json.loads(second.stdout)["runs"]
    assert [run["requests"] for run in runs] == [0, 0, 0]
    assert all(run["cached"] and not run["succeeded"] for run in runs)

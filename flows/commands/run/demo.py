"""`presswork demo`: the whole way on sample records, with nothing configured and nothing asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from flows.commands.terminal import screen
from flows.commands.terminal.endings import CommandContext, command_context
from flows.commands.terminal.environment import environment
from flows.commands.terminal.flags import AsJson

if TYPE_CHECKING:
    from flows.engine.report.summary import Summary

FLOWS = ("product_copy", "support_replies", "newsletter")
LATENCY = {"latency_ms": 120, "latency_spread": 0.4}


def demo(as_json: AsJson = False) -> None:
    """Try Presswork on sample records; nothing to set up.

    They become product copy, support replies and a newsletter. Without an API key the sandbox answers: then nothing
    is sent anywhere and nothing is billed.
    """
    with command_context(as_json=as_json) as command:
        from flows.settings import load_settings  # noqa: PLC0415 - see commands/__init__.py

        load_settings()  # what .env says of the key counts too
        with _endpoint(say=not as_json):
            status = _run_all(command)
    raise typer.Exit(status)


@contextmanager
def _endpoint(*, say: bool) -> Iterator[None]:
    """Use what is configured; where nothing is, a sandbox of the demo's own."""
    console = screen.err()
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("ANTHROPIC_BASE_URL"):
        if say:
            console.print("An endpoint is configured, and this demo uses it: it asks for what the ledger lacks.")
        yield
        return
    from flows.sandbox import Switches, sandbox_process  # noqa: PLC0415 - see commands/__init__.py

    if say:
        console.print(
            Text("No ANTHROPIC_API_KEY is set, so the sandbox answers: ", "bold yellow").append(
                "a local Messages API whose texts are made up. Nothing is sent anywhere, nothing is billed.", "yellow"
            )
        )
    with sandbox_process(Switches().changed(dict(LATENCY))) as url, environment({"ANTHROPIC_BASE_URL": url}):
        yield


def _run_all(command: CommandContext) -> int:
    import asyncio  # noqa: PLC0415 - see commands/__init__.py

    from db.samples import load_samples  # noqa: PLC0415
    from flows.commands.ledger.ledgers import ledger_name, opened  # noqa: PLC0415
    from flows.commands.run.demo_screen import print_demo  # noqa: PLC0415
    from flows.commands.run.jobs import find_job  # noqa: PLC0415
    from flows.commands.run.running import prepare, run_call  # noqa: PLC0415
    from flows.commands.terminal.quiet_prefect import prefect_api  # noqa: PLC0415
    from flows.commands.terminal.summary_view import headline  # noqa: PLC0415
    from flows.engine.options import RunOptions  # noqa: PLC0415
    from flows.engine.resources.preflight import name_endpoint  # noqa: PLC0415
    from flows.settings import ledger_url, load_settings  # noqa: PLC0415

    settings = load_settings()
    ledger = ledger_url(settings, asyncio.run(name_endpoint(settings)))
    with opened(ledger) as engine:
        loaded = load_samples(engine)
    if not command.as_json:
        tables = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in loaded.items())
        screen.say(f"Sample records in {ledger_name(ledger)}: {tables}.")
    # The samples lie in the ledger's database, whatever source is set for other runs.
    with environment({"PRESSWORK_SOURCE_URL": ledger}):
        settings = load_settings()
        calls = [prepare(find_job(name, settings), settings, {}, RunOptions()) for name in FLOWS]
        summaries: list[Summary] = []
        with prefect_api(settings, say=not command.as_json):
            for call in calls:
                summaries.append(run_call(call, command))
                if not command.as_json:
                    screen.err().print(headline(summaries[-1]))
    made = {"ledger": ledger_name(ledger), "runs": [summary.for_programs() for summary in summaries]}
    command.answer(made, lambda console: print_demo(console, ledger, summaries))
    return max(summary.exit_status for summary in summaries)

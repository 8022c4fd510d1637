"""Run one job under Prefect, and show its progress and its summary."""

import asyncio

from prefect.exceptions import Abort
from rich.console import Console

from presswork.commands.run.checked_run import CheckedRun
from presswork.commands.run.watching import watching
from presswork.engine.resources.event_loop import run_on_loop
from presswork.errors import ConfigurationError, StoppedError
from presswork.jobs.named_jobs import Call
from presswork.report.summary import Summary
from presswork.settings import ledger_url
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import ledger_name
from presswork.terminal.quiet_prefect import needed_api, prefect_api
from presswork.terminal.summary_view import print_summary


def run_to_end(command: CommandContext, run: CheckedRun) -> int:
    """Find or start Prefect's server, run a job and print its summary; return the exit status."""
    settings = command.settings
    if run.is_sharded:
        server = needed_api(settings, "start shards by")
    else:
        server = prefect_api(settings, run.server, say=not command.as_json)
    with server:
        summary = run_call(run.call, command)

    def show(console: Console) -> None:
        print_summary(console, summary)
        lines = [
            (screen.command(f"history {screen.short(summary.run_id)}"), "this summary again"),
            (screen.command("show ID"), "a generation with its record, prompt and cost"),
            (ledger_name(ledger_url(settings, summary.endpoint)), "the ledger: query its view current_content"),
        ]
        screen.print_next(console, lines)

    command.answer(summary.for_programs(), show)
    return summary.exit_status


def run_call(call: Call, command: CommandContext) -> Summary:
    """Run a job under the Prefect API of this process, and set the run's id on `command`.

    Raises StoppedError if a signal ended it, such as Ctrl-C's, and any other error that stopped the run.
    """

    async def start() -> object:
        result = call.start()
        return await result if asyncio.iscoroutine(result) else result

    with watching(show=not command.as_json) as watcher:
        try:
            result = run_on_loop(start())
        except Abort as stop:
            so_far = ""
            if watcher.run_id is not None:
                counts = ", ".join(watcher.counts()) or "nothing"
                so_far = f" So far: {counts}. For details: `presswork history {screen.short(watcher.run_id)}`."
            raise StoppedError(f"{stop}{so_far}") from None
        finally:
            command.run_id = watcher.run_id
    if not isinstance(result, Summary):
        raise ConfigurationError(
            f"The flow {call.job.name!r} ran, but returned {type(result).__name__}, not a Summary. End it with "
            "`return run.summary()`."
        )
    return result

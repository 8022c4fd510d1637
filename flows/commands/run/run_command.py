"""`presswork run`: a flow or a template, once, from here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.commands.terminal import screen
from flows.commands.terminal.endings import command_context
from flows.commands.terminal.flags import AsJson, Sets, parse_sets, takes_groups
from flows.errors import ParameterError

if TYPE_CHECKING:
    from flows.engine.report.summary import Summary
    from flows.settings import Settings


@dataclass(frozen=True)
class RunFlags:
    """The options of a run, each a flag: the fields are those of RunOptions."""

    limit: Annotated[int | None, typer.Option(help="The first records of the select, in its own order.")] = None
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask again for what the ledger already has. It costs money.")
    ] = False
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at most.")] = None
    chunk_size: Annotated[int | None, typer.Option(help="Prompts that one Prefect task run carries.")] = None
    rpm: Annotated[int | None, typer.Option(help="Requests a minute at most.")] = None
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", help="Stop before more than this is spent, by earlier runs that it resumes too."),
    ] = None
    shards: Annotated[
        int | None, typer.Option(metavar="N", help="Spread the run over the workers of its deployment, in N parts.")
    ] = None


@takes_groups
def run(
    name: Annotated[str | None, typer.Argument(help="A flow in flows/, or a template in templates/.")] = None,
    sets: Sets = None,
    *,
    flags: RunFlags,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Go on from a run, with what it was started with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a flow or a template on the records it selects.

    What the ledger already has is not asked for again. Exit status: 0 all records have content, 1 some have
    not, 2 the call, the configuration, the key or the account is wrong, 3 the cost cap stopped the run.
    """
    with command_context(as_json=as_json) as command:
        from flows.commands.run.jobs import find_job, make_options  # noqa: PLC0415 - see commands/__init__.py

        values, given = parse_sets(sets), asdict(flags)
        settings = command.settings
        if resume is not None:
            from flows.commands.ledger.ledgers import find_by_id  # noqa: PLC0415
            from flows.commands.run.resuming import read_resumed  # noqa: PLC0415

            _url, past = find_by_id(settings, read_resumed, "run", resume)
            if name not in {None, past.flow}:
                raise ParameterError(f"The run {past.run_id} was one of {past.flow!r}, not of {name!r}.")
            name, values = past.flow, {**past.sets, **values}
            # `--refresh` that is not given is no wish to end a refresh.
            told_now = {option: value for option, value in given.items() if value is not None and value is not False}
            given = {**past.options, **told_now, "resumes": past.run_id}
        if name is None:
            raise ParameterError("Say what to run: `presswork run NAME`, or `presswork run --resume RUN_ID`.")
        options = make_options(given)
        job = find_job(name, settings)

        from flows.commands.run.running import prepare, run_call  # noqa: PLC0415
        from flows.commands.terminal.quiet_prefect import needed_api, prefect_api  # noqa: PLC0415

        call = prepare(job, settings, values, options)
        is_spread = (options.shards or 1) > 1
        server = needed_api(settings, "start shards by") if is_spread else prefect_api(settings, say=not as_json)
        with server:
            summary = run_call(call, command)
        command.answer(summary.for_programs(), lambda console: _print(console, summary, settings))
        raise typer.Exit(summary.exit_status)


def _print(console: Console, summary: Summary, settings: Settings) -> None:
    from flows.commands.ledger.ledgers import ledger_name  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.terminal.summary_view import print_summary  # noqa: PLC0415
    from flows.settings import ledger_url  # noqa: PLC0415

    print_summary(console, summary)
    lines = [
        (screen.command(f"history {screen.short(summary.run_id)}"), "this run again"),
        (screen.command("show ID"), "a generation with its record, prompt and cost"),
        (ledger_name(ledger_url(settings, summary.endpoint)), "the ledger, for SQL: the view current_content"),
    ]
    screen.print_next(console, lines)

"""`presswork rehearse`: a run at full size against the sandbox, into a ledger that is thrown away."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flows.commands.rehearsal.rehearsal_flags import RehearsedRunFlags, TermFlags
from flows.commands.terminal import screen
from flows.commands.terminal.endings import command_context
from flows.commands.terminal.flags import AsJson, OfSandbox, Sets, parse_sets, takes_groups


@takes_groups
def rehearse(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A flow in flows/, or a template in templates/.")],
    sets: Sets = None,
    *,
    run_flags: RehearsedRunFlags,
    term_flags: TermFlags,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rehearsal's ledger, and say where it is.")] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Rehearse a run on its own records, for no money: how long it takes, what it costs, what breaks.

    The sandbox answers, with the latency, limits and faults that you name, into a ledger that is thrown away. Nothing
    is sent to the API, and your own ledger is not written. Exit status as that of `presswork run`.
    """
    with command_context(as_json=as_json) as command:
        from flows.commands.rehearsal.preparing import print_terms, read_rehearsal  # noqa: PLC0415 - see commands/__init__.py
        from flows.commands.run.jobs import find_job, make_options  # noqa: PLC0415

        values, options, settings = parse_sets(sets), make_options(asdict(run_flags)), command.settings
        rehearsal = read_rehearsal(settings, find_job(name, settings), values, options, sandbox=sandbox)

        from flows.commands.rehearsal.terms import make_terms  # noqa: PLC0415

        terms = make_terms(rehearsal.pasts, term_flags)
        if not as_json:
            print_terms(screen.err(), rehearsal, terms)

        from flows.commands.rehearsal.rehearsed import print_rehearsed  # noqa: PLC0415
        from flows.commands.rehearsal.rehearsing import run_rehearsal  # noqa: PLC0415

        rehearsed = run_rehearsal(rehearsal, terms, command, keep=keep)
        command.answer(rehearsed.for_programs(), lambda console: print_rehearsed(console, rehearsed))
        raise typer.Exit(rehearsed.summary.exit_status)

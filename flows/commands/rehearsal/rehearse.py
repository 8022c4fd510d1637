"""`presswork rehearse`: a run at full size against the sandbox, into a ledger that is thrown away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from db.words import ANTHROPIC, SANDBOX
from flows.commands.terminal import screen
from flows.commands.terminal.endings import Report, told
from flows.commands.terminal.flags import AsJson, OfSandbox, Sets

if TYPE_CHECKING:
    from flows.commands.rehearsal.forecast import History
    from flows.commands.rehearsal.rehearsed import Rehearsed
    from flows.commands.rehearsal.terms import Terms
    from flows.commands.run.jobs import Job
    from flows.engine.options import RunOptions
    from flows.engine.report.summary import Summary
    from flows.settings import Settings
    from flows.steps.prompts.templates import Template

TITLE = "rehearsal of "


def rehearse(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A flow in flows/, or a template in templates/.")],
    sets: Sets = None,
    limit: Annotated[
        int | None, typer.Option(help="The first records of the select; default: all, as in the real run.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at most.")] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Prompts that one Prefect task run carries.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests a minute that the run holds to by itself.")] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="Stop before more than this is spent.")] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="Median latency; default: that of your ledger's answers, else 3,000.")
    ] = None,
    latency_spread: Annotated[
        float | None, typer.Option(help="Sigma of the lognormal; default: as your ledger has it, else 0.3.")
    ] = None,
    rpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: requests a minute.")] = None,
    itpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: input tokens a minute.")] = None,
    otpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: output tokens a minute.")] = None,
    rate_limited: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are 429.")] = None,
    overloaded: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are 529.")] = None,
    drops: Annotated[float | None, typer.Option(metavar="PERCENT", help="Connections that are lost.")] = None,
    invalid: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that break a constraint.")] = None,
    truncated: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are cut off.")] = None,
    refused: Annotated[float | None, typer.Option(metavar="PERCENT", help="Prompts that are refused.")] = None,
    switches: Annotated[
        list[str] | None,
        typer.Option("--switch", metavar="NAME=VALUE", help="Any switch of `presswork sandbox`; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="With another seed other requests meet the faults.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rehearsal's ledger, and say where it is.")] = False,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Rehearse a run on its own records, for no money: how long it takes, what it costs, what breaks.

    The sandbox answers, with the latency, limits and faults that you name, into a ledger that is thrown away. Nothing
    is sent to the API, and your own ledger is not written. Exit status as that of `presswork run`.
    """
    with told(as_json=as_json) as report:
        from flows.commands.run.jobs import find_job, make_options, parse_sets  # noqa: PLC0415 - see commands/__init__.py
        from flows.settings import load_settings  # noqa: PLC0415

        values = parse_sets(sets or [])
        options = make_options(limit=limit, concurrency=concurrency, chunk_size=chunk_size, rpm=rpm, max_cost=max_cost)
        settings = load_settings()
        script = _read_script(settings, find_job(name, settings), values, options, sandbox=sandbox)

        from flows.commands.rehearsal.terms import agree  # noqa: PLC0415

        terms = agree(
            script.history.pasts,
            latency_ms=latency_ms,
            latency_spread=latency_spread,
            limits={"rpm": rpm_limit, "itpm": itpm_limit, "otpm": otpm_limit},
            percents={
                "rate_limited": rate_limited,
                "overloaded": overloaded,
                "drops": drops,
                "invalid": invalid,
                "truncated": truncated,
                "refused": refused,
            },
            others=switches or [],
            seed=seed,
        )
        if not as_json:
            _say_terms(script, terms)
        rehearsed = _play(script, terms, report, keep=keep, show=not as_json)
        if as_json:
            screen.print_json(rehearsed.for_programs())
        else:
            from flows.commands.rehearsal.rehearsed import print_rehearsed  # noqa: PLC0415

            print_rehearsed(screen.out(), rehearsed)
        raise typer.Exit(rehearsed.summary.exit_status)


@dataclass(frozen=True)
class _Script:
    """What is rehearsed, read before the stage is set; `source` is the user's ledger, where records come from it."""

    job: Job
    values: Mapping[str, str]
    options: RunOptions
    templates: Mapping[str, Template]
    history: History
    source: str | None


def _read_script(
    settings: Settings, job: Job, values: Mapping[str, str], options: RunOptions, *, sandbox: bool
) -> _Script:
    from flows.commands.ledger.ledgers import ledger_urls  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.rehearsal.forecast import read_history  # noqa: PLC0415 - see commands/__init__.py
    from flows.engine.resources.preflight import NoRecordsYetError, nothing_to_read  # noqa: PLC0415
    from flows.settings import ledger_url  # noqa: PLC0415
    from flows.steps.prompts.templates import load_template  # noqa: PLC0415

    templates = {name: load_template(settings.templates_dir, name) for name in job.templates}
    ledgers = ledger_urls(settings, sandbox=sandbox)
    source = None
    if not settings.source_url and any(templates[name].front.source is None for name in job.selected):
        if not ledgers:
            raise NoRecordsYetError(nothing_to_read(ledger_url(settings, SANDBOX if sandbox else ANTHROPIC)))
        source = ledgers[0]
    history = read_history(ledgers, job.name, list(templates.values()), settings.endpoint)
    return _Script(job, values, options, templates, history, source)


def _say_terms(script: _Script, terms: Terms) -> None:
    from flows.commands.ledger.ledgers import ledger_name  # noqa: PLC0415 - see commands/__init__.py

    console = screen.err()
    console.print(
        screen.data(f"Rehearsal of {script.job.name}: the sandbox answers, into a ledger that is thrown away.", "bold")
    )
    facts = terms.facts(ledger_name(script.history.ledger) if script.history.ledger else None)
    if script.source:
        facts.append(("records", f"from {ledger_name(script.source)}, which is only read"))
    screen.print_facts(console, facts, indent=2)


def _play(script: _Script, terms: Terms, report: Report, *, keep: bool, show: bool) -> Rehearsed:
    from db.database_errors import SelectError  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.rehearsal.staging import staged  # noqa: PLC0415
    from flows.commands.run.running import prepare, run_call  # noqa: PLC0415
    from flows.commands.terminal.quiet_prefect import prefect_api  # noqa: PLC0415
    from flows.engine.resources.preflight import where_it_read  # noqa: PLC0415
    from flows.errors import StoppedError  # noqa: PLC0415
    from flows.settings import load_settings  # noqa: PLC0415

    with staged(terms.switches, script.source, keep=keep) as stage:
        settings = load_settings()
        try:
            call = prepare(script.job, settings, script.values, script.options, TITLE)
        except SelectError as error:
            raise SelectError(f"{error} {where_it_read(script.source)}" if script.source else str(error)) from None
        try:
            with prefect_api(settings, say=show):
                summary = run_call(call, report, show=show)
        except StoppedError:
            raise StoppedError("The rehearsal was stopped. Nothing was billed.") from None
        return _look_back(script, terms, summary, stage.ledger, settings.templates_dir, keep=keep)


def _look_back(script: _Script, terms: Terms, summary: Summary, ledger: str, folder: Path, *, keep: bool) -> Rehearsed:
    from db.ledger.clock import now  # noqa: PLC0415
    from db.ledger.connecting import open_ledger  # noqa: PLC0415
    from db.readers.failures import losses, troubles  # noqa: PLC0415 - see commands/__init__.py
    from db.readers.past_answers import spent_by_step  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.rehearsal.forecast import forecast  # noqa: PLC0415
    from flows.commands.rehearsal.rehearsed import Rehearsed  # noqa: PLC0415
    from flows.steps.prompts.templates import load_template  # noqa: PLC0415

    engine = open_ledger(ledger)
    try:
        return Rehearsed(
            summary=summary,
            terms=terms,
            steps=forecast(
                spent_by_step(engine, summary.run_id),
                script.history.pasts,
                # A flow may name a template in ways that its source does not show.
                lambda step: (script.templates.get(step) or load_template(folder, step)).front.max_tokens,
                now().date(),
            ),
            troubles=troubles(engine, summary.run_id),
            losses=losses(engine, summary.run_id),
            history=script.history.ledger,
            kept=ledger if keep else None,
        )
    finally:
        engine.dispose()

"""`presswork history`: the runs that the ledger knows, or one of them with its steps and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flows.commands.terminal import screen
from flows.commands.terminal.endings import told
from flows.commands.terminal.flags import AsJson, OfSandbox

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.readers.run_lines import RunLine

FAILURES = 50
NARROW = 110
"""Columns of a terminal below which a list of runs leaves out what the run itself shows."""
NUMBERS = ("new", "cached", "no content", "requests", "cost", "time")
RUN_STYLES = {"completed": "green", "running": "cyan", "capped": "yellow", "cancelled": "yellow"}


def history(
    run: Annotated[
        str | None, typer.Argument(help="A run's id, or at least 6 characters of its beginning or end.")
    ] = None,
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at most, the newest first.")] = 20,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """List the runs, or show one of them.

    The newest first; one run with its steps and failures.
    """
    with told(as_json=as_json):
        from flows.commands.ledger.ledgers import ledger_to_read, ledger_urls, say_ledger  # noqa: PLC0415
        from flows.settings import load_settings  # noqa: PLC0415

        settings = load_settings()
        urls = ledger_urls(settings, sandbox=sandbox)
        if run is None and not urls:
            _say_none(as_json=as_json)
            return
        with ledger_to_read(settings, sandbox=sandbox) as ledger:
            if not as_json:
                say_ledger(urls[0], others=len(urls) > 1)
            if run is not None:
                _one_run(ledger, run, as_json=as_json)
            else:
                _list(ledger, flow, limit, as_json=as_json)


def _say_none(*, as_json: bool) -> None:
    if as_json:
        screen.print_json([])
    else:
        screen.out().print("No runs yet: there is no ledger. `presswork demo` or `presswork run NAME` makes one.")


def _list(ledger: Engine, flow: str | None, limit: int, *, as_json: bool) -> None:
    from db.readers.run_lines import list_runs  # noqa: PLC0415 - see commands/__init__.py

    runs = list_runs(ledger, flow=flow, limit=limit)
    console = screen.out()
    if as_json:
        screen.print_json([run_json(line) for line in runs])
    elif not runs:
        console.print("No runs yet" + (f" of {screen.visible(flow)}." if flow else "."))
    else:
        console.print(runs_table(runs, console.width))
        console.print(Text(f"\n`{screen.command('history ID')}` shows one of them.", "dim"))


def runs_table(runs: Sequence[RunLine], width: int) -> Table:
    """Lay out runs, one a line; a narrow terminal has no room for all that is told of each."""
    narrow = width < NARROW
    numbers = ("new", "cached", "no\ncontent", "cost") if narrow else NUMBERS
    made = screen.table("run", "started (UTC)", "flow", "status", *numbers, right=numbers)
    for whole in (made.columns[0], made.columns[3]):
        whole.no_wrap = True  # an id is there to be copied
    if any(line.endpoint != runs[0].endpoint for line in runs):
        made.add_column("endpoint")
    for line in runs:
        without = line.generations - line.succeeded - line.cached
        cells: list[RenderableType] = [
            Text(screen.short(line.id)),
            screen.moment(line.started_at),
            screen.data(line.flow),
            Text(line.status, RUN_STYLES.get(line.status, "red")),
            f"{line.succeeded:,}",
            f"{line.cached:,}",
            Text(f"{without:,}", "red" if without else "dim"),
            *([] if narrow else [f"{line.usage.requests:,}"]),
            _cost(line.usage.cost_usd),
            *([] if narrow else [duration(line)]),
            screen.data(line.endpoint),
        ]
        made.add_row(*cells[: len(made.columns)])
    return made


def run_json(line: RunLine) -> dict[str, Any]:
    """A run as programs read it."""
    found = asdict(line)
    money = {name: _float(found["usage"][name]) for name in ("cost_usd", "likely_usd")}
    found["usage"] = {**found["usage"], **money}
    return found


def duration(line: RunLine) -> str:
    """Say how long a run took, if it has ended."""
    if line.ended_at is None:
        return ""
    return f"{(line.ended_at - line.started_at).total_seconds():,.1f} s"


def _one_run(ledger: Engine, asked: str, *, as_json: bool) -> None:
    from db.readers.failures import without_content  # noqa: PLC0415 - see commands/__init__.py
    from db.readers.figures import count_generations  # noqa: PLC0415 - see commands/__init__.py
    from db.readers.run_lines import find_run  # noqa: PLC0415 - see commands/__init__.py
    from db.readers.runs import read_run, shards_of  # noqa: PLC0415 - see commands/__init__.py
    from flows.errors import ConfigurationError  # noqa: PLC0415

    line = find_run(ledger, asked)
    if line is None:
        raise ConfigurationError(
            f"There is no run whose id begins or ends with {asked!r} in this ledger, or there are several: give at "
            "least 6 characters; `presswork history` lists them."
        )
    row = read_run(ledger, line.id) or {}
    shards = shards_of(ledger, line.id)
    counts = count_generations(ledger, line.id)
    failures = [tuple(failure) for failure in without_content(ledger, line.id, FAILURES)]
    if as_json:
        names = ("generation_id", "step", "record_key", "status", "kind", "message")
        steps = [asdict(count) for count in counts]
        failed = [dict(zip(names, failure, strict=True)) for failure in failures]
        screen.print_json({**dict(row), **run_json(line), "steps": steps, "failures": failed, "shards": shards})
        return
    console = screen.out()
    screen.print_facts(console, _facts(line, row, shards))
    if counts:
        made = screen.table("step", "status", "origin", "generations", right=["generations"])
        for count in counts:
            made.add_row(screen.data(count.step), count.status, count.origin, f"{count.count:,}")
        console.print()
        console.print(made)
    if failures:
        from flows.commands.run.closing import print_without_content  # noqa: PLC0415 - see commands/__init__.py

        rows = [
            (key, step, status, message or kind or "", identifier)
            for identifier, step, key, status, kind, message in failures
        ]
        lacking = line.generations - line.succeeded - line.cached
        console.print()
        print_without_content(console, f"{screen.counted(lacking, 'generation')} without content", lacking, rows)


def _facts(line: RunLine, row: Any, shards: Sequence[str]) -> list[tuple[str, Any]]:
    used = line.usage
    parameters = ", ".join(f"{name}={value}" for name, value in _given(row.get("parameters") or {}).items())
    found: list[tuple[str, Any]] = [
        ("run", line.id),
        ("flow", line.flow),
        ("status", Text(line.status, RUN_STYLES.get(line.status, "red"))),
        ("started", f"{screen.moment(line.started_at)} UTC, by {line.trigger}"),
        ("time", duration(line) or "(it has not ended)"),
        ("endpoint", line.endpoint),
        ("parameters", parameters or "none"),
        ("code", row.get("code_version", "")),
        ("Prefect flow run", row.get("prefect_flow_run_id") or "none"),
        ("generations", f"{line.succeeded:,} new, {line.cached:,} cached, {line.generations:,} in all"),
        ("requests", f"{used.requests:,}"),
        ("tokens", f"{used.input_tokens:,} in, {used.output_tokens:,} out"),
        ("cost", screen.dollars(used.cost_usd, used.unpriced)),
    ]
    if used.perhaps_billed:
        from flows.engine.report.summary import perhaps_billed  # noqa: PLC0415 - see commands/__init__.py

        found.append(("perhaps billed", perhaps_billed(used.perhaps_billed, used.likely_usd)))
    if row.get("resumes_run_id"):
        found.insert(2, ("goes on from", row["resumes_run_id"]))
    if row.get("parent_run_id"):
        found.insert(2, ("shard of", row["parent_run_id"]))
    if shards:
        found.append(("shards", ", ".join(screen.short(shard) for shard in shards)))
    return found


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that someone gave: those of options and selection flat, those left empty left out."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if value not in (None, False, {}, [])}


def _cost(cost: Decimal | None) -> str:
    return "" if cost is None else f"${cost:,.4f}"


def _float(cost: Decimal | None) -> float | None:
    return None if cost is None else float(cost)

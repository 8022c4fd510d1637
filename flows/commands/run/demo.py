"""`presswork demo`: the whole way on sample records, with nothing configured and nothing asked."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.commands.terminal import screen
from flows.commands.terminal.endings import Report, told
from flows.commands.terminal.flags import AsJson

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from flows.engine.report.summary import Summary

FLOWS = ("product_copy", "support_replies", "newsletter")
LATENCY = {"latency_ms": 120, "latency_spread": 0.4}
SHOWN = (
    ("product_copy", "Product copy"),
    ("support_reply", "Reply to ticket"),
    ("newsletter_choice", "Newsletter: the subject line that was chosen"),
)
KEY = "TEA-001"
SQL = "SELECT step, record_key, output FROM current_content LIMIT 5"


def demo(as_json: AsJson = False) -> None:
    """Try Presswork on sample records; nothing to set up.

    They become product copy, support replies and a newsletter. Without an API key the sandbox answers: then nothing
    is sent anywhere and nothing is billed.
    """
    with told(as_json=as_json) as report:
        from flows.settings import load_settings  # noqa: PLC0415 - see commands/__init__.py

        load_settings()  # what .env says of the key counts too
        with _endpoint(say=not as_json):
            status = _run_all(report, as_json=as_json)
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
    with sandbox_process(Switches().changed(dict(LATENCY))) as url:
        os.environ["ANTHROPIC_BASE_URL"] = url
        try:
            yield
        finally:
            del os.environ["ANTHROPIC_BASE_URL"]


def _run_all(report: Report, *, as_json: bool) -> int:
    import asyncio  # noqa: PLC0415 - see commands/__init__.py

    from flows.commands.run.jobs import find_job  # noqa: PLC0415
    from flows.commands.run.running import prepare, run_call  # noqa: PLC0415
    from flows.commands.terminal.quiet_prefect import prefect_api  # noqa: PLC0415
    from flows.engine.options import RunOptions  # noqa: PLC0415
    from flows.engine.resources.preflight import name_endpoint  # noqa: PLC0415
    from flows.settings import ledger_url, load_settings  # noqa: PLC0415

    settings = load_settings()
    ledger = ledger_url(settings, asyncio.run(name_endpoint(settings)))
    loaded = _load_samples(ledger)
    if not as_json:
        _say_samples(ledger, loaded)
    # The samples lie in the ledger's database, whatever source is set for other runs.
    os.environ["PRESSWORK_SOURCE_URL"] = ledger
    settings = load_settings()
    calls = [prepare(find_job(name, settings), settings, {}, RunOptions()) for name in FLOWS]
    summaries: list[Summary] = []
    with prefect_api(settings, say=not as_json):
        for call in calls:
            summaries.append(run_call(call, report, show=not as_json))
            if not as_json:
                _say_run(screen.err(), summaries[-1])
    if as_json:
        screen.print_json({"ledger": _name(ledger), "runs": [summary.for_programs() for summary in summaries]})
    else:
        _last_screen(screen.out(), ledger, summaries)
    return max(summary.exit_status for summary in summaries)


def _load_samples(ledger: str) -> dict[str, int]:
    from db.ledger.connecting import open_ledger  # noqa: PLC0415
    from db.samples import load_samples  # noqa: PLC0415 - see commands/__init__.py

    engine = open_ledger(ledger)
    try:
        return load_samples(engine)
    finally:
        engine.dispose()


def _say_samples(ledger: str, loaded: Mapping[str, int]) -> None:
    tables = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in loaded.items())
    screen.err().print(screen.data(f"Sample records in {_name(ledger)}: {tables}."))


def _say_run(console: Console, summary: Summary) -> None:
    from flows.commands.run.closing import headline  # noqa: PLC0415 - see commands/__init__.py

    console.print(headline(summary))


def _last_screen(console: Console, ledger: str, summaries: Sequence[Summary]) -> None:
    from db.ledger.connecting import open_ledger  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.run.closing import SANDBOX_SAYS, print_next  # noqa: PLC0415

    engine = open_ledger(ledger)
    try:
        shown = _print_content(console, engine, summaries)
    finally:
        engine.dispose()
    console.print()
    console.print(_figures(summaries))
    console.print()
    if not any(summary.requests for summary in summaries):
        console.print(Text("All of it came from the cache: 0 requests, and nothing to pay.", "bold green"))
    if any(summary.endpoint == "sandbox" for summary in summaries):
        console.print(Text(SANDBOX_SAYS.replace("This ran", "All this ran"), "bold yellow"))
    print_next(
        console,
        [
            (screen.command(f"show {shown or 'ID'}"), "a text with its record, prompt and cost"),
            (screen.command("history"), "every run: what came of it and what it cost"),
            (
                screen.command(f"templates show product_copy --key {KEY}"),
                "the request for one product, sending nothing",
            ),
            ("templates/product_copy.md.j2", "its prompt: change a word, and run the demo again"),
        ],
    )
    console.print(Text(f"  {_shell(ledger)}", "cyan"), soft_wrap=True)


def _print_content(console: Console, engine: Engine, summaries: Sequence[Summary]) -> str | None:
    """Print a text of each flow; return the short id of the first."""
    from db.readers.stored_generations import read_generations, read_parents  # noqa: PLC0415 - see commands/__init__.py

    first: str | None = None
    for summary, (step, title) in zip(summaries, SHOWN, strict=True):
        for found in next(read_generations(engine, summary.run_id, step, page_size=1), []):
            first = first or screen.short(found.id)
            output = found.output
            if step == "newsletter_choice":
                candidates = read_parents(engine, [found.id])[found.id]
                output = {**candidates[output["chosen"] - 1].output, "why": output["reason"]}
            key = f"{title} {found.record_key}" if found.record is not None else title
            console.print(_panel(key, output))
    return first


def _panel(title: str, output: Mapping[str, Any]) -> Panel:
    text = Text()
    for name, value in output.items():
        if text:
            text.append("\n")
        text.append(f"{name.replace('_', ' ')}  ", "dim")
        many = isinstance(value, list)
        text.append(screen.visible("".join(f"\n  - {item}" for item in value) if many else str(value)))
    return Panel(text, title=screen.data(title, "bold"), title_align="left", border_style="dim", width=100)


def _figures(summaries: Sequence[Summary]) -> Table:
    numbers = ("records", "new", "cached", "no content", "requests", "tokens in", "tokens out", "cost", "time")
    made = screen.table("flow", *numbers, right=numbers)
    for summary in summaries:
        lacking = summary.invalid + summary.truncated + summary.refused + summary.failed + summary.skipped
        counts = (summary.records, summary.succeeded, summary.cached, lacking, summary.requests)
        made.add_row(
            screen.data(summary.flow),
            *(f"{count:,}" for count in (*counts, summary.input_tokens, summary.output_tokens)),
            screen.dollars(summary.cost_usd),
            f"{summary.wall_s:,.1f} s",
        )
    return made


def _shell(ledger: str) -> str:
    from sqlalchemy import make_url  # noqa: PLC0415 - see commands/__init__.py

    from flows.settings import ROOT  # noqa: PLC0415

    url = make_url(ledger)
    if url.get_backend_name() != "sqlite":
        return f"{SQL};  -- in {_name(ledger)}"
    file = Path(str(url.database))
    shown = file.name if file.parent == Path.cwd() == ROOT else file
    return f'sqlite3 {shlex.quote(str(shown))} "{SQL}"'


def _name(ledger: str) -> str:
    from flows.commands.ledger.ledgers import ledger_name  # noqa: PLC0415 - see commands/__init__.py

    return ledger_name(ledger)

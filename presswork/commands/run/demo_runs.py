"""Run the demo's flows, and print a text of each, what the runs cost, and where to look next."""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine, make_url

from db.readers.stored_generations import read_generations, read_parents
from db.samples import load_samples
from db.words import SANDBOX
from presswork.commands.run.running import run_call
from presswork.engine.resources.preflight import name_endpoint
from presswork.escaping import visible
from presswork.jobs.checking import prepare
from presswork.jobs.named_jobs import find_job
from presswork.operate.command_server.server_context import CommandServer
from presswork.options import RunOptions
from presswork.report.amounts import dollars, duration
from presswork.report.summary import SANDBOX_SAYS, Summary
from presswork.settings import ROOT, ledger_url, load_settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.environment import environment
from presswork.terminal.ledgers import ledger_name, opened
from presswork.terminal.quiet_prefect import prefect_api
from presswork.terminal.summary_view import headline

DEMO_FLOWS = ("product_copy", "support_replies", "newsletter")
DEMO_STEPS = (
    ("product_copy", "Product copy"),
    ("support_reply", "Reply to ticket"),
    ("newsletter_choice", "Newsletter: the chosen subject line"),
)
KEY = "TEA-001"
SQL = "SELECT step, record_key, output FROM current_content LIMIT 5"


def run_demo(command: CommandContext, server: CommandServer) -> int:
    """Load the sample records, run each flow on them and print the results; return the worst exit status."""
    settings = load_settings()
    ledger = ledger_url(settings, asyncio.run(name_endpoint(settings)))
    with opened(ledger) as engine:
        loaded = load_samples(engine)
    if not command.as_json:
        tables = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in loaded.items())
        screen.say(f"Sample records in {ledger_name(ledger)}: {tables}.")
    # The samples are in the ledger's database, whatever source other runs use.
    with environment({"PRESSWORK_SOURCE_URL": ledger}):
        settings = load_settings()
        calls = [prepare(find_job(name, settings), settings, {}, RunOptions()) for name in DEMO_FLOWS]
        summaries: list[Summary] = []
        with prefect_api(settings, server, say=not command.as_json):
            for call in calls:
                summaries.append(run_call(call, command))
                if not command.as_json:
                    screen.err().print(headline(summaries[-1]))
    made = {"ledger": ledger_name(ledger), "runs": [summary.for_programs() for summary in summaries]}
    command.answer(made, lambda console: print_demo(console, ledger, summaries))
    return max(summary.exit_status for summary in summaries)


def print_demo(console: Console, ledger: str, summaries: Sequence[Summary]) -> None:
    """Print the demo's last screen."""
    with opened(ledger) as engine:
        shown = _print_content(console, engine, summaries)
    console.print()
    console.print(_figures(summaries))
    console.print()
    if not any(summary.requests for summary in summaries):
        console.print(Text("Everything came from the cache: no requests, no cost.", "bold green"))
    if any(summary.endpoint == SANDBOX for summary in summaries):
        console.print(Text(SANDBOX_SAYS.replace("This ran", "All this ran"), "bold yellow"))
    lines = [
        (screen.command(f"show {shown or 'ID'}"), "one text with its record, prompt and cost"),
        (screen.command("history"), "every run with its results and cost"),
        (screen.command(f"templates show product_copy --key {KEY}"), "the request for one product; nothing is sent"),
        ("templates/product_copy.md.j2", "its prompt: change a word, then run the demo again"),
    ]
    screen.print_next(console, lines)
    console.print(Text(f"  {_shell(ledger)}", "cyan"), soft_wrap=True)


def _print_content(console: Console, engine: Engine, summaries: Sequence[Summary]) -> str | None:
    """Print a text of each flow; return the short id of the first."""
    first: str | None = None
    for summary, (step, title) in zip(summaries, DEMO_STEPS, strict=True):
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
    lines: list[Text] = []
    for name, value in output.items():
        shown = "".join(f"\n  - {item}" for item in value) if isinstance(value, list) else str(value)
        lines.append(Text.assemble((f"{name.replace('_', ' ')}  ", "dim"), visible(shown)))
    return Panel(
        Text("\n").join(lines), title=screen.data(title, "bold"), title_align="left", border_style="dim", width=100
    )


def _figures(summaries: Sequence[Summary]) -> Table:
    # A record needs an answer for each step, so there are more answers than records.
    numbers = ("records", "new answers", "cached", "no content", "requests", "tokens in", "tokens out", "cost", "time")
    rows = []
    for summary in summaries:
        counts = (summary.records, summary.succeeded, summary.cached, summary.without_content, summary.requests)
        figures = (f"{count:,}" for count in (*counts, summary.input_tokens, summary.output_tokens))
        rows.append((summary.flow, *figures, dollars(summary.cost_usd), duration(summary.wall_s)))
    return screen.table(["flow", *numbers], rows, right=numbers)


def _shell(ledger: str) -> str:
    url = make_url(ledger)
    if url.get_backend_name() != "sqlite":
        return f"{SQL};  -- in {ledger_name(ledger)}"
    file = Path(str(url.database))
    shown = file.name if file.parent == Path.cwd() == ROOT else file
    return f'sqlite3 {shlex.quote(str(shown))} "{SQL}"'

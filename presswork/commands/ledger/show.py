"""Show one generation as an auditor needs it, from the record to the cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from rich.console import Console
from rich.padding import Padding

from db.readers.stored_generations import Audit, read_generation
from db.words import PERHAPS_BILLED, TRY
from presswork.escaping import visible
from presswork.terminal import screen
from presswork.terminal.audit_flags import ShowFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import find_by_id, ledger_urls, say_ledger


def show_generation(command: CommandContext, flags: ShowFlags) -> None:
    """Print one generation, found by its id."""
    settings, sandbox = command.settings, flags.sandbox
    url, audit = find_by_id(settings, read_generation, "generation", flags.identifier, sandbox=sandbox)
    if len(ledger_urls(settings, sandbox=sandbox)) > 1:
        say_ledger(url, others=False)
    command.answer(audit_json(audit), lambda console: print_audit(console, audit))


def audit_json(audit: Audit) -> dict[str, Any]:
    """Return a generation as JSON for programs."""
    told = ("id", "step", "record_key", "output")
    return {
        "generation": audit.generation,
        "source": audit.source,
        "run": audit.run,
        "record": orjson.loads(audit.record) if audit.record else None,
        "template": audit.template,
        "request": audit.request,
        "output": _output(audit),
        "attempts": audit.attempts,
        "parents": [{name: getattr(parent, name) for name in told} for parent in audit.parents],
        "before": audit.before,
        "after": audit.after,
        "children": [dict(zip(("id", "step", "record_key", "status"), child, strict=True)) for child in audit.children],
    }


def print_audit(console: Console, audit: Audit) -> None:
    """Print a generation, section by section."""
    screen.print_facts(console, _facts(audit))
    if audit.record is not None:
        screen.section(console, "Record, as read")
        record = orjson.loads(audit.record)
        screen.print_facts(console, [(name, screen.value_of(value)) for name, value in record.items()], indent=2)
    if audit.request is not None:
        screen.section(console, "Prompt, as sent")
        screen.print_request(console, audit.request)
    screen.section(console, "Answer")
    output = _output(audit)
    if output is not None:
        screen.print_text(console, screen.pretty(output), indent=2)
    else:
        status, message = audit.generation["status"], audit.generation["error_message"]
        screen.print_text(console, f"none, {status}. {message or ''}", indent=2)
    _print_attempts(console, audit)
    _print_lineage(console, audit)
    if output is not None and audit.other_text is not None:
        compare = screen.command(f"diff {screen.short(audit.other_text.id)} {screen.short(audit.generation['id'])}")
        screen.print_next(console, [(compare, "shows what changed since the content before")])


def _facts(audit: Audit) -> list[tuple[str, Any]]:
    row, run = audit.generation, audit.run
    status = screen.status(row["status"])
    if row["error_kind"]:
        status.append(f" ({visible(row['error_kind'])})")
    template = row["template_hash"]
    if audit.template is not None:
        template += f" ({', '.join(audit.template['sources'])})"
    source = audit.source
    return [
        ("generation", row["id"]),
        ("status", status),
        ("record key", row["record_key"]),
        ("flow, step", f"{row['flow']}, {row['step']}"),
        ("endpoint", row["endpoint"]),
        ("created", f"{screen.moment(row['created_at'])} UTC, origin {row['origin']}"),
        *([("reuses", f"{source['id']}, created {screen.moment(source['created_at'])} UTC")] if source else []),
        *([("replaced by", row["replaced_by"])] if row["replaced_by"] else []),
        *(
            (name, f"{near.id}, {near.status}, {screen.moment(near.created_at)} UTC")
            for name, near in (("the one before", audit.before), ("the one after", audit.after))
            if near is not None
        ),
        ("run", f"{row['run_id']} ({run.get('status', '')}{', a trial' if run.get('trigger') == TRY else ''})"),
        ("Prefect flow run", run.get("prefect_flow_run_id") or "none"),
        ("code", run.get("code_version", "")),
        ("template hash", template),
        ("record hash", row["record_hash"] or "none"),
        ("prompt hash", row["prompt_hash"] or "none, it was not rendered"),
        *([("output hash", row["output_hash"])] if row["output_hash"] else []),
    ]


def _print_attempts(console: Console, audit: Audit) -> None:
    asked_by = " of the generation that it reuses" if audit.source is not None else ""
    screen.section(console, f"Attempts{asked_by}")
    if not audit.attempts:
        screen.print_text(console, "none, no request was made", indent=2)
        return
    numbers = ("in", "cache write", "cache read", "out", "cost", "time")
    rows = [
        (
            attempt["ordinal"],
            attempt["kind"],
            screen.moment(attempt["started_at"]),
            _ended(attempt),
            _tokens(attempt["input_tokens"]),
            _tokens(attempt["cache_creation_5m_tokens"], attempt["cache_creation_1h_tokens"]),
            _tokens(attempt["cache_read_tokens"]),
            _tokens(attempt["output_tokens"]),
            _cost(attempt),
            "" if attempt["latency_ms"] is None else f"{attempt['latency_ms']:,} ms",
            attempt["request_id"] or "",
        )
        for attempt in audit.attempts
    ]
    _print_table(console, ["", "kind", "started (UTC)", "ended", *numbers, "request id"], rows, numbers)
    costs = [attempt["cost_usd"] for attempt in audit.attempts if attempt["cost_usd"] is not None]
    if len(costs) > 1:
        console.print(f"  total ${sum(costs):,.6f}")
    for attempt in audit.attempts:
        _print_details(console, attempt)


def _cost(attempt: Mapping[str, Any]) -> str:
    if attempt["cost_usd"] is not None:
        return f"${attempt['cost_usd']:,.6f}"
    if attempt["error_type"] in PERHAPS_BILLED and attempt["likely_cost_usd"] is not None:
        return f"${attempt['likely_cost_usd']:,.6f} if billed"
    return ""


def _print_details(console: Console, attempt: Mapping[str, Any]) -> None:
    number = attempt["ordinal"]
    if attempt["request_changes"]:
        screen.turn(console, f"attempt {number}: changes to the prompt", screen.pretty(attempt["request_changes"]))
    if attempt["validation_errors"]:
        screen.turn(console, f"attempt {number}: answer", attempt["output_text"] or "")
        faults = "\n".join(
            f"{fault['where'] or 'whole answer'}: {fault['what']}" for fault in attempt["validation_errors"]
        )
        screen.turn(console, f"attempt {number}: why it was invalid", faults)
    elif attempt["stop_reason"] not in (None, "end_turn", "stop_sequence"):
        screen.turn(console, f"attempt {number}: answer", attempt["output_text"] or "")


def _print_lineage(console: Console, audit: Audit) -> None:
    if audit.parents:
        screen.section(console, "Made from")
        parents = [(parent.step, parent.record_key, parent.id) for parent in audit.parents]
        _print_table(console, ["step", "record", "generation"], parents)
    if audit.children:
        screen.section(console, "Used for")
        children = [(step, key, screen.status(status), identifier) for identifier, step, key, status in audit.children]
        _print_table(console, ["step", "record", "status", "generation"], children)


def _print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()
) -> None:
    console.print(Padding(screen.table(columns, rows, right), (0, 0, 0, 2)))


def _output(audit: Audit) -> Any:
    return (audit.source or audit.generation)["output"]


def _ended(attempt: Mapping[str, Any]) -> str:
    if attempt["ended_at"] is None:
        return "not yet, or its process crashed; may be billed"
    status = f"HTTP {attempt['http_status']}" if attempt["http_status"] else "no answer"
    return f"{status} {attempt['error_type'] or attempt['stop_reason'] or ''}".strip()


def _tokens(*numbers: int | None) -> str:
    known = [number for number in numbers if number is not None]
    return f"{sum(known):,}" if known else ""

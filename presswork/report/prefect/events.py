"""Send events to Prefect's server when a run ends: how it ended, for automations, and which content it made.

They hold ids, counts and cost, never a text, a record's key or a password. Asset events show in Prefect's catalog which
content was made from what. They are sent here and not by the chunks' tasks, as an asset is the content of a step, not
of a chunk. Keys name databases by kind, host and name, without user, password or query.
"""

import re
from collections.abc import Mapping

from prefect.events import emit_event
from sqlalchemy import URL

from db.words import CANCELLED, CAPPED, COMPLETED, FAILED, PROGRAM, SUSPENDED
from presswork.report.summary import COUNTS, Summary

ENDINGS = {COMPLETED: COMPLETED, CAPPED: COMPLETED, CANCELLED: CANCELLED, SUSPENDED: SUSPENDED}
VIEW = "current_content"


def tell_ending(summary: Summary, flow_run_id: str) -> None:
    """Send `presswork.run.completed`, `.failed`, `.cancelled` or `.suspended`; a run that reached its cap completed."""
    emit_event(
        event=f"presswork.run.{ENDINGS.get(summary.status, FAILED)}",
        resource={
            "prefect.resource.id": f"presswork.run.{summary.run_id}",
            "prefect.resource.name": summary.flow,
            "presswork.status": summary.status,
            "presswork.endpoint": summary.endpoint,
        },
        related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}],
        payload={
            **{name: getattr(summary, name) for name in ("records", *COUNTS, "requests")},
            "cost_usd": None if summary.cost_usd is None else str(summary.cost_usd),
            "wall_s": summary.wall_s,
        },
    )


def tell_assets(summary: Summary, ledger: URL, read_from: Mapping[str, URL]) -> None:
    """Report to Prefect what each step made: its part of the ledger's view, from its template and the data it read.

    `read_from` has the source's URL for each template that selects; a later step is made from the one before it.
    """
    for step in summary.steps:
        if not (step.succeeded or step.cached):
            continue
        made_from = [asset_key(ledger, "templates", step.step)]
        if step.step in read_from:
            made_from.append(asset_key(read_from[step.step]))
        if step.made_from:
            made_from.append(asset_key(ledger, VIEW, summary.flow, step.made_from))
        for key in made_from:
            emit_event(event="prefect.asset.referenced", resource={"prefect.resource.id": key})
        emit_event(
            event="prefect.asset.materialization.succeeded",
            resource={
                "prefect.resource.id": asset_key(ledger, VIEW, summary.flow, step.step),
                "prefect.resource.name": f"{summary.flow} / {step.step}",
                "prefect.asset.description": f"Rows of the ledger's view {VIEW}.",
            },
            related=[
                *({"prefect.resource.id": key, "prefect.resource.role": "asset"} for key in made_from),
                {"prefect.resource.id": PROGRAM, "prefect.resource.role": "asset-materialized-by"},
            ],
            payload={"run_id": summary.run_id, "new": step.succeeded, "cached": step.cached},
        )


def asset_key(database: URL, *parts: str) -> str:
    """Name a database, or something in it, as an asset: `postgresql://db.example-5432/shop/current_content`."""
    name = str(database.database or "").rpartition("/")[2] or "database"
    host = f"{database.host}-{database.port}" if database.port else database.host or "local"
    path = "/".join(_plain(part) for part in (host, name, *parts))
    return f"{_plain(database.get_backend_name())}://{path}"


def _plain(text: str) -> str:
    # Prefect's keys allow no spaces, quotes or braces: replace them by a hyphen. Keep letters of all scripts, because
    # without them two names would be one asset.
    return re.sub(r"[^A-Za-z0-9._\-\x80-\U0010ffff]+", "-", text)

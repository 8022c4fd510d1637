"""Assets: what a run has made, told to Prefect, so that its catalog and its events say what comes from what.

Sent when the run ends, and not by the chunks' tasks: an asset is a step's content, not a chunk's. Keys name databases
by kind, host and name; no user, no password, no query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from prefect.events import emit_event
from sqlalchemy import URL

from flows.engine.report.summary import StepSummary, Summary

VIEW = "current_content"


def tell_assets(summary: Summary, ledger: URL, read_from: Mapping[str, URL]) -> None:
    """Tell Prefect what each step made: its part of the ledger's view, of its template and of what it read.

    `read_from` has the source's URL of each template that selects; a later step is made from the one before it.
    """
    for step in summary.steps:
        if not (step.succeeded or step.cached):
            continue
        made_from = list(_made_from(step, summary.flow, ledger, read_from))
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
                {"prefect.resource.id": "presswork", "prefect.resource.role": "asset-materialized-by"},
            ],
            payload={"run_id": summary.run_id, "new": step.succeeded, "cached": step.cached},
        )


def _made_from(step: StepSummary, flow: str, ledger: URL, read_from: Mapping[str, URL]) -> list[str]:
    keys = [asset_key(ledger, "templates", step.step)]
    if step.step in read_from:
        keys.append(asset_key(read_from[step.step]))
    if step.made_from:
        keys.append(asset_key(ledger, VIEW, flow, step.made_from))
    return keys


def asset_key(database: URL, *parts: str) -> str:
    """Name a database, or something in it, as an asset: `postgresql://db.example-5432/shop/current_content`."""
    name = str(database.database or "").rpartition("/")[2] or "database"
    host = f"{database.host}-{database.port}" if database.port else database.host or "local"
    path = "/".join(_plain(part) for part in (host, name, *parts))
    return f"{_plain(database.get_backend_name())}://{path}"


def _plain(text: str) -> str:
    # Prefect's keys take no spaces, quotes or braces; a name that has such is told without them. Letters of all
    # scripts stay: without them two names would be one asset.
    return re.sub(r"[^A-Za-z0-9._\-\x80-\U0010ffff]+", "-", text)

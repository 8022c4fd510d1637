"""Send Prefect's server an event when a run ends, for which automations can wait.

Ids, counts and cost; never a text, a record's key or a password.
"""

from __future__ import annotations

from prefect.events import emit_event

from db.words import CANCELLED, CAPPED, COMPLETED, FAILED
from flows.engine.report.summary import COUNTS, Summary

ENDINGS = {COMPLETED: COMPLETED, CAPPED: COMPLETED, CANCELLED: CANCELLED}


def tell_ending(summary: Summary, flow_run_id: str) -> None:
    """Send `presswork.run.completed`, `.failed` or `.cancelled`; a run that met its cost cap has completed."""
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

"""Triage each support ticket, then draft a reply to those that can be answered now: two steps and a condition."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run


class Tickets(Selection):
    """Which tickets to select."""

    language: str | None = Field(
        None, title="Language", description="Select one language, such as `en`. Leave empty for all.", examples=["en"]
    )


@flow(name="support-replies", flow_run_name="support-replies {selection}")
async def support_replies(selection: Tickets = Tickets(), options: RunOptions = RunOptions()) -> Summary:
    """Triage the tickets, and draft a reply to each one that can be answered now."""
    async with open_run(options) as run:
        tickets = run.select("support_triage", selection)
        triaged = await run.generate("support_triage", tickets)
        answerable = triaged.where(lambda t: t.output.answerable and not t.output.urgent)
        await run.generate("support_reply", answerable)
        return run.summary()

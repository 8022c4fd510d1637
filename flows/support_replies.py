"""Support replies: two steps and a condition. Triage each ticket, then answer those that can be answered at once."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run


class Tickets(Selection):
    """Which tickets."""

    language: str | None = Field(None, title="Language", description="Such as `en`; empty: all.", examples=["en"])


@flow(name="support-replies", flow_run_name="support-replies {selection}")
async def support_replies(selection: Tickets = Tickets(), options: RunOptions = RunOptions()) -> Summary:  # noqa: B008 - both are frozen by use: Prefect copies parameters
    """Triage the tickets and draft a reply where triage says that one can be given."""
    async with open_run(options) as run:
        tickets = run.select("support_triage", selection)
        triaged = await run.generate("support_triage", tickets)
        answerable = triaged.where(lambda t: t.output.answerable and not t.output.urgent)
        await run.generate("support_reply", answerable)
        return run.summary()

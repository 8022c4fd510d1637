"""Newsletter: fan-out and fan-in, twice. Summaries of articles, one digest of them, five subject lines, one choice."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run

SUBJECT_LINES = 5


class Articles(Selection):
    """Which articles."""

    section: str | None = Field(None, title="Section", description="Such as `tea`; empty: all.", examples=["tea"])


@flow(name="newsletter", flow_run_name="newsletter {selection}")
async def newsletter(selection: Articles = Articles(), options: RunOptions = RunOptions()) -> Summary:  # noqa: B008 - both are frozen by use: Prefect copies parameters
    """Write the newsletter and choose its subject line, with the reason."""
    async with open_run(options) as run:
        articles = run.select("newsletter_summary", selection)
        summaries = await run.generate("newsletter_summary", articles)
        digest = await run.generate("newsletter_digest", summaries.together())
        subjects = await run.generate("newsletter_subject", digest, variants=SUBJECT_LINES)
        await run.generate("newsletter_choice", subjects.together())
        return run.summary()

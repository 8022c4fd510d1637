"""Write a newsletter: a summary of each article, one digest, five subject lines, and the choice of one."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run

SUBJECT_LINES = 5


class Articles(Selection):
    """Which articles to select."""

    section: str | None = Field(
        None, title="Section", description="Select one section, such as `tea`. Leave empty for all.", examples=["tea"]
    )


@flow(name="newsletter", flow_run_name="newsletter {selection}")
async def newsletter(selection: Articles = Articles(), options: RunOptions = RunOptions()) -> Summary:
    """Write the newsletter and choose its subject line, with the reason."""
    async with open_run(options) as run:
        articles = run.select("newsletter_summary", selection)
        summaries = await run.generate("newsletter_summary", articles)
        digest = await run.generate("newsletter_digest", summaries.together())
        subjects = await run.generate("newsletter_subject", digest, variants=SUBJECT_LINES)
        await run.generate("newsletter_choice", subjects.together())
        return run.summary()

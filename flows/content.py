"""Content: any template that selects its own records, as a job of one step and without a line of Python."""

from typing import Annotated, Any

from prefect import flow

from presswork import Help, RunOptions, Summary, TemplateName, open_run

Params = Annotated[dict[str, Any] | None, Help("The template's params by name; empty: their defaults.")]


@flow(name="content", flow_run_name="{template}")
async def content(
    template: TemplateName,
    params: Params = None,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen by use: Prefect copies parameters
) -> Summary:
    """Generate one template's content for all records that it selects."""
    async with open_run(options, flow=template) as run:
        records = run.select(template, params)
        await run.generate(template, records)
        return run.summary()

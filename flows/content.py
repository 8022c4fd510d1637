"""Run any template that selects its own records, as a job of one step without Python."""

from typing import Annotated, Any

from prefect import flow

from presswork import Help, RunOptions, Summary, TemplateName, open_run

Params = Annotated[dict[str, Any] | None, Help("The template's params by name. Leave empty for their defaults.")]


@flow(name="content", flow_run_name="{template}")
async def content(
    template: TemplateName,
    params: Params = None,
    options: RunOptions = RunOptions(),
) -> Summary:
    """Generate content for all records that a template selects."""
    async with open_run(options, flow=template) as run:
        records = run.select(template, params)
        await run.generate(template, records)
        return run.summary()

"""Product copy: one step. For each product of a category, the words of its page in the shop."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run


class Products(Selection):
    """Which products."""

    category: str | None = Field(None, title="Category", description="Such as `tea`; empty: all.", examples=["tea"])


@flow(name="product-copy", flow_run_name="product-copy {selection}")
async def product_copy(selection: Products = Products(), options: RunOptions = RunOptions()) -> Summary:  # noqa: B008 - both are frozen by use: Prefect copies parameters
    """Write the product copy for the shop's pages."""
    async with open_run(options) as run:
        products = run.select("product_copy", selection)
        await run.generate("product_copy", products)
        return run.summary()

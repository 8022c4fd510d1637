"""Write the shop page of each product, in one step."""

from prefect import flow
from pydantic import Field

from presswork import RunOptions, Selection, Summary, open_run


class Products(Selection):
    """Which products to select."""

    category: str | None = Field(
        None, title="Category", description="Select one category, such as `tea`. Leave empty for all.", examples=["tea"]
    )


@flow(name="product-copy", flow_run_name="product-copy {selection}")
async def product_copy(selection: Products = Products(), options: RunOptions = RunOptions()) -> Summary:
    """Write the product copy of the shop's pages."""
    async with open_run(options) as run:
        products = run.select("product_copy", selection)
        await run.generate("product_copy", products)
        return run.summary()

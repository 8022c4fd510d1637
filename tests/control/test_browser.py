"""The control room as an operator has it: Prefect's UI in a real Chromium, from the form to the rows in the ledger."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect
from prefect import get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import Worker

from flows.control.deployments import deploy
from tests.control.chromium import PATIENCE_MS, field, find_chromium, open_page, picture
from tests.engine.workshop import Workshop, eventually
from tests.flows.workers import shipped_pool

pytestmark = [pytest.mark.prefect, pytest.mark.browser, pytest.mark.slow]


async def test_operator_fills_in_the_form_and_reads_what_the_run_came_to(
    shop: Workshop, prefect_api: str, tmp_path: Path
) -> None:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("there is no chromium on this machine: `apt-get install chromium` brings one")

    ui = prefect_api.removesuffix("/api")
    async with shipped_pool(tmp_path) as pool, open_page(chromium) as page:
        await deploy(work_pool=pool.name, say=lambda _line: None)
        await pool.worker()
        await eventually(lambda: workers_of(pool.name), bool, within_s=60)
        await page.goto(f"{ui}/deployments")
        await page.get_by_role("link", name="nightly").click()
        await page.get_by_role("button", name="Run", exact=True).click()
        await page.get_by_text("Custom run").click()
        await field(page, "Category").fill("tea")
        await field(page, "Limit").fill("5")
        await picture(page, "form")

        # A form that is filled in wrong is refused, and says why.
        await field(page, "Limit").fill("0")
        await page.get_by_role("button", name="Submit").click()
        await expect(page.get_by_text("0 is less than the minimum of 1").first).to_be_visible()
        assert shop.requests == 0

        await field(page, "Limit").fill("5")
        await page.get_by_role("button", name="Submit").click()
        await page.wait_for_url(re.compile(r"/deployments/deployment/[0-9a-f-]+(\?.*)?$"))
        async with get_client() as client:
            of_pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool.name]))
            found = await client.read_flow_runs(work_pool_filter=of_pool)
        (flow_run,) = (one for one in found if not one.auto_scheduled)
        await page.goto(f"{ui}/runs/flow-run/{flow_run.id}")
        await expect(page.get_by_text("Completed", exact=True).first).to_be_visible(timeout=PATIENCE_MS)
        # The page learns of what came late when it is opened.
        await page.reload()
        await page.locator(".p-tab", has_text="Artifacts").click()
        summary = page.locator("a[href*='/artifacts/artifact/']", has_text="presswork-summary")
        await expect(summary.first).to_be_visible()
        await picture(page, "run")
        await summary.first.click()
        await expect(page.get_by_text("This ran on the sandbox")).to_be_visible()
        text = await page.locator("body").inner_text()
        await picture(page, "artifact")

    (run,) = shop.rows("SELECT * FROM runs")
    assert (run["flow"], run["status"], run["trigger"]) == ("product_copy", "completed", "deployment")
    assert run["deployment"] == "product-copy/nightly"
    assert run["id"] in text
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 5
    assert shop.requests == 5


async def workers_of(pool: str) -> list[Worker]:
    async with get_client() as client:
        return await client.read_workers_for_work_pool(pool)

"""The control room as an operator has it: Prefect's UI in a real Chromium, from the form to the rows in the ledger.

What Prefect's form sends for a field that is filled in, cleared, or never touched was seen in both of Prefect 3.8's
UIs: a field that is cleared is left out, also one that has a default, and so is a date.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Locator, Page, Request, Response, expect
from playwright.async_api import TimeoutError as PlaywrightTimeoutError
from prefect import flow, get_client
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import Worker
from prefect.utilities.callables import parameter_schema

from db.words import POOL
from flows.content import content
from presswork import RunOptions, Selection
from presswork.operate.deployments import deploy
from presswork.operate.forms import form_of_template, polished
from presswork.prompts.front_matter import Param
from tests.engine.workshop import Workshop, eventually
from tests.operate.chromium import PATIENCE_MS, field, find_chromium, open_page, picture
from tests.waiting import until
from tests.workers import work_pool

BUSY = 503

pytestmark = [pytest.mark.prefect, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def chromium() -> str:
    """The path of a chromium that is already there."""
    found = find_chromium()
    if found is None:
        pytest.skip("there is no chromium on this machine: `apt-get install chromium` brings one")
    return found


async def test_operator_fills_in_the_form_and_reads_what_the_run_came_to(
    shop: Workshop, prefect_api: str, chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ui = prefect_api.removesuffix("/api")
    monkeypatch.setenv("PRESSWORK_AUDIT_URL", "http://127.0.0.1:4201")
    async with work_pool(tmp_path, POOL) as pool, open_page(chromium) as page:
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
        assert (await submit(page)).status == 409
        await expect(page.get_by_text("0 is less than the minimum of 1").first).to_be_visible()
        assert shop.requests == 0

        await field(page, "Limit").fill("5")
        assert (await submit(page)).status == 201
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
        page_of_run = await page.locator("a[href^='http://127.0.0.1:4201/runs/']").get_attribute("href")
        await picture(page, "artifact")

    (run,) = shop.rows("SELECT * FROM runs")
    assert (run["flow"], run["status"], run["trigger"]) == ("product_copy", "completed", "deployment")
    assert run["deployment"] == "product-copy/nightly"
    assert run["id"] in text
    assert page_of_run == f"http://127.0.0.1:4201/runs/{run['id']}"
    assert shop.value("SELECT count(*) FROM current_content WHERE step = 'product_copy'") == 5
    assert shop.requests == 5


async def submit(page: Page) -> Response:
    """Click Submit until the form is sent and answered.

    On a busy machine a click right after the last answer does nothing, and Prefect's server says 503 while its database
    is locked.
    """
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if "create_flow_run" in request.url else None)
    for _attempt in range(6):
        with suppress(PlaywrightTimeoutError):
            await page.get_by_role("button", name="Submit").click(timeout=10_000)
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await until(lambda: sent, pause_s=0.1)
        if sent:
            answer = await sent.pop().response()
            assert answer is not None
            if answer.status != BUSY:
                return answer
    raise AssertionError("Submit sends nothing, or Prefect's server is too busy")


async def workers_of(pool: str) -> list[Worker]:
    async with get_client() as client:
        return await client.read_workers_for_work_pool(pool)


# What a form sends

PARAMS = {
    "word": Param(default=None),
    "tone": Param(default="plain"),
    "copies": Param(type="int", default=None),
    "price": Param(type="float", default=None),
    "since": Param(type="date", default=None),
    "moment": Param(type="datetime", default=None),
    "size": Param(choices=["small", "large"], default=None),
    "urgent": Param(type="bool", default=None),
}


class Picked(Selection):
    """The same as a flow's own form."""

    word: str | None = None
    tone: str = "plain"
    copies: int | None = None
    price: float | None = None
    since: date | None = None
    moment: datetime | None = None
    size: Literal["small", "large"] | None = None
    urgent: bool | None = None


NO_SELECTION, NO_OPTIONS = Picked(), RunOptions()


@flow(name="picked")
async def picked(selection: Picked = NO_SELECTION, options: RunOptions = NO_OPTIONS) -> None:
    """Take a selection."""


FILLED = {
    "word": "tea",
    "tone": "warm",
    "copies": 3,
    "price": 2.5,
    "since": date(2026, 11, 15),
    "moment": datetime(2026, 11, 15, tzinfo=UTC),
    "size": "small",
    "urgent": True,
}
NOTHING = {**dict.fromkeys(PARAMS), "tone": "plain"}


async def test_cleared_field_is_null_and_a_nested_date_arrives(prefect_api: str, chromium: str) -> None:
    forms = {
        "params": ("content", form_of_template(PARAMS, parameter_schema(content).model_dump(exclude_unset=True))),
        "selection": ("picked", polished(parameter_schema(picked).model_dump(exclude_unset=True))),
    }
    async with open_page(chromium) as page:
        for part, (flow_name, form) in forms.items():
            url = f"{prefect_api.removesuffix('/api')}/deployments/deployment/{await deploy_form(flow_name, form)}/run"

            await opened(page, url)
            assert taken(part, await submitted(page, part)) == NOTHING

            await opened(page, url)
            await fill(page)
            assert taken(part, await submitted(page, part)) == FILLED

            await opened(page, url)
            await fill(page)
            await clear(page)
            sent = await submitted(page, part)
            assert sent.get("urgent") is None
            assert set(sent) <= {"urgent"}, "a field that is cleared is left out"
            assert taken(part, sent) == NOTHING


async def deploy_form(flow_name: str, form: dict[str, Any]) -> str:
    async with get_client() as client:
        made = await client.create_deployment(
            await client.create_flow_from_name(flow_name),
            "form",
            parameters={"template": "form"} if "params" in form["properties"] else {},
            parameter_openapi_schema=form,
            enforce_parameter_schema=True,
        )
    return str(made)


def taken(part: str, sent: dict[str, Any]) -> dict[str, Any]:
    """What a run's select is given for what the form has sent."""
    given = Picked.model_validate(sent).values() if part == "selection" else sent
    return {name: param.parse(name, given[name]) if name in given else param.default for name, param in PARAMS.items()}


async def opened(page: Page, url: str) -> None:
    await page.goto(url)
    await page.get_by_text("Urgent (Optional)", exact=True).wait_for()
    await page.wait_for_load_state("networkidle")


async def submitted(page: Page, part: str) -> dict[str, Any]:
    """Send the form; what it has sent of this part, which Prefect's server must have taken."""
    answer = await submit(page)
    assert answer.status == 201, await answer.text()
    body: Any = answer.request.post_data_json
    sent: dict[str, Any] = body["parameters"].get(part, {})
    return sent


def around(page: Page, label: str) -> Locator:
    titled = page.locator(".schema-form-property__label").get_by_text(f"{label} (Optional)", exact=True)
    return page.locator(".schema-form-property").filter(has=titled).last


async def fill(page: Page) -> None:
    for label, value in {"Word": "tea", "Tone": "warm", "Copies": "3", "Price": "2.5"}.items():
        await around(page, label).locator("input, textarea").first.fill(value)
    for label in ("Since", "Moment"):
        await around(page, label).locator(".p-date-button__control").click()
        chosen = page.locator("input[type=date], input[type=datetime-local]").last
        await chosen.fill("2026-11-15")
        await page.get_by_role("button", name="Apply").click()
    # Its list opens by a key, once the calendar before it has closed and given back the focus.
    listed = page.get_by_text("small", exact=True)
    for _attempt in range(20):
        await around(page, "Size").locator(".p-select-button__control").last.focus()
        await page.keyboard.press("ArrowDown")
        await page.wait_for_timeout(500)
        if await listed.count():
            break
    await listed.last.click()
    await around(page, "Urgent").get_by_text("bool", exact=True).click()
    await around(page, "Urgent").locator("input[type=checkbox]").last.evaluate("switch_ => switch_.click()")


async def clear(page: Page) -> None:
    for label in ("Word", "Tone", "Copies", "Price"):
        await around(page, label).locator("input, textarea").first.fill("")
    for label in ("Since", "Moment"):
        await around(page, label).locator("button").nth(2).evaluate("cross => cross.click()")
    await around(page, "Size").locator("button").first.click()
    await page.get_by_text("Omit value").last.click()
    await around(page, "Urgent").get_by_text("None", exact=True).click()

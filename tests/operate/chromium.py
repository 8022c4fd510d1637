"""A chromium that is already there, driven by Playwright, and what the tests know of the pages of Prefect's UI."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Locator, Page, async_playwright, expect

SCREENSHOTS = os.environ.get("PRESSWORK_SCREENSHOTS")
"""A folder for the pictures of the docs: `PRESSWORK_SCREENSHOTS=docs/images pytest -m browser` takes them again."""
SIZE = {"width": 1200, "height": 960}
PATIENCE_MS = 60_000


def find_chromium() -> str | None:
    """The path of a chromium, or None."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


@asynccontextmanager
async def open_page(chromium: str) -> AsyncIterator[Page]:
    """Open a page of a new browser."""
    async with async_playwright() as playwright:
        # Root, as whom CI may run, has no sandbox of chromium's.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)  # of all pages: there is no other way
            yield page
        finally:
            await browser.close()


def field(page: Page, label: str) -> Locator:
    """The field of a form below this label."""
    titled = page.locator(".schema-form-property__label", has_text=label)
    return page.locator(".schema-form-property").filter(has=titled).last.locator("input, textarea").first


async def picture(page: Page, name: str) -> None:
    """Take a picture for the docs, where that is asked for."""
    if SCREENSHOTS:
        await page.wait_for_timeout(1000)  # until what moves has come to rest
        await page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")

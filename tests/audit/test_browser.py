"""The audit room in a real Chromium under its real policy: every page, light and dark, wide and narrow, by keyboard."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, async_playwright

from bench.audit.made_ledger import make_ledger
from tests.audit.audited import HOSTILE, Audited, add_hostile, audited, quick, sandbox, workshop
from tests.commands.test_audit_command import serving
from tests.operate.chromium import SCREENSHOTS, find_chromium

__all__ = ["audited", "quick", "sandbox", "workshop"]

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AXE = Path(__file__).with_name("axe") / "axe.min.js"
SIZES = {"wide": (1200, 900), "narrow": (390, 844)}
QUICK_LOOKS = [("light", "wide", True), ("dark", "narrow", True), ("light", "narrow", False)]
"""Each scheme, each size, with and without scripts; `make soak` has all others."""
PAGES = {
    "overview": "/",
    "overview of a period": "/?since=2026-06-01&until=2026-09-01",
    "overview of no day": "/?since=1999-01-01&until=1999-02-01",
    "runs": "/runs",
    "runs by cost": "/runs?sort=cost",
    "trials": "/runs?trigger=try",
    "run": "/runs/RUN",
    "generations": "/generations",
    "failures": "/generations?status=refused",
    "search": "/generations?words=WORDS",
    "nothing": "/generations?key=nobody",
    "generation": "/generations/ID",
    "record": "/records?flow=product_copy&key=TEA-001",
    "difference": "/difference?of=answer&a=ID_A&b=ID_B",
    "difference of prompts": "/difference?of=prompt&a=ID_A&b=ID_B",
    "difference of records": "/difference?of=record&a=ID_A&b=ID_B",
    "difference of templates": "/difference?of=template&name=product_copy&a=HASH_A&b=HASH_B",
    "templates": "/templates",
    "template": "/templates/product_copy",
    "compare": "/templates/product_copy/compare?a=HASH_A&b=HASH_B",
    "hostile generation": "/generations/HOSTILE_ID",
    "hostile record": "/records?flow=product_copy&key=HOSTILE_KEY",
    "hostile search": "/generations?words=HOSTILE_KEY",
    "no such page": "/nowhere",
    "no such run": "/runs/0",
    "no filter": "/generations?status=HOSTILE_KEY",
    "wrong period": "/?since=2026-09-01&until=2026-06-01",
}
TOO_SLOW = 503  # two seconds may be too short for a test while others use the machine
PATIENCE = 5
"""How many times a page that took too long is asked for again before the test fails."""
FAULTY = {"no such page": 404, "no such run": 404, "no filter": 422, "wrong period": 422}
PICTURES = {
    "audit-generation": "/generations/ID",
    "audit-record": "/records?flow=product_copy&key=TEA-001",
    "audit-difference": "/difference?of=answer&a=ID_A&b=ID_B",
    "audit-compare": "/templates/product_copy/compare?a=HASH_A&b=HASH_B",
}
ON_A_PHONE = "audit-record"
PICTURES_OF_A_YEAR = {
    "audit-overview": "/?since=2025-02-01&until=2026-02-01",
    "audit-template": "/templates/product_copy",
}
FOCUSED = """() => {
  const at = document.activeElement;
  if (['BODY', 'MAIN'].includes(at.tagName)) return '';
  const address = at.getAttribute('href') || '';
  return `${at.getAttribute('aria-label') || at.innerText || at.name || ''} ${address}`.trim();
}"""


@pytest.fixture
def chromium() -> str:
    """The path of a chromium that is already there."""
    found = find_chromium()
    if found is None:
        pytest.skip("there is no chromium on this machine: `apt-get install chromium` brings one")
    return found


@dataclass
class Visit:
    """A page of a browser, and what went wrong on it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)
    status: int = 0

    def watch(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))

    async def open(self, path: str) -> int:
        """Open a page; returns its status."""
        await self.page.goto(self.url + path)
        await self._until_answered()
        return self.status

    async def arrive(self, address: str) -> None:
        """Wait for the page that a key or a click leads to."""
        await self.page.wait_for_url(re.compile(address))
        await self._until_answered()

    async def choose(self, theme: str) -> None:
        async with self.page.expect_navigation():
            await self.page.get_by_role("button", name=theme).click()
        await self._until_answered()

    async def _until_answered(self) -> None:
        for _again in range(PATIENCE):
            if self.status == TOO_SLOW:
                await self.page.reload()

    def _heard(self, message: ConsoleMessage) -> None:
        # Chromium says of every page with another status that it failed to load.
        if "the server responded with a status of" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.request.is_navigation_request():
            self.status = response.status

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.problems.append(f"foreign: {request.url}")


@pytest.fixture
def site(audited: Audited) -> Iterator[tuple[Audited, str]]:
    """The audit room of the demo's ledger, served as a person serves it, and the values for its addresses."""
    hostile_id = add_hostile(audited.shop)
    values = audited.values | {"HOSTILE_ID": hostile_id, "HOSTILE_KEY": quote(HOSTILE, safe="")}
    with serving("--port", "0") as (_process, told):
        yield Audited(audited.shop, values), told["url"]


def address(found: Audited, path: str) -> str:
    for name in ("HOSTILE_ID", "HOSTILE_KEY"):
        path = path.replace(name, found.values[name])
    return found.filled(path)


@asynccontextmanager
async def visiting(
    browser: Browser, url: str, *, scheme: str = "light", size: str = "wide", scripts: bool = True
) -> AsyncIterator[Visit]:
    """Open a context of its own: a colour scheme is a context's."""
    width, height = SIZES[size]
    context = await browser.new_context(
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": width, "height": height},
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    try:
        visit = Visit(await context.new_page(), url)
        visit.watch()
        yield visit
    finally:
        await context.close()


@asynccontextmanager
async def browsing(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Root, as whom CI may run, has no sandbox of chromium's.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


def test_axe_is_the_one_that_was_noted() -> None:
    noted = (AXE.parent / "VENDORED.md").read_text(encoding="utf-8")
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() in noted
    assert "Mozilla Public License" in (AXE.parent / "LICENSE").read_text(encoding="utf-8")


def looks() -> Iterator[Any]:
    rest = [look for look in itertools.product(("light", "dark"), SIZES, (True, False)) if look not in QUICK_LOOKS]
    for marks, found in ((), QUICK_LOOKS), (pytest.mark.soak, rest):
        for scheme, size, scripts in found:
            name = f"{scheme}-{size}-scripts-{'on' if scripts else 'off'}"
            yield pytest.param(scheme, size, scripts, id=name, marks=marks)


@pytest.mark.parametrize(("scheme", "size", "scripts"), list(looks()))
async def test_every_page_is_well_in_every_look(
    site: tuple[Audited, str], chromium: str, scheme: str, size: str, scripts: bool
) -> None:
    found, url = site
    faults: list[str] = []
    async with (
        browsing(chromium) as browser,
        visiting(browser, url, scheme=scheme, size=size, scripts=scripts) as visit,
    ):
        for name, path in PAGES.items():
            status = await visit.open(address(found, path))
            expected = FAULTY.get(name, 200)
            seen = [f"status {status}"] if status != expected else []
            seen += [f"sideways by {over} px" for over in [await sideways(visit.page)] if over > 0]
            seen += await violations(visit.page) if scripts else []
            seen += visit.problems
            visit.problems.clear()
            faults += [f"{name}: {one}" for one in seen]
    assert faults == [], "\n".join(faults)


async def sideways(page: Page) -> int:
    """By how many pixels the page can be scrolled sideways."""
    root = page.locator("html")
    return int(await root.evaluate("root => root.scrollWidth - root.clientWidth"))


async def violations(page: Page) -> list[str]:
    """What axe finds. It is run by the browser's own debugger, so the policy stays as it is."""
    await page.evaluate(AXE.read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = await page.evaluate("axe.run(document).then(result => result.violations)")
    return [
        f"axe {one['id']} ({one['impact']}): {node['target']} {node['failureSummary']}"
        for one in found
        for node in one["nodes"][:3]
    ]


async def test_reader_filters_and_reads_a_difference_by_keyboard_alone(
    site: tuple[Audited, str], chromium: str
) -> None:
    found, url = site
    async with browsing(chromium) as browser, visiting(browser, url, scripts=False) as visit:
        page = visit.page
        await visit.open("/")
        # The first key leads past the navigation.
        await page.keyboard.press("Tab")
        assert await page.evaluate(FOCUSED) == "Skip to the content #main"
        await page.keyboard.press("Enter")
        await visit.arrive("#main$")

        await press(page, "Generations /generations")
        await visit.arrive("/generations")
        await tab_to(page, "Record")
        await page.keyboard.type("TEA-001")
        await page.keyboard.press("Enter")
        await visit.arrive("key=TEA-001")
        assert "TEA-002" not in await page.locator("main").inner_text()

        await press(page, f"/generations/{found.values['ID']}")
        await visit.arrive(found.values["ID"])
        await press(page, "/difference?of=answer")
        await visit.arrive("/difference")
        assert await page.locator("ins").count()
        assert await page.locator("del").count()
        assert visit.problems == []


async def press(page: Page, name: str) -> None:
    await tab_to(page, name)
    await page.keyboard.press("Enter")


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on what has this in its name or its address, and is seen to be there."""
    for _ in range(300):
        await page.keyboard.press("Tab")
        if name.lower() in (await name_of_focused(page)).lower():
            shown = await page.evaluate(
                "() => { const style = getComputedStyle(document.activeElement);"
                " return style.outlineStyle !== 'none' || style.boxShadow !== 'none' }"
            )
            where = await page.evaluate("document.activeElement.cloneNode(false).outerHTML")
            assert shown, f"nobody sees that {where} has the focus"
            return
    raise AssertionError(f"no key leads to {name!r} on {page.url}")


async def name_of_focused(page: Page) -> str:
    labels = "() => [...(document.activeElement.labels || [])].map(label => label.innerText).join(' ')"
    return f"{await page.evaluate(FOCUSED)} {await page.evaluate(labels)}".strip()


async def test_theme_that_a_reader_chooses_stays(site: tuple[Audited, str], chromium: str) -> None:
    _found, url = site
    async with browsing(chromium) as browser, visiting(browser, url, scripts=False) as visit:
        await visit.open("/runs?sort=cost")
        light = await background(visit.page)
        await visit.choose("Dark")
        assert visit.page.url == f"{url}/runs?sort=cost"
        dark = await background(visit.page)
        assert dark != light
        await visit.open("/templates")
        assert await background(visit.page) == dark
        await visit.choose("Light")
        assert await background(visit.page) == light
        assert visit.problems == []


async def background(page: Page) -> str:
    return str(await page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor"))


@pytest.mark.skipif(not SCREENSHOTS, reason="PRESSWORK_SCREENSHOTS names no folder")
async def test_pictures_of_the_docs(audited: Audited, chromium: str, tmp_path: Path) -> None:
    """Take them wide and in light, and one as on a phone at night."""
    a_year = f"sqlite:///{tmp_path / 'a-year.sqlite'}"
    make_ledger(a_year, 60_000).dispose()
    for ledger, pictures in ((audited.shop.ledger_url, PICTURES), (a_year, PICTURES_OF_A_YEAR)):
        with serving("--port", "0", PRESSWORK_DATABASE_URL=ledger) as (_process, told):
            async with browsing(chromium) as browser:
                await take(browser, told["url"], {name: audited.filled(path) for name, path in pictures.items()})


async def take(browser: Browser, url: str, pictures: Mapping[str, str]) -> None:
    async with visiting(browser, url) as visit:
        for name, path in pictures.items():
            await visit.open(path)
            await visit.page.screenshot(path=Path(SCREENSHOTS or "") / f"{name}.png")
    if ON_A_PHONE in pictures:
        async with visiting(browser, url, scheme="dark", size="narrow") as visit:
            await visit.open(pictures[ON_A_PHONE])
            await visit.page.screenshot(path=Path(SCREENSHOTS or "") / f"{ON_A_PHONE}-phone.png")

"""Whatever is asked of the audit room, the answer is a well-formed page that says what it found or what is wrong."""

from __future__ import annotations

import json
import random
import re
from urllib.parse import quote

import pytest
from html5lib.html5parser import HTMLParser, ParseError

from presswork.audit.app import PAGES
from presswork.audit.page import AnyPage
from presswork.audit.pages.overview_page import overview_page
from tests.audit.audited import HOSTILE, KEY, Audited, add_hostile, audited_on_each, quick, sandbox, workshop_on_each
from tests.audit.conftest import Room

__all__ = ["audited_on_each", "quick", "sandbox", "workshop_on_each"]

TIMES = 300
ALL_PAGES = (overview_page(None), *PAGES)
ANSWERS = {200, 404, 422}
"""Not 500, and not 503: the ledger is there, and small."""
FORMS = ("", "", "", ".json", ".sql")
REAL = [
    *["product_copy", "support_replies", "support_reply", "succeeded", "refused", "live", "cache", "sandbox", KEY],
    *["claude-sonnet-4-6", "command", "answer", "prompt", "record", "template", "cost", "completed", "1", "50"],
    *["2026-01-01", "2026-12-31T23:59:59", "2030-01-01", "ID", "ID_A", "ID_B", "HASH_A", "HASH_B", "RUN", "WORDS"],
]
ODD = [
    *["", " ", "0", "-1", "9" * 50, "1e999", "NaN", "null", "true", "%", "_", "*", "TEA-*", "'", '"', "\\", "\\u0000"],
    *["' OR 1=1 --", "{{ 7 * 7 }}", "../../etc/passwd", "日本語", "🫖", "a" * 1500, "a" * 5000, HOSTILE, "AND OR NOT"],
    *["2026-13-45", "9999-12-31", "0001-01-01", "2026-11-26T10:00:00+14:00", "yesterday", '"a phrase"', "\t\n", "-"],
]
BROKEN = ["%00", "%ff", "%ED%A0%80", "a%00b", "%C0%AF", "%", "%zz", "%0d%0aSet-Cookie:a=b"]
"""Escapes that stand for no text."""


def escaped(chance: random.Random, found: Audited) -> str:
    """A value for a query or a path, as it stands in an address."""
    match chance.random():
        case share if share < 0.6:
            return quote(found.filled(chance.choice(REAL)), safe="")
        case share if share < 0.9:
            return quote(chance.choice(ODD), safe="")
        case _:
            return chance.choice(BROKEN)


def any_address(chance: random.Random, found: Audited, page: AnyPage) -> str:
    """An address of this page: with any of its filters, sometimes twice, sometimes with one that it does not know."""
    in_path = re.findall(r"{(\w+)(?::\w+)?}", page.path)
    path = re.sub(r"{\w+(?::\w+)?}", lambda _found: escaped(chance, found) or "x", page.path)
    form = chance.choice(FORMS)
    names = [name for name in page.query.model_fields if name not in in_path]
    asked = [name for name in names if chance.random() < 2 / (len(names) + 1)]
    if chance.random() < 0.05:
        asked.append(chance.choice([*names, "unknown", "', 1=1", *in_path]))
    query = "&".join(f"{name}={escaped(chance, found)}" for name in asked)
    return f"{'/overview' if form and path == '/' else path}{form}" + (f"?{query}" if query else "")


def faults_in(html: str) -> str:
    try:
        HTMLParser(strict=True).parse(html)
    except ParseError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.slow
def test_any_query_has_an_answer(audited_on_each: Audited, room: Room) -> None:
    hostile_id = add_hostile(audited_on_each.shop)
    pages, chance = room(audited_on_each.shop.ledger_url), random.Random(12)
    wrong: list[str] = []
    for turn in range(TIMES):
        address = any_address(chance, audited_on_each, ALL_PAGES[turn % len(ALL_PAGES)])
        if chance.random() < 0.05:
            address = f"/generations/{hostile_id}"
        answer = pages.get(address)
        kind = answer.headers["content-type"]
        if answer.status_code not in ANSWERS:
            wrong.append(f"{answer.status_code} {address}")
        elif "json" in kind:
            json.loads(answer.text)
        elif "html" in kind and (fault := faults_in(answer.text)):
            wrong.append(f"{fault} {address}")
        assert "script-src 'none'" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
    assert wrong == [], "\n".join(sorted(set(wrong))[:20])

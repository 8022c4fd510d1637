"""Lists of generations hold exactly what plain Python finds, whichever way they are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from db.readers.audit.filters import NO_CAUSE, WITHOUT_CONTENT, Filter, FilterError
from db.readers.audit.generation_lists import list_generations
from db.readers.audit.ways import candidates, matching_ids
from tests.db.audit.made_rows import BEGIN, ENDINGS, FLOWS, MODELS, STARTERS, Library, Made
from tests.db.rows import sha

STEPS = sorted({step for steps in FLOWS.values() for step in steps})


@pytest.fixture
def library(ledger: Engine) -> Library:
    """Runs that overlap, some open, some without a mark, some with late rows."""
    library = Library(ledger, seed=1)
    for number in range(14):
        started = BEGIN + timedelta(minutes=20 * number)
        library.run(started, is_open=number in {5, 13}, mark=number != 9)
    library.run(BEGIN + timedelta(days=3))
    library.late(library.runs[2])
    return library


def drawn(draw: random.Random, library: Library) -> Filter:
    """Draw a filter with a few conditions."""
    moments = sorted(BEGIN + timedelta(minutes=draw.randrange(400)) for _number in range(2))
    chances: dict[str, Any] = {
        "flow": lambda: draw.choice(list(FLOWS)),
        "step": lambda: draw.choice(STEPS),
        "endpoint": lambda: draw.choice(("anthropic", "sandbox")),
        "template": lambda: sha(f"{draw.choice(STEPS)} {draw.randrange(3)}")[:10],
        "model": lambda: draw.choice(MODELS),
        "status": lambda: draw.choice((*ENDINGS, WITHOUT_CONTENT, WITHOUT_CONTENT)),
        "cause": lambda: draw.choice(("other", "failed", "refused", NO_CAUSE)),
        "replaced": lambda: True,
        "origin": lambda: draw.choice(("live", "batch", "cache")),
        "run": lambda: draw.choice(library.runs),
        "trigger": lambda: draw.choice(STARTERS),
        "key": lambda: draw.choice(("a1", "b2", "a*", "b1*", "*", "nothing", "a%*")),
        "since": lambda: moments[0],
        "until": lambda: moments[1] + timedelta(seconds=1),
    }
    chosen = draw.sample(list(chances), draw.choice((0, 1, 1, 1, 2, 2, 3)))
    return Filter(**{name: chances[name]() for name in chosen})


def expected(library: Library, wanted: Filter) -> list[str]:
    """Find the same in plain Python."""
    left_out = set() if wanted.replaced else library.replaced()
    chosen = {run for run, trigger in library.triggers.items() if wanted.trigger in {None, trigger}}
    meant = {made.row.id for made in library.made if made.row.run_id in chosen and is_meant(made, wanted)}
    return sorted(meant - left_out, reverse=True)


def is_meant(made: Made, wanted: Filter) -> bool:
    row = made.row
    is_lacking = wanted.status == WITHOUT_CONTENT and row.status != "succeeded"
    pairs = (
        (wanted.flow, row.flow),
        (wanted.step, row.step),
        (wanted.endpoint, row.endpoint),
        (wanted.model, made.model),
        (wanted.status, WITHOUT_CONTENT if is_lacking else row.status),
        (wanted.origin, row.origin),
        (wanted.cause, row.error_kind or (None if row.status == "succeeded" else NO_CAUSE)),
        (wanted.run, row.run_id),
    )
    key = wanted.key or "*"
    return (
        all(value is None or value == found for value, found in pairs)
        and row.template_hash.startswith(wanted.template or "")
        and (row.record_key.startswith(key[:-1]) if key.endswith("*") else row.record_key == key)
        and (wanted.since is None or row.created_at >= wanted.since)
        and (wanted.until is None or row.created_at < wanted.until)
    )


def pages(ledger: Engine, wanted: Filter, limit: int) -> Iterator[list[str]]:
    before = None
    while True:
        page = list_generations(ledger, wanted, before, limit)
        yield [line.id for line in page.lines]
        before = page.before
        if before is None:
            return


@pytest.mark.parametrize("way", ["cheapest", "by run", "in order", "many keys", "rare cause"])
def test_all_pages_together_are_what_plain_python_finds(
    library: Library, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way in {"by run", "in order"}:
        monkeypatch.setattr(candidates, "_BY_RUN", 0 if way == "by run" else 1e9)
    if way == "many keys":
        monkeypatch.setattr(matching_ids, "FEW_KEYS", 3)
    if way == "rare cause":
        monkeypatch.setattr(matching_ids, "WINDOWS_BY_CAUSE", 1)
    draw = random.Random(7)
    for _number in range(25):
        wanted, limit = drawn(draw, library), draw.choice((9, 50, 200))
        if way == "rare cause":
            wanted = replace(wanted, cause=wanted.cause or "other")
        found = list(pages(library.ledger, wanted, limit))
        assert [each for page in found for each in page] == expected(library, wanted), wanted
        assert all(len(page) == limit for page in found[:-1]), wanted


def test_a_page_that_ends_with_the_list_says_so(library: Library) -> None:
    count = len(expected(library, Filter(flow="copy")))
    assert list_generations(library.ledger, Filter(flow="copy"), limit=count).before is None
    assert list_generations(library.ledger, Filter(flow="copy"), limit=count - 1).before is not None


def test_an_empty_ledger_has_an_empty_list(ledger: Engine) -> None:
    for wanted in (Filter(), Filter(key="a"), Filter(status="failed")):
        assert list_generations(ledger, wanted).lines == []


def test_a_template_that_does_not_exist_is_an_error_and_not_an_empty_list(library: Library) -> None:
    with pytest.raises(FilterError, match=r"no template version 'ffff'\. Available: .*copy"):
        list_generations(library.ledger, Filter(template="ffff"))

"""Versions of templates: when each was in use, and figures that equal what was written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from db.clock import new_id
from db.ledger.rows import TemplateRow, WriteBatch
from db.ledger.writing import add_templates, write
from db.readers.audit.filter_values import values_of_filters
from db.readers.audit.filters import FilterError
from db.readers.audit.template_versions import list_templates, template_versions
from tests.db.rows import DAY, Book, settled_row, sha

OLD = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEW = datetime(2026, 4, 1, 12, tzinfo=UTC)


def version(name: str, number: int, first_seen_at: datetime = OLD) -> TemplateRow:
    sources = {f"{name}.md.j2": f"Write {number}."}
    return TemplateRow(hash=sha(f"{name} {number}"), name=name, sources=sources, first_seen_at=first_seen_at)


@pytest.fixture
def ledger_with_versions(ledger: Engine) -> Engine:
    """An old version in two closed runs, a new one in an open run, one that nobody used, and a step made in code."""
    add_templates(ledger, [version("copy", 1), version("copy", 2), version("copy", 3, NEW), version("copy", 4)])
    first = Book(ledger, started_at=OLD)
    old: dict[str, Any] = {"step": "copy", "template_hash": sha("copy 1")}
    made = first.add("K1", **old)
    first.add("K2", **old, status="invalid", output=None, output_hash=None)
    first.reuse("K3", made, **old)
    first.close()
    second = Book(ledger, started_at=OLD + timedelta(days=1))
    second.add("K1", **old, settled={"cost_usd": None})
    second.close()
    third = Book(ledger, started_at=NEW)
    repaired(third, "K1", step="copy", template_hash=sha("copy 2"))
    third.add("K1", step="in code", template_hash=sha("no template"))
    return ledger


def repaired(book: Book, key: str, **own: str) -> None:
    """Write a generation that needed a repair."""
    batch, generation_id = WriteBatch(), new_id()
    for ordinal, kind in enumerate(("call", "repair"), start=1):
        attempt = book.attempt(batch, key, generation_id, ordinal=ordinal, kind=kind)
        batch.settled.append(settled_row(attempt, cost_usd=Decimal("0.0000000001")))
    book.generation(batch, key, id=generation_id, **own)
    write(book.ledger, batch)


def test_each_version_has_its_use_and_its_figures(ledger_with_versions: Engine) -> None:
    new, old, *unused = template_versions(ledger_with_versions, "copy")
    assert [each.hash for each in (new, old)] == [sha("copy 2"), sha("copy 1")]
    assert (old.use.runs, old.use.first_used_at, old.use.last_used_at) == (2, OLD, OLD + timedelta(days=1))
    assert (new.use.runs, new.use.first_run_id) == (1, new.use.last_run_id)
    figures = old.use.figures
    assert (figures.generations, figures.cached, figures.without_content, figures.requested) == (4, 1, 1, 3)
    assert (figures.usage.cost_usd, figures.usage.unpriced, figures.repairs) == (Decimal("0.02"), 1, 0)
    assert figures.failure_rate == 0.25
    assert figures.output_tokens_each == 100
    assert (new.use.figures.repairs, new.use.figures.cost_each_usd) == (1, Decimal("0.0000000002"))
    assert [each.hash for each in unused] == [sha("copy 3"), sha("copy 4")], "the newest first"


def test_what_ran_on_the_sandbox_is_counted_apart(ledger: Engine) -> None:
    for endpoint, count in (("anthropic", 2), ("sandbox", 3)):
        book = Book(ledger, endpoint=endpoint)
        for number in range(count):
            book.add(f"K{number}", step="copy", endpoint=endpoint, template_hash=sha("copy 1"))
        if endpoint == "anthropic":
            book.close()
    (version,) = template_versions(ledger, "copy")
    assert (version.use.figures.generations, version.use.figures.on_sandbox) == (5, 3)


def test_a_version_that_nobody_used_has_no_rates(ledger_with_versions: Engine) -> None:
    unused = template_versions(ledger_with_versions, "copy")[-1]
    assert unused.sources == {"copy.md.j2": "Write 4."}
    assert (unused.use.first_used_at, unused.use.figures.failure_rate, unused.use.figures.cost_each_usd) == (None,) * 3


def test_a_step_without_a_template_has_versions_without_sources(ledger_with_versions: Engine) -> None:
    (only,) = template_versions(ledger_with_versions, "in code")
    assert (only.hash, only.sources, only.first_seen_at, only.use.runs) == (sha("no template"), None, None, 1)


def test_an_unknown_template_has_no_versions(ledger: Engine) -> None:
    assert template_versions(ledger, "nobody's") == []


def test_the_list_of_templates_counts_a_period_and_names_all(ledger_with_versions: Engine) -> None:
    copy, code, product_copy = list_templates(ledger_with_versions)
    assert (copy.name, copy.versions, copy.last_used, copy.figures.generations) == ("copy", 4, sha("copy 2"), 5)
    assert (code.name, code.versions, code.figures.generations) == ("in code", 1, 1)
    assert (product_copy.name, product_copy.last_used) == ("product_copy", None)
    day_before = list_templates(ledger_with_versions, until=DAY.replace(hour=0))
    assert [(line.name, line.figures.generations) for line in day_before] == [("copy", 0), ("product_copy", 0)]


def test_a_period_the_wrong_way_round_is_an_error(ledger: Engine) -> None:
    with pytest.raises(FilterError, match="Exchange since and until"):
        list_templates(ledger, since=NEW, until=OLD)


def test_the_choices_of_a_form_are_what_was_used(ledger_with_versions: Engine) -> None:
    values = values_of_filters(ledger_with_versions)
    assert (values.flows, values.endpoints) == (["product_copy"], ["sandbox"])
    assert values.steps == ["copy"], "an open run's steps follow when it begins them"
    assert values.models == ["claude-sonnet-4-6"]
    copies = [choice.hash for choice in values.templates if choice.name == "copy"]
    assert copies[:2] == [sha("copy 1"), sha("copy 3")], "the last used first, then the newest"


def test_an_empty_ledger_has_no_choices(ledger: Engine) -> None:
    assert values_of_filters(ledger).flows == []

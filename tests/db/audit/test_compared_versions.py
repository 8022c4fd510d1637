"""The same records under two versions: each record that has both, once, with the newest answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, delete

from db.readers.audit import compared_versions as module
from db.readers.audit.compared_versions import ComparedRecord, VersionAnswer, compared_versions
from db.readers.audit.filters import FilterError
from db.session import begin_write
from db.tables import Generation
from tests.db.rows import Book, sha

A, B = sha("copy 1"), sha("copy 2")


def compare_all(ledger: Engine, limit: int) -> list[ComparedRecord]:
    found, after = [], None
    while True:
        page = compared_versions(ledger, "copy", A, B, after, limit)
        found += page.records
        after = page.after
        if after is None:
            return found


@pytest.fixture
def both(ledger: Engine) -> Engine:
    """Keys 0 to 29 under A, 20 to 49 under B; 25 failed later, 40 to 44 have A on another endpoint."""
    first = Book(ledger)
    for number in range(30):
        first.add(f"K{number:02}", step="copy", template_hash=A)
    first.close()
    second = Book(ledger)
    for number in range(20, 50):
        second.add(f"K{number:02}", step="copy", template_hash=B, output={"title": "New"})
    second.add("K25", step="other", template_hash=A)
    second.close()
    third = Book(ledger)
    third.add("K25", step="copy", template_hash=B, output=None, output_hash=None, status="refused", error_kind="why")
    elsewhere = Book(ledger, endpoint="anthropic")
    for number in range(40, 45):
        elsewhere.add(f"K{number:02}", step="copy", template_hash=A)
    elsewhere.close()
    return ledger


@pytest.mark.parametrize("limit", [1, 3, 10, 20])
@pytest.mark.parametrize("at_once", [1, 4, 200])
def test_every_record_with_both_versions_is_compared_once(
    both: Engine, limit: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEYS_AT_ONCE", at_once)
    assert [each.record_key for each in compare_all(both, limit)] == [f"K{number}" for number in range(20, 30)]


def test_a_page_that_has_read_enough_keys_ends_early_and_can_go_on(
    both: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_A_PAGE", 7)
    first = compared_versions(both, "copy", A, B)
    assert (len(first.records), first.keys_read) == (7, 7)
    second = compared_versions(both, "copy", A, B, first.after)
    third = compared_versions(both, "copy", A, B, second.after)
    assert (third.records, third.keys_read) == ([], 7)
    assert third.after is not None
    assert [each.record_key for each in compare_all(both, 20)] == [f"K{number}" for number in range(20, 30)]


def test_the_newest_answer_counts_also_without_content(both: Engine) -> None:
    found = {each.record_key: each for each in compare_all(both, 20)}
    assert (found["K24"].a.output, found["K24"].b.output) == ({"title": "About K24"}, {"title": "New"})
    assert (found["K25"].b.status, found["K25"].b.output, found["K25"].b.error_kind) == ("refused", None, "why")
    assert found["K24"].same_record
    assert not found["K24"].same_answer


def test_an_answer_from_the_ledger_has_the_text_of_its_source(ledger: Engine) -> None:
    book = Book(ledger)
    source = book.add("K1", step="copy", template_hash=A)
    book.close()
    again = Book(ledger)
    again.reuse("K1", source, step="copy", template_hash=B)
    (only,) = compare_all(ledger, 20)
    assert only.a.output == only.b.output == {"title": "About K1"}
    assert only.same_answer


def test_a_page_that_ends_with_the_last_record_is_the_last(both: Engine) -> None:
    page = compared_versions(both, "copy", A, B, limit=20)
    assert (len(page.records), page.after) == (10, None)


def test_a_record_whose_row_is_removed_meanwhile_is_left_out(both: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    read = module._answers

    def read_late(engine: Engine, ids: Sequence[str]) -> dict[str, VersionAnswer]:
        with begin_write(both) as connection:
            connection.execute(delete(Generation).where(Generation.id == ids[0]))
        return read(engine, ids)

    monkeypatch.setattr(module, "_answers", read_late)
    page = compared_versions(both, "copy", A, B)
    assert [each.record_key for each in page.records] == [f"K{number}" for number in range(21, 30)]


@pytest.mark.parametrize(
    ("a", "b", "after", "message"),
    [
        ("ffff", B, None, r"no template version 'ffff'\. Available: "),
        (A, A[:8], None, "can't be compared with itself"),
        (A, B, "K1", "not the end of a page"),
        (A, B, "{}", "not the end of a page"),
        (A, B, '["a"]', "not the end of a page"),
        (A, B, "7", "not the end of a page"),
        (A, B, '["a", "b", "\\u0000"]', "contains a character"),
        ("\0", B, None, "contains a character"),
    ],
)
def test_what_can_not_be_compared_is_an_error(both: Engine, a: str, b: str, after: str | None, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        compared_versions(both, "copy", a, b, after)

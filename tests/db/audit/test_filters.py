"""A filter that can't be right is an error that says what there is, never an empty list."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Engine

from db.readers.audit.filters import Filter, FilterError, RunFilter, id_of, resolved
from db.readers.audit.generation_lists import list_generations
from db.readers.audit.run_lists import list_runs_page
from db.readers.audit.template_versions import template_versions
from tests.db.audit.made_rows import BEGIN, Library, id_at
from tests.db.rows import Book, sha

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"status": "done"}, r"'done' is no status\. Available: succeeded, invalid"),
        ({"status": ""}, r"'' is no status"),
        ({"origin": "cached"}, r"'cached' is no origin\. Available: live, batch, cache\."),
        ({"since": MARCH, "until": MARCH}, r"Exchange since and until"),
        ({"since": MARCH, "until": MARCH - timedelta(days=1)}, r"ends at 2026-02-28 00:00, before it begins"),
        ({"since": datetime(2026, 3, 1)}, r"'since' has no time zone"),  # noqa: DTZ001 - that is the fault
        ({"until": datetime(1, 1, 1, tzinfo=UTC)}, r"'until' must be in the years 1971 to 9998"),
        ({"since": datetime(9999, 12, 31, 23, tzinfo=UTC)}, r"'since' must be in the years"),
        ({"key": "A\0"}, r"The value of 'key' contains a character that no text in the ledger has"),
        ({"flow": "\ud800"}, r"The value of 'flow' contains a character"),
    ],
)
def test_a_value_that_can_not_be_is_an_error(given: dict[str, object], message: str) -> None:
    with pytest.raises(FilterError, match=message):
        Filter(**given)  # type: ignore[arg-type]


def test_runs_have_states_and_triggers_of_their_own() -> None:
    assert RunFilter(status="suspended", trigger="schedule")
    with pytest.raises(FilterError, match="'succeeded' is no status"):
        RunFilter(status="succeeded")
    with pytest.raises(FilterError, match=r"'cron' is no trigger\. Available: command, schedule"):
        RunFilter(trigger="cron")


def test_the_beginning_of_a_template_version_is_enough(book: Book) -> None:
    assert resolved(book.ledger, Filter(template=sha("template")[:6].upper())).template == sha("template")


def test_an_ambiguous_template_names_all_that_it_may_be(ledger: Engine) -> None:
    Library(ledger, seed=1)
    with pytest.raises(FilterError, match=r"'' is the beginning of 12 template versions: \w{64}, .* and 2 more\."):
        resolved(ledger, Filter(template=""))


def test_a_template_of_an_empty_ledger_says_that_there_is_none(ledger: Engine) -> None:
    with pytest.raises(FilterError, match=r"no template version 'abc'\. Available: none"):
        resolved(ledger, Filter(template="abc"))


def test_a_step_without_a_stored_template_is_found_by_its_whole_hash(book: Book) -> None:
    book.add("A-1", template_hash=sha("made in code"))
    assert resolved(book.ledger, Filter(template=sha("made in code"))).template == sha("made in code")
    with pytest.raises(FilterError, match="no template version"):
        resolved(book.ledger, Filter(template=sha("nobody's")))


def test_a_run_is_found_by_either_end_of_its_id(book: Book) -> None:
    for part in (book.run_id, book.run_id[:13], book.run_id[-8:]):
        assert resolved(book.ledger, Filter(run=part)).run == book.run_id


def test_an_unknown_run_names_the_newest(book: Book) -> None:
    with pytest.raises(FilterError, match=rf"no run 'nothing'\. The newest are {book.run_id}\."):
        resolved(book.ledger, Filter(run="nothing"))


def test_the_beginning_of_two_runs_is_no_run(ledger: Engine) -> None:
    library = Library(ledger, seed=1)
    library.run(BEGIN)
    library.run(BEGIN)
    with pytest.raises(FilterError, match="beginning or end of several runs"):
        resolved(ledger, Filter(run=library.runs[0][:13]))


def test_ids_of_a_moment_lie_between_those_before_and_after_it() -> None:
    draw = random.Random(1)
    berlin = MARCH.astimezone(timezone(timedelta(hours=1)))
    assert id_at(MARCH - timedelta(milliseconds=1), draw) < id_of(berlin) < id_at(MARCH, draw)


@pytest.mark.parametrize("text", ["%", "_" * 13, "'", "x" * 100_000, "\u202e", "🧑‍🚀" * 20, "-" * 8, " "])
def test_a_strange_text_is_looked_for_and_not_found(book: Book, text: str) -> None:
    """A page answers any query string with a list or a message, on every database."""
    with pytest.raises(FilterError, match="There is no run"):
        resolved(book.ledger, Filter(run=text))
    with pytest.raises(FilterError, match="There is no template version"):
        resolved(book.ledger, Filter(template=text))
    book.add("K1")
    book.close()
    for wanted in (Filter(flow=text), Filter(step=text), Filter(model=text), Filter(endpoint=text)):
        with pytest.raises(FilterError, match=r"There is no .* in this ledger\. Available: "):
            list_generations(book.ledger, wanted)
    for flow, before in ((text, None), (None, text)):
        with pytest.raises(FilterError, match=r"There is no flow|is not the end of a page"):
            list_runs_page(book.ledger, RunFilter(flow=flow), before=before)
    assert list_generations(book.ledger, Filter(key=text, cause=text), before=text).lines == []
    assert template_versions(book.ledger, text) == []


def test_a_name_that_only_an_open_run_has_is_known(ledger: Engine) -> None:
    assert list_generations(ledger, Filter(flow="none yet", model="none yet")).lines == []
    book = Book(ledger)
    made = book.add("K1", step="new step")
    for wanted in (Filter(step="new step"), Filter(model="claude-sonnet-4-6"), Filter(flow=book.run.flow)):
        assert [line.id for line in list_generations(ledger, wanted).lines] == [made]

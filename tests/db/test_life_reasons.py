"""A record's life says why each outcome came: what had changed, or who asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from db.clock import new_id
from db.ledger.rows import ParentRow, TemplateRow, WriteBatch
from db.ledger.writing import add_templates, write
from db.readers.audit.life_reasons import ExplainedPeriod, Reason, explain_periods
from db.readers.lives import LifePlace, read_periods
from tests.db.rows import Book, sha

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = LifePlace("product_copy", "product_copy", "sandbox")
RECORD = '{"name":"Ann","price":1}'


def at(day: int) -> datetime:
    return NOON + timedelta(days=day)


def life(ledger: Engine, place: LifePlace = PLACE) -> list[ExplainedPeriod]:
    return explain_periods(ledger, read_periods(ledger, place, "a"))


def why(ledger: Engine, place: LifePlace = PLACE) -> list[tuple[Reason, ...]]:
    return [each.reasons for each in life(ledger, place)]


def made(ledger: Engine, day: int, book: Book | None = None, **own: Any) -> str:
    given: dict[str, Any] = {"record": RECORD, "created_at": at(day)}
    return (book or Book(ledger)).add("a", **(given | own))


def requested(
    ledger: Engine, day: int, prompt: str, *, variant: int = 0, request: str = '{"model":"m"}', **run: Any
) -> str:
    """Write a generation whose prompt is this one."""
    book, batch, generation = Book(ledger, **run), WriteBatch(), new_id()
    book.attempt(batch, prompt, generation)
    batch.prompts[sha(prompt)] = replace(batch.prompts[sha(prompt)], variant=variant, request=request)
    book.generation(batch, "a", id=generation, record=RECORD, prompt_hash=sha(prompt), created_at=at(day))
    write(ledger, batch)
    return generation


def test_first_content_has_none_before(ledger: Engine) -> None:
    made(ledger, 0)
    (only,) = life(ledger)
    assert (only.reasons, only.before, only.failures, only.same_answer) == ((Reason("first"),), None, 0, False)


def test_changed_record_is_told_with_its_fields(ledger: Engine) -> None:
    first = made(ledger, 0)
    made(ledger, 1, record='{"name":"Ann","price":1.0,"size":null}', output_hash=sha("other"))
    made(ledger, 2, record='{"name":"Ann"}', output_hash=sha("third"))

    found = life(ledger)

    assert [each.reasons for each in found[1:]] == [
        (Reason("record", ("price", "size")),),
        (Reason("record", ("price", "size")),),
    ]
    assert found[1].before == first


def test_template_and_record_may_change_at_once(ledger: Engine) -> None:
    made(ledger, 0)
    made(ledger, 1, template_hash=sha("second"), record='{"name":"Bob","price":1}')

    found = life(ledger)[1]

    assert found.reasons == (Reason("record", ("name",)), Reason("template"))
    assert found.before_template == sha("template")


def test_versions_are_comparable_only_if_the_sources_of_both_are_stored(ledger: Engine) -> None:
    for day, version in enumerate(["template", "made in code", "other", "template"]):
        made(ledger, day, template_hash=sha(version), output_hash=sha(version))
    made(ledger, 4, output_hash=sha("fresh"))
    template = TemplateRow(hash=sha("other"), name="product_copy", sources={"a.md.j2": "b"}, first_seen_at=NOON)
    add_templates(ledger, [template])

    assert [each.sources_stored for each in life(ledger)] == [False, False, False, True, False]


def test_answer_that_stays_for_a_changed_record_is_told(ledger: Engine) -> None:
    source = made(ledger, 0)
    Book(ledger).reuse("a", source, record='{"name":"Bob","price":1}', created_at=at(1))

    assert [(each.reasons, each.same_answer, each.origin) for each in life(ledger)][1] == (
        (Reason("record", ("name",)),),
        True,
        "cache",
    )


def test_new_answer_of_an_earlier_step_is_told_with_the_step(ledger: Engine) -> None:
    def child(parents: list[str], day: int) -> None:
        book, batch = Book(ledger), WriteBatch()
        own: dict[str, Any] = {"step": "ordered", "record": RECORD, "created_at": at(day), "output_hash": sha(str(day))}
        generation = book.generation(batch, "a", **own)
        batch.parents += [ParentRow(generation, parent) for parent in parents]
        write(ledger, batch)

    triage = [Book(ledger).add("a", step="triage", created_at=at(0)) for _turn in range(2)]
    topic = Book(ledger).add("a", step="topic")
    child([triage[0], topic], 0)
    child([triage[1], topic], 1)
    child([triage[1]], 2)
    child([triage[1]], 3)

    assert why(ledger, replace(PLACE, step="ordered")) == [
        (Reason("first"),),
        (Reason("parents", ("triage",)),),
        (Reason("parents", ("topic",)),),
        (Reason("requested again"),),
    ]


def test_refresh_is_told_from_another_request(ledger: Engine) -> None:
    requested(ledger, 0, "p")
    requested(ledger, 1, "p", parameters={"options": {"refresh": True}})
    requested(ledger, 2, "p", parameters={"options": {"refresh": False}})

    assert why(ledger)[1:] == [(Reason("refresh"),), (Reason("requested again"),)]


def test_variant_and_settings_are_told(ledger: Engine) -> None:
    requested(ledger, 0, "p")
    requested(ledger, 1, "q", variant=1)
    requested(ledger, 2, "r", variant=1, request='{"model":"m","system":[{"$text":"x"}],"thinking":{}}')

    assert why(ledger)[1:] == [(Reason("variant"),), (Reason("settings", ("system", "thinking")),)]


def test_answer_of_another_prompt_that_was_pruned_is_other_settings(ledger: Engine) -> None:
    made(ledger, 0, prompt_hash=sha("gone"))
    made(ledger, 1, prompt_hash=sha("gone too"))

    assert why(ledger)[1:] == [(Reason("settings"),)]


def test_failures_between_contents_are_counted_and_compared_with_the_content_before(ledger: Engine) -> None:
    first = made(ledger, 0)
    failed: Mapping[str, Any] = {"status": "failed", "output": None, "output_hash": None, "error_kind": "render"}
    for day in (1, 2):
        made(ledger, day, error_message=f"line {day}", record='{"name":"Bob","price":1}', **failed)
    made(ledger, 3, record='{"name":"Cid","price":1}')

    found = life(ledger)

    assert [(each.before, each.failures) for each in found] == [(None, 0), (first, 0), (first, 1), (first, 2)]
    assert {each.reasons for each in found[1:]} == {(Reason("record", ("name",)),)}


def test_part_of_a_life_is_explained_as_in_the_whole(ledger: Engine) -> None:
    for day in range(6):
        made(ledger, day, record=f'{{"name":"{day}"}}')
    periods = read_periods(ledger, PLACE, "a")
    whole = explain_periods(ledger, periods)

    assert len(whole) == 6
    for first in range(6):
        some = {period.generation_id for period in periods[first : first + 2]}
        assert explain_periods(ledger, periods, some) == whole[first : first + 2]

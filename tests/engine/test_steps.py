"""Flows of several steps: conditions, fan-out, fan-in, and records that an earlier step produced nothing for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError

from flows.newsletter import Articles, newsletter
from flows.product_copy import Products, product_copy
from flows.support_replies import support_replies
from presswork import Generated, RunOptions, Summary, open_run
from sandbox.service import Service
from tests.engine.workshop import Workshop


def by_step(summary: Summary) -> dict[str, Any]:
    return {step.step: step for step in summary.steps}


async def test_product_copy_takes_a_category(shop: Workshop) -> None:
    summary = await shop.call(product_copy, Products(category="tea"))
    tea = shop.source.connect()
    with tea as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM products WHERE category = 'tea'").scalar_one()
    assert (summary.records, summary.succeeded, summary.flow) == (count, count, "product_copy")
    everything = await shop.call(product_copy)
    assert (everything.records, everything.cached) == (40, count)
    unknown: Any = {"colour": "red"}
    with pytest.raises(ParameterTypeError, match="colour"):
        await shop.call(product_copy, unknown)


async def test_support_replies_answer_only_where_triage_says_so(shop: Workshop) -> None:
    summary = await shop.call(support_replies)
    steps = by_step(summary)
    assert (summary.records, steps["support_triage"].succeeded) == (30, 30)

    triaged = shop.outputs("support_triage")
    answerable = {key for key, output in triaged.items() if output["answerable"] and not output["urgent"]}
    replied = set(shop.outputs("support_reply"))
    assert replied == answerable
    assert 0 < len(replied) < 30
    assert steps["support_reply"].left_out == 0

    lineage = shop.rows(
        "SELECT child.record_key AS child, parent.record_key AS parent, parent.step AS step FROM generation_parents "
        "JOIN generations child ON child.id = generation_id JOIN generations parent ON parent.id = parent_id"
    )
    assert {(row["child"], row["parent"], row["step"]) for row in lineage} == {
        (key, key, "support_triage") for key in replied
    }

    again = await shop.call(support_replies)
    assert (again.cached, again.requests) == (30 + len(replied), 0)


async def test_record_whose_first_step_failed_is_left_out_of_the_second(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_ticket = shop.source.connect()
    with first_ticket as connection:
        ids = connection.exec_driver_sql("SELECT ticket_id FROM support_tickets ORDER BY 1").scalars().all()
    spoilt = ids[:4]
    spoil(monkeypatch, lambda body: any(f"Ticket: {key}\n".encode() in body.replace(b"\\n", b"\n") for key in spoilt))

    summary = await shop.call(support_replies)
    steps = by_step(summary)
    assert (steps["support_triage"].refused, steps["support_triage"].succeeded) == (4, 26)
    assert steps["support_reply"].left_out == 4
    assert (summary.left_out, summary.exit_status) == (4, 1)
    replied = shop.rows("SELECT record_key FROM generations WHERE step = 'support_reply'")
    assert not {row["record_key"] for row in replied} & set(spoilt)


async def test_newsletter_fans_out_and_in_twice(shop: Workshop) -> None:
    summary = await shop.call(newsletter)
    assert {step.step: step.succeeded for step in summary.steps} == {
        "newsletter_summary": 24,
        "newsletter_digest": 1,
        "newsletter_subject": 5,
        "newsletter_choice": 1,
    }
    assert (summary.records, summary.requests, summary.exit_status) == (24, 31, 0)

    keys = {
        step: [
            row["record_key"] for row in shop.rows("SELECT * FROM generations WHERE step = :step ORDER BY 2", step=step)
        ]
        for step in ("newsletter_digest", "newsletter_subject", "newsletter_choice")
    }
    assert keys["newsletter_digest"] == ["digest"]
    assert sorted(keys["newsletter_subject"]) == [f"digest/{number}" for number in range(5)]
    assert keys["newsletter_choice"] == ["choice"]

    variants = shop.rows(
        "SELECT variant, prompts.hash FROM generations JOIN prompts ON prompts.hash = prompt_hash "
        "WHERE step = 'newsletter_subject' ORDER BY record_key"
    )
    assert [row["variant"] for row in variants] == [0, 1, 2, 3, 4]
    assert len({row["hash"] for row in variants}) == 5

    parents = shop.rows(
        "SELECT child.step AS child, parent.step AS parent, count(*) AS n FROM generation_parents "
        "JOIN generations child ON child.id = generation_id JOIN generations parent ON parent.id = parent_id "
        "GROUP BY 1, 2"
    )
    assert {(row["child"], row["parent"]): row["n"] for row in parents} == {
        ("newsletter_digest", "newsletter_summary"): 24,
        ("newsletter_subject", "newsletter_digest"): 5,
        ("newsletter_choice", "newsletter_subject"): 5,
    }

    again = await shop.call(newsletter)
    assert (again.cached, again.requests) == (31, 0)


async def test_newsletter_of_nothing_is_an_empty_run(shop: Workshop) -> None:
    summary = await shop.call(newsletter, Articles(section="nothing of this name"))
    assert (summary.records, summary.requests, summary.exit_status) == (0, 0, 0)
    assert shop.rows("SELECT * FROM generations") == []


async def test_fan_in_of_none_that_succeeded_gives_nothing_and_says_so(shop: Workshop) -> None:
    shop.sandbox.configure(refused=1)
    summary = await shop.call(newsletter)
    steps = by_step(summary)
    assert steps["newsletter_summary"].refused == 24
    assert steps["newsletter_digest"].left_out == 24
    assert steps["newsletter_digest"].generations == 0
    assert (summary.succeeded, summary.exit_status) == (0, 1)


# Steps in plain code


Chain = Callable[..., Any]


@flow
async def chain(last: str, condition: bool = True) -> Summary:
    async with open_run(RunOptions()) as run:
        notes = await run.generate("note", run.select("note"))
        seconds = await run.generate("second", notes)
        kept = seconds.where(lambda found: condition and found.output.subject)
        await run.generate(last, kept)
        return run.summary()


async def test_step_reads_record_and_outputs_of_any_earlier_step_by_name(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.template("Second: {{ note.subject }}", name="second")
    workshop.template("{{ record.name }} | {{ note.subject }} | {{ second.subject }}", name="third")
    workshop.numbered(3)
    workshop.sandbox.configure(keep_bodies=20)
    summary = await workshop.call(chain, "third")
    assert {step.step: step.succeeded for step in summary.steps} == {"note": 3, "second": 3, "third": 3}

    notes, seconds = workshop.outputs("note"), workshop.outputs("second")
    sent = {body["messages"][-1]["content"] for body in workshop.sandbox.bodies()}
    for number in range(3):
        key = f"{number:05}"
        assert f"item {number} | {notes[key]['subject']} | {seconds[key]['subject']}" in sent
    # Outputs from the cache reach the next step too.
    again = await workshop.call(chain, "third")
    assert (again.cached, again.requests) == (9, 0)


async def test_condition_that_holds_for_none_leaves_nothing_to_ask(workshop: Workshop) -> None:
    workshop.template("Second: {{ note.subject }}", name="second")
    workshop.template("Third: {{ second.subject }}", name="third")
    workshop.numbered(2)
    summary = await workshop.call(chain, "third", condition=False)
    assert (summary.requests, summary.exit_status) == (4, 0)
    # Records that the condition excludes are not missing.
    assert summary.left_out == 0


SORTED = """---
select: SELECT id, name FROM items
key: id
output:
  mood: {choices: [yes, NO], description: Whether it is one}
  day: {type: date, ge: 2020-01-01}
  tags: {type: list[str], max_length: 3}
---
{% block user %}Sort {{ record.name }}.{% endblock %}
"""


@flow
async def sort() -> Summary:
    async with open_run(RunOptions()) as run:
        found = await run.generate("sorted", run.select("sorted"))
        await run.generate(
            "second", found.where(lambda it: it.output.mood == "NO" and it.output.day >= date(2020, 1, 1))
        )
        return run.summary()


async def test_fields_of_a_front_matter_work_as_a_class_in_conditions_and_as_cached_content(workshop: Workshop) -> None:
    (workshop.templates / "sorted.md.j2").write_text(SORTED, encoding="utf-8")
    workshop.template("{{ record.name }}: {{ sorted.mood }}, {{ sorted.day }}", name="second")
    workshop.numbered(12)
    summary = await workshop.call(sort)
    outputs = workshop.outputs("sorted")
    chosen = {key for key, output in outputs.items() if output["mood"] == "NO"}
    assert {output["mood"] for output in outputs.values()} <= {"yes", "NO"}
    assert set(workshop.outputs("second")) == chosen
    assert (by_step(summary)["sorted"].succeeded, by_step(summary)["second"].succeeded) == (12, len(chosen))
    again = await workshop.call(sort)
    assert (again.cached, again.requests) == (12 + len(chosen), 0)


@flow
async def fan(variants: int) -> Summary:
    async with open_run(RunOptions()) as run:
        notes = await run.generate("note", run.select("note"), variants=variants)
        seen: list[Generated] = [found async for found in notes]
        assert all(found.output.subject for found in seen)
        await run.generate("best", notes.where(lambda found: not found.key.endswith("/1")).together())
        return run.summary()


async def test_variants_are_children_and_a_condition_chooses_what_comes_together(workshop: Workshop) -> None:
    workshop.template("{% for line in note %}{{ line.subject }}\n{% endfor %}", name="best")
    workshop.numbered(2)
    summary = await workshop.call(fan, 3)
    assert {step.step: step.succeeded for step in summary.steps} == {"note": 6, "best": 1}
    keys = [
        row["record_key"] for row in workshop.rows("SELECT record_key FROM generations WHERE step = 'note' ORDER BY 1")
    ]
    assert keys == ["00000/0", "00000/1", "00000/2", "00001/0", "00001/1", "00001/2"]
    assert workshop.value("SELECT count(*) FROM generation_parents") == 4
    # A fan-in has no key, so it gets its template's `key` as its name.
    assert workshop.value("SELECT record_key FROM generations WHERE step = 'best'") == "id"


async def test_variants_are_one_or_more(workshop: Workshop) -> None:
    workshop.numbered(1)
    workshop.template(name="best")
    with pytest.raises(ValueError, match="1 or more"):
        await workshop.call(fan, 0)


def spoil(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[bytes], bool]) -> None:
    """Make the sandbox refuse only the wanted requests."""
    opened = Service.open

    def open_spoilt(service: Service, raw: bytes) -> Any:
        before = service.switches
        if wanted(raw):
            service.switches = before.changed({"refused": 1})
        try:
            return opened(service, raw)
        finally:
            service.switches = before

    monkeypatch.setattr(Service, "open", open_spoilt)

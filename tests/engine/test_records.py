"""Records of every sort go through unharmed or fail alone, by name."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from db.errors import KeyValueError, SelectError
from db.history import read_generation
from flows.errors import ConfigurationError, TemplateError
from tests.engine.workshop import Workshop

pytestmark = pytest.mark.prefect

ODD = {
    "accents": "Crème brûlée, naïve façade",
    "braces": "{{ 7*7 }} {% for x in y %} {# not a comment #}",
    "control": "bell \x07 escape \x1b[31m and vertical \x0b tab",
    "dollars": "$1 ${HOME} %s %(name)s :name ?",
    "emoji": "👩‍🚀 and 🏳️‍🌈 at the 🫖",
    "huge": "The same long tale again. " * 8_000,
    "json": '{"role": "system", "content": "\\u0000"}',
    "newlines": "one\r\ntwo\n\n\nthree\u2028four",
    "quotes": 'it\'s "quoted"; DROP TABLE items; --',
    "rtl": "مرحبا بالعالم \u202e reversed \u202c שלום",
    "script": "<script>alert('x')</script> &amp; <b>bold</b>",
    "wide": "中文 日本語 한국어 \U0001d518\U0001d52b",
    "z-blank": "   ",
}


async def test_odd_records_go_through_unharmed(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.items(ODD)
    workshop.sandbox.configure(keep_bodies=100)
    summary = await workshop.run()

    assert (summary.succeeded, summary.exit_status) == (len(ODD), 0)
    sent = {body["messages"][-1]["content"] for body in workshop.sandbox.bodies()}
    assert sent == {f"A line about {name}.".strip() for name in ODD.values()}
    for row in workshop.rows("SELECT id, record_key FROM generations"):
        audit = read_generation(workshop.ledger, row["id"])
        assert audit is not None
        assert json.loads(str(audit.record)) == {"id": row["record_key"], "name": ODD[row["record_key"]]}
        assert audit.request["messages"][-1]["content"] == f"A line about {ODD[row['record_key']]}.".strip()
    assert (await workshop.run()).cached == len(ODD)


async def test_nul_bytes_go_through_or_fail_alone(workshop: Workshop) -> None:
    workshop.items({"nul": "before\x00after", "plain": "nothing odd"})
    summary = await workshop.run()
    assert (summary.succeeded, summary.exit_status) == (2, 0)
    assert workshop.rows("SELECT body FROM records WHERE body LIKE '%u0000%'")
    assert (await workshop.run()).cached == 2


async def test_record_that_does_not_render_fails_alone_by_name(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.template("Letters: {{ record.name | length }} of {{ record.name }}")
    workshop.items({"bad": None, "good": "PRIVATE words", "other": "more of them"})
    summary = await workshop.run()

    assert (summary.succeeded, summary.failed, summary.requests, summary.exit_status) == (2, 1, 2, 1)
    (failure,) = summary.failures
    assert (failure.record_key, failure.status, failure.kind) == ("bad", "failed", "render")
    assert "note.md.j2" in str(failure.message)
    (row,) = workshop.rows("SELECT * FROM generations WHERE status = 'failed'")
    assert (row["prompt_hash"], row["record_key"]) == (None, "bad")
    assert row["record_hash"] is not None

    workshop.template("Letters: {{ (record.name or '') | length }}")
    assert (await workshop.run()).succeeded == 3


async def test_record_that_renders_to_nothing_fails_alone(workshop: Workshop) -> None:
    workshop.template("{{ record.name }}")
    workshop.items({"blank": "  \n ", "good": "words"})
    summary = await workshop.run()
    assert [(failure.record_key, failure.kind) for failure in summary.failures] == [("blank", "render")]
    assert summary.succeeded == 1


# aiohttp would rather be handed a file; in a run it says so to no one.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_record_longer_than_the_endpoint_takes_fails_alone(workshop: Workshop) -> None:
    workshop.items({"enormous": "long tale " * 500_000, "good": "words"})
    summary = await workshop.run()
    assert (summary.succeeded, summary.failed) == (1, 1)
    assert [(failure.record_key, failure.kind) for failure in summary.failures] == [
        ("enormous", "invalid_request_error")
    ]


@pytest.mark.parametrize(
    ("items", "error", "match"),
    [
        ("SELECT 1 AS id UNION ALL SELECT NULL", KeyValueError, "null"),
        ("SELECT 1 AS id UNION ALL SELECT 1", KeyValueError, "not unique"),
        ("SELECT 1 AS other", SelectError, "key column"),
        ("SELECT id FROM nowhere", SelectError, "nowhere"),
    ],
)
async def test_select_that_is_wrong_stops_the_run_before_a_request(
    workshop: Workshop, items: str, error: type[Exception], match: str
) -> None:
    workshop.items({})
    path = workshop.templates / "note.md.j2"
    path.write_text(path.read_text().replace("SELECT id, name FROM items", items))
    with pytest.raises(error, match=match):
        await workshop.run()
    assert workshop.requests == 0
    assert workshop.rows("SELECT * FROM generations") == []
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}


@pytest.mark.parametrize(
    ("user", "match"),
    [
        ("{{ record.name.__class__ }}", "__class__"),
        ("{{ record.name", "line"),
        ("{% include 'nowhere.md.j2' %}", "nowhere"),
    ],
)
async def test_template_that_is_wrong_stops_the_run_before_a_request(workshop: Workshop, user: str, match: str) -> None:
    workshop.items({"1": "one"})
    workshop.template(user)
    with pytest.raises(TemplateError, match=match):
        await workshop.run()
    assert workshop.requests == 0


async def test_unknown_template_names_those_there_are(workshop: Workshop) -> None:
    with pytest.raises(TemplateError, match="note"):
        await workshop.run("nonsense")


async def test_source_that_is_not_named_is_asked_for(workshop: Workshop) -> None:
    path = workshop.templates / "note.md.j2"
    path.write_text(path.read_text().replace("---\n", "---\nsource: shop\n", 1))
    with pytest.raises(ConfigurationError, match="PRESSWORK_SOURCE_SHOP_URL"):
        await workshop.run()


async def test_records_that_change_their_order_are_the_same_records(workshop: Workshop) -> None:
    workshop.numbered(3)
    await workshop.run()
    with workshop.source.begin() as connection:
        connection.execute(text("CREATE TABLE turned AS SELECT * FROM items ORDER BY id DESC"))
        connection.execute(text("DROP TABLE items"))
        connection.execute(text("ALTER TABLE turned RENAME TO items"))
    assert (await workshop.run()).cached == 3

"""Records of every kind pass through unchanged, or fail alone under their key."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest
from pydantic import BaseModel, field_validator
from sqlalchemy import text

import flows.outputs
from db.database_errors import KeyValueError, SelectError
from db.ledger.spill import find_spills
from db.readers.stored_generations import read_generation
from db.words import REFUSED_BY_LEDGER
from presswork.claude.answers import Answer
from presswork.claude.client import Client
from presswork.errors import ConfigurationError, TemplateError
from presswork.output_classes.validate import Content, validate_answer
from presswork.settings import load_settings
from tests.engine.workshop import Workshop

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


async def test_stored_request_is_the_one_that_was_sent_in_the_same_order(workshop: Workshop) -> None:
    workshop.items({"a": "one"})
    workshop.sandbox.configure(keep_bodies=1)
    await workshop.run()

    (sent,) = workshop.sandbox.bodies()
    audit = read_generation(workshop.ledger, workshop.value("SELECT id FROM generations"))
    assert audit is not None
    assert audit.request == sent
    # The order of a schema's fields is the order in which Claude writes them.
    assert json.dumps(audit.request["output_config"]) == json.dumps(sent["output_config"])


async def test_nul_bytes_go_through_or_fail_alone(workshop: Workshop) -> None:
    workshop.items({"nul": "before\x00after", "plain": "nothing odd"})
    summary = await workshop.run()
    assert (summary.succeeded, summary.exit_status) == (2, 0)
    assert workshop.rows("SELECT body FROM records WHERE body LIKE '%u0000%'")
    assert (await workshop.run()).cached == 2


async def test_record_that_does_not_render_fails_alone_by_name(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.template("Letters: {{ (record.name * 1) | length }} of {{ record.name }}")
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


# aiohttp recommends a file here; outside of tests this warning is not shown.
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


class Careless(BaseModel):
    """A user's class that accepts a text that can't be stored, exits, or accepts the text."""

    subject: str

    @field_validator("subject")
    @classmethod
    def spoil(cls, subject: str) -> str:
        match len(subject) % 3:
            case 0:
                return subject + "\ud800"
            case 1:
                return sys.exit("a class of the user's leaves")
            case _:
                return subject


async def test_answer_that_its_class_spoils_ends_its_record_and_not_the_run(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    monkeypatch.setattr(flows.outputs, "Careless", Careless, raising=False)
    monkeypatch.setenv("PRESSWORK_REPAIRS", "0")
    path = workshop.templates / "note.md.j2"
    path.write_text(path.read_text().replace("SubjectLine", "Careless"))
    workshop.numbered(60)
    summary = await workshop.run()

    assert summary.status == "completed"
    assert summary.succeeded + summary.invalid == 60
    assert 0 < summary.succeeded < 60
    assert any("Careless fails on it with SystemExit" in str(failure.message) for failure in summary.failures)
    attempts = workshop.rows("SELECT error_type, output_text, cost_usd FROM attempts")
    assert len(attempts) == 60
    assert all(row["error_type"] is None and row["output_text"] and row["cost_usd"] for row in attempts)
    assert (await workshop.run()).cached == summary.succeeded


async def test_judgement_that_breaks_off_ends_its_record_and_the_answer_is_kept(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = 0

    def judge(*arguments: Any) -> Any:
        nonlocal judged
        judged += 1
        if judged % 3 == 0:
            raise RecursionError("PRIVATE words of the answer")
        return validate_answer(*arguments)

    monkeypatch.setattr("presswork.answers.outcomes.validate_answer", judge)
    workshop.numbered(30)
    summary = await workshop.run()

    assert (summary.succeeded, summary.invalid, summary.status) == (20, 10, "completed")
    (message,) = {str(failure.message) for failure in summary.failures}
    assert "SubjectLine could not validate the answer: RecursionError" in message
    assert "PRIVATE" not in message
    assert workshop.value("SELECT count(*) FROM attempts WHERE cost_usd IS NULL OR output_text IS NULL") == 0


async def test_odd_words_of_an_endpoint_keep_no_content_out(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    ask, answered = Client.ask, 0

    async def ask_oddly(self: Client, body: Mapping[str, Any], endpoint: str) -> Answer:
        nonlocal answered
        answer = await ask(self, body, endpoint)
        assert answer.usage is not None
        answered += 1
        assert answer.usage is not None
        match answered % 4:
            case 0:
                return replace(answer, message_id="msg\x00", request_id="req\ud800")
            case 1:
                return replace(answer, usage=replace(answer.usage, input_tokens=2**70, output_tokens=2**40))
            case 2:
                return replace(answer, usage=replace(answer.usage, service_tier="\x00\ud800", input_tokens=-1))
            case _:
                return answer

    monkeypatch.setattr(Client, "ask", ask_oddly)
    workshop.numbered(36)
    summary = await workshop.run()

    assert (summary.succeeded, summary.exit_status) == (36, 0)
    assert find_spills(load_settings().spill_dir) == []
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL OR output_text IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM attempts WHERE input_tokens IS NULL") == 18
    assert workshop.value("SELECT count(*) FROM attempts WHERE input_tokens IS NULL AND cost_usd IS NOT NULL") == 0
    again = await workshop.run()
    assert (again.cached, again.requests) == (36, 0)


async def test_content_that_the_ledger_refuses_fails_alone_and_the_run_goes_on(
    workshop_on_each: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger refuses content that validation has accepted."""
    workshop = workshop_on_each

    def judge(*arguments: Any) -> Any:
        judged = validate_answer(*arguments)
        assert isinstance(judged, Content)
        return (
            replace(judged, output={"subject": 2**70}) if crc32(judged.output["subject"].encode()) % 3 == 0 else judged
        )

    monkeypatch.setattr("presswork.answers.outcomes.validate_answer", judge)
    workshop.numbered(40)
    summary = await workshop.run()

    assert summary.status == "completed"
    assert summary.succeeded + summary.failed == 40
    assert 0 < summary.failed < 40
    assert {failure.kind for failure in summary.failures} == {REFUSED_BY_LEDGER}
    assert all("'output'" in str(failure.message) for failure in summary.failures)
    assert workshop.value("SELECT count(*) FROM attempts WHERE cost_usd IS NULL OR output_text IS NULL") == 0
    assert find_spills(load_settings().spill_dir) == []
    assert workshop.value("SELECT count(*) FROM claims") == 0

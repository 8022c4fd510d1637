"""Real answers of endpoints, in a whole run: how often a prompt is requested, how the run ends, which rows it keeps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from presswork.errors import StoppingCallError, UntoldCostError
from tests.engine.workshop import Workshop

MOST_ASKED = 8
"""The limit of requests for one prompt in one run, for any answer."""
CONCURRENCY = 10
Wrap = Callable[[dict[str, Any]], Any]


@dataclass
class Gateway:
    """Passes requests to the sandbox, wraps its answers, and counts the requests."""

    workshop: Workshop
    wrap: Wrap
    asked: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        asked = orjson.loads(body)["messages"][0]["content"]
        self.asked[hashlib.sha256(body).hexdigest()] += 1
        self.order.append(asked)
        headers = {"x-api-key": "any", "anthropic-version": request.headers["anthropic-version"]}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.workshop.sandbox.url}/v1/messages", data=body, headers=headers) as answered,
        ):
            message = await answered.json()
        found = self.wrap({**message, "asked": asked})
        return found if isinstance(found, web.Response) else _response(found)


def _response(body: Any, status: int = 200, kind: str = "application/json") -> web.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.Response(body=raw, status=status, content_type=kind)


@asynccontextmanager
async def behind(workshop: Workshop, wrap: Wrap, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """Send a workshop's requests through a gateway that wraps the answers."""
    gateway = Gateway(workshop, wrap)
    app = web.Application()
    app.router.add_post("/v1/messages", gateway.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-mine")
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")
    try:
        yield gateway
    finally:
        await runner.cleanup()


@pytest.fixture(params=[24, pytest.param(200, marks=pytest.mark.soak)])
def count(request: pytest.FixtureRequest) -> int:
    """The number of records."""
    return int(request.param)


@pytest.fixture(autouse=True)
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "1")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRIES", "1")


def assert_nothing_lost(workshop: Workshop) -> None:
    """Assert that every attempt has an end, no claim is left, and each good answer is content."""
    assert workshop.value("SELECT count(*) FROM attempts WHERE ended_at IS NULL") == 0
    assert workshop.value("SELECT count(*) FROM claims") == 0


# Content


def message_of(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}]}


def text_of(message: dict[str, Any]) -> str:
    return str(message["content"][0]["text"])


def without(*names: str) -> Wrap:
    return lambda message: {name: value for name, value in message.items() if name not in names}


def put(**changes: Any) -> Wrap:
    return lambda message: {**message, **changes}


def events_of(message: dict[str, Any]) -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text_of(message)}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": message["usage"]},
        {"type": "message_stop"},
    ]
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n" for event in events
    )


def as_stream(message: dict[str, Any]) -> web.Response:
    return _response(events_of(message), kind="text/event-stream")


def as_chat(message: dict[str, Any]) -> dict[str, Any]:
    used = message["usage"]
    return {
        "id": "chatcmpl-1",
        "model": message["model"],
        "choices": [{"message": {"content": text_of(message)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": used["input_tokens"], "completion_tokens": used["output_tokens"]},
    }


def with_text(form: str) -> Wrap:
    return lambda message: {**message, **message_of(form.format(text_of(message)))}


GOOD: dict[str, tuple[Wrap, bool]] = {
    "no usage": (without("usage"), False),
    "usage of zeros": (put(usage={"input_tokens": 0, "output_tokens": 0}), False),
    "usage beyond all numbers": (put(usage={"input_tokens": 2**70, "output_tokens": 2**70}), False),
    "negative usage": (put(usage={"input_tokens": -5, "output_tokens": 3}), False),
    "OpenAI's words": (as_chat, True),
    "an event stream": (as_stream, True),
    "no id": (without("id"), True),
    "no model": (without("model"), True),
    "a NUL and half a surrogate pair in the id": (
        lambda message: _response(orjson.dumps({**message, "id": "@"}).replace(b"@", b"\\u0000\\ud800")),
        True,
    ),
    "an over-long id": (put(id="i" * 100_000), True),
    "text for blocks": (lambda message: {**message, "content": text_of(message)}, True),
    "no stop reason": (put(stop_reason=None), True),
    "a foreign stop reason": (put(stop_reason="stop"), True),
    "a fence": (with_text("```json\n{}\n```"), True),
    "a sentence": (with_text("Here it is: {} I hope it helps."), True),
}


"""How an answer is wrapped, and whether its cost is known."""


def in_turn(wraps: Sequence[Wrap]) -> Wrap:
    """Wrap the answers of the records in turn."""
    return lambda message: wraps[number_of(message) % len(wraps)](message)


def number_of(message: dict[str, Any]) -> int:
    """Return the number of the record that a message answers."""
    return int(message["asked"].split("item ")[1].rstrip("."))


@pytest.mark.soak
@pytest.mark.parametrize("name", GOOD)
async def test_good_answer_is_content_at_one_request_a_prompt_however_it_is_wrapped(
    workshop: Workshop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrap, priced = GOOD[name]
    await assert_all_content(workshop, wrap, 200, 0 if priced else 200, monkeypatch)


async def test_good_answers_of_all_forms_are_content_at_one_request_a_prompt(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    wraps = [wrap for wrap, _priced in GOOD.values()]
    unpriced = sum(not priced for _wrap, priced in GOOD.values())
    await assert_all_content(workshop, in_turn(wraps), len(wraps), unpriced, monkeypatch)


async def assert_all_content(
    workshop: Workshop, wrap: Wrap, count: int, unpriced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    async with behind(workshop, wrap, monkeypatch) as gateway:
        summary = await workshop.run(chunk_size=50)
        again = await workshop.run(chunk_size=50)

    assert (summary.succeeded, summary.status, summary.exit_status) == (count, "completed", 0)
    assert (again.cached, again.requests) == (count, 0)
    assert len(gateway.asked) == summary.requests == count
    assert max(gateway.asked.values()) == 1
    assert workshop.value("SELECT count(*) FROM current_content") == count
    # A cost that is not reported is unknown, never zero.
    assert summary.unpriced == workshop.value("SELECT sum(unpriced) FROM usage_by_day") == unpriced
    assert (summary.cost_usd is None) == (unpriced == count)
    assert_nothing_lost(workshop)


@pytest.mark.parametrize("name", ["a fence", "a sentence"])
async def test_gateway_that_ignores_the_schema_is_named_once(
    workshop: Workshop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(3)
    async with behind(workshop, GOOD[name][0], monkeypatch):
        summary = await workshop.run()

    (note,) = summary.notes
    assert "'gateway'" in note
    assert "output_config" in note
    # The original text is kept.
    start = GOOD[name][0](message_of("{}"))["content"][0]["text"][:4]
    assert {row["output_text"][:4] for row in workshop.rows("SELECT output_text FROM attempts")} == {start}
    assert (await workshop.run()).notes == []


async def test_where_and_how_fast_it_was_answered_is_kept(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrap(message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "usage": {**message["usage"], "inference_geo": "us", "speed": "fast"}}

    workshop.numbered(1)
    async with behind(workshop, wrap, monkeypatch):
        await workshop.run()

    (row,) = workshop.rows("SELECT inference_geo, speed FROM attempts")
    assert row == {"inference_geo": "us", "speed": "fast"}


# Incomplete answers


BAD: dict[str, Wrap] = {
    "an empty body": lambda _message: b"",
    "a web page": lambda _message: _response(b"<html>log in</html>", kind="text/html"),
    "no content": without("content"),
    "a stream that breaks off": lambda message: _response(events_of(message)[:-40], kind="text/event-stream"),
    "half of the JSON": lambda message: orjson.dumps(message)[:-9],
}


@pytest.mark.soak
@pytest.mark.parametrize("name", BAD)
async def test_answer_that_can_not_be_read_is_asked_again_within_the_bound_and_told(
    workshop: Workshop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await assert_asked_within_the_bound(workshop, BAD[name], 200, monkeypatch)


async def test_answers_of_all_forms_that_can_not_be_read_are_asked_again_within_the_bound_and_told(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await assert_asked_within_the_bound(workshop, in_turn(list(BAD.values())), 10, monkeypatch)


async def assert_asked_within_the_bound(
    workshop: Workshop, wrap: Wrap, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    async with behind(workshop, wrap, monkeypatch) as gateway:
        summary = await workshop.run(chunk_size=50)

    assert (summary.failed, summary.status, summary.exit_status) == (count, "completed", 1)
    assert max(gateway.asked.values()) <= MOST_ASKED
    assert summary.perhaps_billed == sum(gateway.asked.values())
    assert {failure.kind for failure in summary.failures} == {"connection"}
    assert all("the answer can't be read: " in (failure.message or "") for failure in summary.failures)
    assert_nothing_lost(workshop)


# Another model


async def test_answers_of_another_model_are_paid_for_and_no_content_and_given_up_after_three_runs(
    workshop: Workshop, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    async with behind(workshop, put(model="claude-haiku-4-5"), monkeypatch) as gateway:
        for _run in range(3):
            summary = await workshop.run(chunk_size=50)
            assert (summary.failed, summary.exit_status) == (count, 1)
            assert {failure.kind for failure in summary.failures} == {"wrong_model"}
        assert summary.cost_usd
        given_up = await workshop.run(chunk_size=50)
        assert (given_up.skipped, given_up.requests) == (count, 0)
        assert set(gateway.asked.values()) == {3}

        # Accepting a third model requests nothing again.
        file = workshop.templates / "note.md.j2"
        plain = file.read_text()
        file.write_text(plain.replace("key: id", "key: id\naccept_models: [claude-opus-4-6]"))
        assert (await workshop.run(chunk_size=50)).requests == 0

        # When the template accepts the model, its prompts are requested again, with the same hashes.
        file.write_text(plain.replace("key: id", "key: id\naccept_models: [claude-haiku-4-5]"))
        accepted = await workshop.run(chunk_size=50)
    assert (accepted.succeeded, accepted.exit_status) == (count, 0)
    assert set(gateway.asked.values()) == {4}
    assert_nothing_lost(workshop)


# Errors that stop the run


def refusal(status: int, kind: str, said: str) -> Wrap:
    return lambda _message: _response({"type": "error", "error": {"type": kind, "message": said}}, status)


SPENT: dict[str, Wrap] = {
    "an empty balance": refusal(400, "invalid_request_error", "Your credit balance is too low to access the API."),
    "a usage limit": refusal(400, "invalid_request_error", "You have reached your specified API usage limits."),
    "a gateway's budget as 400": refusal(400, "budget_exceeded", "Budget has been exceeded!"),
    "a gateway's budget as 429": refusal(429, "budget_exceeded", "Budget has been exceeded!"),
    "a refused key": lambda _message: _response(b"<html>who are you</html>", 401, "text/html"),
}


@pytest.mark.parametrize("name", SPENT)
async def test_spent_account_or_budget_stops_the_run_at_the_first_request(
    workshop: Workshop, count: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    async with behind(workshop, SPENT[name], monkeypatch) as gateway:
        with pytest.raises(StoppingCallError):
            await workshop.run(chunk_size=50)
    assert len(gateway.order) == 1
    assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}
    assert_nothing_lost(workshop)


async def test_account_that_is_filled_again_is_asked_for_the_rest(
    workshop: Workshop, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    spent = SPENT["an empty balance"]
    served = 0

    def wrap(message: dict[str, Any]) -> Any:
        nonlocal served
        served += 1
        return message if served <= 9 else spent(message)

    async with behind(workshop, wrap, monkeypatch):
        with pytest.raises(StoppingCallError, match="billing page"):
            await workshop.run(chunk_size=50, concurrency=3)
    assert workshop.value("SELECT count(*) FROM current_content") == 9

    async with behind(workshop, put(), monkeypatch):
        summary = await workshop.run(chunk_size=50)
    assert (summary.cached, summary.succeeded, summary.exit_status) == (9, count - 9, 0)
    assert_nothing_lost(workshop)


@pytest.mark.parametrize("chunk_size", [1, 50])
@pytest.mark.parametrize(
    "refused",
    [
        refusal(400, "invalid_request_error", "thinking.type: not for this model"),
        lambda _message: _response(b"<html>Blocked</html>", 403, "text/html"),
        lambda _message: _response({"detail": "Not Found"}, 404),
    ],
    ids=["a setting", "a firewall", "a path"],
)
async def test_final_errors_alike_stop_the_run_after_one_from_further_on(
    workshop: Workshop, count: int, chunk_size: int, refused: Wrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    # Long enough that even a busy machine tries no other request in place of the probe.
    monkeypatch.setattr("presswork.pacing.breaker.PROBE_TIMEOUT_S", 60)
    async with behind(workshop, refused, monkeypatch) as gateway:
        with pytest.raises(StoppingCallError, match="in the same way"):
            await workshop.run(chunk_size=chunk_size, concurrency=3)

    assert max(gateway.asked.values()) == 1
    # The failures in a row, the requests in flight, and the probe, which is the last record that waits for room.
    assert len(gateway.order) <= 5 + 3 + 1
    assert f"item {count - 1}" in " ".join(gateway.order) or chunk_size >= count
    assert workshop.counts("SELECT status, count(*) FROM generations GROUP BY 1") == {"failed": len(gateway.order)}
    assert_nothing_lost(workshop)

    async with behind(workshop, put(), monkeypatch):
        assert (await workshop.run(chunk_size=50)).succeeded == count


async def test_final_errors_alike_of_the_first_records_only_stop_nothing(
    workshop: Workshop, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = 15

    def wrap(message: dict[str, Any]) -> Any:
        number = number_of(message)
        return refusal(400, "invalid_request_error", f"item {number} is odd")(message) if number < first else message

    workshop.numbered(count)
    async with behind(workshop, wrap, monkeypatch) as gateway:
        summary = await workshop.run(chunk_size=1, concurrency=2)

    assert (summary.succeeded, summary.failed, summary.exit_status) == (count - first, first, 1)
    assert max(gateway.asked.values()) == 1
    assert_nothing_lost(workshop)


async def test_final_errors_alike_under_a_cap_stop_the_run_and_nobody_is_left_waiting(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(40)
    async with behind(workshop, refusal(400, "invalid_request_error", "no"), monkeypatch) as gateway:
        with pytest.raises(StoppingCallError, match="in the same way"):
            # The cap allows only a few requests at a time.
            await workshop.run(chunk_size=1, concurrency=3, max_cost=0.02)
    assert len(gateway.order) <= 5 + 3 + 1
    assert_nothing_lost(workshop)


async def test_all_records_in_flight_at_once_stop_the_run_too(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(12)
    async with behind(workshop, refusal(400, "invalid_request_error", "no"), monkeypatch):
        with pytest.raises(StoppingCallError, match="in the same way"):
            await workshop.run(concurrency=50)
    assert workshop.counts("SELECT status, count(*) FROM generations GROUP BY 1") == {"failed": 12}


async def test_records_that_are_too_long_stop_nothing(
    workshop: Workshop, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    refused = refusal(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
    async with behind(workshop, refused, monkeypatch) as gateway:
        summary = await workshop.run(chunk_size=50)

    assert (summary.failed, summary.status, summary.exit_status) == (count, "completed", 1)
    assert len(gateway.order) == count


@pytest.mark.parametrize("status", [403, 404])
async def test_page_of_a_firewall_for_one_record_fails_that_record_alone(
    workshop: Workshop, count: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrap(message: dict[str, Any]) -> Any:
        blocked = _response(b"<html>Blocked: DROP TABLE</html>", status, "text/html")
        return blocked if number_of(message) == 7 else message

    workshop.numbered(count)
    async with behind(workshop, wrap, monkeypatch) as gateway:
        summary = await workshop.run(chunk_size=50)

    assert (summary.succeeded, summary.failed, summary.exit_status) == (count - 1, 1, 1)
    (failure,) = summary.failures
    assert (failure.record_key, failure.kind) == ("00007", f"http_{status}")
    assert "A firewall or a proxy answered" in (failure.message or "")
    assert "DROP TABLE" not in (failure.message or "")
    assert max(gateway.asked.values()) == 1


# Unknown cost under a cap


async def test_untold_cost_under_a_cap_stops_the_run_and_keeps_what_has_come(
    workshop: Workshop, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(count)
    async with behind(workshop, without("usage"), monkeypatch) as gateway:
        with pytest.raises(UntoldCostError, match="--max-cost"):
            await workshop.run(chunk_size=50, max_cost=5, concurrency=CONCURRENCY)
        assert len(gateway.order) <= CONCURRENCY
        assert workshop.value("SELECT count(*) FROM current_content") == len(gateway.order)
        assert workshop.counts("SELECT status, count(*) FROM runs GROUP BY 1") == {"failed": 1}
        assert_nothing_lost(workshop)

        rest = await workshop.run(chunk_size=50)
    assert (rest.cached + rest.succeeded, rest.exit_status) == (count, 0)
    assert max(gateway.asked.values()) == 1


async def test_untold_cost_of_the_last_record_is_said_too(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(1)
    async with behind(workshop, without("usage"), monkeypatch):
        with pytest.raises(UntoldCostError):
            await workshop.run(max_cost=5)
    assert workshop.value("SELECT count(*) FROM current_content") == 1

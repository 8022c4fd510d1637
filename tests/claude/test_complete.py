"""Send one request with the real SDK over HTTP: each status and each SDK error becomes one of our errors."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import time
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import anthropic
import httpx2
import orjson
import pytest

from db.words import ANTHROPIC, PERHAPS_BILLED, SANDBOX
from presswork.claude.endpoint_check import WrongEndpointError, check_endpoint, require_key
from presswork.claude.rate_limits import Limit, read_limits, retry_after
from presswork.claude.refusals import translate
from presswork.errors import (
    CallError,
    EndpointError,
    FinalCallError,
    MissingKeyError,
    PassingCallError,
    StoppingCallError,
)
from presswork.prices import Usage
from presswork.prompts.render import request_body
from presswork.settings import ROOT
from sandbox import Sandbox
from tests.pieces import KEY, Connect, Reply, Say, Scripted, error_body, message, used

LONG_SYSTEM = "{% block system %}" + "Write about tea, exactly. " * 400 + "{% endblock %}"
USER = "{% block user %}Name: {{ record.name }}{% endblock %}"


async def failure(connect: Connect, prompt: Say, scripted: Scripted, *replies: Reply) -> CallError:
    """Return the error for the reply of a scripted endpoint."""
    scripted.plan(*replies)
    with pytest.raises(CallError) as raised:
        await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)
    return raised.value


# Answers


async def test_answer_carries_text_usage_and_limits(sandbox: Sandbox, connect: Connect, prompt: Say) -> None:
    answer = await connect(sandbox.url).ask(request_body(prompt()), SANDBOX)

    assert answer.stop_reason == "end_turn"
    assert answer.text.startswith("{")
    assert answer.model == "claude-sonnet-4-6"
    assert answer.message_id is not None
    assert answer.message_id.startswith("msg_")
    assert answer.request_id is not None
    assert answer.request_id.startswith("req_")
    assert used(answer).input_tokens > 0
    assert used(answer).output_tokens > 0
    assert used(answer).service_tier == "standard"
    assert answer.refusal is None
    assert answer.limits is not None
    assert answer.limits.requests is not None
    assert answer.limits.requests.remaining <= answer.limits.requests.limit


@pytest.mark.parametrize("ttl", ["5m", "1h"])
async def test_cached_prefix_is_counted_by_its_lifetime(
    sandbox: Sandbox, connect: Connect, prompt: Say, ttl: str
) -> None:
    client = connect(sandbox.url)
    body = request_body(prompt(LONG_SYSTEM + USER, f"cache: {ttl}\n"))

    first, second = await client.ask(body, SANDBOX), await client.ask(body, SANDBOX)

    written = {"5m": used(first).cache_creation_5m_tokens, "1h": used(first).cache_creation_1h_tokens}
    assert written.pop(ttl) > 1024
    assert list(written.values()) == [0]
    assert used(second).cache_read_tokens == used(first).cache_creation_5m_tokens + used(first).cache_creation_1h_tokens
    assert used(second).cache_creation_5m_tokens == used(second).cache_creation_1h_tokens == 0


async def test_cache_switched_off_writes_none(sandbox: Sandbox, connect: Connect, prompt: Say) -> None:
    answer = await connect(sandbox.url).ask(request_body(prompt(LONG_SYSTEM + USER, "cache: off\n")), SANDBOX)

    assert used(answer).cache_creation_5m_tokens == used(answer).cache_creation_1h_tokens == 0


async def test_thinking_is_counted_and_stays_out_of_the_text(sandbox: Sandbox, connect: Connect, prompt: Say) -> None:
    body = request_body(prompt(front="thinking: adaptive\neffort: low\nmax_tokens: 4096\n"))

    answer = await connect(sandbox.url).ask(body, SANDBOX)

    assert body["thinking"] == {"type": "adaptive"}
    assert body["output_config"]["effort"] == "low"
    assert used(answer).thinking_tokens
    assert answer.text.startswith("{")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage(10, output_tokens=20)),
        ({"cache_creation_input_tokens": 7}, Usage(10, cache_creation_5m_tokens=7, output_tokens=20)),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
                "cache_read_input_tokens": 3,
            },
            Usage(10, 4, 5, 3, 20),
        ),
        (
            {"cache_creation_input_tokens": None, "cache_creation": None, "cache_read_input_tokens": None},
            Usage(10, output_tokens=20),
        ),
        ({"cache_creation": {"ephemeral_5m_input_tokens": None}}, Usage(10, output_tokens=20)),
        (
            {"output_tokens_details": {"thinking_tokens": 12}, "service_tier": "batch"},
            Usage(10, output_tokens=20, thinking_tokens=12, service_tier="batch"),
        ),
    ],
)
async def test_usage_is_read_as_the_endpoint_reports_it(
    scripted: Scripted, connect: Connect, prompt: Say, usage: dict[str, Any], expected: Usage
) -> None:
    scripted.plan(Reply(message(**usage)))

    answer = await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)

    assert answer.usage == expected


async def test_text_blocks_are_joined_and_others_left_out(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    scripted.plan(Reply({**message(), "content": content}))

    assert (await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)).text == "ab"


async def test_request_with_more_tokens_than_the_sdk_allows_by_default_is_sent(
    sandbox: Sandbox, connect: Connect, prompt: Say
) -> None:
    # 600 s is also the SDK's default, with which it rejects more than 21,333 tokens without a stream.
    client = connect(sandbox.url, timeout_s=600)

    answer = await client.ask(request_body(prompt(front="max_tokens: 128000\n")), SANDBOX)

    assert answer.stop_reason == "end_turn"


# Errors

STATUSES: list[tuple[int, str, type[CallError]]] = [
    (400, "invalid_request_error", FinalCallError),
    (401, "authentication_error", StoppingCallError),
    (402, "billing_error", StoppingCallError),
    (403, "permission_error", StoppingCallError),
    (404, "not_found_error", StoppingCallError),
    (408, "timeout_error", PassingCallError),
    (409, "conflict_error", PassingCallError),
    (413, "request_too_large", FinalCallError),
    (422, "invalid_request_error", FinalCallError),
    (429, "rate_limit_error", PassingCallError),
    (500, "api_error", PassingCallError),
    (503, "api_error", PassingCallError),
    (504, "timeout_error", PassingCallError),
    (529, "overloaded_error", PassingCallError),
]


@pytest.mark.parametrize(("status", "kind", "expected"), STATUSES)
async def test_status_decides_whether_an_error_is_temporary(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, kind: str, expected: type[CallError]
) -> None:
    error = await failure(connect, prompt, scripted, Reply(error_body(kind, "why"), status))

    assert type(error) is expected
    assert (error.kind, error.http_status, error.request_id) == (kind, status, "req_1")


@pytest.mark.parametrize(("status", "_kind", "expected"), STATUSES)
async def test_error_page_of_a_proxy_is_read_by_its_status(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, _kind: str, expected: type[CallError]
) -> None:
    page = Reply(b"<html>oh</html>", status, {"content-type": "text/html"})

    error = await failure(connect, prompt, scripted, page)

    # A firewall or a proxy may reject a single record: its page does not mean that the key or the model is wrong.
    assert type(error) is (FinalCallError if status in {403, 404} else expected)
    assert error.kind == ("proxy" if status == 504 else f"http_{status}")
    assert "html" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (502, None, "proxy"),
        (502, "api_error", "proxy"),
        (504, None, "proxy"),
        (504, "gateway_timeout", "proxy"),
        (504, "timeout_error", "timeout_error"),
        (520, None, "proxy"),
        (524, None, "proxy"),
        (503, None, "http_503"),
        (522, None, "http_522"),
    ],
)
async def test_timeout_of_a_proxy_is_temporary_and_was_perhaps_billed(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, kind: str | None, told: str
) -> None:
    page = Reply(error_body(kind) if kind else b"<html>oh</html>", status)

    error = await failure(connect, prompt, scripted, page)

    assert isinstance(error, PassingCallError)
    assert (error.kind, error.kind in PERHAPS_BILLED) == (told, told == "proxy")


async def test_spend_limit_stops_the_run(sandbox: Sandbox, connect: Connect, prompt: Say) -> None:
    sandbox.configure(spend_limit=1)

    with pytest.raises(StoppingCallError) as raised:
        await connect(sandbox.url).ask(request_body(prompt()), SANDBOX)

    assert raised.value.kind == "enforced_spend_limit_reached"
    assert raised.value.http_status == 429


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "ANTHROPIC_API_KEY"), (402, "billing"), (403, "permissions"), (404, "`model`")]
)
async def test_error_that_stops_the_run_names_the_remedy(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, remedy: str
) -> None:
    assert remedy in str(await failure(connect, prompt, scripted, Reply(error_body("some_error", "why"), status)))


IN_STREAM: list[tuple[str, type[CallError]]] = [
    ("overloaded_error", PassingCallError),
    ("rate_limit_error", PassingCallError),
    ("api_error", PassingCallError),
    ("timeout_error", PassingCallError),
    ("authentication_error", StoppingCallError),
    ("billing_error", StoppingCallError),
    ("permission_error", StoppingCallError),
    ("not_found_error", StoppingCallError),
    ("invalid_request_error", FinalCallError),
]


@pytest.mark.parametrize(("kind", "expected"), IN_STREAM)
async def test_error_in_a_stream_is_read_by_its_type(
    scripted: Scripted, prompt: Say, kind: str, expected: type[CallError]
) -> None:
    event = b"event: error\ndata: " + orjson.dumps(error_body(kind, "why")) + b"\n\n"
    scripted.plan(Reply(event, headers={"content-type": "text/event-stream"}))
    async with anthropic.AsyncAnthropic(
        api_key=KEY, base_url=scripted.url, max_retries=0, http_client=anthropic.DefaultAioHttpClient()
    ) as sdk:
        with pytest.raises(anthropic.APIStatusError) as raised:
            async with sdk.messages.stream(**request_body(prompt())) as stream:
                await stream.get_final_message()

    error = translate(raised.value)

    assert type(error) is expected
    assert (error.kind, error.http_status) == (kind, 200)


@pytest.mark.parametrize(("kind", "expected"), IN_STREAM)
async def test_error_body_with_status_200_is_read_by_its_type(
    scripted: Scripted, connect: Connect, prompt: Say, kind: str, expected: type[CallError]
) -> None:
    error = await failure(connect, prompt, scripted, Reply(error_body(kind, "why")))

    assert type(error) is expected
    assert (error.kind, error.http_status) == (kind, 200)


async def test_refused_connection_was_never_sent(connect: Connect, prompt: Say) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PassingCallError) as raised:
            await connect(url).ask(request_body(prompt()), ANTHROPIC)

    assert raised.value.kind == "connect"


async def test_lost_connection_may_have_been_billed(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    error = await failure(connect, prompt, scripted, Reply(drops=True))

    assert type(error) is PassingCallError
    assert error.kind == "connection"


async def test_connection_lost_after_generating_may_have_been_billed(
    sandbox: Sandbox, connect: Connect, prompt: Say
) -> None:
    sandbox.configure(dropped_after=1)

    with pytest.raises(PassingCallError) as raised:
        await connect(sandbox.url).ask(request_body(prompt()), SANDBOX)

    assert raised.value.kind == "connection"


async def test_missing_answer_is_a_timeout(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    scripted.plan(Reply(hangs=True))

    with pytest.raises(PassingCallError) as raised:
        await connect(scripted.url, timeout_s=1).ask(request_body(prompt()), ANTHROPIC)

    assert raised.value.kind == "timeout"


@pytest.mark.parametrize("cause", [aiohttp.ConnectionTimeoutError("slow"), httpx2.PoolTimeout("full")])
def test_timeout_before_the_request_was_sent_is_not_billed(cause: Exception) -> None:
    # The SDK wraps both as timeouts.
    error = anthropic.APITimeoutError(httpx2.Request("POST", "http://127.0.0.1"))
    error.__cause__ = cause

    assert translate(error).kind == "connect"


async def test_sdk_does_not_retry_by_itself(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    headers = {"x-should-retry": "true", "retry-after": "0"}

    await failure(connect, prompt, scripted, Reply(error_body("overloaded_error"), 529, headers))

    assert len(scripted.bodies) == 1


async def test_rate_limits_and_pause_come_with_the_error(sandbox: Sandbox, connect: Connect, prompt: Say) -> None:
    sandbox.configure(rpm=1)
    client = connect(sandbox.url)
    await client.ask(request_body(prompt()), SANDBOX)

    with pytest.raises(PassingCallError) as raised:
        await client.ask(request_body(prompt()), SANDBOX)

    assert raised.value.retry_after_s is not None
    assert 50 < raised.value.retry_after_s <= 60
    assert raised.value.limits.requests.limit == 1
    assert raised.value.limits.requests.remaining == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "inf"}, math.inf),
        ({"retry-after": "1e300"}, 1e300),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "today"}, 0.0),
        ({"retry-after": "Wed, 41 Oct 2026 77:28:00 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_is_seconds_a_date_or_nothing(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected


def test_limits_are_read_from_headers() -> None:
    prefix = "anthropic-ratelimit-"
    headers = {
        f"{prefix}requests-limit": "50",
        f"{prefix}requests-remaining": "49",
        f"{prefix}requests-reset": "2026-11-22T10:00:00Z",
        f"{prefix}input-tokens-limit": "no number",
        f"{prefix}input-tokens-remaining": "1",
        f"{prefix}output-tokens-limit": "8",
    }

    limits = read_limits(headers)

    assert limits is not None
    assert limits.requests is not None
    assert (limits.requests.limit, limits.requests.remaining) == (50, 49)
    assert limits.input_tokens is limits.output_tokens is None
    assert read_limits({}) is None


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("0", "0", Limit(0, 0)),
        ("600", "-5", Limit(600, -5)),
        ("-1", "-1", Limit(-1, -1)),
        ("600.0", "12.5", Limit(600, 12)),
        ("inf", "1", None),
        ("nan", "1", None),
        ("600", "many", None),
        ("600", "", None),
        ("9" * 5000, "1", None),
    ],
)
def test_strange_limits_are_read_and_never_crash(limit: str, remaining: str, expected: Limit | None) -> None:
    prefix = "anthropic-ratelimit-requests-"
    limits = read_limits({f"{prefix}limit": limit, f"{prefix}remaining": remaining})
    assert (limits.requests if limits else None) == expected


def test_retry_after_as_a_date_uses_our_clock_if_the_endpoint_sends_none() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    read = retry_after({"retry-after": soon})
    assert read is not None
    assert 90 < read < 101


# No secret in a message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@pytest.mark.parametrize("quoted", [KEY, "sk-proj-abc***xyz"])
async def test_key_that_an_endpoint_quotes_is_left_out(
    scripted: Scripted, connect: Connect, prompt: Say, status: int, quoted: str
) -> None:
    error = await failure(connect, prompt, scripted, Reply(error_body("e", f"Bad key provided: {quoted}."), status))

    assert quoted not in str(error)
    assert "Bad key provided: [key]" in str(error)
    # A traceback prints an error's cause.
    assert error.__cause__ is None
    assert error.__suppress_context__


async def test_long_message_is_left_out_because_it_quotes_the_request(
    scripted: Scripted, connect: Connect, prompt: Say
) -> None:
    said = "messages.0: bad: " + "Dear Ms Marsh, " * 30

    error = await failure(connect, prompt, scripted, Reply(error_body("invalid_request_error", said), 400))

    assert str(error) == "HTTP 400 invalid_request_error"


async def test_short_message_is_passed_on(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    said = "max_tokens: must be greater than thinking.budget_tokens"

    error = await failure(connect, prompt, scripted, Reply(error_body("invalid_request_error", said), 400))

    assert str(error) == f"HTTP 400 invalid_request_error: {said}"


# Which endpoint


async def test_key_is_sent_as_the_sdk_sends_it(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)

    assert KEY in scripted.headers[0].get("authorization", "") + scripted.headers[0].get("x-api-key", "")


async def test_request_is_the_one_that_the_sdk_itself_sends(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    body = request_body(prompt(front="model: claude-opus-4-6\nthinking: adaptive\neffort: low\nmax_tokens: 2048\n"))
    timeout = httpx2.Timeout(20, connect=10)

    await connect(scripted.url).ask(body, ANTHROPIC)
    async with anthropic.AsyncAnthropic(
        api_key=KEY,
        base_url=scripted.url,
        max_retries=0,
        timeout=timeout,
        http_client=anthropic.DefaultAioHttpClient(),
        open_telemetry={"traces": {"enabled": False}},
    ) as sdk:
        await sdk.messages.create(**body)

    ours, theirs = scripted.headers
    assert ours == theirs
    assert scripted.bodies == [body, body]


async def test_sandbox_identifies_itself(sandbox: Sandbox, connect: Connect) -> None:
    identity = await connect(sandbox.url).identify()

    assert identity.is_sandbox
    assert identity.answered


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_gateway_that_knows_no_models_has_not_answered(scripted: Scripted, connect: Connect, status: int) -> None:
    scripted.plan(Reply(b"no", status))

    identity = await connect(scripted.url).identify()

    assert not identity.is_sandbox
    assert not identity.answered


@pytest.mark.parametrize("status", [401, 403])
async def test_rejected_key_is_found_by_identifying(scripted: Scripted, connect: Connect, status: int) -> None:
    scripted.plan(Reply(error_body("authentication_error", f"bad {KEY}"), status))

    with pytest.raises(StoppingCallError) as raised:
        await connect(scripted.url).identify()

    assert KEY not in str(raised.value)


async def test_unreachable_endpoint_is_named(connect: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(EndpointError, match=f"127.0.0.1:{port}.* no connection could be made"):
            await connect(f"http://127.0.0.1:{port}").identify()


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://127.0.0.1", "http://", "http://x:port", "http://me:secret@127.0.0.1"]
)
def test_invalid_url_is_rejected_and_not_quoted(connect: Connect, url: str) -> None:
    with pytest.raises(EndpointError, match="ANTHROPIC_BASE_URL") as raised:
        connect(url)

    assert "secret" not in str(raised.value)


async def test_endpoint_that_hangs_is_not_waited_for(
    scripted: Scripted, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presswork.claude.client.IDENTIFY_TIMEOUT_S", 1)
    scripted.plan(Reply(hangs=True))
    began = time.monotonic()

    with pytest.raises(EndpointError, match="timed out"):
        await connect(scripted.url).identify()

    assert time.monotonic() - began < 5


async def test_answer_of_the_sandbox_under_another_name_stops_and_keeps_its_usage(
    sandbox: Sandbox, connect: Connect, prompt: Say
) -> None:
    with pytest.raises(WrongEndpointError) as raised:
        await connect(sandbox.url).ask(request_body(prompt()), ANTHROPIC)

    assert isinstance(raised.value, StoppingCallError)
    assert raised.value.kind == "wrong_endpoint"
    assert raised.value.answer is not None
    assert used(raised.value.answer).output_tokens > 0


@pytest.mark.parametrize(
    ("endpoint", "is_sandbox", "right"),
    [
        (SANDBOX, True, True),
        (ANTHROPIC, False, True),
        ("gateway", False, True),
        (SANDBOX, False, False),
        ("gateway", True, False),
    ],
)
def test_endpoint_must_be_the_configured_one(endpoint: str, is_sandbox: bool, right: bool) -> None:
    if right:
        check_endpoint(endpoint, is_sandbox=is_sandbox)
    else:
        with pytest.raises(StoppingCallError, match="PRESSWORK_ENDPOINT"):
            check_endpoint(endpoint, is_sandbox=is_sandbox)


@pytest.mark.parametrize("key", [None, ""])
def test_missing_key_is_found_before_anything_is_sent(key: str | None) -> None:
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        require_key(key)


def test_existing_key_is_returned() -> None:
    assert require_key(KEY) == KEY


# Models


async def test_figures_of_a_model_are_requested_by_its_name(scripted: Scripted, connect: Connect) -> None:
    scripted.plan(Reply({"id": "claude-x", "max_tokens": 4096, "lifecycle": "deprecated", "retires_at": "2027-01-31"}))

    told = await connect(scripted.url).read_model("anthropic/claude-x")

    assert (told.max_output, told.lifecycle, told.retires_on) == (4096, "deprecated", date(2027, 1, 31))
    assert scripted.paths == ["/v1/models/anthropic%2Fclaude-x"]


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (Reply(error_body("not_found_error", "model: claude-x"), 404), 404, "not_found_error"),
        (Reply(error_body("authentication_error", f"bad {KEY}"), 401), 401, "authentication_error"),
        (Reply(b"<html>", 403), 403, "http_403"),
        (Reply(b"<html>busy</html>", 502), 502, "proxy"),
        (Reply(b"<html>hello</html>"), None, "connection"),
        (Reply(hangs=True), None, "timeout"),
        (Reply(drops=True), None, "connection"),
    ],
)
async def test_failed_request_for_a_models_figures_is_translated_like_any_other(
    scripted: Scripted, connect: Connect, monkeypatch: pytest.MonkeyPatch, reply: Reply, status: int | None, kind: str
) -> None:
    if reply.hangs:
        monkeypatch.setattr("presswork.claude.client.MODEL_TIMEOUT_S", 1)
    scripted.plan(reply)

    with pytest.raises(CallError) as raised:
        await connect(scripted.url).read_model("claude-x")

    assert (raised.value.http_status, raised.value.kind) == (status, kind)
    assert KEY not in str(raised.value)


ASK = """
import asyncio, json, sys
from presswork.claude.client import Client

async def main():
    async with Client(api_key="k", base_url=sys.argv[1], timeout_s=9, connections=1) as client:
        await client.ask(json.loads(sys.argv[2]), "gateway")

asyncio.run(main())
"""


async def test_warnings_of_the_sdk_are_not_shown(scripted: Scripted, prompt: Say) -> None:
    body = request_body(prompt(front="model: claude-opus-4-6\nthinking: 1024\nmax_tokens: 2048\n"))

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, scripted.url, orjson.dumps(body), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _out, said = await process.communicate()

    assert (said.decode(), process.returncode) == ("", 0)
    assert scripted.bodies == [body]


async def test_requests_run_concurrently(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    client, body = connect(scripted.url), request_body(prompt())

    answers = await asyncio.gather(*(client.ask(body, ANTHROPIC) for _ in range(4)))

    assert len(answers) == len(scripted.bodies) == 4

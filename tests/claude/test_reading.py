"""Read endpoints' real answers in any form. An unreadable answer is a temporary error that says what came."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from db.words import ANTHROPIC
from presswork.claude.answers import Answer, ErrorBody, read_body, read_error, read_usage
from presswork.errors import PassingCallError
from presswork.prices import Usage
from presswork.prompts.render import request_body
from tests.pieces import GOOD, Connect, Reply, Say, Scripted, error_body, message

WHOLE = Answer(GOOD, "end_turn", Usage(10, output_tokens=20), "claude-sonnet-4-6", "msg_1", None)


def read(body: Any) -> Answer:
    """Read the message in a body. Bytes are used unchanged."""
    found = read_body(body if isinstance(body, bytes) else orjson.dumps(body))
    assert isinstance(found, Answer)
    return found


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in message().items() if name not in names}


def chat(**choice: Any) -> dict[str, Any]:
    """Return the same answer in the format of OpenAI's chat completions."""
    return {
        "id": "msg_1",
        "model": "claude-sonnet-4-6",
        "choices": [{"message": {"role": "assistant", "content": GOOD}, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20},
    }


def stream(*events: dict[str, Any], ending: bytes = b"\n\n") -> bytes:
    return b"".join(
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(event) + ending for event in events
    )


START: dict[str, Any] = {"type": "message_start", "message": {**message(), "content": [], "stop_reason": None}}
BLOCK: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
HALVES: list[dict[str, Any]] = [
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": half}}
    for half in (GOOD[:9], GOOD[9:])
]
THOUGHT: dict[str, Any] = {
    "type": "content_block_delta",
    "index": 1,
    "delta": {"type": "thinking_delta", "thinking": "hm"},
}
END: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}}
STOP: dict[str, Any] = {"type": "message_stop"}
EVENTS: tuple[dict[str, Any], ...] = (
    START,
    BLOCK,
    {"type": "ping"},
    *HALVES,
    THOUGHT,
    {"type": "content_block_stop", "index": 0},
    END,
    STOP,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (message(), WHOLE),
        (b"\xef\xbb\xbf" + orjson.dumps(message()), WHOLE),
        (without("id"), replace(WHOLE, message_id=None)),
        (without("model"), replace(WHOLE, model=None)),
        (without("id", "type", "role", "model", "usage", "stop_reason"), Answer(GOOD, None, None, None, None, None)),
        ({**message(), "content": GOOD}, WHOLE),
        ({**message(), "content": [GOOD]}, WHOLE),
        ({**message(), "content": [{"text": GOOD}]}, WHOLE),
        ({**message(), "content": []}, replace(WHOLE, text="")),
        (without("stop_reason"), replace(WHOLE, stop_reason=None)),
        (message(stop_reason="eos"), replace(WHOLE, stop_reason="eos")),
        ({**message(), "stop_reason": 7}, replace(WHOLE, stop_reason=None)),
        ({**message(), "stop_details": "odd"}, WHOLE),
        ({**message(), "error": None}, WHOLE),
        ({**message(), "content": None}, replace(WHOLE, text="")),
        (
            chat(message={"content": None}, finish_reason="length"),
            replace(WHOLE, text="", stop_reason="length"),
        ),
        ({**message(stop_reason="refusal"), "content": None}, replace(WHOLE, text="", stop_reason="refusal")),
        (chat(), replace(WHOLE, stop_reason="stop")),
        (chat(message={"content": [{"type": "text", "text": GOOD}]}), replace(WHOLE, stop_reason="stop")),
        (chat(message={"content": None, "refusal": "No."}), replace(WHOLE, text="", stop_reason="refusal")),
        (
            chat(message={"content": None}, finish_reason="content_filter"),
            replace(WHOLE, text="", stop_reason="content_filter"),
        ),
        (stream(*EVENTS), WHOLE),
        (stream(*EVENTS).replace(b"\n", b"\r\n"), WHOLE),
        (stream(*EVENTS) + b"data: [DONE]\n\n", WHOLE),
        (b": a comment\n\n" + stream(*EVENTS), WHOLE),
    ],
)
def test_message_is_read_in_any_form(body: Any, expected: Answer) -> None:
    assert read(body) == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html>welcome</html>", "web page"),
        (b'{"type": "message", "content": [', "not in the Messages API's format"),
        (b"Hello, I am Claude", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not in the Messages API's format"),
        (b"[]", "not in the Messages API's format"),
        (b"null", "not JSON"),
        (b"{}", "not in the Messages API's format"),
        (b'"text"', "not JSON"),
        (without("content"), "not in the Messages API's format"),
        ({**without("stop_reason"), "content": None}, "not in the Messages API's format"),
        ({**message(), "content": {"text": GOOD}}, "not in the Messages API's format"),
        ({**message(), "content": [{"type": "text"}]}, "not in the Messages API's format"),
        ({**message(), "content": [{"type": "text", "text": 5}]}, "not in the Messages API's format"),
        ({**message(), "content": [5]}, "not in the Messages API's format"),
        ({"choices": []}, "not in the Messages API's format"),
        (chat(message={"content": None}, finish_reason=None), "not in the Messages API's format"),
        ({"type": "error", "error": "no"}, "not in the Messages API's format"),
        ({"type": "error"}, "not in the Messages API's format"),
        ({"error": "no"}, "not in the Messages API's format"),
        (stream(*EVENTS[:-1]), "is incomplete"),
        (stream(*EVENTS[:4]), "is incomplete"),
        (stream(*EVENTS)[:-30], "is incomplete"),
        (stream(*EVENTS[1:]), "is incomplete"),
        (b"data: hello\n\n", "is incomplete"),
    ],
)
def test_incomplete_answer_is_a_temporary_error_that_says_what_came(body: Any, why: str) -> None:
    with pytest.raises(PassingCallError, match=why) as raised:
        read_body(body if isinstance(body, bytes) else orjson.dumps(body))

    # Its status was a success, so it may have been billed.
    assert raised.value.kind == "connection"
    assert GOOD not in str(raised.value)


async def test_answer_that_can_not_be_read_keeps_its_status_and_request_id(
    scripted: Scripted, connect: Connect, prompt: Say
) -> None:
    scripted.plan(Reply(b""))

    with pytest.raises(PassingCallError) as raised:
        await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)

    assert (raised.value.kind, raised.value.http_status, raised.value.request_id) == ("connection", 200, "req_1")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(b"no gzip", headers={"content-encoding": "gzip"}), "compression"),
        (Reply(b"", 204), "empty"),
        (Reply(b"<html>log in</html>", headers={"content-type": "text/html"}), "web page"),
    ],
)
async def test_error_of_a_success_status_says_what_was_wrong(
    scripted: Scripted, connect: Connect, prompt: Say, reply: Reply, why: str
) -> None:
    scripted.plan(reply)

    with pytest.raises(PassingCallError, match=why):
        await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)


async def test_unrequested_event_stream_is_read(scripted: Scripted, connect: Connect, prompt: Say) -> None:
    scripted.plan(Reply(stream(*EVENTS), headers={"content-type": "text/event-stream"}))

    answer = await connect(scripted.url).ask(request_body(prompt()), ANTHROPIC)

    assert (answer.text, answer.stop_reason, answer.usage) == (GOOD, "end_turn", Usage(10, output_tokens=20))


def test_stream_has_the_output_tokens_only_at_its_end() -> None:
    quiet = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}

    assert read(stream(START, BLOCK, *HALVES, quiet, STOP)).usage is None


def test_error_in_an_event_stream_is_not_an_answer() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    assert read_body(stream(*EVENTS[:4], error)) == ErrorBody("overloaded_error", None, "busy", wrapped=True)


# Usage


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"input_tokens": 10, "output_tokens": 20}, Usage(10, output_tokens=20)),
        ({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}, Usage(10, output_tokens=20)),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            Usage(6, cache_read_tokens=4, output_tokens=20, thinking_tokens=5),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 2,
            },
            Usage(5, cache_creation_5m_tokens=3, cache_read_tokens=2, output_tokens=20),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "inference_geo": "us",
                "speed": "fast",
                "service_tier": "standard",
            },
            Usage(10, output_tokens=20, service_tier="standard", inference_geo="us", speed="fast"),
        ),
        (
            {"input_tokens": 10, "output_tokens": 20, "speed": {"odd": 1}},
            Usage(10, output_tokens=20, speed="{'odd': 1}"),
        ),
        ({"input_tokens": 10, "output_tokens": 20, "speed": "f\x00st"}, Usage(10, output_tokens=20, speed="f\ufffdst")),
        ({"input_tokens": "10", "output_tokens": 20.0}, Usage(10, output_tokens=20)),
    ],
)
def test_usage_is_read_in_the_format_of_either_api(told: Any, expected: Usage) -> None:
    assert read_usage(told, GOOD) == expected


@pytest.mark.parametrize(
    "count", [-1, "-10", "", "²", "1" * 5000, 10.5, float("inf"), 2**31, 2**70, True, None, [], {}]
)
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "prompt_tokens"])
def test_impossible_token_count_makes_the_cost_unknown(name: str, count: Any) -> None:
    ours = {"input_tokens": 10, "output_tokens": 20}
    theirs = {"prompt_tokens": 10, "completion_tokens": 20}

    assert read_usage({**(theirs if name in theirs else ours), name: count}, GOOD) is None


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        [],
        "10",
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": 10, "output_tokens": 0},
        {"input_tokens": 0, "output_tokens": 20},
        {"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": -1},
        {"input_tokens": 10, "output_tokens": 20, "cache_creation_input_tokens": "seven"},
        {"input_tokens": 10, "output_tokens": 20, "cache_creation": {"ephemeral_1h_input_tokens": 2**63}},
        {"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 11}},
    ],
)
def test_missing_usage_is_unknown_and_never_zero(told: Any) -> None:
    assert read_usage(told, GOOD) is None


# Characters that no database can store


def test_words_from_an_endpoint_are_cleaned() -> None:
    # orjson rejects half a surrogate pair, so it is written as on the wire.
    body = orjson.dumps(
        {**message(), "stop_details": {"category": "c@"}, "stop_reason": "s@", "id": "i@", "model": "m@"}
    )
    for odd in (b"\\u0000", b"\\ud800", b"\\udc00"):
        found = read(body.replace(b"@", odd))

        assert (found.refusal, found.stop_reason, found.message_id, found.model) == (
            "c\ufffd",
            "s\ufffd",
            "i\ufffd",
            "m\ufffd",
        )


def test_over_long_word_is_cut() -> None:
    found = read({**message(), "id": "i" * 10_000, "model": "m" * 10_000})

    assert (len(found.message_id or ""), len(found.model or "")) == (200, 200)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (error_body("api_error", "why", "c"), ErrorBody("api_error", "c", "why", wrapped=True)),
        ({"error": {"type": "t", "message": "why", "code": "400"}}, ErrorBody("t", "400", "why")),
        ({"error": {"type": {"a": 1}, "message": 5, "code": 400}}, ErrorBody()),
        ({"type": "error", "error": {"type": "a\x00" + "b" * 999}}, ErrorBody("a\ufffd" + "b" * 198, wrapped=True)),
        ({"error": {"message": "a\ud800b"}}, ErrorBody(message="a\ufffdb")),
        ({"message": "Forbidden"}, ErrorBody(message="Forbidden")),
        ("<html>", ErrorBody()),
        ([1], ErrorBody()),
        (None, ErrorBody()),
    ],
)
def test_any_error_body_is_read(body: Any, expected: ErrorBody) -> None:
    assert read_error(body) == expected

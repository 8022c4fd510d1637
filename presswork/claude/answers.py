"""Read the answer from a response's body, in any form that endpoints and gateways use.

This one module reads all forms, without HTTP or the SDK. It also replaces or leaves out what the ledger can't store: a
NUL, half a surrogate pair, a number that is too large for its column.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from db.words import CONNECTION
from presswork.claude.rate_limits import RateLimits
from presswork.errors import PassingCallError
from presswork.prices import Usage

MOST_TOKENS = 2**31 - 1
"""The largest count that the ledger's columns hold; no answer has as many tokens."""
LONGEST_WORD = 200
"""Only this many characters of an id, a model or a reason are kept."""
REFUSAL_REASONS = frozenset({"refusal", "content_filter", "safety"})
"""Stop reasons of a refusal, which may have no content."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_EVENT_STREAM = re.compile(rb"\s*(?:event|data|id|retry)?:")


@dataclass(frozen=True, slots=True)
class Answer:
    """An endpoint's answer. None means that the endpoint did not send a field; this includes the usage.

    `text` is all text blocks joined, unchanged: half a surrogate pair in it makes an answer invalid. `refusal` is the
    category of a refusal. `request_id` and `limits` come from the headers, all other fields from the body.
    """

    text: str
    stop_reason: str | None
    usage: Usage | None
    model: str | None
    message_id: str | None
    request_id: str | None = None
    refusal: str | None = None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What an endpoint is: whether it is the sandbox, and whether it answered at all."""

    is_sandbox: bool
    answered: bool


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error, read from its body. `wrapped` means that the body has the form of the Messages API's errors."""

    type: str | None = None
    code: str | None = None
    message: str = ""
    wrapped: bool = False


def read_body(content: bytes) -> Answer | ErrorBody:
    """Read the body of a success status: a message, its event stream, or an error in place of one.

    Raises PassingCallError for anything else. It may have been billed, and a retry may succeed.
    """
    if not content or content.isspace():
        raise _unreadable("its body is empty")
    try:
        body = _assembled(_events(content)) if _EVENT_STREAM.match(content) else _json(content)
        return _read(body)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        # Without the cause and its message, which may quote the answer.
        raise _unreadable(_what_it_is(content)) from None


def read_error(body: object) -> ErrorBody:
    """Read the body of an error. Fields may be missing: a proxy's page has no type and no message."""
    if not isinstance(body, dict):
        return ErrorBody()
    error = body.get("error")
    if not isinstance(error, dict):
        # Some gateways and model servers send a plain text, each under another name.
        words = (value for value in (error, body.get("message"), body.get("detail")) if isinstance(value, str))
        return ErrorBody(message=cleaned(next(words, "")))
    kind = cleaned_word(error.get("type"))
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else error.get("code")
    message = error.get("message")
    return ErrorBody(
        type=kind,
        code=cleaned_word(code),
        message=cleaned(message) if isinstance(message, str) else "",
        wrapped=kind is not None and body.get("type") == "error",
    )


def cleaned_word(value: object, longest: int = LONGEST_WORD) -> str | None:
    """Clean and shorten a text from the endpoint, so that every database can store it. None if there is no text."""
    return cleaned(value)[:longest] if isinstance(value, str) and value.strip() else None


def cleaned(text: str) -> str:
    """Replace characters that no database can store and no request can send by a visible mark."""
    return _UNSTORABLE.sub("\ufffd", text)


def _unreadable(why: str) -> PassingCallError:
    return PassingCallError(f"the answer can't be read: {why}", kind=CONNECTION)


def _what_it_is(content: bytes) -> str:
    start = content.lstrip()[:1]
    if start == b"<":
        return "it is a web page, not a message"
    if _EVENT_STREAM.match(content):
        return "its event stream is incomplete, or not in the Messages API's format"
    return "it is not in the Messages API's format" if start in b"{[" else "it is not JSON"


def _json(content: bytes) -> Any:
    try:
        # As plain JSON: for a few fields, the SDK's message model would take a quarter of the request's CPU time.
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # The standard library reads what orjson rejects: half a surrogate pair, a byte order mark, NaN.
        return json.loads(content)


def _read(body: Any) -> Answer | ErrorBody:
    if body.get("type") == "error" or (body.get("error") and "content" not in body and "choices" not in body):
        error = read_error(body)
        if error.type is None:
            raise ValueError("the error has no type")
        return error
    if "choices" in body and "content" not in body:
        body = _of_choices(body)
    stop_reason = cleaned_word(body.get("stop_reason"))
    # An answer with a stop reason is complete, even if thinking used all of its tokens.
    may_lack = stop_reason in REFUSAL_REASONS or (stop_reason is not None and "content" in body)
    text = _text(body.get("content"), may_lack=may_lack)
    return Answer(
        text=text,
        stop_reason=stop_reason,
        usage=read_usage(body.get("usage"), text),
        model=cleaned_word(body.get("model")),
        message_id=cleaned_word(body.get("id")),
        refusal=cleaned_word(_part(body, "stop_details").get("category")),
    )


def _of_choices(body: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an answer from the format of OpenAI's chat completions into a message."""
    choice = body["choices"][0]
    message = choice["message"]
    refused = message.get("refusal") and not message.get("content")
    stop_reason = "refusal" if refused else choice.get("finish_reason")
    return {**body, "content": message.get("content"), "stop_reason": stop_reason}


def _text(content: Any, *, may_lack: bool) -> str:
    if isinstance(content, str):
        return content
    if content is None and may_lack:
        return ""
    if not isinstance(content, list):
        raise TypeError("content is not a text or a list of blocks")
    blocks = [{"text": block} if isinstance(block, str) else block for block in content]
    return "".join(block["text"] for block in blocks if block.get("type", "text") in {"text", "output_text"})


def read_usage(reported: Any, text: str = "") -> Usage | None:
    """Read an answer's usage. None if it is missing or impossible: then the answer's cost is unknown."""
    try:
        usage = _usage(reported)
    except (ValueError, TypeError, AttributeError):
        return None
    # Some gateways write 0 if they don't know the usage, but an answer with a text always uses tokens.
    is_possible = usage.output_tokens and usage.prompt_tokens
    return usage if is_possible or not text else None


def _usage(reported: Mapping[str, Any]) -> Usage:
    if "input_tokens" not in reported and "prompt_tokens" in reported:
        reported = _of_prompt_tokens(reported)
    written = _part(reported, "cache_creation")
    # Without the breakdown, all of it was written for five minutes, the API's default.
    total = 0 if written else reported.get("cache_creation_input_tokens")
    thought = _part(reported, "output_tokens_details").get("thinking_tokens")
    return Usage(
        input_tokens=_count(reported.get("input_tokens")),
        cache_creation_5m_tokens=_count(written.get("ephemeral_5m_input_tokens") or total or 0),
        cache_creation_1h_tokens=_count(written.get("ephemeral_1h_input_tokens") or 0),
        cache_read_tokens=_count(reported.get("cache_read_input_tokens") or 0),
        output_tokens=_count(reported.get("output_tokens")),
        thinking_tokens=None if thought is None else _count(thought),
        service_tier=_modifier(reported.get("service_tier")),
        inference_geo=_modifier(reported.get("inference_geo")),
        speed=_modifier(reported.get("speed")),
    )


def _of_prompt_tokens(reported: Mapping[str, Any]) -> dict[str, Any]:
    """Convert OpenAI's usage into the Messages API's, which counts cached tokens separately."""
    read = _part(reported, "prompt_tokens_details").get("cached_tokens") or reported.get("cache_read_input_tokens") or 0
    written = reported.get("cache_creation_input_tokens") or 0
    thought = _part(reported, "completion_tokens_details").get("reasoning_tokens")
    return {
        **reported,
        "input_tokens": _count(reported["prompt_tokens"]) - _count(read) - _count(written),
        "cache_read_input_tokens": read,
        "output_tokens": reported.get("completion_tokens"),
        "output_tokens_details": {"thinking_tokens": thought},
    }


def _part(reported: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = reported.get(name)
    return part if isinstance(part, dict) else {}


def _count(value: Any) -> int:
    """Return a number of tokens. Raises ValueError if it can't be one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise ValueError("not a number of tokens")
    return value


def _modifier(value: Any) -> str | None:
    # A value that is not a word may still change the price. It is kept, so that the cost is unknown and not wrong.
    return None if value is None else cleaned_word(value if isinstance(value, str) else str(value))


def _events(content: bytes) -> Iterator[Any]:
    for event in content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data and data != b"[DONE]":
            yield _json(data)


def _assembled(events: Iterator[Any]) -> dict[str, Any]:
    """Build the message from the events of a stream. Raises ValueError if the stream is incomplete."""
    message: dict[str, Any] | None = None
    texts: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "error":
                return {"type": "error", "error": event["error"]}
            case "message_start":
                # Its output tokens are those at the stream's beginning, so they are dropped.
                message = {**event["message"], "usage": {**_part(event["message"], "usage"), "output_tokens": None}}
            case "content_block_start" if event["content_block"]["type"] == "text":
                texts[event["index"]] = event["content_block"].get("text") or ""
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                texts[event["index"]] = texts.get(event["index"], "") + event["delta"]["text"]
            case "message_delta" if message is not None:
                reported = _part(event, "usage")
                message["usage"] |= {name: value for name, value in reported.items() if value is not None}
                message |= event["delta"]
            case "message_stop" if message is not None:
                return {**message, "content": [{"type": "text", "text": text} for text in texts.values()]}
    raise ValueError("the stream is incomplete")

"""Responses that are not what the endpoint meant to send: what gateways answer in its place, or make of its answers.

Each rule is one function. GATEWAY_RULES answer in place of the endpoint, so nothing is generated or billed.
ANSWER_RULES change an answer that was generated and is billed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from presswork.prices import Usage
from sandbox import SANDBOX_HEADER
from sandbox.draws import Draw
from sandbox.messages import events

KEY = "sk-ant-nights-5f1c0d27a9e34b68"
"""The key of all simulated clients. A gateway may quote it, and it may be written nowhere."""
_PAGE = b"<html><head><title>Error</title></head><body>Request blocked. Incident 5f2a</body></html>"
_HTML = {"content-type": "text/html"}
_DATED = re.compile(r"-\d{8}$")


@dataclass(slots=True)
class ServedReply:
    """A response on its way to the client, and the account of it.

    `message` is the answer before it is written to `body`. `usage` and `model` are what is billed. `good` means that it
    is valid content, `tells_usage` that it reports its usage in a form that can be used.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    message: dict[str, Any] | None = None
    usage: Usage | None = None
    model: str = ""
    text: str | None = None
    good: bool = False
    tells_usage: bool = True

    def rewrite(self, **changes: Any) -> None:
        """Write the body again, with changes of the message."""
        self.message = {**(self.message or {}), **changes}
        self.body = to_json(self.message)

    def spoil(self, body: bytes, status: int = 200) -> None:
        """Send something else in place of the answer, which stays billed."""
        self.status, self.body, self.text = status, body, None
        self.good = self.tells_usage = False


GatewayRule = Callable[[Draw], ServedReply]
AnswerRule = Callable[[ServedReply, Draw], None]


# In place of the endpoint: nothing is generated


def _error(status: int, kind: str, said: str, headers: Mapping[str, str] | None = None) -> ServedReply:
    body = {"type": "error", "error": {"type": kind, "message": said}}
    return ServedReply(status, dict(headers or {}), to_json(body))


def _blocked(_draw: Draw) -> ServedReply:
    return ServedReply(403, dict(_HTML), _PAGE)


def _too_large(_draw: Draw) -> ServedReply:
    return ServedReply(413, dict(_HTML), _PAGE)


def _quotes_key(_draw: Draw) -> ServedReply:
    return _error(400, "invalid_request_error", f"team 7 may not send this with {KEY}")


def _redirects(_draw: Draw) -> ServedReply:
    return ServedReply(307, {"location": "/v1/messages"}, b"")


def _key_refused(_draw: Draw) -> ServedReply:
    return _error(401, "authentication_error", "invalid x-api-key")


def _no_credit(_draw: Draw) -> ServedReply:
    said = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
    return _error(400, "invalid_request_error", said)


def _gateway_budget(draw: Draw) -> ServedReply:
    body = {
        "error": {"message": "Budget has been exceeded! Current cost: 0.1", "type": "budget_exceeded", "code": "400"}
    }
    return ServedReply(draw.choice((400, 429)), {}, to_json(body))


def _proxy_before(draw: Draw) -> ServedReply:
    return ServedReply(draw.choice((502, 504, 520, 524)), dict(_HTML), _PAGE)


def _unavailable(draw: Draw) -> ServedReply:
    return ServedReply(draw.choice((500, 503, 522)), dict(_HTML), _PAGE)


def _conflict(draw: Draw) -> ServedReply:
    return _error(draw.choice((408, 409)), "api_error", "Try again")


def _own_timeout(_draw: Draw) -> ServedReply:
    return _error(504, "timeout_error", "Request timed out")


def _error_in_200(draw: Draw) -> ServedReply:
    kind = draw.choice(("overloaded_error", "rate_limit_error", "api_error"))
    return replace(_error(429, kind, "Try again later"), status=200)


def _error_in_stream(draw: Draw) -> ServedReply:
    kind = draw.choice(("overloaded_error", "api_error"))
    error = to_json({"type": "error", "error": {"type": kind, "message": "Overloaded"}})
    start = to_json(
        {"type": "message_start", "message": {"id": "msg_0", "type": "message", "content": [], "usage": {}}}
    )
    return ServedReply(200, {}, b"event: message_start\ndata: " + start + b"\n\nevent: error\ndata: " + error + b"\n\n")


def _login_page(_draw: Draw) -> ServedReply:
    return ServedReply(200, dict(_HTML), b"<html>log in</html>")


RETRY_AFTERS = (
    *("-5", "1e308", "inf", "nan", "", "soon", "0", "86400"),
    *("Fri, 31 Dec 9999 23:59:59 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 41 Oct 2026 77:28:00 GMT"),
)


def _odd_retry_after(draw: Draw) -> ServedReply:
    status, kind = draw.choice(((429, "rate_limit_error"), (503, "api_error"), (529, "overloaded_error")))
    return _error(status, kind, "Try again later", {"retry-after": draw.choice(RETRY_AFTERS)})


GATEWAY_RULES: Mapping[str, GatewayRule] = {
    "blocked": _blocked,
    "too_large": _too_large,
    "quotes_key": _quotes_key,
    "redirects": _redirects,
    "key_refused": _key_refused,
    "no_credit": _no_credit,
    "gateway_budget": _gateway_budget,
    "proxy_before": _proxy_before,
    "unavailable": _unavailable,
    "conflict": _conflict,
    "own_timeout": _own_timeout,
    "error_in_200": _error_in_200,
    "error_in_stream": _error_in_stream,
    "login_page": _login_page,
    "odd_retry_after": _odd_retry_after,
}


# After the answer: it is generated and billed


def _proxy_after(reply: ServedReply, draw: Draw) -> None:
    reply.spoil(_PAGE, draw.choice((502, 504, 520, 524)))
    # The page is the proxy's own: it knows nothing of the endpoint's headers.
    reply.headers = dict(_HTML)


def _empty_body(reply: ServedReply, _draw: Draw) -> None:
    reply.spoil(b"")


def _half_json(reply: ServedReply, draw: Draw) -> None:
    reply.spoil(reply.body[: 1 + draw.below(len(reply.body) - 1)])


def _event_stream(reply: ServedReply, _draw: Draw) -> None:
    reply.body = b"".join(events(reply.message or {}))


def _half_stream(reply: ServedReply, draw: Draw) -> None:
    parts = list(events(reply.message or {}))
    reply.spoil(b"".join(parts[: 1 + draw.below(len(parts) - 1)]))


def _dated_model(reply: ServedReply, draw: Draw) -> None:
    plain = _DATED.sub("", reply.model)
    reply.model = draw.choice((f"{plain}-20260217", f"{plain}@20260217", f"{plain}-v1:0", f"{plain}-latest"))
    reply.rewrite(model=reply.model)


def _prefixed_model(reply: ServedReply, draw: Draw) -> None:
    plain = _DATED.sub("", reply.model)
    reply.model = draw.choice((f"anthropic/{plain}", f"openrouter/anthropic/{plain}", f"bedrock/{plain}"))
    reply.rewrite(model=reply.model)


def _another_model(reply: ServedReply, _draw: Draw) -> None:
    reply.model = "claude-opus-4-6" if "haiku" in reply.model else "claude-haiku-4-5-20251001"
    reply.good = False
    reply.rewrite(model=reply.model)


def _no_model(reply: ServedReply, _draw: Draw) -> None:
    reply.rewrite(model=None)


def _no_usage(reply: ServedReply, draw: Draw) -> None:
    told = draw.choice((None, {}, {"input_tokens": 0, "output_tokens": 0}, {"total_tokens": 7}))
    _report(reply, told)


def _impossible_usage(reply: ServedReply, draw: Draw) -> None:
    count = draw.choice((-1, 2**40, "many", 10.5, True))
    _report(reply, {**(reply.message or {})["usage"], "output_tokens": count})


def _report(reply: ServedReply, usage: object) -> None:
    """Report another usage; an answer without a text may well have used no tokens, so it is left as it is."""
    if reply.text:
        reply.tells_usage = False
        reply.rewrite(usage=usage)


_CHAT_REASONS = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter", "tool_use": "tool_calls"}


def _chat_format(reply: ServedReply, _draw: Draw) -> None:
    """Answer in the format of OpenAI's chat completions, which has fewer counts: those it has are billed."""
    message, usage = reply.message or {}, reply.usage
    assert usage is not None
    written = usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens
    reply.usage = Usage(usage.input_tokens, written, 0, usage.cache_read_tokens, usage.output_tokens)
    reason = message["stop_reason"]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply.text or None},
        "finish_reason": _CHAT_REASONS.get(reason, reason),
    }
    told = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "cache_creation_input_tokens": written,
    }
    reply.body = to_json({"id": message["id"], "model": message["model"], "choices": [choice], "usage": told})


def _odd_id(reply: ServedReply, _draw: Draw) -> None:
    body = reply.body.replace(b'"id":"msg_', b'"id":"\\u0000\\ud800msg_', 1)
    reply.message = {**(reply.message or {}), "id": f"\ufffd\ufffd{(reply.message or {})['id']}"}
    reply.body = body


def _half_character(reply: ServedReply, _draw: Draw) -> None:
    """Put half a surrogate pair into the text, which no database can store and no content may contain."""
    if reply.text:
        text = reply.text.replace('":"', '":"@half@', 1) if '":"' in reply.text else f"@half@{reply.text}"
        reply.rewrite(content=[{"type": "text", "text": text}])
        reply.body = reply.body.replace(b"@half@", b"\\ud83d", 1)
        reply.text, reply.good = text.replace("@half@", "\ufffd", 1), False


def _odd_limits(reply: ServedReply, draw: Draw) -> None:
    for name in ("requests", "input-tokens", "output-tokens"):
        limit, left = draw.choice(
            (("0", "0"), ("-1", "-1"), ("inf", "1"), ("nan", "nan"), ("600", "-5"), ("9" * 40, ""))
        )
        prefix = f"anthropic-ratelimit-{name}-"
        reply.headers |= {f"{prefix}limit": limit, f"{prefix}remaining": left}


def _other_endpoint(reply: ServedReply, _draw: Draw) -> None:
    """Answer as the sandbox for another endpoint, or as another endpoint for the sandbox."""
    reply.good = False
    if reply.headers.pop(SANDBOX_HEADER, None) is None:
        reply.headers[SANDBOX_HEADER] = "1"


ANSWER_RULES: Mapping[str, AnswerRule] = {
    "proxy_after": _proxy_after,
    "empty_body": _empty_body,
    "half_json": _half_json,
    "event_stream": _event_stream,
    "half_stream": _half_stream,
    "dated_model": _dated_model,
    "prefixed_model": _prefixed_model,
    "another_model": _another_model,
    "no_model": _no_model,
    "no_usage": _no_usage,
    "impossible_usage": _impossible_usage,
    "chat_format": _chat_format,
    "odd_id": _odd_id,
    "half_character": _half_character,
    "odd_limits": _odd_limits,
    "other_endpoint": _other_endpoint,
}

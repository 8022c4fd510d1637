"""Complete: one request to the Messages API, and its answer or error in our own words.

The only file that imports anthropic: what the SDK raises is translated here, once, into "may pass" or "will not".
The SDK's own retries are off (it obeys any `retry-after` and tells no one); answer.py owns them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import aiohttp
import anthropic
import httpx2
import orjson

from flows.errors import (
    CallError,
    EndpointError,
    FinalCallError,
    MissingKeyError,
    OutputClassError,
    PassingCallError,
    StoppingCallError,
)
from flows.steps.prices import Usage
from flows.steps.schemas import full_schema
from flows.steps.validate import OutputClass

SANDBOX_HEADER = "x-presswork-sandbox"
SANDBOX = "sandbox"
ANTHROPIC = "anthropic"
SPEND_LIMIT = "spend_limit_reached"
NON_STREAMING_MAX_TOKENS = 21_333
"""Above it the SDK refuses a plain call at its default timeout (ValueError), so a timeout is always given."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the endpoint's rate limits, as an answer's headers told it."""

    limit: int
    remaining: int
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The account's limits a minute and what is left of them, whoever else is using the account."""

    requests: Limit | None
    input_tokens: Limit | None
    output_tokens: Limit | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint answered; `text` is all text blocks joined, `refusal` the category of a refusal."""

    text: str
    stop_reason: str
    usage: Usage
    model: str
    message_id: str
    request_id: str | None
    refusal: str | None
    limits: RateLimits | None


@dataclass(frozen=True, slots=True)
class Identity:
    """What an endpoint says it is when it is asked: its name, where known, and whether it answered at all."""

    is_sandbox: bool
    answered: bool


def output_schema(output_class: OutputClass) -> dict[str, Any]:
    """Turn a pydantic model into the schema that the API takes; OutputClassError where it can't be.

    Bounds that the API does not enforce (lengths, ranges, patterns) go into the descriptions, for the model to read.
    """
    schema = full_schema(output_class)
    try:
        return anthropic.transform_schema(schema)
    except (ValueError, TypeError, AssertionError) as error:
        raise OutputClassError(f"The API can't take the output class {output_class.__name__!r}: {error}") from None


class Client:
    """A connection pool to one endpoint. Use it as an async context manager, inside one event loop."""

    def __init__(self, *, api_key: str, base_url: str | None, timeout_s: float, connections: int) -> None:
        # One connection a request in flight; the SDK's default would queue what the limiter has let go.
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            http_client=anthropic.DefaultAioHttpClient(limits=limits),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._client.close()

    async def identify(self) -> Identity:
        """Ask the endpoint what it is (GET /v1/models: free, and checks the key).

        A refused key raises StoppingCallError, an endpoint that can't be reached EndpointError; one that does not
        know the path has not answered, which is all right for a gateway.
        """
        try:
            raw = await self._client.models.with_raw_response.list(limit=1)
        except (anthropic.AuthenticationError, anthropic.PermissionDeniedError) as error:
            raise translate(error) from error
        except anthropic.APIStatusError as error:
            return Identity(SANDBOX_HEADER in error.response.headers, answered=False)
        except anthropic.APIConnectionError as error:
            raise EndpointError(
                f"The endpoint {self._client.base_url} can't be reached: {_cause(error)}. "
                "Check ANTHROPIC_BASE_URL, or start it (`presswork sandbox` starts the sandbox)."
            ) from None
        return Identity(SANDBOX_HEADER in raw.headers, answered=True)

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises CallError: PassingCallError may get better, FinalCallError will not."""
        try:
            raw = await self._client.messages.with_raw_response.create(**body)
        except anthropic.AnthropicError as error:
            raise translate(error) from error
        check_endpoint(endpoint, is_sandbox=SANDBOX_HEADER in raw.headers)
        try:
            # Read as plain JSON: the SDK's model of a message costs a quarter of the whole request, for a few fields.
            return _answer(orjson.loads(raw.http_response.content), raw.headers)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # An answer that is no message: it may have been billed, and asking again may go better.
            raise PassingCallError(
                f"the answer can't be read ({type(error).__name__})", kind="connection", http_status=raw.status_code
            ) from error


def check_endpoint(endpoint: str, *, is_sandbox: bool) -> None:
    """Stop where the sandbox answers under another name, or another under the sandbox's."""
    if is_sandbox != (endpoint == SANDBOX):
        raise StoppingCallError(
            f"The endpoint was to be {endpoint!r}, but "
            + ("the sandbox answers there. " if is_sandbox else "it is not the sandbox that answers there. ")
            + "Its answers would stand in the ledger under a wrong name: check PRESSWORK_ENDPOINT and "
            "ANTHROPIC_BASE_URL.",
            kind="wrong_endpoint",
        )


def require_key(key: str | None) -> str:
    """Return the key, or raise MissingKeyError before anything is sent: the SDK would fail at the first request."""
    if not key:
        raise MissingKeyError
    return key


def translate(error: anthropic.AnthropicError) -> CallError:
    """Say an SDK error in ours; the classes are those of FINAL and PASSING, read by status and type."""
    if isinstance(error, anthropic.APITimeoutError):
        return PassingCallError("the request timed out", kind="timeout")
    if isinstance(error, anthropic.APIConnectionError):
        return PassingCallError(_cause(error), kind="connect" if _never_sent(error) else "connection")
    if not isinstance(error, anthropic.APIStatusError):
        return PassingCallError(f"the answer can't be read ({type(error).__name__})", kind="connection")
    kind = str(error.type or f"http_{error.status_code}")
    found: dict[str, Any] = {
        "kind": kind,
        "http_status": error.status_code,
        "request_id": error.request_id,
        "retry_after_s": retry_after(error.response.headers),
        "limits": read_limits(error.response.headers),
    }
    # The endpoint's own words are left out where they could quote the request.
    message = f"HTTP {error.status_code} {kind}"
    code = error.error_code or ""
    if code.endswith(SPEND_LIMIT):
        found["kind"] = code
        return StoppingCallError(f"{message}: {error.api_message}", **found)
    if error.status_code in STOPPING or (error.status_code == 404 and kind == "not_found_error"):
        return StoppingCallError(f"{message}: {error.api_message}. {STOPPING.get(error.status_code, '')}", **found)
    if error.status_code in PASSING_STATUSES or error.status_code >= 500 or kind in PASSING_TYPES:
        return PassingCallError(message, **found)
    return FinalCallError(f"{message}: {error.api_message}", **found)


STOPPING = {
    401: "The endpoint refuses the key: check ANTHROPIC_API_KEY.",
    402: "The account lacks credit: see its billing page.",
    403: "The key may not do this: check its workspace and permissions.",
    404: "The endpoint does not know the model: check `model` in the template.",
}
"""Statuses after which no request of the run can succeed, and what to do."""

PASSING_STATUSES = frozenset({408, 409, 429, 529})
PASSING_TYPES = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
"""A stream's error comes with status 200 and tells itself by its type alone."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after` in seconds, None where there is none; a date is not what the API sends."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _answer(message: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    used = message["usage"]
    written = used.get("cache_creation") or {}
    # Without the breakdown all of it was written for five minutes, the API's default.
    total = used.get("cache_creation_input_tokens") or 0
    return Answer(
        text="".join(block["text"] for block in message["content"] if block["type"] == "text"),
        stop_reason=message["stop_reason"] or "unknown",
        usage=Usage(
            input_tokens=int(used["input_tokens"]),
            cache_creation_5m_tokens=written.get("ephemeral_5m_input_tokens", 0 if written else total),
            cache_creation_1h_tokens=written.get("ephemeral_1h_input_tokens", 0),
            cache_read_tokens=used.get("cache_read_input_tokens") or 0,
            output_tokens=int(used["output_tokens"]),
            thinking_tokens=(used.get("output_tokens_details") or {}).get("thinking_tokens"),
            service_tier=used.get("service_tier"),
        ),
        model=str(message["model"]),
        message_id=str(message["id"]),
        request_id=headers.get("request-id"),
        refusal=(message.get("stop_details") or {}).get("category"),
        limits=read_limits(headers),
    )


def read_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Read the anthropic-ratelimit-* headers; None where the endpoint sends none."""
    requests = _limit(headers, "requests")
    tokens_in, tokens_out = _limit(headers, "input-tokens"), _limit(headers, "output-tokens")
    if requests is None and tokens_in is None and tokens_out is None:
        return None
    return RateLimits(requests, tokens_in, tokens_out)


def _limit(headers: Mapping[str, str], name: str) -> Limit | None:
    prefix = f"anthropic-ratelimit-{name}-"
    limit = headers.get(prefix + "limit")
    remaining = headers.get(prefix + "remaining")
    if limit is None or remaining is None:
        return None
    try:
        reset = headers.get(prefix + "reset")
        resets_at = datetime.fromisoformat(reset).astimezone(UTC) if reset else None
        return Limit(int(limit), int(remaining), resets_at)
    except ValueError:
        return None


def _never_sent(error: anthropic.APIConnectionError) -> bool:
    # Only where no connection was made is it certain that nothing was generated.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | aiohttp.ClientConnectorError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _cause(error: anthropic.APIConnectionError) -> str:
    if _never_sent(error):
        return "no connection could be made"
    return "the connection was lost before an answer came"

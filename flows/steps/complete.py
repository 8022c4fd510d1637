"""Complete: one request to the Messages API, and its answer or error in our own words.

The only file that imports anthropic: what the SDK raises is translated here, once, into "may pass" or "will not".
The SDK's own retries are off (it obeys any `retry-after` and tells no one); answer.py owns them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
LONGEST_MESSAGE = 300
"""Characters of an endpoint's error message that are passed on: see _said()."""
IDENTIFY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One of the endpoint's rate limits, as an answer's headers told it."""

    limit: int
    remaining: int


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
        if base_url is not None:
            _check_url(base_url)
        # One connection a request in flight; the SDK's default would queue what the limiter has let go.
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            # One of our own: at its default the SDK refuses requests of more than 21,333 max_tokens (ValueError).
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            http_client=anthropic.DefaultAioHttpClient(limits=limits),
            # What a run does is told by its ledger; a trace would carry prompts to wherever it is collected.
            open_telemetry={"traces": {"enabled": False}},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._client.close()

    async def identify(self, *, gateway: bool = False) -> Identity:
        """Ask the endpoint what it is (GET /v1/models: free, and checks the key).

        A refused key raises StoppingCallError, an endpoint that can't be reached EndpointError; one that does not
        know the path has not answered, which is all right for a gateway. Of a known `gateway` a 403 says no more
        than that: many let nothing pass but POST /v1/messages.
        """
        try:
            raw = await self._client.models.with_raw_response.list(limit=1, timeout=IDENTIFY_TIMEOUT_S)
        except anthropic.APIStatusError as error:
            if error.status_code == 401 or (error.status_code == 403 and not gateway):
                raise translate(error) from None
            return Identity(SANDBOX_HEADER in error.response.headers, answered=False)
        except anthropic.APIConnectionError as error:
            raise EndpointError(
                f"The endpoint {self._client.base_url} can't be reached: {translate(error)}. "
                "Check ANTHROPIC_BASE_URL, or start it (`presswork sandbox` starts the sandbox)."
            ) from None
        return Identity(SANDBOX_HEADER in raw.headers, answered=True)

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises CallError: PassingCallError may get better, FinalCallError will not."""
        try:
            raw = await self._client.messages.with_raw_response.create(**body)
        except anthropic.AnthropicError as error:
            # Not `from error`: a trace would print the SDK's message, which is the endpoint's whole answer.
            raise translate(error) from None
        # Once for the dozen that are read: the SDK's own mapping decodes and joins anew at every look.
        headers = {name.lower(): value for name, value in raw.headers.multi_items()}
        answer = _read(raw.http_response.content, raw.status_code, headers)
        check_endpoint(endpoint, is_sandbox=SANDBOX_HEADER in headers, answer=answer)
        return answer


class WrongEndpointError(StoppingCallError):
    """Another endpoint answered than the run was told; `answer` is what it said, which may have been paid for."""

    def __init__(self, message: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(message, kind="wrong_endpoint")
        self.answer = answer


def check_endpoint(endpoint: str, *, is_sandbox: bool, answer: Answer | None = None) -> None:
    """Stop where the sandbox answers under another name, or another under the sandbox's."""
    if is_sandbox != (endpoint == SANDBOX):
        raise WrongEndpointError(
            f"The endpoint was to be {endpoint!r}, but "
            + ("the sandbox answers there. " if is_sandbox else "it is not the sandbox that answers there. ")
            + "Its answers would stand in the ledger under a wrong name: check PRESSWORK_ENDPOINT and "
            "ANTHROPIC_BASE_URL.",
            answer,
        )


def _check_url(url: str) -> None:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise EndpointError("ANTHROPIC_BASE_URL must be a URL that begins with http:// or https://.")
    if parsed.userinfo:
        raise EndpointError("ANTHROPIC_BASE_URL can't carry a user name or password: set ANTHROPIC_API_KEY instead.")


def require_key(key: str | None) -> str:
    """Return the key, or raise MissingKeyError before anything is sent: the SDK would fail at the first request."""
    if not key:
        raise MissingKeyError
    return key


def translate(error: anthropic.AnthropicError) -> CallError:
    """Say an SDK error in ours: may it pass, will it not, or can no request of the run succeed."""
    if isinstance(error, anthropic.APIConnectionError):
        if _never_sent(error):
            return PassingCallError("no connection could be made", kind="connect")
        if isinstance(error, anthropic.APITimeoutError):
            return PassingCallError("the request timed out", kind="timeout")
        return PassingCallError("the connection was lost before an answer came", kind="connection")
    if not isinstance(error, anthropic.APIStatusError):
        return PassingCallError(f"the answer can't be read ({type(error).__name__})", kind="connection")
    said = _said(error.api_message, error.request.headers)
    return _refusal(error.status_code, error.type, error.error_code, said, error.response.headers)


def _refusal(status: int, kind: str | None, code: str | None, said: str, headers: Mapping[str, str]) -> CallError:
    found: dict[str, Any] = {
        "kind": "proxy" if _is_of_a_proxy(status, kind) else kind or f"http_{status}",
        "http_status": status,
        "request_id": headers.get("request-id"),
        "retry_after_s": retry_after(headers),
        "limits": read_limits(headers),
    }
    message = f"HTTP {status} {found['kind']}"
    # An error inside a stream, or a gateway's, comes with status 200 and tells itself by its type alone.
    meant = status if status >= 400 else STATUS_OF.get(found["kind"], status)
    if code is not None and code.endswith(SPEND_LIMIT):
        found["kind"] = code
        return StoppingCallError(f"{message}{said}", **found)
    if meant in STOPPING:
        return StoppingCallError(f"{message}{said}. {STOPPING[meant]}", **found)
    if meant in PASSING_STATUSES or meant >= 500:
        return PassingCallError(message, **found)
    return FinalCallError(f"{message}{said}", **found)


def _is_of_a_proxy(status: int, kind: str | None) -> bool:
    """Whether something before the endpoint gave up waiting for it: the endpoint may have answered, and billed."""
    # 520 and 524 are Cloudflare's words for it. The API's own 504 says that nothing was generated in time.
    return status in {502, 520, 524} or (status == 504 and kind != "timeout_error")


STOPPING = {
    401: "The endpoint refuses the key: check ANTHROPIC_API_KEY.",
    402: "The account lacks credit: see its billing page.",
    403: "The key may not do this: check its workspace and permissions.",
    404: "The endpoint does not know the model, or the path: check `model` in the template and ANTHROPIC_BASE_URL.",
}
"""Statuses after which no request of the run can succeed, and what to do."""

PASSING_STATUSES = frozenset({408, 409, 429})  # and all from 500 on

STATUS_OF = {
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Which status the API gives an error of a type; source: its page on errors."""

_KEY = re.compile(r"\bsk-[\w*.-]+")


def _said(message: str | None, sent: Mapping[str, str]) -> str:
    """Return the endpoint's own words, for they tell what is wrong with a request, or nothing where they are long.

    A message of more than a few lines is one that quotes the request, and a record's text belongs in no error. A
    gateway may quote the key.
    """
    if not isinstance(message, str) or not message.strip() or len(message) > LONGEST_MESSAGE:
        return ""
    for name in ("authorization", "x-api-key"):
        key = sent.get(name, "").removeprefix("Bearer ")
        message = message.replace(key, "[key]") if key else message
    return f": {_KEY.sub('[key]', message).strip().rstrip('.')}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after` in seconds, None where there is none; a date is not what the API sends."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _read(content: bytes, status: int, headers: Mapping[str, str]) -> Answer:
    try:
        # Read as plain JSON: the SDK's model of a message costs a quarter of the whole request, for a few fields.
        message = orjson.loads(content)
        if message.get("type") != "error":
            return _answer(message, headers)
        error = message["error"]
        details = error.get("details") or {}
        refused = _refusal(status, str(error["type"]), details.get("error_code"), "", headers)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # An answer that is no message: it may have been billed, and asking again may go better.
        raise PassingCallError(
            f"the answer can't be read ({type(error).__name__})",
            kind="connection",
            http_status=status,
            request_id=headers.get("request-id"),
        ) from None
    raise refused


def _answer(message: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
    used = message["usage"]
    written = used.get("cache_creation") or {}
    # Without the breakdown all of it was written for five minutes, the API's default.
    total = 0 if written else used.get("cache_creation_input_tokens")
    return Answer(
        text="".join(block["text"] for block in message["content"] if block["type"] == "text"),
        stop_reason=message["stop_reason"] or "unknown",
        usage=Usage(
            input_tokens=int(used["input_tokens"]),
            cache_creation_5m_tokens=int(written.get("ephemeral_5m_input_tokens") or total or 0),
            cache_creation_1h_tokens=int(written.get("ephemeral_1h_input_tokens") or 0),
            cache_read_tokens=int(used.get("cache_read_input_tokens") or 0),
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
        return Limit(int(limit), int(remaining))
    except ValueError:
        return None


_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.PoolTimeout)


def _never_sent(error: anthropic.APIConnectionError) -> bool:
    # Only where no connection was made is it certain that nothing was generated. aiohttp's own errors tell that: the
    # SDK's transport says ConnectError also where the server hung up after it had read the request.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _UNCONNECTED):
            return True
        cause = cause.__cause__ or cause.__context__
    return False

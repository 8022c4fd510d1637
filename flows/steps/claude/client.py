"""Complete: one request to the Messages API, and its answer or error in our own words.

The only file that imports anthropic: what the SDK raises is translated here, once, into "may pass" or "will not".
What a body holds is read in reading.py, what an error means is decided in refusing.py.
The SDK's own retries are off (it obeys any `retry-after` and tells no one); answer.py owns them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import aiohttp
import anthropic
import httpx2
import orjson

from db.words import SANDBOX
from flows.errors import (
    CallError,
    EndpointError,
    FinalCallError,
    MissingKeyError,
    OutputClassError,
    PassingCallError,
    StoppingCallError,
)
from flows.steps.answers.validate import OutputClass
from flows.steps.catalog import Told, read_told
from flows.steps.claude.bodies import ErrorBody, read_body, read_error, storable
from flows.steps.claude.refusals import PROXY, STOPPING, judge, likeness, said
from flows.steps.output_classes.schema_checks import refuse_beyond_limits
from flows.steps.output_classes.schemas import full_schema
from flows.steps.prices import Usage

# The SDK warns at each request for what the lint and the summary tell once, and with more: a model that retires, and a
# budget where `adaptive` is better.
warnings.filterwarnings("ignore", message=r"The model '.*' is deprecated", category=DeprecationWarning)
warnings.filterwarnings("ignore", message=r"Using Claude with .* is deprecated", category=UserWarning)

SANDBOX_HEADER = "x-presswork-sandbox"
IDENTIFY_TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 5.0
"""What an endpoint says of a model is worth knowing, not worth waiting for."""
MOST_REDIRECTS = 3
"""Redirects that are followed; the SDK's default of 20 makes 21 requests of one where a gateway sends in a circle."""


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
    """What the endpoint answered; None stands for what it did not tell, a usage too.

    `text` is all text blocks joined, `refusal` the category of a refusal.
    """

    text: str
    stop_reason: str | None
    usage: Usage | None
    model: str | None
    message_id: str | None
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
        sent = anthropic.transform_schema(schema)
    except (ValueError, TypeError, AssertionError) as error:
        raise OutputClassError(f"The API can't take the output class {output_class.__name__!r}: {error}") from None
    refuse_beyond_limits(output_class.__name__, sent)
    return sent


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
            http_client=anthropic.DefaultAioHttpClient(limits=limits, max_redirects=MOST_REDIRECTS),
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
                raise _refused_key(error) from None
            return Identity(SANDBOX_HEADER in error.response.headers, answered=False)
        except anthropic.APIConnectionError as error:
            raise EndpointError(
                f"The endpoint {self._client.base_url} can't be reached: {translate(error)}. "
                "Check ANTHROPIC_BASE_URL, or start it (`presswork sandbox` starts the sandbox)."
            ) from None
        return Identity(SANDBOX_HEADER in raw.headers, answered=True)

    async def read_model(self, name: str) -> Told:
        """Ask what the endpoint says of a model (GET /v1/models/{id}: free). Raises CallError where it says nothing.

        A 404 is the answer of an endpoint that does not know the model, or, of a gateway, the path.
        """
        try:
            raw = await self._client.models.with_raw_response.retrieve(name, timeout=MODEL_TIMEOUT_S)
            return read_told(orjson.loads(raw.http_response.content))
        except anthropic.AnthropicError as error:
            raise translate(error) from None
        except ValueError:
            raise PassingCallError("there is no answer that can be read", kind="connection") from None

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises CallError: PassingCallError may get better, FinalCallError will not."""
        try:
            raw = await self._client.messages.with_raw_response.create(**body)
        except anthropic.AnthropicError as error:
            # Not `from error`: a trace would print the SDK's message, which is the endpoint's whole answer.
            raise translate(error) from None
        # Once for the dozen that are read: the SDK's own mapping decodes and joins anew at every look.
        headers = {name.lower(): value for name, value in raw.headers.multi_items()}
        answer = _read(raw.http_response.content, raw.status_code, headers, raw.http_response.request.headers)
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
        return _without_answer(error)
    if not isinstance(error, anthropic.APIStatusError):
        return PassingCallError(f"the answer can't be read ({type(error).__name__})", kind="connection")
    return _refused(error.status_code, read_error(error.body), error.response.headers, error.request.headers)


def _without_answer(error: anthropic.APIConnectionError) -> CallError:
    if _is_caused_by(error, _UNCONNECTED):
        return PassingCallError("no connection could be made", kind="connect")
    if isinstance(error, anthropic.APITimeoutError):
        return PassingCallError("the request timed out", kind="timeout")
    if _is_caused_by(error, (httpx2.TooManyRedirects,)):
        message = "the endpoint redirects without end: check ANTHROPIC_BASE_URL"
        return FinalCallError(message, kind="redirect", alike="redirect")
    if _is_caused_by(error, (httpx2.DecodingError,)):
        return PassingCallError("the answer can't be read: its compression is broken", kind="connection")
    return PassingCallError("the connection was lost before an answer came", kind="connection")


def _refused(status: int, told: ErrorBody, headers: Mapping[str, str], sent: Mapping[str, str]) -> CallError:
    meaning = judge(status, told)
    name = "of a proxy" if meaning.kind == PROXY else told.type or ""
    message = f"HTTP {status} {name}".strip()
    if meaning.error is not PassingCallError:
        message += said(told.message, sent)
    return meaning.error(
        f"{message}. {meaning.remedy}" if meaning.remedy else message,
        kind=meaning.kind,
        http_status=status,
        request_id=storable(headers.get("request-id")),
        retry_after_s=retry_after(headers),
        limits=read_limits(headers),
        alike=likeness(status, told),
    )


def _refused_key(error: anthropic.APIStatusError) -> StoppingCallError:
    """Say that the endpoint refuses when it is asked what it is, in whatever form."""
    refused = translate(error)
    if isinstance(refused, StoppingCallError):
        return refused
    remedy = STOPPING[error.status_code]
    return StoppingCallError(f"{refused}. {remedy}", kind=refused.kind, http_status=error.status_code)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `retry-after`, seconds or an HTTP date, as seconds of at least 0; None where there is none to be read.

    Who waits has to put an end to it: the seconds may be any number, also infinity.
    """
    text = headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        until = _date(text)
    if until is None:
        return None
    # By the endpoint's own clock where it tells it: ours may be wrong.
    return max(0.0, (until - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    # "-0000" says that no time zone is told; HTTP dates are in UTC.
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _read(content: bytes, status: int, headers: Mapping[str, str], sent: Mapping[str, str]) -> Answer:
    request_id = storable(headers.get("request-id"))
    try:
        message = read_body(content)
    except PassingCallError as error:
        error.http_status, error.request_id, error.limits = status, request_id, read_limits(headers)
        raise
    if isinstance(message, ErrorBody):
        raise _refused(status, message, headers, sent)
    return Answer(
        text=message.text,
        stop_reason=message.stop_reason,
        usage=message.usage,
        model=message.model,
        message_id=message.message_id,
        request_id=request_id,
        refusal=message.refusal,
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
    try:
        return Limit(*(int(float(headers[prefix + what])) for what in ("limit", "remaining")))
    except (KeyError, ValueError, OverflowError):
        return None


_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.PoolTimeout)


def _is_caused_by(error: anthropic.APIConnectionError, kinds: tuple[type[Exception], ...]) -> bool:
    # Only where no connection was made is it certain that nothing was generated. aiohttp's own errors tell that: the
    # SDK's transport says ConnectError also where the server hung up after it had read the request.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kinds):
            return True
        cause = cause.__cause__ or cause.__context__
    return False

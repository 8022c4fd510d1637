"""Send requests to an endpoint by the SDK: who it is, what it says of a model, and one request of the Messages API.

The SDK's own retries are off (it obeys any `retry-after` and tells no one): presswork/answers/pursuing.py owns them.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import anthropic
import httpx2
import orjson

from db.words import CONNECTION, SANDBOX, WRONG_ENDPOINT
from presswork.catalog import ModelFacts, read_model_facts
from presswork.claude.answers import Answer, ErrorBody, Identity, cleaned_word, read_body
from presswork.claude.rate_limits import read_limits
from presswork.claude.refusals import error_of, refused_key, translate
from presswork.errors import EndpointError, MissingKeyError, PassingCallError, StoppingCallError

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


class WrongEndpointError(StoppingCallError):
    """Another endpoint answered than the run was told; `answer` is what it said, which may have been paid for."""

    def __init__(self, message: str | None = None, answer: Answer | None = None) -> None:
        super().__init__(message, kind=WRONG_ENDPOINT)
        self.answer = answer


def check_endpoint(endpoint: str, *, is_sandbox: bool, answer: Answer | None = None) -> None:
    """Stop where the sandbox answers under another name, or another under the sandbox's."""
    if is_sandbox != (endpoint == SANDBOX):
        found = "the sandbox answers" if is_sandbox else "it is not the sandbox that answers"
        raise WrongEndpointError(
            f"The endpoint was to be {endpoint!r}, but {found} there. Its answers would stand in the ledger under a "
            "wrong name: check PRESSWORK_ENDPOINT and ANTHROPIC_BASE_URL.",
            answer,
        )


class Client:
    """A connection pool to one endpoint. Use it as an async context manager, inside one event loop."""

    def __init__(self, *, api_key: str, base_url: str | None, timeout_s: float, connections: int) -> None:
        try:
            url = None if base_url is None else httpx2.URL(base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL()
        if url is not None and (url.scheme not in {"http", "https"} or not url.host):
            raise EndpointError("ANTHROPIC_BASE_URL must be a URL that begins with http:// or https://.")
        if url is not None and url.userinfo:
            raise EndpointError(
                "ANTHROPIC_BASE_URL can't carry a user name or password: set ANTHROPIC_API_KEY instead."
            )
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
                raise refused_key(error) from None
            return Identity(SANDBOX_HEADER in error.response.headers, answered=False)
        except anthropic.APIConnectionError as error:
            raise EndpointError(
                f"The endpoint {self._client.base_url} can't be reached: {translate(error)}. "
                "Check ANTHROPIC_BASE_URL, or start it (`presswork sandbox` starts the sandbox)."
            ) from None
        return Identity(SANDBOX_HEADER in raw.headers, answered=True)

    async def read_model(self, name: str) -> ModelFacts:
        """Ask what the endpoint says of a model (GET /v1/models/{id}: free). Raises CallError where it says nothing.

        A 404 is the answer of an endpoint that does not know the model, or, of a gateway, the path.
        """
        try:
            raw = await self._client.models.with_raw_response.retrieve(name, timeout=MODEL_TIMEOUT_S)
            return read_model_facts(orjson.loads(raw.http_response.content))
        except anthropic.AnthropicError as error:
            raise translate(error) from None
        except ValueError:
            raise PassingCallError("there is no answer that can be read", kind=CONNECTION) from None

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises CallError: PassingCallError may get better, FinalCallError will not."""
        try:
            raw = await self._client.messages.with_raw_response.create(**body)
        except anthropic.AnthropicError as error:
            # Not `from error`: a trace would print the SDK's message, which is the endpoint's whole answer.
            raise translate(error) from None
        # Once for the dozen that are read: the SDK's own mapping decodes and joins them at every look.
        headers = {name.lower(): value for name, value in raw.headers.multi_items()}
        request_id, limits = cleaned_word(headers.get("request-id")), read_limits(headers)
        try:
            answer = read_body(raw.http_response.content)
        except PassingCallError as error:
            error.http_status, error.request_id, error.limits = raw.status_code, request_id, limits
            raise
        if isinstance(answer, ErrorBody):
            raise error_of(raw.status_code, answer, headers, raw.http_response.request.headers)
        answer = replace(answer, request_id=request_id, limits=limits)
        check_endpoint(endpoint, is_sandbox=SANDBOX_HEADER in headers, answer=answer)
        return answer


def require_key(key: str | None) -> str:
    """Return the key, or raise MissingKeyError before anything is sent: the SDK would fail at the first request."""
    if not key:
        raise MissingKeyError
    return key

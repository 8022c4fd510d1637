"""Send requests to an endpoint with the SDK: identify it, read a model's figures, and call the Messages API.

The SDK's retries are off, because it silently obeys any `retry-after`; presswork/answers/pursuing.py retries instead.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import anthropic
import httpx2
import orjson

from db.words import CONNECTION
from presswork.catalog import ModelFacts, read_model_facts
from presswork.claude.answers import Answer, ErrorBody, Identity, cleaned_word, read_body
from presswork.claude.endpoint_check import check_endpoint
from presswork.claude.rate_limits import read_limits
from presswork.claude.refusals import error_of, refused_key, translate
from presswork.errors import EndpointError, PassingCallError

MESSAGES_PATH = "/v1/messages"
SANDBOX_HEADER = "x-presswork-sandbox"
IDENTIFY_TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 5.0
"""Short, because a run can do without the endpoint's figures of a model."""
MOST_REDIRECTS = 3
"""Redirects that are followed. With the SDK's 20, a gateway that redirects in a circle gets 21 requests for one."""


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
                "ANTHROPIC_BASE_URL can't contain a user name or a password. Set ANTHROPIC_API_KEY instead."
            )
        # One connection for each request in flight: with the SDK's default, requests that may go would queue.
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            # With its default timeout, the SDK rejects requests of more than 21,333 max_tokens (ValueError).
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            http_client=anthropic.DefaultAioHttpClient(limits=limits, max_redirects=MOST_REDIRECTS),
            # No traces: they would carry prompts out of Presswork. The ledger records what a run does.
            open_telemetry={"traces": {"enabled": False}},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._client.close()

    async def identify(self, *, gateway: bool = False) -> Identity:
        """Identify the endpoint with GET /v1/models, which is free and checks the key.

        Raises StoppingCallError if the key is rejected, and EndpointError if the endpoint can't be reached. An
        endpoint without that path counts as not answered, which is fine for a gateway. So does a 403 of a known
        `gateway`, because many gateways allow only POST /v1/messages.
        """
        try:
            raw = await self._client.models.with_raw_response.list(limit=1, timeout=IDENTIFY_TIMEOUT_S)
        except anthropic.APIStatusError as error:
            if error.status_code == 401 or (error.status_code == 403 and not gateway):
                raise refused_key(translate(error), error.status_code) from None
            return Identity(SANDBOX_HEADER in error.response.headers, answered=False)
        except anthropic.APIConnectionError as error:
            raise EndpointError(
                f"The endpoint {self._client.base_url} can't be reached: {translate(error)}. "
                "Check ANTHROPIC_BASE_URL, or start the endpoint (`presswork sandbox` starts the sandbox)."
            ) from None
        return Identity(SANDBOX_HEADER in raw.headers, answered=True)

    async def read_model(self, name: str) -> ModelFacts:
        """Read the endpoint's figures of a model with GET /v1/models/{id}, which is free. Raises CallError on failure.

        A 404 means that the endpoint does not know the model or, if it is a gateway, the path.
        """
        try:
            raw = await self._client.models.with_raw_response.retrieve(name, timeout=MODEL_TIMEOUT_S)
            return read_model_facts(orjson.loads(raw.http_response.content))
        except anthropic.AnthropicError as error:
            raise translate(error) from None
        except ValueError:
            raise PassingCallError("the answer can't be read", kind=CONNECTION) from None

    async def ask(self, body: Mapping[str, Any], endpoint: str) -> Answer:
        """Send one request. Raises PassingCallError for a temporary error, and FinalCallError for any other."""
        try:
            # The SDK's own request, with its headers, timeouts and errors. `messages.create` would also copy the whole
            # body and write it with the standard library's JSON, which takes a third of a request's CPU time.
            response = await self._client.post(MESSAGES_PATH, content=orjson.dumps(body), cast_to=httpx2.Response)
        except anthropic.AnthropicError as error:
            # Not `from error`: a traceback would print the SDK's message, which contains the endpoint's whole answer.
            raise translate(error) from None
        # Decoded once, because about a dozen are read: the SDK's mapping decodes and joins them at each access.
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        return read_answer(endpoint, response.status_code, headers, response.content, response.request.headers)


def read_answer(
    endpoint: str, status: int, headers: Mapping[str, str], content: bytes, request_headers: Mapping[str, str]
) -> Answer:
    """Read the response of a success status; the names in `headers` are in lower case.

    Raises PassingCallError if it can't be read, the error that it holds, or WrongEndpointError.
    """
    request_id, limits = cleaned_word(headers.get("request-id")), read_limits(headers)
    try:
        answer = read_body(content)
    except PassingCallError as error:
        error.http_status, error.request_id, error.limits = status, request_id, limits
        raise
    if isinstance(answer, ErrorBody):
        raise error_of(status, answer, headers, request_headers)
    answer = replace(answer, request_id=request_id, limits=limits)
    check_endpoint(endpoint, is_sandbox=SANDBOX_HEADER in headers, answer=answer)
    return answer

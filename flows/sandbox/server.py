"""The sandbox over HTTP, on the loopback interface only.

On aiohttp's low-level server: its application, router and middlewares would cost a third of all time here.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from flows.sandbox.counts import Counts
from flows.sandbox.models import find_model, model_info, model_page
from flows.sandbox.refusals import Refusal, bad_request
from flows.sandbox.service import Service, check_headers
from flows.sandbox.switches import Switches
from flows.sandbox.wire import json_response, parsed_or_none, read_body, send_answer

HOST = "127.0.0.1"
SANDBOX_HEADER = "x-presswork-sandbox"
_COMMON = {SANDBOX_HEADER: "1", "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Sandbox:
    """A local Messages API: `async with Sandbox(switches=Switches(rpm=60)) as sandbox: sandbox.url`."""

    def __init__(self, *, switches: Switches | None = None, port: int = 0) -> None:
        """Port 0 takes any free one."""
        self._service = Service(switches or Switches())
        self._port = port
        self._runner: web.ServerRunner | None = None
        self._ids = (f"req_{secrets.token_hex(6)}{n:012x}" for n in count(1))
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("GET", "/v1/models"): self._models,
            ("GET", "/sandbox/stats"): self._get_stats,
            ("GET", "/sandbox/switches"): self._get_switches,
            ("PUT", "/sandbox/switches"): self._put_switches,
            ("GET", "/sandbox/requests"): self._get_requests,
            ("POST", "/sandbox/reset"): self._post_reset,
        }

    async def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._port, backlog=4096).start()
        except OSError:
            await self.stop()
            raise
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and close what is open."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    @property
    def url(self) -> str:
        """The base URL, to be given to the SDK."""
        return f"http://{HOST}:{self._port}"

    @property
    def switches(self) -> Switches:
        """The switches as they stand."""
        return self._service.switches

    def stats(self) -> dict[str, Any]:
        """What GET /sandbox/stats answers."""
        return self._service.counts.report()

    def bodies(self) -> list[Any]:
        """The last bodies of POST /v1/messages, as many as the switch keep_bodies says."""
        return [parsed_or_none(raw) for raw in self._service.kept]

    def configure(self, **changes: object) -> Switches:
        """Change switches while it runs; raises ValueError for a wrong one and changes none."""
        return self._service.configure(changes)

    def reset(self) -> None:
        """Forget stats, cache and used limits."""
        self._service.reset()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        handler = self._routes.get((request.method, path))
        if handler is None:
            handler = self._model if request.method == "GET" and path.startswith("/v1/models/") else self._nothing
        try:
            if handler != self._messages and path.startswith("/v1/"):
                self._service.counts.other_requests[f"{request.method} {path}"[:80]] += 1
                check_headers(request.headers)
            return await handler(request)
        except Refusal as refusal:
            return self._refuse(refusal)
        except Exception as error:  # noqa: BLE001 - the boundary of one request
            # A schema that trips the sandbox must look like the API's own failure.
            _LOG.exception("the sandbox failed to answer")
            return self._refuse(Refusal(500, "api_error", f"The sandbox failed: {type(error).__name__}: {error}"))

    async def _messages(self, request: web.BaseRequest) -> web.StreamResponse:
        counts = self._service.counts  # a reset must not mix old requests into new counts
        counts.enter()
        status = "500"
        try:
            check_headers(request.headers)
            response = await self._answer(request, counts)
            status = "200"
        except Refusal as refusal:
            status = str(refusal.status)
            raise
        except ConnectionError:
            status = "dropped"
            response = web.Response()  # to nobody
        finally:
            counts.leave(status)
        return response

    async def _answer(self, request: web.BaseRequest, counts: Counts) -> web.StreamResponse:
        exchange = self._service.open(await read_body(request))
        try:
            if exchange.fate.latency:
                await asyncio.sleep(exchange.fate.latency)
            self._service.begin(exchange)
            response = await send_answer(request, exchange, self._headers())
        except (ConnectionError, asyncio.CancelledError):
            self._service.dropped(exchange, counts)
            raise
        self._service.served(exchange, counts)
        return response

    async def _count_tokens(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json({"input_tokens": self._service.count_tokens(await read_body(request))})

    async def _models(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json(model_page(request.query))

    async def _model(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json(model_info(find_model(request.path.removeprefix("/v1/models/"))))

    async def _nothing(self, request: web.BaseRequest) -> web.StreamResponse:
        raise Refusal(404, "not_found_error", f"Not found: {request.method} {request.path}")

    async def _get_stats(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json(self.stats())

    async def _get_switches(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json(self.switches.model_dump())

    async def _put_switches(self, request: web.BaseRequest) -> web.StreamResponse:
        changes = parsed_or_none(await read_body(request))
        if not isinstance(changes, dict):
            raise bad_request("switches: send a JSON object of the switches to change")
        try:
            return self._json(self.configure(**changes).model_dump())
        except ValueError as error:
            raise bad_request(f"switches: {error}") from error

    async def _get_requests(self, request: web.BaseRequest) -> web.StreamResponse:
        return self._json({"bodies": self.bodies()})

    async def _post_reset(self, request: web.BaseRequest) -> web.StreamResponse:
        self.reset()
        return self._json(self.stats())

    def _headers(self) -> dict[str, str]:
        return {"request-id": next(self._ids), **_COMMON, **self._service.rate_headers()}

    def _json(self, body: Mapping[str, Any]) -> web.Response:
        return json_response(body, {"request-id": next(self._ids), **_COMMON})

    def _refuse(self, refusal: Refusal) -> web.Response:
        headers = self._headers() | refusal.headers
        return json_response(refusal.body(headers["request-id"]), headers, refusal.status)

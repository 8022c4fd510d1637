"""Serve the sandbox over HTTP, on the loopback interface only.

It uses aiohttp's low-level server. An application with a router and middlewares would take a third of all time here.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from sandbox.counts import Counts
from sandbox.endpoints import Endpoints
from sandbox.error_shapes import Refusal, bad_request, failure
from sandbox.service import Service, check_headers
from sandbox.switches import Switches
from sandbox.wire import json_response, lines_response, parsed_or_none, read_body, send_answer, whole_response

LOOPBACK = "127.0.0.1"

_LOG = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Sandbox:
    """A local Messages API: `async with Sandbox(switches=Switches(rpm=60)) as sandbox: sandbox.url`."""

    def __init__(self, *, switches: Switches | None = None, port: int = 0) -> None:
        """Port 0 means any free port."""
        self._service = Service(switches or Switches(), ids=secrets.token_hex(6))
        self._endpoints = Endpoints(self._service)
        self._port = port
        self._runner: web.ServerRunner | None = None
        self._routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/messages"): self._messages,
            ("GET", "/sandbox/stats"): self._get_stats,
            ("GET", "/sandbox/switches"): self._get_switches,
            ("PUT", "/sandbox/switches"): self._put_switches,
            ("GET", "/sandbox/requests"): self._get_requests,
            ("POST", "/sandbox/reset"): self._post_reset,
        }

    async def start(self) -> None:
        """Listen; raises OSError if the port is in use."""
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, LOOPBACK, self._port, backlog=4096).start()
        except OSError:
            await self.stop()
            raise
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, close all connections and forget all batches."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._endpoints.batches.clear()

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
        """The base URL for the SDK."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def switches(self) -> Switches:
        """The current switches."""
        return self._service.switches

    def stats(self) -> dict[str, Any]:
        """The answer to GET /sandbox/stats."""
        return self._service.counts.report()

    def bodies(self) -> list[Any]:
        """The last bodies of POST /v1/messages. The switch keep_bodies sets their number."""
        return [parsed_or_none(raw) for raw in self._service.kept]

    def configure(self, **changes: object) -> Switches:
        """Change switches while the sandbox runs. If one is wrong, raises ValueError and changes none."""
        return self._service.configure(changes)

    def reset(self) -> None:
        """Forget stats, cache and used limits; batches stay."""
        self._service.reset()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        handler = self._routes.get((request.method, request.path), self._others)
        try:
            return await handler(request)
        except Refusal as refusal:
            return whole_response(self._service.refused(refusal))
        except Exception as error:  # noqa: BLE001 - the boundary of one request
            _LOG.exception("the sandbox failed to answer")
            return whole_response(self._service.refused(failure(error)))

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
            response = web.Response()  # never sent: the connection is closed
        finally:
            counts.leave(status)
        return response

    async def _answer(self, request: web.BaseRequest, counts: Counts) -> web.StreamResponse:
        exchange = self._service.open(await read_body(request))
        try:
            if exchange.fate.latency:
                await asyncio.sleep(exchange.fate.latency)
            self._service.begin(exchange)
            response = await send_answer(request, exchange, self._service)
        except (ConnectionError, asyncio.CancelledError):
            self._service.dropped(exchange, counts)
            raise
        self._service.served(exchange, counts)
        return response

    async def _others(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith("/v1/"):
            self._service.counts.other_requests[f"{request.method} {request.path}"[:80]] += 1
            check_headers(request.headers)
        answer = await self._endpoints.answer(request)
        return lines_response(answer, self._service.own_headers()) if isinstance(answer, bytes) else self._json(answer)

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

    def _json(self, body: Mapping[str, Any]) -> web.Response:
        return json_response(body, self._service.own_headers())

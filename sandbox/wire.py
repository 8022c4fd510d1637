"""Read and write HTTP bodies for the server, with size limits, dropped connections and streams."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from pydantic_core import to_json

from sandbox.error_shapes import Refusal
from sandbox.messages import events
from sandbox.service import Exchange, Service, WholeResponse

BODY_LIMIT = 32 * 1024 * 1024
_JSON = {"content-type": "application/json"}
_LINES = {"content-type": "application/x-jsonl"}
_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


async def read_body(request: web.BaseRequest, limit: int = BODY_LIMIT) -> bytes:
    """The body. One that is too long is read to its end and discarded, so that the client can read the error."""
    if request.content_length is not None and request.content_length <= limit:
        return await request.content.read()
    parts, size = [], 0
    async for part in request.content.iter_any():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > 4 * limit:
            break
    if size > limit:
        raise Refusal(413, "request_too_large", f"Request exceeds the maximum size of {limit >> 20} MB")
    return b"".join(parts)


async def send_answer(request: web.BaseRequest, exchange: Exchange, service: Service) -> web.StreamResponse:
    """Write the whole answer; raises ConnectionError if its fault or the client drops the connection."""
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError
    if exchange.is_dropped:
        transport.close()
        raise ConnectionResetError
    if exchange.call.stream:
        return await _send_stream(request, exchange, service.headers())
    response = whole_response(service.response(exchange))
    await response.prepare(request)
    await response.write_eof()
    return response


async def _send_stream(request: web.BaseRequest, exchange: Exchange, headers: Mapping[str, str]) -> web.StreamResponse:
    stream = web.StreamResponse(headers={**headers, **_STREAM})
    await stream.prepare(request)
    for event in events(exchange.message()):
        await stream.write(event)
    await stream.write_eof()
    return stream


def whole_response(response: WholeResponse) -> web.Response:
    """A response of the service."""
    return web.Response(status=response.status, body=response.body, headers=response.headers)


def json_response(body: Mapping[str, Any], headers: Mapping[str, str]) -> web.Response:
    """A response of JSON."""
    return web.Response(body=to_json(body), headers={**headers, **_JSON})


def lines_response(lines: bytes, headers: Mapping[str, str]) -> web.Response:
    """A response of JSON lines."""
    return web.Response(body=lines, headers={**headers, **_LINES})


def parsed_or_none(raw: bytes) -> Any:
    """The body's JSON; None if it is not JSON."""
    try:
        return json.loads(raw)
    except ValueError:
        return None

"""Answer all API paths except POST /v1/messages: token counts, models and batches."""

from collections.abc import Mapping
from urllib.parse import parse_qs

from aiohttp import web

from sandbox.batches import BATCH_LIMIT, Batches
from sandbox.error_shapes import Refusal
from sandbox.listing import model_info, model_page
from sandbox.service import Service
from sandbox.wire import read_body

_PREFIX = "/v1/"
Payload = Mapping[str, object] | bytes


class Endpoints:
    """The paths below /v1 of one sandbox, without POST /v1/messages."""

    def __init__(self, service: Service) -> None:
        """The service keeps the accounts."""
        self._service = service
        self.batches = Batches(service)

    async def answer(self, request: web.BaseRequest) -> Payload:
        """JSON, or the lines of a batch's results; raises Refusal."""
        parts = request.path.removeprefix(_PREFIX).split("/")
        match [request.method, *parts]:
            case ["POST", "messages", "count_tokens"]:
                return {"input_tokens": self._service.count_tokens(await read_body(request))}
            case ["GET", "models"]:
                return model_page(parse_qs(request.query_string))
            case ["GET", "models", name]:
                return model_info(name)
            case [_, "messages", "batches", *rest]:
                return await self._batch(request, rest)
        raise _not_found(request)

    async def _batch(self, request: web.BaseRequest, rest: list[str]) -> Payload:
        batches, origin = self.batches, f"{request.scheme}://{request.host}"
        match [request.method, *rest]:
            case ["POST"]:
                return batches.create(await read_body(request, BATCH_LIMIT)).info(origin)
            case ["GET"]:
                return batches.page(parse_qs(request.query_string), origin)
            case ["GET", batch_id]:
                return batches.find(batch_id).info(origin)
            case ["GET", batch_id, "results"]:
                return batches.results(batch_id)
            case ["POST", batch_id, "cancel"]:
                return batches.cancel(batch_id).info(origin)
            case ["DELETE", batch_id]:
                return batches.delete(batch_id)
        raise _not_found(request)


def _not_found(request: web.BaseRequest) -> Refusal:
    return Refusal(404, "not_found_error", f"Not found: {request.method} {request.path}")

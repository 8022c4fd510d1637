"""Keep message batches in memory: their requests, their state, and their answers once they have ended.

The rules are the API's. A batch's envelope is checked when it is created, each request only at its turn. Counts stay
at "processing" until the batch has ended. Results have no order. Requests without an answer expire after 24 hours.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from sandbox.draws import digest
from sandbox.error_shapes import Refusal, bad_request, failure
from sandbox.listing import QueryParameters, page
from sandbox.request_options import said
from sandbox.service import Service

BATCH_LIMIT = 256 * 1024 * 1024
_EXPIRES_S = 24 * 3600.0
_MOST_REQUESTS = 100_000
# Requests that are answered in one go, before other clients of the sandbox get their turn.
_AT_ONCE = 20
_KINDS = ("succeeded", "errored", "canceled", "expired")

_LOG = logging.getLogger(__name__)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    custom_id: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    params: dict[str, Any]


class _Create(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    requests: Annotated[list[_Request], Field(min_length=1, max_length=_MOST_REQUESTS)]


@dataclass(slots=True)
class MessageBatch:
    """One batch; times are seconds since the epoch."""

    id: str
    requests: list[tuple[str, bytes]]
    created_at: float
    canceled_at: float | None = None
    ended_at: float | None = None
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, bytes] = field(default_factory=dict)

    @property
    def expires_at(self) -> float:
        """When its open requests expire."""
        return self.created_at + _EXPIRES_S

    @property
    def status(self) -> str:
        """The API's processing_status."""
        if self.ended_at is not None:
            return "ended"
        return "in_progress" if self.canceled_at is None else "canceling"

    def info(self, origin: str) -> dict[str, Any]:
        """A MessageBatch, with the results' URL at that origin."""
        ended = self.ended_at is not None
        counts = {kind: self.counts[kind] if ended else 0 for kind in _KINDS}
        return {
            "type": "message_batch",
            "id": self.id,
            "processing_status": self.status,
            "request_counts": {"processing": 0 if ended else len(self.requests), **counts},
            "created_at": _time(self.created_at),
            "expires_at": _time(self.expires_at),
            "ended_at": _time(self.ended_at),
            "cancel_initiated_at": _time(self.canceled_at),
            "archived_at": None,
            "results_url": f"{origin}/v1/messages/batches/{self.id}/results" if ended else None,
        }


class Batches:
    """The batches of one sandbox."""

    def __init__(self, service: Service) -> None:
        """Start with none; the service answers the requests, and its clock times them."""
        self._service = service
        self._clock = service.clocks.wall_s
        self._batches: dict[str, MessageBatch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._made = 0

    def create(self, raw: bytes) -> MessageBatch:
        """Create a batch from a body of POST /v1/messages/batches and start to answer it; raises Refusal."""
        try:
            asked = _Create.model_validate_json(raw)
        except ValidationError as error:
            raise said(error) from error
        requests = {request.custom_id: to_json(request.params) for request in asked.requests}
        if len(requests) < len(asked.requests):
            raise bad_request("requests: custom_id values must be unique within a batch")
        self._made += 1
        batch_id = f"msgbatch_{digest(b'%d' % self._made, raw).hex()[:24]}"
        batch = self._batches[batch_id] = MessageBatch(batch_id, list(requests.items()), self._clock())
        self._tasks[batch_id] = asyncio.create_task(self._work(batch))
        return batch

    def find(self, batch_id: str) -> MessageBatch:
        """The batch with this id; raises Refusal (404) if there is none."""
        if batch_id not in self._batches:
            raise Refusal(404, "not_found_error", f"message_batch_id: {batch_id}")
        return self._batches[batch_id]

    def page(self, query: QueryParameters, origin: str) -> dict[str, object]:
        """A page of MessageBatch, the newest first."""
        newest = reversed(self._batches.values())
        return page([(batch.id, batch.info(origin)) for batch in newest], query)

    def cancel(self, batch_id: str) -> MessageBatch:
        """Start to cancel a batch; existing answers stay. Raises Refusal if it has ended."""
        batch = self.find(batch_id)
        if batch.ended_at is not None:
            raise bad_request(f"Batch {batch_id} cannot be canceled: its processing has ended.")
        if batch.canceled_at is None:
            batch.canceled_at = self._clock()
            batch.canceled.set()
        return batch

    def delete(self, batch_id: str) -> dict[str, str]:
        """Delete a batch and its results; raises Refusal if it has not ended."""
        if self.find(batch_id).ended_at is None:
            raise bad_request(f"Batch {batch_id} cannot be deleted while it is processed. Cancel it first.")
        del self._batches[batch_id]
        return {"type": "message_batch_deleted", "id": batch_id}

    def results(self, batch_id: str) -> bytes:
        """The lines of a batch's results; raises Refusal if it has not ended."""
        batch = self.find(batch_id)
        if batch.ended_at is None:
            raise bad_request(f"Batch {batch_id} has no results yet: its processing has not ended.")
        return b"".join(batch.lines[custom_id] for custom_id in sorted(batch.lines, key=lambda it: digest(it.encode())))

    async def clear(self) -> None:
        """Forget all batches, and stop those in progress."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._batches.clear()
        self._tasks.clear()

    async def _work(self, batch: MessageBatch) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._service.switches.batch_ms / 1000):
                await batch.canceled.wait()
        for number, (custom_id, params) in enumerate(batch.requests):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            result = self._result(batch, params)
            batch.counts[result["type"]] += 1
            batch.lines[custom_id] = to_json({"custom_id": custom_id, "result": result}) + b"\n"
        batch.ended_at = self._clock()
        del self._tasks[batch.id]

    def _result(self, batch: MessageBatch, params: bytes) -> dict[str, Any]:
        if batch.canceled_at is not None:
            return {"type": "canceled"}
        if self._clock() >= batch.expires_at:
            return {"type": "expired"}
        try:
            exchange = self._service.open_batched(params)
            self._service.begin(exchange)
            self._service.served(exchange, self._service.counts)
            return {"type": "succeeded", "message": exchange.message()}
        except Refusal as refusal:
            return {"type": "errored", "error": refusal.body(None)}
        except Exception as error:  # noqa: BLE001 - the boundary of one request of a batch
            _LOG.exception("the sandbox failed to answer")
            return {"type": "errored", "error": failure(error).body(None)}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()

"""Rows: what happened, put into the words of the ledger's tables.

The one place where the engine's types meet the ledger's columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from db.ledger.clock import new_id, now
from db.ledger.refused_rows import LARGEST_INTEGER
from db.ledger.writing import SETTLED, Batch, Row
from db.readers.history import BadOutcome
from db.sources.values import storable_json, storable_text
from flows.engine.plan import Hit, Item
from flows.steps.answers.outcomes import Outcome
from flows.steps.answers.pursuing import Opened, Settled
from flows.steps.prompts.render import Prompt, request_body
from flows.steps.prompts.templates import Template


def template_row(template: Template) -> Row:
    """The template as it is now."""
    return {
        "hash": template.hash,
        "name": template.name,
        "sources": dict(template.sources),
        "first_seen_at": now(),
    }


def add_prompt(batch: Batch, prompt: Prompt) -> None:
    """Add a prompt's request; the system text and the schema, which many share, stand in it by hash."""
    if prompt.hash in batch.prompts:
        return
    body = request_body(prompt)
    if "system" in body:
        body["system"] = [{**body["system"][0], "text": {"$text": _add_text(batch, prompt.brief.system)}}]
    schema = _add_text(batch, prompt.brief.template.schema_json)
    body["output_config"] = {
        **body["output_config"],
        "format": {"type": "json_schema", "schema": {"$json": schema}},
    }
    batch.prompts[prompt.hash] = {
        "hash": prompt.hash,
        "model": prompt.model,
        "variant": prompt.variant,
        "request": orjson.dumps(body).decode(),
        "created_at": now(),
    }


def add_record(batch: Batch, item: Item) -> None:
    """Add the record that an item was made from, as it was read."""
    if item.record_hash is not None and item.record_body is not None:
        batch.records[item.record_hash] = {"hash": item.record_hash, "body": item.record_body}


def attempt_row(run_id: str, item: Item, opened: Opened) -> dict[str, Any]:
    """An attempt that is about to be sent."""
    return {
        "id": new_id(),
        "run_id": run_id,
        "prompt_hash": item.prompt.hash,
        "generation_id": item.generation_id,
        "ordinal": opened.ordinal,
        "kind": opened.kind,
        "request_changes": storable_json(opened.changes),
        "started_at": now(),
        "likely_cost_usd": opened.likely_cost_usd,
    }


def settled_row(attempt_id: str, settled: Settled) -> dict[str, Any]:
    """The one update of an attempt."""
    answer, error = settled.answer, settled.error
    usage = answer.usage if answer else None
    row = {
        **dict.fromkeys(SETTLED),
        "attempt_id": attempt_id,
        "ended_at": now(),  # by the ledger's clock, as the time when it began
        "latency_ms": settled.latency_ms,
        "http_status": 200 if answer else error.http_status if error else None,
        "error_type": settled.error_type,
        "request_id": answer.request_id if answer else error.request_id if error else None,
        "message_id": answer.message_id if answer else None,
        "model": answer.model if answer else None,
        "stop_reason": answer.stop_reason if answer else None,
        "output_text": answer.text if answer else None,
        "validation_errors": [{"where": fault.where, "what": fault.what} for fault in settled.faults] or None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cache_creation_5m_tokens": usage.cache_creation_5m_tokens if usage else None,
        "cache_creation_1h_tokens": usage.cache_creation_1h_tokens if usage else None,
        "cache_read_tokens": usage.cache_read_tokens if usage else None,
        "thinking_tokens": usage.thinking_tokens if usage else None,
        "service_tier": usage.service_tier if usage else None,
        "inference_geo": usage.inference_geo if usage else None,
        "speed": usage.speed if usage else None,
        "cost_usd": settled.cost_usd,
        "price_version": settled.price_version,
    }
    return _storable(row)


class GenerationRows:
    """Makes generation rows for one step of one run."""

    def __init__(self, *, run_id: str, flow: str, endpoint: str, template: Template) -> None:
        self._run_id = run_id
        self._shared = {
            "run_id": run_id,
            "flow": flow,
            "step": template.name,
            "endpoint": endpoint,
            "template_hash": template.hash,
        }

    def answered(self, item: Item, outcome: Outcome, created_at: datetime) -> Row:
        """A generation that was asked for."""
        content = outcome.content
        return self._row(
            item.generation_id,
            item.record_key,
            item.record_hash,
            item.prompt.hash,
            created_at,
            status=outcome.status,
            origin="live",
            output=content.output if content else None,
            output_hash=content.hash if content else None,
            error_kind=outcome.error_kind,
            error_message=outcome.error_message,
        )

    def reused(self, hit: Hit, created_at: datetime) -> Row:
        """A generation that the ledger answered: it points at the one that has the text."""
        item = hit.item
        return self._row(
            item.generation_id,
            item.record_key,
            item.record_hash,
            item.prompt.hash,
            created_at,
            status="succeeded",
            origin="cache",
            source_generation_id=hit.source_id,
            output_hash=hit.output_hash,
        )

    def ended_badly(self, item: Item, bad: BadOutcome) -> Row:
        """A generation that a shard of the run asked for in vain: it points at the one that says how it ended."""
        return self._row(
            item.generation_id,
            item.record_key,
            item.record_hash,
            item.prompt.hash,
            now(),
            status=bad.status,
            origin="cache",
            source_generation_id=bad.generation_id,
            error_kind=bad.kind,
            error_message=bad.message,
        )

    def twin(self, item: Item, leader: Item, outcome: Outcome, created_at: datetime) -> Row:
        """The second generation of a prompt that stands twice in a run: it shares the first one's outcome."""
        return {
            **self.answered(item, outcome, created_at),
            "origin": "cache",
            "output": None,
            "source_generation_id": leader.generation_id,
        }

    def without_request(
        self,
        *,
        key: str,
        record_hash: str | None,
        prompt_hash: str | None,
        status: str,
        kind: str,
        message: str,
        generation_id: str | None = None,
    ) -> Row:
        """A generation for which nothing was asked: it could not be rendered, or was skipped."""
        return self._row(
            generation_id or new_id(),
            key,
            record_hash,
            prompt_hash,
            now(),
            status=status,
            origin="live",
            error_kind=kind,
            error_message=message,
        )

    def _row(
        self,
        generation_id: str,
        record_key: str,
        record_hash: str | None,
        prompt_hash: str | None,
        created_at: datetime,
        **own: Any,
    ) -> Row:
        return {
            "source_generation_id": None,
            "output": None,
            "output_hash": None,
            "error_kind": None,
            "error_message": None,
            **self._shared,
            "id": generation_id,
            "record_key": record_key,
            "record_hash": record_hash,
            "prompt_hash": prompt_hash,
            "created_at": created_at,
            **_storable(own),
        }


def _add_text(batch: Batch, body: str) -> str:
    found = _text_hash(body)
    batch.texts[found] = {"hash": found, "body": body}
    return found


_known_texts: dict[str, str] = {}


def _text_hash(body: str) -> str:
    # A run hashes its few shared texts once, not once a prompt.
    found = _known_texts.get(body)
    if found is None:
        if len(_known_texts) > 256:
            _known_texts.clear()
        found = _known_texts[body] = hashlib.sha256(body.encode()).hexdigest()
    return found


def _storable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what every ledger keeps: an endpoint's words and an answer's text may hold anything."""
    clean = {name: _storable_value(name, value) for name, value in row.items()}
    unknown = [name for name in row if name.endswith("_tokens") and clean[name] != row[name]]
    # A price of a count that nobody can have used would be no price.
    return clean | ({"cost_usd": None, "price_version": None} if unknown else {})


def _storable_value(name: str, value: Any) -> Any:
    match value:
        case str() if name != "output":
            return storable_text(value)
        case int() if name.endswith("_tokens"):
            return value if 0 <= value <= LARGEST_INTEGER else None
        case list() if name == "validation_errors":
            return storable_json(value)
        case _:
            return value

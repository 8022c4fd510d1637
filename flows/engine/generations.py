"""Rows: what happened, put into the words of the ledger's tables.

The one place where the engine's types meet the ledger's columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from db.ledger.clock import new_id, now
from db.ledger.refused_rows import storable
from db.ledger.rows import (
    GenerationRow,
    OpenedRow,
    PromptRow,
    RecordRow,
    SettledRow,
    TemplateRow,
    TextRow,
    names_of,
)
from db.readers.history import BadOutcome
from db.sources.values import storable_text
from db.words import CACHE, LIVE, SUCCEEDED, Status
from flows.engine.plan import Hit, Item
from flows.engine.resources.writer import Writer
from flows.steps.answers.outcomes import Outcome
from flows.steps.answers.pursuing import Opened, Settled
from flows.steps.prices import Usage
from flows.steps.prompts.render import Prompt, request_body
from flows.steps.prompts.templates import Template


def template_row(template: Template) -> TemplateRow:
    """The template as it is now."""
    return TemplateRow(hash=template.hash, name=template.name, sources=dict(template.sources), first_seen_at=now())


def add_prompt(writer: Writer, prompt: Prompt) -> None:
    """Add a prompt's request; the system text and the schema, which many share, stand in it by hash."""
    if writer.has_prompt(prompt.hash):
        return
    body = request_body(prompt)
    schema = _text_row(prompt.brief.template.schema_json)
    texts = [schema]
    if "system" in body:
        system = _text_row(prompt.brief.system)
        texts.append(system)
        body["system"] = [{**body["system"][0], "text": {"$text": system.hash}}]
    body["output_config"] = {
        **body["output_config"],
        "format": {"type": "json_schema", "schema": {"$json": schema.hash}},
    }
    row = PromptRow(
        hash=prompt.hash,
        model=prompt.model,
        variant=prompt.variant,
        request=orjson.dumps(body).decode(),
        created_at=now(),
    )
    writer.add_prompt(row, texts)


def add_record(writer: Writer, item: Item) -> None:
    """Add the record that an item was made from, as it was read."""
    if item.record_hash is not None and item.record_body is not None:
        writer.add_record(RecordRow(item.record_hash, item.record_body))


def opened_row(run_id: str, item: Item, opened: Opened) -> OpenedRow:
    """An attempt that is about to be sent."""
    return storable(
        OpenedRow(
            id=new_id(),
            run_id=run_id,
            prompt_hash=item.prompt.hash,
            generation_id=item.generation_id,
            ordinal=opened.ordinal,
            kind=opened.kind,
            request_changes=opened.changes,
            started_at=now(),
            likely_cost_usd=opened.likely_cost_usd,
        )
    )


def settled_row(attempt_id: str, settled: Settled) -> SettledRow:
    """The one update of an attempt, with what every ledger keeps: an endpoint's words may hold anything."""
    row = SettledRow(
        attempt_id=attempt_id,
        ended_at=now(),  # by the ledger's clock, as the time when it began
        latency_ms=settled.latency_ms,
        error_type=settled.error_type,
        validation_errors=[{"where": fault.where, "what": fault.what} for fault in settled.faults] or None,
        cost_usd=settled.cost_usd,
        price_version=settled.price_version,
    )
    if settled.answer is not None:
        row = replace(
            row,
            http_status=200,
            request_id=settled.answer.request_id,
            message_id=settled.answer.message_id,
            model=settled.answer.model,
            stop_reason=settled.answer.stop_reason,
            output_text=settled.answer.text,
            # What an endpoint says of its use has the names of the columns.
            **_values_in(settled.answer.usage),
        )
    elif settled.error is not None:
        row = replace(row, http_status=settled.error.http_status, request_id=settled.error.request_id)
    kept = storable(row)
    if _tokens(kept) != _tokens(row):
        # A price of a count that nobody can have used would be no price.
        return replace(kept, cost_usd=None, price_version=None)
    return kept


def _values_in(usage: Usage | None) -> dict[str, Any]:
    return {} if usage is None else {part.name: getattr(usage, part.name) for part in fields(usage)}


def _tokens(row: SettledRow) -> list[int | None]:
    return [getattr(row, name) for name in names_of(SettledRow) if name.endswith("_tokens")]


class GenerationRows:
    """Makes generation rows for one step of one run."""

    def __init__(self, *, run_id: str, flow: str, endpoint: str, template: Template) -> None:
        self._row = partial(
            GenerationRow,
            run_id=run_id,
            flow=flow,
            step=template.name,
            endpoint=endpoint,
            template_hash=template.hash,
        )

    def answered(self, item: Item, outcome: Outcome, created_at: datetime) -> GenerationRow:
        """A generation that was asked for."""
        content = outcome.content
        return self._row(
            **_names_in(item),
            created_at=created_at,
            status=outcome.status,
            origin=LIVE,
            output=content.output if content else None,
            output_hash=content.hash if content else None,
            error_kind=_text(outcome.error_kind),
            error_message=_text(outcome.error_message),
        )

    def reused(self, hit: Hit, created_at: datetime) -> GenerationRow:
        """A generation that the ledger answered: it points at the one that has the text."""
        return self._row(
            **_names_in(hit.item),
            created_at=created_at,
            status=SUCCEEDED,
            origin=CACHE,
            source_generation_id=hit.source_id,
            output_hash=hit.output_hash,
        )

    def ended_badly(self, item: Item, bad: BadOutcome) -> GenerationRow:
        """A generation that a shard of the run asked for in vain: it points at the one that says how it ended."""
        return self._row(
            **_names_in(item),
            created_at=now(),
            status=bad.status,
            origin=CACHE,
            source_generation_id=bad.generation_id,
            error_kind=bad.kind,
            error_message=bad.message,
        )

    def twin(self, item: Item, leader: Item, outcome: Outcome, created_at: datetime) -> GenerationRow:
        """The second generation of a prompt that stands twice in a run: it shares the first one's outcome."""
        answered = self.answered(item, outcome, created_at)
        return replace(answered, origin=CACHE, output=None, source_generation_id=leader.generation_id)

    def without_request(
        self,
        *,
        key: str,
        record_hash: str | None,
        prompt_hash: str | None,
        status: Status,
        kind: str,
        message: str,
        generation_id: str | None = None,
    ) -> GenerationRow:
        """A generation for which nothing was asked: it could not be rendered, or was skipped."""
        return self._row(
            id=generation_id or new_id(),
            record_key=key,
            record_hash=record_hash,
            prompt_hash=prompt_hash,
            created_at=now(),
            status=status,
            origin=LIVE,
            error_kind=kind,
            error_message=_text(message),
        )


def _names_in(item: Item) -> dict[str, Any]:
    return {
        "id": item.generation_id,
        "record_key": item.record_key,
        "record_hash": item.record_hash,
        "prompt_hash": item.prompt.hash,
    }


def _text(said: str | None) -> str | None:
    return None if said is None else storable_text(said)


def _text_row(body: str) -> TextRow:
    return TextRow(_text_hash(body), body)


_known_texts: dict[str, str] = {}


def _text_hash(body: str) -> str:
    # A run hashes its few shared texts once, not once a prompt.
    found = _known_texts.get(body)
    if found is None:
        if len(_known_texts) > 256:
            _known_texts.clear()
        found = _known_texts[body] = hashlib.sha256(body.encode()).hexdigest()
    return found

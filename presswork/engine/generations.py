"""Write the outcome of each item as rows of the ledger, and count it.

A change is a new row of history, and so is every outcome of a request. Otherwise the current outcome is confirmed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any

import orjson

from db.clock import now
from db.ledger.rows import ConfirmedRow, GenerationRow, PromptRow, RecordRow, TextRow
from db.readers.look_up import PromptHistory
from db.readers.what_stands import OwnOutcome, Standing
from db.sources.values import storable_text
from db.words import CACHE, CACHED, FAILED, GIVEN_UP, LIVE, REFUSED_BY_LEDGER, SKIPPED, SUCCEEDED, Origin, Status
from presswork.answers.outcomes import Outcome
from presswork.engine.context import RowWriter, StepContext
from presswork.engine.materials.handles import Material
from presswork.engine.materials.items import Hit, Item, same_failure, unchanged
from presswork.errors import RecordError
from presswork.prompts.render import Prompt, request_body
from presswork.prompts.templates import Template

_IGNORES_SCHEMA = (
    "The endpoint {endpoint!r} seems to ignore `output_config`: its JSON had to be extracted from a code fence or a "
    "sentence. Check that the gateway forwards this field."
)


@dataclass(frozen=True, slots=True)
class Unrendered:
    """A material without a prompt, because reading or rendering it failed; `own` is as in Item."""

    generation_id: str
    key: str
    material: Material
    error: RecordError
    own: OwnOutcome | None


class Recording:
    """Writes the generations of one step of a run, with the writer's next commit."""

    def __init__(self, context: StepContext, template: Template) -> None:
        self._writer = context.writer
        self._progress = context.progress
        self._row = partial(
            GenerationRow,
            run_id=context.ledger.run_id,
            flow=context.ledger.flow,
            step=template.name,
            endpoint=context.ledger.endpoint,
            template_hash=template.hash,
            lease_id=context.ledger.helper_id,
        )
        self._confirmed = partial(
            ConfirmedRow, run_id=context.ledger.run_id, step=template.name, lease_id=context.ledger.helper_id
        )

    def done(self, own: OwnOutcome) -> None:
        """Count an outcome of an earlier pass, so that the live counts add up to all records."""
        self._progress.add(CACHED if own.cached and own.status == SUCCEEDED else own.status)

    def outcome(self, item: Item, outcome: Outcome) -> None:
        """Write the outcome of a miss."""
        row = self._answered(item, outcome)
        if item.is_asked or not self._repeats_failure(row, item.standing, item.own):
            self._add(item, row)
        self._progress.add(outcome.status)
        if outcome.content is not None and outcome.content.unwrapped:
            self._progress.notes["unwrapped"] = _IGNORES_SCHEMA.format(endpoint=self._progress.endpoint)

    def twin(self, item: Item, leader: Item, outcome: Outcome) -> None:
        """Write the generation of a duplicate, which shares the outcome of the first item with its prompt."""
        if not leader.is_asked:
            # Both are skipped without a request. The leader may have no row to point at.
            self.outcome(item, outcome)
            return
        answered = self._answered(item, outcome)
        self._add(item, replace(answered, origin=CACHE, output=None, source_generation_id=leader.generation_id))
        self._progress.add(CACHED if outcome.content else outcome.status)

    def as_written(self, item: Item, outcome: Outcome) -> Outcome:
        """Return a committed outcome, or a failure if the ledger refused its content."""
        failure = self._writer.failure_of(item.generation_id)
        if failure is None:
            return outcome
        self._progress.correct(outcome.status, FAILED)
        return Outcome(FAILED, None, REFUSED_BY_LEDGER, failure)

    def hits(self, hits: Sequence[Hit]) -> None:
        """Write generations that point at the ones with the text; unchanged content is only confirmed."""
        moment = now()
        for hit in hits:
            standing = unchanged(hit)
            if standing is not None:
                self._confirm(hit.item.record_key, SUCCEEDED, standing, moment)
                continue
            source = {"source_generation_id": hit.source_id, "output_hash": hit.output_hash}
            row = self._row_of(hit.item, SUCCEEDED, CACHE, **source)
            self._add(hit.item, row, with_record=not hit.same_record)
        self._progress.add(CACHED, len(hits))

    def skipped(self, item: Item, history: PromptHistory) -> None:
        """Write that an item is skipped, because its prompt has had too many bad outcomes."""
        message = storable_text(
            f"Skipped: this prompt had {history.bad_outcomes} answers without content (last: {history.last_bad}). "
            "To request it again, run with --refresh."
        )
        row = self._row_of(item, SKIPPED, LIVE, error_kind=GIVEN_UP, error_message=message)
        if not self._repeats_failure(row, item.standing, item.own):
            self._add(item, row)
        self._progress.add(SKIPPED)

    def unrendered(self, failed: Unrendered, standing: Standing | None) -> None:
        """Write the failed generation of a material without a prompt."""
        material, error = failed.material, failed.error
        record = material.record
        row = self._row(
            id=failed.generation_id,
            record_key=failed.key,
            record_hash=record.hash if record else None,
            prompt_hash=None,
            created_at=now(),
            status=FAILED,
            origin=LIVE,
            error_kind=error.kind,
            error_message=storable_text(str(error)),
        )
        if not self._repeats_failure(row, standing, failed.own):
            if record is not None:
                self._writer.add_record(RecordRow(record.hash, record.body))
            self._writer.add_generation(row, material.parents)
        self._progress.add(FAILED)

    def _repeats_failure(self, row: GenerationRow, standing: Standing | None, own: OwnOutcome | None) -> bool:
        """Confirm the current failure if a row repeats it, and return whether it does.

        An outcome of this run is always written again.
        """
        failing = same_failure(row, standing) if own is None else None
        if failing is not None:
            self._confirm(row.record_key, row.status, failing, row.created_at)
        return failing is not None

    def _confirm(self, key: str, status: Status, generation_id: str, moment: datetime) -> None:
        self._writer.confirm(
            self._confirmed(record_key=key, status=status, generation_id=generation_id, confirmed_at=moment)
        )

    def _answered(self, item: Item, outcome: Outcome) -> GenerationRow:
        content = outcome.content
        return self._row_of(
            item,
            outcome.status,
            LIVE,
            output=content.output if content else None,
            output_hash=content.hash if content else None,
            error_kind=_text(outcome.error_kind),
            error_message=_text(outcome.error_message),
        )

    def _row_of(self, item: Item, status: Status, origin: Origin, **own: Any) -> GenerationRow:
        return self._row(
            id=item.generation_id,
            record_key=item.record_key,
            record_hash=item.record_hash,
            prompt_hash=item.prompt.hash,
            created_at=now(),
            status=status,
            origin=origin,
            **own,
        )

    def _add(self, item: Item, row: GenerationRow, *, with_record: bool = True) -> None:
        if with_record and item.record is not None:
            self._writer.add_record(RecordRow(item.record.hash, item.record.body))
        # The prompt of a request was added with its first attempt.
        if row.origin != CACHE and not item.is_asked:
            add_prompt(self._writer, item.prompt)
        self._writer.add_generation(row, item.parents)


def add_prompt(writer: RowWriter, prompt: Prompt) -> None:
    """Add a prompt's request. It holds the system text and the schema, which many prompts share, by hash."""
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


def _text(said: str | None) -> str | None:
    return None if said is None else storable_text(said)


@lru_cache(maxsize=256)
def _text_row(body: str) -> TextRow:
    # A run hashes its few shared texts once, not once for each prompt.
    return TextRow(hashlib.sha256(body.encode()).hexdigest(), body)

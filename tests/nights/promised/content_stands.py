"""Promises 3, 6 and 8: one row counts for each record, only good answers are content, and the newest one is current."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tests.nights.promised.evidence import Evidence, Violation
from tests.nights.promised.ledger_rows import KeptContent, KeptGeneration
from tests.nights.served.exchanges import Exchange

ONE_ROW = "one row counts for each run, step and record"
GOOD = "no truncated, refused or invalid answer passes for content"
OWN_RECORD = "content is made from its own record"
TAKEN = "a good answer becomes content"
CURRENT = "the current content is the newest that counts"
_Key = tuple[str, str, str, str]


def check_one_row(evidence: Evidence) -> Iterator[Violation]:
    """Find records with none or several rows that count in a run, and chains of replaced rows that do not end there."""
    of_record = defaultdict[tuple[str, str, str], list[KeptGeneration]](list)
    for row in evidence.rows.generations:
        of_record[row.run_id, row.step, row.record_key].append(row)
    for key, rows in of_record.items():
        counting = [row for row in rows if not row.replaced_by]
        if not counting and _is_confirmed(evidence, key, rows):
            continue
        if len(counting) != 1:
            yield Violation(ONE_ROW, f"{key}: {len(counting)} of {[row.id for row in rows]} count")
            continue
        reached = _chain_to(counting[0].id, rows)
        if set(reached) != {row.id for row in rows}:
            yield Violation(
                ONE_ROW, f"{key}: {sorted({row.id for row in rows} - {*reached})} lead to no row that counts"
            )
        newer = list(_newer_in(reached, rows, counting[0]))
        if newer:
            yield Violation(ONE_ROW, f"{key}: {counting[0].id} counts, and {newer} are newer")


def _newer_in(chain: Sequence[str], rows: Sequence[KeptGeneration], counting: KeptGeneration) -> Iterator[str]:
    """Yield the rows of a chain that are newer than the one that counts, and than the repeats of it that they precede.

    A repeat has the text of the row that counts. If it is newer than another answer, `content` has the repeat.
    """
    by_id, newest = {row.id: row for row in rows}, counting.id
    for row_id in chain[1:]:
        if _repeats(by_id[row_id], counting):
            newest = max(newest, row_id)
        elif row_id > newest:
            yield row_id


def _repeats(row: KeptGeneration, counting: KeptGeneration) -> bool:
    made_from = (row.source_generation_id, row.record_hash, row.template_hash)
    return made_from == (counting.id, counting.record_hash, counting.template_hash)


def _is_confirmed(evidence: Evidence, key: tuple[str, str, str], rows: Sequence[KeptGeneration]) -> bool:
    """Whether all rows came after their run had confirmed the record: they lead to an outcome of another run."""
    own = {row.id for row in rows}
    beyond = [evidence.generations.get(row.replaced_by) for row in rows if row.replaced_by not in own]
    return len(beyond) > 0 and all(row is not None and (row.step, row.record_key) == key[1:] for row in beyond)


def _chain_to(last: str, rows: Sequence[KeptGeneration]) -> list[str]:
    """Return the rows from which `replaced_by` leads to this one, from it backwards; each has at most one before it."""
    before = Counter(row.replaced_by for row in rows)
    by_next = {row.replaced_by: row.id for row in rows}
    reached, at = [last], last
    while by_next.get(at) is not None and before[at] == 1 and by_next[at] not in reached:
        at = by_next[at]
        reached.append(at)
    return reached


def check_good_content(evidence: Evidence) -> Iterator[Violation]:
    """Find generations with content that no good answer to their prompt has given."""
    for row in evidence.rows.generations:
        if row.status == "succeeded":
            wrong = _wrong_source(evidence, row)
            if wrong:
                yield Violation(GOOD, f"generation {row.id} of {row.step} {row.record_key!r}: {wrong}")
        elif row.output is not None:
            yield Violation(GOOD, f"generation {row.id} is {row.status} and has an output")


def check_own_records(evidence: Evidence) -> Iterator[Violation]:
    """Find generations whose record or prompt is that of another key."""
    requests = {prompt.hash: prompt.request for prompt in evidence.rows.prompts}
    for row in evidence.rows.generations:
        if row.record_hash is None:
            continue
        where = f"generation {row.id} of {row.step} {row.record_key!r}"
        body = evidence.rows.records.get(row.record_hash)
        if body is None or _sha(body) != row.record_hash:
            yield Violation(OWN_RECORD, f"{where}: its record {row.record_hash[:12]} is missing or another")
            continue
        if not _may_be_read(evidence, row):
            yield Violation(OWN_RECORD, f"{where}: its run never read the record {row.record_hash[:12]} under this key")
        mark = evidence.night.marks.get(row.step)
        if mark and row.prompt_hash is not None and row.prompt_hash in requests:
            wanted = mark(json.loads(body))
            if wanted not in _asked(requests[row.prompt_hash]):
                yield Violation(OWN_RECORD, f"{where}: its prompt {row.prompt_hash[:12]} does not show its record")


def check_taken(evidence: Evidence) -> Iterator[Violation]:
    """Find good answers that reached the ledger, whose generation has no content."""
    for exchange in evidence.night.exchanges:
        attempt = evidence.attempt_of(exchange)
        if not exchange.good or not exchange.delivered or attempt is None:
            continue
        row = evidence.generations.get(attempt.generation_id)
        refused = {attempt.id, attempt.generation_id} & evidence.night.refused_ids
        if row is None and not refused:
            yield Violation(TAKEN, f"exchange {exchange.number}: its attempt {attempt.id} has no generation")
        elif row is not None and row.status != "succeeded" and row.error_kind != "refused_by_ledger":
            yield Violation(TAKEN, f"exchange {exchange.number}: its generation {row.id} is {row.status}")


def check_current(evidence: Evidence) -> Iterator[Violation]:
    """Compare the table `content` with what history says is current; trials count for nothing."""
    content = {_key_of(row): row for row in evidence.rows.content}
    expected = newest_outcomes(evidence)
    for key in sorted(content.keys() | expected.keys()):
        stored = content.get(key)
        found = None if stored is None else (stored.generation_id, stored.failing_id)
        if found != expected.get(key):
            yield Violation(CURRENT, f"{' '.join(key)!r}: history says {expected.get(key)}, content has {found}")
        elif stored is not None:
            yield from _wrong_notes(evidence, stored)


def newest_outcomes(evidence: Evidence) -> Mapping[_Key, tuple[str | None, str | None]]:
    """Return by record the newest generation with content, and the newest of all if that has none."""
    good, newest = dict[_Key, str](), dict[_Key, str]()
    for row in evidence.rows.generations:
        if row.run_id in evidence.trials:
            continue
        key = _key_of(row)
        newest[key] = max(row.id, newest.get(key, ""))
        if row.status == "succeeded":
            good[key] = max(row.id, good.get(key, ""))
    return {key: (good.get(key), last if last != good.get(key) else None) for key, last in newest.items()}


def _wrong_notes(evidence: Evidence, stored: KeptContent) -> Iterator[Violation]:
    """Check who wrote or confirmed current content, and since when it is current."""
    where = f"{' '.join(_key_of(stored))!r}"
    if stored.generation_id is not None:
        row = evidence.generations[stored.generation_id]
        if stored.since != row.created_at:
            yield Violation(CURRENT, f"{where}: since {stored.since}, and {row.id} is of {row.created_at}")
        if stored.confirmed == 0 and stored.confirmed_run_id != row.run_id:
            yield Violation(CURRENT, f"{where}: never confirmed, but by run {stored.confirmed_run_id}")
    for run_id in (stored.confirmed_run_id, stored.failing_run_id):
        run = evidence.runs.get(run_id or "")
        if run_id is not None and (run is None or run.id in evidence.trials or run.flow != stored.flow):
            yield Violation(CURRENT, f"{where}: confirmed by {run_id}, which is no run of this flow")


def _wrong_source(evidence: Evidence, row: KeptGeneration) -> str | None:
    """Return what is wrong with the origin of a generation's content; None if a good answer gave it."""
    source = row if row.source_generation_id is None else evidence.generations.get(row.source_generation_id)
    if source is None or source.status != "succeeded":
        return f"its source {row.source_generation_id} has no content"
    if (row.origin == "cache") != (row.source_generation_id is not None) or source.origin == "cache":
        return f"its origin is {row.origin}, its source's {source.origin}"
    if source.prompt_hash != row.prompt_hash or row.prompt_hash is None:
        return f"its source {source.id} answers another prompt"
    output = _json(source.output)
    kind = evidence.night.output_classes.get(row.step)
    if kind is not None and not _is_valid(kind, output):
        return f"its output is not valid for {kind.__name__}"
    answers = [each for each in evidence.exchanges_by_prompt.get(row.prompt_hash, ()) if each.good and each.delivered]
    own = {attempt.request_id for attempt in evidence.attempts_by_generation.get(source.id, ())}
    if not any(each.request_id in own and _says(each, output, kind) for each in answers):
        return f"no good answer among {len(answers)} to its prompt {row.prompt_hash[:12]} says it"
    return None


def _says(exchange: Exchange, output: Any, kind: Any) -> bool:
    """Whether an answer's text, read by its output class, is this output."""
    told = _json(exchange.text)
    if told == output:
        return True
    with suppress(ValueError):
        return kind is not None and bool(kind.model_validate(told).model_dump(mode="json", by_alias=True) == output)
    return False


def _may_be_read(evidence: Evidence, row: KeptGeneration) -> bool:
    """Whether some process of the run read this record, or may have: a helper reads later than its run."""
    return any(
        row.step not in run.records or _sha(run.records[row.step].get(row.record_key, "")) == row.record_hash
        for run in evidence.stories_of(row.run_id)
    )


def _is_valid(kind: Any, output: Any) -> bool:
    with suppress(ValueError):
        kind.model_validate_json(json.dumps(output))
        return True
    return False


def _json(text: str | None) -> Any:
    """Read JSON; None if it is none."""
    with suppress(ValueError):
        return json.loads(text or "")
    return None


def _asked(request: str) -> str:
    return str(json.loads(request)["messages"][-1]["content"])


def _key_of(row: KeptContent | KeptGeneration) -> _Key:
    return row.flow, row.step, row.endpoint, row.record_key


def _sha(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()

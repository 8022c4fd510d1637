"""Promise 6: all figures are the sums of rows that can be added up again."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.nights.promised.evidence import PERHAPS_BILLED, UNSENT, Evidence, Violation
from tests.nights.promised.ledger_rows import KeptAttempt, KeptGeneration, KeptStep, units
from tests.nights.promised.night_result import RunStory

ALL_RECORDS = "a step that is over is done, and its history and confirmations are all its records"
SUMMARY = "a run's summary is the sum of its rows"
ROLLUP = "the rollups of a closed run are the sums of its rows"
BY_DAY = "usage_by_day is the sum of the attempts"
CLOSED = frozenset({"completed", "failed", "cancelled", "capped"})
_TOKENS = ("cache_creation_5m_tokens", "cache_creation_1h_tokens", "cache_read_tokens")


def check_all_records(evidence: Evidence) -> Iterator[Violation]:
    """Find steps that are over and not done, and compare the rows and counts of a completed run with its records."""
    rows = Counter((row.run_id, row.step) for row in evidence.rows.generations if not row.replaced_by)
    for step in evidence.rows.steps:
        run = evidence.runs[step.run_id]
        where = f"run {run.id}, step {step.step}"
        if step.state != "done" and (run.status == "completed" or _is_past(evidence, step)):
            yield Violation(ALL_RECORDS, f"{where}: the run is {run.status}, the step is over and {step.state}")
        if run.status != "completed":
            continue
        history, again = rows[step.run_id, step.step], step.unchanged + step.failed_again + step.skipped_again
        said = (
            f"{history} rows + {step.unchanged} unchanged + {step.failed_again} failed + {step.skipped_again} skipped"
        )
        for whose, count in (("total", step.total), ("records", _count_read(evidence, step))):
            if count is not None and history + again != count:
                yield Violation(ALL_RECORDS, f"{where}: {said}, and its {whose} are {count}")


def _is_past(evidence: Evidence, step: KeptStep) -> bool:
    """Whether a run's process went on after a step, and no second one can have begun that step again."""
    if len(evidence.night.main_taken_at.get(step.run_id, ())) > 1:
        return False
    return any(each.worker == "main" and step.step in each.records for each in evidence.stories_of(step.run_id))


def _count_read(evidence: Evidence, step: KeptStep) -> int | None:
    """Return how many records the main process that completed a run read for a step: the last one that lived then."""
    completed = max(evidence.night.completed_at.get(step.run_id, ()), default=None)
    mains = [each for each in evidence.stories_of(step.run_id) if each.worker == "main"]
    if completed is not None:
        mains = [each for each in mains if each.began_at <= completed <= _left(evidence, each)]
    read = mains[-1].records.get(step.step) if mains else None
    return None if read is None else len(read)


def _left(evidence: Evidence, story: RunStory) -> float:
    return evidence.died(story.process) if story.ended_at is None else story.ended_at


def check_summaries(evidence: Evidence) -> Iterator[Violation]:
    """Compare the last summary of each run with sums over its rows, unless it got rows that this could not include."""
    for run_id in dict.fromkeys(each.run_id for each in evidence.night.runs if each.run_id is not None):
        told = [each for each in evidence.stories_of(run_id) if each.worker == "main"][-1:]
        if not told or told[0].summary is None or told[0].ended_at is None or run_id not in evidence.runs:
            continue
        if _is_written_since(evidence, told[0]):
            continue
        ours = {**counts_of(evidence, run_id), **usage_of(_attempts_of(evidence, run_id))}
        for name, value in ours.items():
            theirs = told[0].summary[name]
            found = units(theirs) if name in {"cost_usd", "likely_usd"} else theirs
            if found != value:
                yield Violation(SUMMARY, f"run {run_id}: {name} is {found} in the summary, {value} in its rows")


def counts_of(evidence: Evidence, run_id: str) -> Mapping[str, int]:
    """Count a run's records by how they ended, as a summary does."""
    counts = Counter(
        "cached" if (row.status, row.origin) == ("succeeded", "cache") else row.status
        for row in evidence.rows.generations
        if row.run_id == run_id and not row.replaced_by
    )
    for step in evidence.rows.steps:
        if step.run_id == run_id:
            counts += Counter(cached=step.unchanged, failed=step.failed_again, skipped=step.skipped_again)
    return {
        name: counts[name] for name in ("cached", "succeeded", "invalid", "truncated", "refused", "failed", "skipped")
    }


def usage_of(attempts: Sequence[KeptAttempt]) -> Mapping[str, int | None]:
    """Add up attempts as a summary does; money is in units."""
    unpriced = sum(_is_answered(each) and each.cost_usd is None for each in attempts)
    perhaps = [each for each in attempts if each.error_type in PERHAPS_BILLED]
    priced = [each.cost_usd for each in attempts if each.cost_usd is not None]
    likely = [each.likely_cost_usd for each in perhaps if each.likely_cost_usd is not None]
    written = sum((each.cache_creation_5m_tokens or 0) + (each.cache_creation_1h_tokens or 0) for each in attempts)
    read = sum(each.cache_read_tokens or 0 for each in attempts)
    return {
        "requests": sum(each.error_type not in UNSENT for each in attempts),
        "input_tokens": sum(each.input_tokens or 0 for each in attempts) + written + read,
        "output_tokens": sum(each.output_tokens or 0 for each in attempts),
        "cache_read_tokens": read,
        "cache_creation_tokens": written,
        "cost_usd": None if unpriced and not priced else sum(priced),
        "unpriced": unpriced,
        "perhaps_billed": len(perhaps),
        "likely_usd": None if perhaps and not likely else sum(likely),
        "rate_limited": sum(each.http_status == 429 for each in attempts),
    }


def check_rollups(evidence: Evidence) -> Iterator[Violation]:
    """Compare the stored sums of each run that counts by them with sums over its rows."""
    templates = {row.id: (row.step, row.template_hash) for row in evidence.rows.generations}
    models = {prompt.hash: prompt.model for prompt in evidence.rows.prompts}
    marked = evidence.rows.rolled_up
    attempts = [each for each in evidence.rows.attempts if each.run_id in marked]
    written = [each for each in evidence.rows.generations if each.run_id in marked]
    cached = [each for each in attempts if each.model is not None and each.ended_at is not None and _cache_use(each)]
    no_template = ("", "")
    expected = {
        "usage_rollup": _grouped(
            attempts, lambda a: (*_usage_key(a, templates.get(a.generation_id, no_template)),), _usage_sums
        ),
        "outcome_rollup": _grouped(
            written, lambda g: _outcome_key(g, models.get(g.prompt_hash or "", "")), _outcome_sums
        ),
        "prompt_cache_rollup": _grouped(
            cached, lambda a: _cache_key(a, templates.get(a.generation_id, no_template)), _cache_sums
        ),
    }
    for table, sums in expected.items():
        keys = _KEYS[table]
        stored = {
            tuple(row[name] for name in keys): {name: value for name, value in row.items() if name not in keys}
            for row in evidence.rows.rollups.get(table, ())
            if row["run_id"] in marked
        }
        for key in sorted(stored.keys() | sums.keys()):
            if stored.get(key) != sums.get(key):
                yield Violation(ROLLUP, f"{table} {key}: {_differences(stored.get(key), sums.get(key))}")


def check_usage_by_day(evidence: Evidence) -> Iterator[Violation]:
    """Compare the view with sums over all attempts."""

    def key(attempt: KeptAttempt) -> tuple[Any, ...]:
        run = evidence.runs[attempt.run_id]
        return attempt.started_at[:10], run.flow, run.endpoint, attempt.model or ""

    ours = _grouped(evidence.rows.attempts, key, _day_sums)
    stored = {
        (row["day"], row["flow"], row["endpoint"], row["model"] or ""): {
            name: row[name] or 0 if name in {"cost_usd", "likely_usd"} else row[name] for name in _DAY_SUMS
        }
        for row in evidence.rows.usage_by_day
    }
    for each in sorted(ours.keys() | stored.keys()):
        if ours.get(each) != stored.get(each):
            yield Violation(BY_DAY, f"{each}: {_differences(stored.get(each), ours.get(each))}")


# What is added up in which table

_DAY_SUMS = (
    *("requests", "input_tokens", "output_tokens", "cache_creation_tokens", "cache_read_tokens"),
    *("cost_usd", "unpriced", "perhaps_billed", "likely_usd"),
)
_OF_STEP = ("run_id", "day", "step", "template_hash")
_KEYS = {
    "usage_rollup": (*_OF_STEP, "model", "service_tier", "kind", "error_type"),
    "outcome_rollup": (*_OF_STEP, "model", "status", "origin"),
    "prompt_cache_rollup": (*_OF_STEP, "model", "service_tier", "inference_geo", "speed", "prompt_tokens"),
}


def _usage_key(each: KeptAttempt, of: tuple[str, str]) -> tuple[Any, ...]:
    words = _word(each.model), _word(each.service_tier), each.kind, _word(each.error_type)
    return each.run_id, each.started_at[:10], *of, *words


def _outcome_key(each: KeptGeneration, model: str) -> tuple[Any, ...]:
    return each.run_id, each.created_at[:10], each.step, each.template_hash, model, each.status, each.origin


def _cache_key(each: KeptAttempt, of: tuple[str, str]) -> tuple[Any, ...]:
    words = (_word(word) for word in (each.model, each.service_tier, each.inference_geo, each.speed))
    whole = (each.input_tokens or 0) + _cache_use(each)
    return each.run_id, (each.ended_at or "")[:10], *of, *words, -(-whole // 1000) * 1000


def _usage_sums(attempts: Sequence[KeptAttempt]) -> dict[str, Any]:
    used = usage_of(attempts)
    priced = [each.cost_usd for each in attempts if each.cost_usd is not None]
    perhaps = [each for each in attempts if each.error_type in PERHAPS_BILLED]
    likely = [each.likely_cost_usd for each in perhaps if each.likely_cost_usd is not None]
    timed = [each.latency_ms for each in attempts if each.latency_ms is not None]
    return {
        "attempts": len(attempts),
        "requests": used["requests"],
        "input_tokens": sum(each.input_tokens or 0 for each in attempts),
        "output_tokens": used["output_tokens"],
        **{name: sum(getattr(each, name) or 0 for each in attempts) for name in _TOKENS},
        "cost_e10": sum(priced),
        "priced": len(priced),
        "unpriced": used["unpriced"],
        "perhaps_billed": len(perhaps),
        "likely_e10": sum(likely),
        "estimated": len(likely),
        "rate_limited": used["rate_limited"],
        "latency_ms": sum(timed),
        "timed": len(timed),
    }


def _outcome_sums(rows: Sequence[KeptGeneration]) -> dict[str, Any]:
    replaced = sum(bool(row.replaced_by) for row in rows)
    return {"generations": len(rows) - replaced, "replaced": replaced}


def _cache_sums(attempts: Sequence[KeptAttempt]) -> dict[str, Any]:
    written_5m, written_1h, read = ([getattr(each, name) or 0 for each in attempts] for name in _TOKENS)
    return {
        "written_5m": sum(written_5m),
        "written_1h": sum(written_1h),
        "read": sum(read),
        "writes": sum(a + b > 0 for a, b in zip(written_5m, written_1h, strict=True)),
        "reads": sum(each > 0 for each in read),
    }


def _day_sums(attempts: Sequence[KeptAttempt]) -> dict[str, Any]:
    used = usage_of(attempts)
    plain = {"input_tokens": sum(each.input_tokens or 0 for each in attempts)}
    money = {name: used[name] or 0 for name in ("cost_usd", "likely_usd")}
    return {name: {**used, **plain, **money}[name] for name in _DAY_SUMS}


def _grouped(rows: Iterable[Any], key: Callable[[Any], tuple[Any, ...]], sums: Callable[[Any], Any]) -> dict[Any, Any]:
    found = defaultdict[tuple[Any, ...], list[Any]](list)
    for row in rows:
        found[key(row)].append(row)
    return {each: sums(alike) for each, alike in found.items()}


def _differences(stored: Mapping[str, Any] | None, ours: Mapping[str, Any] | None) -> str:
    if stored is None or ours is None:
        return f"stored {stored}, by the rows {ours}"
    return ", ".join(
        f"{name} {stored.get(name)} instead of {ours[name]}" for name in ours if stored.get(name) != ours[name]
    )


def _word(word: str | None) -> str:
    return (word or "")[:100]


def _is_answered(attempt: KeptAttempt) -> bool:
    return attempt.input_tokens is not None or attempt.output_text is not None


def _cache_use(attempt: KeptAttempt) -> int:
    return sum(getattr(attempt, name) or 0 for name in _TOKENS)


def _attempts_of(evidence: Evidence, run_id: str) -> list[KeptAttempt]:
    return [each for each in evidence.rows.attempts if each.run_id == run_id]


def _is_written_since(evidence: Evidence, told: RunStory) -> bool:
    """Whether a run got rows that a summary could not include.

    These are rows of other processes after its own had done its last step, and any rows after that process ended.
    """
    night, run_id = evidence.night, told.run_id
    attempts = _attempts_of(evidence, str(run_id))
    own = {id_ for each in attempts if each.lease_id == told.lease_id for id_ in (each.id, each.generation_id)}
    rows = [*(each.id for each in attempts), *(each.id for each in evidence.rows.generations if each.run_id == run_id)]
    ended_at = told.ended_at or 0.0
    summed_up_at = ended_at if told.summed_up_at is None else told.summed_up_at
    # Later ones are those of the close.
    done_at = [at for at in night.steps_done_at.get(str(run_id), ()) if at <= summed_up_at]
    since = max(done_at, default=summed_up_at)
    return any(
        max(night.committed_at.get(each, 0.0), night.settled_at.get(each, 0.0)) > (ended_at if each in own else since)
        for each in rows
    )

"""Promise 7: claims, leases and attempts end, nothing is left to import, and a run that can finish does."""

import math
from collections.abc import Iterator

from tests.nights.promised.evidence import Evidence, Violation
from tests.nights.promised.night_result import NightResult, RunStory
from tests.nights.promised.rows_add_up import counts_of

NOTHING_LEFT = "after the end no lease, claim, attempt or spill file is open"
FINISHES = "a run that can finish does"
ALIVE = "a run that is seen to live is never called crashed"
OPEN = frozenset({"running", "suspended", "crashed"})
GIVEN_UP = "given_up"
"""The kind of a record that was skipped because its prompt failed too often."""


def check_nothing_left(evidence: Evidence) -> Iterator[Violation]:
    """Find what nobody will ever close."""
    rows, night = evidence.rows, evidence.night
    closed = {run.id for run in rows.runs if run.status not in OPEN}
    for row in rows.working:
        if row.run_id in closed:
            yield Violation(
                NOTHING_LEFT, f"run {row.run_id} has closed, and its working row of {row.record_key!r} is there"
            )
    if not night.is_over:
        return
    for lease in rows.leases:
        yield Violation(NOTHING_LEFT, f"lease {lease.id} of {lease.worker} on run {lease.run_id}")
    for claim in rows.claims:
        yield Violation(NOTHING_LEFT, f"claim of {claim.owner} on prompt {claim.prompt_hash[:12]}")
    for attempt in rows.attempts:
        if attempt.ended_at is None:
            yield Violation(NOTHING_LEFT, f"attempt {attempt.id} of run {attempt.run_id} has no end")
    for run in rows.runs:
        if run.status == "running" or (run.status == "suspended" and run.id not in night.left_suspended):
            yield Violation(NOTHING_LEFT, f"run {run.id} of {run.flow} is {run.status}")
    yield from _not_imported(night)
    for folder in night.swept_folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            yield Violation(NOTHING_LEFT, f"the records of {path.parent.name} are kept ({path.suffix or path.name})")


def _not_imported(night: NightResult) -> Iterator[Violation]:
    for path in (path for folder in night.spill_folders for path in sorted(folder.rglob("*.spill"))):
        # A process that was killed in its first write leaves no whole line, so it has counted nothing as saved.
        data = path.read_bytes()
        if path not in night.cut_spills or not data or b"\n" in data:
            yield Violation(NOTHING_LEFT, f"the spill file {path.name} was not imported")


def check_finishes(evidence: Evidence) -> Iterator[Violation]:
    """Find last runs that did not complete, or completed without content or a reason for each record."""
    for story in evidence.night.runs:
        if not story.must_finish:
            continue
        run = evidence.runs.get(story.run_id or "")
        where = f"run {story.run_id} of {story.process}"
        if run is None or run.status != "completed":
            yield Violation(FINISHES, f"{where} is {run.status if run else 'missing'} ({story.error})")
            continue
        lacks = _lacks_any(evidence, run.id)
        if story.exit_status != int(lacks):
            yield Violation(FINISHES, f"{where} has exit status {story.exit_status}, records without content: {lacks}")
        for step, key, reason in _without_content(evidence, story):
            if reason is None:
                yield Violation(FINISHES, f"{where}: {step} {key!r} has neither content nor a reason")


def check_alive(evidence: Evidence) -> Iterator[Violation]:
    """Find runs that were called crashed while their process could renew its lease."""
    night = evidence.night
    for run_id, times in sorted(night.crashed_at.items()):
        for at in times:
            working = [each for each in evidence.stories_of(run_id) if _leads(evidence, each, at)]
            for each in working:
                since = at - night.lease_s - night.heartbeat_s
                unable = evidence.unable(each.process, since, at)
                if evidence.died(each.process) > at and unable < night.lease_s - night.heartbeat_s - night.slack_s * 4:
                    yield Violation(
                        ALIVE, f"run {run_id} was called crashed at {at:.3f} s, and {each.process} worked on it"
                    )


def _leads(evidence: Evidence, story: RunStory, at: float) -> bool:
    """Whether a process had its run's main lease until a time.

    It has not while it begins, when it may itself find that an earlier process crashed, nor once another process has
    taken its place: if that one is killed, the run has crashed.
    """
    night, lease = evidence.night, story.lease_id or ""
    if story.worker != "main" or (story.ended_at is not None and story.ended_at <= at):
        return False
    taken = max((each for each in night.taken_at.get(lease, ()) if each < at), default=math.inf)
    return taken < at and not any(taken <= each < at for each in night.let_go_at.get(lease, ()))


def _without_content(evidence: Evidence, story: RunStory) -> Iterator[tuple[str, str, str | None]]:
    """Yield the records of a run that have no content for what it read, by step and key, and why."""
    run = evidence.runs[story.run_id or ""]
    content = {
        (row.step, row.record_key): row
        for row in evidence.rows.content
        if (row.flow, row.endpoint) == (run.flow, run.endpoint)
    }
    for step, records in story.records.items():
        for key, body in records.items():
            row = content.get((step, key))
            if row is not None and row.failing_id is not None:
                yield step, key, _reason(evidence, story, row.failing_id)
            elif row is None or row.generation_id is None or not _is_of(evidence, row.generation_id, body):
                yield step, key, None


def _is_of(evidence: Evidence, generation_id: str, body: str) -> bool:
    """Whether content is made from this record."""
    record_hash = evidence.generations[generation_id].record_hash
    return record_hash is None or evidence.rows.records.get(record_hash) == body


def _reason(evidence: Evidence, story: RunStory, failing_id: str) -> str | None:
    """Return why a record has no content; None if its failure explains nothing."""
    row = evidence.generations[failing_id]
    if row.error_kind != GIVEN_UP:
        return row.error_kind
    bad = [
        each.id
        for each in evidence.rows.generations
        if each.prompt_hash == row.prompt_hash
        and each.status not in {"succeeded", "skipped"}
        and each.run_id not in evidence.trials
    ]
    return GIVEN_UP if len(bad) >= story.give_up_after else None


def _lacks_any(evidence: Evidence, run_id: str) -> bool:
    """Whether a run has records without content, in any of its steps."""
    counts = counts_of(evidence, run_id)
    left_out = sum(step.left_out for step in evidence.rows.steps if step.run_id == run_id)
    return bool(left_out + sum(counts.values()) - counts["succeeded"] - counts["cached"])

"""Collect what a night leaves for the checks, when no process runs any more."""

import json
from collections.abc import Iterator

from sqlalchemy import text

from db.database_errors import KeyValueError, SelectError, SourceUnreachableError, SpoolError
from db.ledger.spill import REFUSED_SUFFIX
from flows.outputs import SubjectLine
from presswork.errors import TemplateError
from tests.nights.night import Driver
from tests.nights.promised.night_result import NightResult, ProcessStory
from tests.nights.served.spoilt_replies import KEY
from tests.nights.simulated.database import TROUBLES
from tests.nights.simulated.processes import SimulatedProcess

_SUSPENDED = text("SELECT id, prefect_flow_run_id FROM runs WHERE status = 'suspended'")

_BEFORE_ALL = (TemplateError, KeyValueError, SelectError, SourceUnreachableError, SpoolError)
"""The errors of a run that has no templates, or has not read its records."""


def result_of(night: Driver) -> NightResult:
    """Return what a night left."""
    place = night.place
    night.world.current = None  # from here on nobody in the night uses the ledger
    times = place.ledger.times()
    return NightResult(
        ledger=place.ledger.file,
        exchanges=night.endpoint.exchanges,
        processes=[_story_of(night, process) for process in night.world.processes],
        runs=[notes.story() for notes in night.runs],
        committed_at={row_id: at[0] for kind in ("opened", "written") for row_id, at in times[kind].items()},
        settled_at={row_id: at[-1] for row_id, at in times["settled"].items()},
        crashed_at=times["crashed"],
        completed_at=times["completed"],
        steps_done_at=times["step done"],
        taken_at=times["taken"],
        main_taken_at=times["main taken"],
        let_go_at=times["ended"],
        logged=tuple(night.world.story),
        refused_ids=frozenset(_refused_ids(night)),
        unkept_at=place.disks.unkept,
        left_suspended=frozenset(_left_suspended(night)),
        fails_before_all=tuple(each.__name__ for each in _BEFORE_ALL),
        output_classes={"note": SubjectLine, "title": SubjectLine},
        errors=tuple(_unhandled(night)),
        secrets=(KEY,),
        marks={"note": lambda record: str(record["name"] or "").strip()},
        indexed=night.plan.indexed,
        spill_folders=place.spill_folders(),
        cut_spills=frozenset(place.disks.cut_files),
        swept_folders=[place.spool_folder(night.hosts[0].name)],
        commit_interval_s=_setting(night, "commit_interval_s"),
        request_timeout_s=_setting(night, "request_timeout_s"),
    )


def _refused_ids(night: Driver) -> Iterator[str]:
    for folder in night.place.spill_folders():
        for file in folder.glob(f"*{REFUSED_SUFFIX}"):
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)["row"]
                yield str(row.get("id") or row.get("attempt_id") or row.get("hash"))


def _left_suspended(night: Driver) -> Iterator[str]:
    """Yield the suspended runs whose flow run was resumed, but could not open the run."""
    ended = {each.id for each in night.flow_runs if each.state != "Suspended"}
    with night.engine.connect() as connection:
        for run_id, flow_run in connection.execute(_SUSPENDED):
            if flow_run in ended:
                yield str(run_id)


def _unhandled(night: Driver) -> Iterator[str]:
    """Yield the errors that ended a process or that its loop met; a killed one's show only that it was killed."""
    for process in night.world.processes:
        task = process.task
        if task is not None and task.done() and not task.cancelled() and task.exception() is not None:
            yield f"{process.name} ended with {task.exception()!r}"
        if not process.killed:
            yield from (f"{process.name}: {each}" for each in process.loop.errors)


def _setting(night: Driver, name: str) -> float:
    return float(dict(night.plan.settings).get(name, getattr(night.place.settings, name)))


def _story_of(night: Driver, process: SimulatedProcess) -> ProcessStory:
    outages = [
        each for each in night.troubles.outages if each.trouble in TROUBLES and each.host in {None, process.on.name}
    ]
    return ProcessStory(
        process.name,
        died_at=process.ended_at if process.killed else None,
        frozen=tuple(process.frozen),
        partitioned=tuple((each.begins, each.ends) for each in outages),
        held_up=tuple(process.held_up),
    )

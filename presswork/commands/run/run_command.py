"""Find the job of `presswork run`. This module loads quickly, so that a wrong name is reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from presswork.errors import ParameterError
from presswork.jobs.named_jobs import Job, find_job, given_options, make_options
from presswork.options import RunOptions
from presswork.settings import Settings
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import RunFlags, parse_sets


@dataclass(frozen=True)
class NamedRun:
    """A run to check: its job, the values of `--set` and its options."""

    job: Job
    values: Mapping[str, Any]
    options: RunOptions


@dataclass(frozen=True)
class ResumedFlags:
    """The flags of a run that resumes another; only the ledger knows the rest."""

    run_id: str
    name: str | None
    values: Mapping[str, Any]
    options: Mapping[str, Any]


def name_run(command: CommandContext, flags: RunFlags) -> NamedRun | ResumedFlags:
    """Find the job by its name, and read its options. A run to resume is looked up in the next step."""
    values, given = parse_sets(flags.sets), given_options(flags)
    settings = command.settings
    if flags.resume is not None:
        return ResumedFlags(flags.resume, flags.name, values, given)
    if flags.name is None:
        raise ParameterError("A name is missing. Use `presswork run NAME`, or `presswork run --resume RUN_ID`.")
    return named_run(settings, flags.name, values, given)


def named_run(settings: Settings, name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> NamedRun:
    """Read the options and find the job. Raises ParameterError or UnknownJobError."""
    options = make_options(given)
    return NamedRun(find_job(name, settings), values, options)

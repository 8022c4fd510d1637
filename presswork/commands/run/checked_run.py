"""Check a run of `presswork run` against the ledger and the source, before Prefect is loaded."""

from dataclasses import dataclass

from presswork.commands.run.begun_server import beginning, command_server
from presswork.commands.run.run_command import NamedRun, ResumedFlags, named_run
from presswork.errors import ParameterError
from presswork.jobs.checking import find_resumed, prepare
from presswork.jobs.named_jobs import Call
from presswork.operate.command_server.server_context import CommandServer
from presswork.settings import Settings
from presswork.terminal.endings import CommandContext


@dataclass(frozen=True)
class CheckedRun:
    """A call that is ready to run, and the server that it may use; `is_sharded` if it runs as shards on workers."""

    call: Call
    server: CommandServer
    is_sharded: bool


def check_run(command: CommandContext, asked: NamedRun | ResumedFlags) -> CheckedRun:
    """Look up the run to resume, if any, and check the job while its server starts."""
    settings = command.settings
    run = asked if isinstance(asked, NamedRun) else _resumed(settings, asked)
    server = command.hold(command_server(command))
    is_sharded = (run.options.shards or 1) > 1
    begin = _nothing if is_sharded else beginning(server, settings)
    return CheckedRun(prepare(run.job, settings, run.values, run.options, begin=begin), server, is_sharded)


def _nothing() -> None:
    pass


def _resumed(settings: Settings, asked: ResumedFlags) -> NamedRun:
    """Start from the arguments of the earlier run; a flag that is given now wins."""
    past = find_resumed(settings, asked.run_id)
    if asked.name not in {None, past.flow}:
        raise ParameterError(
            f"The run {past.run_id} belongs to {past.flow!r}, not to {asked.name!r}. Leave the name out."
        )
    # Without `--refresh` now, a refresh is still resumed as one.
    given_now = {name: value for name, value in asked.options.items() if value is not None and value is not False}
    options = {**past.options, **given_now, "resumes": past.run_id}
    return named_run(settings, past.flow, {**past.sets, **asked.values}, options)

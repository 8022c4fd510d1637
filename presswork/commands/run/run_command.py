"""`presswork run`: a flow or a template, once, from here.

What is found quickest comes first: SQLAlchemy, the SDK and Prefect take seconds to load.
"""

from presswork.errors import ParameterError
from presswork.jobs.named_jobs import find_job, given_options, make_options
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import RunFlags, parse_sets


def run(command: CommandContext, flags: RunFlags) -> int:
    """Run what is named; return the exit status of its summary."""
    name, values, given = flags.name, parse_sets(flags.sets), given_options(flags)
    settings = command.settings
    if flags.resume is not None:
        from presswork.jobs.checking import find_resumed  # noqa: PLC0415 - loads SQLAlchemy

        past = find_resumed(settings, flags.resume)
        if name not in {None, past.flow}:
            raise ParameterError(f"The run {past.run_id} was one of {past.flow!r}, not of {name!r}.")
        name, values = past.flow, {**past.sets, **values}
        # `--refresh` that is not given is no wish to end a refresh.
        told_now = {option: value for option, value in given.items() if value is not None and value is not False}
        given = {**past.options, **told_now, "resumes": past.run_id}
    if name is None:
        raise ParameterError("Say what to run: `presswork run NAME`, or `presswork run --resume RUN_ID`.")
    options = make_options(given)
    job = find_job(name, settings)

    from presswork.jobs.checking import prepare  # noqa: PLC0415 - loads SQLAlchemy

    call = prepare(job, settings, values, options)

    from presswork.commands.run.running import run_to_end  # noqa: PLC0415 - loads Prefect

    return run_to_end(call, command, is_spread=(options.shards or 1) > 1)

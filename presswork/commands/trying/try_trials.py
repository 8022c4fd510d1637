"""Choose between one trial, a watch and a comparison of versions; each loads only what it needs."""

import asyncio

from presswork.commands.trying.try_template import AskedTrials
from presswork.terminal.endings import CommandContext


def try_template(command: CommandContext, asked: AskedTrials) -> int:
    """Try a template as the flags say, and return the exit status."""
    if asked.flags.watch:
        from presswork.commands.trying.try_watch import watch_template  # noqa: PLC0415 - loads what watches files

        return watch_template(command, asked)
    if asked.flags.against is not None:
        from presswork.commands.trying.try_sides import compare_versions  # noqa: PLC0415 - most trials need no git

        return asyncio.run(compare_versions(command, asked, asked.flags.against))
    from presswork.commands.trying.try_once import ask_once  # noqa: PLC0415 - as those above

    return asyncio.run(ask_once(command, asked))

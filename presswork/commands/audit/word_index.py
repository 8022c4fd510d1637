"""`presswork audit index`: index the words of answers, so that a search does not have to read them all."""

from presswork.errors import ConfigurationError
from presswork.terminal.audit_flags import IndexFlags
from presswork.terminal.endings import CommandContext


def index_words(_command: CommandContext, _flags: IndexFlags) -> None:
    """Index all closed runs, newest first, and report how many; with `--remove` remove the index."""
    raise ConfigurationError("Words can't be indexed yet.")

"""`presswork audit bundle`: write a record's life into one file."""

from presswork.errors import ConfigurationError
from presswork.terminal.audit_flags import BundleFlags
from presswork.terminal.endings import CommandContext


def write_bundle(_command: CommandContext, _flags: BundleFlags) -> None:
    """Write the file, and report what it holds."""
    raise ConfigurationError("A bundle can't be written yet.")

"""`presswork audit`: serve the audit room until Ctrl-C."""

from presswork.errors import ConfigurationError
from presswork.terminal.audit_flags import AuditFlags
from presswork.terminal.endings import CommandContext


def serve_audit(_command: CommandContext, _flags: AuditFlags) -> None:
    """Serve until Ctrl-C; the URL is printed as soon as it listens."""
    raise ConfigurationError("The audit room can't be served yet.")

"""`presswork cost`: add up what was requested, used and paid."""

from presswork.errors import ConfigurationError
from presswork.terminal.audit_flags import CostFlags
from presswork.terminal.endings import CommandContext


def show_cost(_command: CommandContext, _flags: CostFlags) -> None:
    """Print the sums and their total."""
    raise ConfigurationError("Costs can't be added up yet.")

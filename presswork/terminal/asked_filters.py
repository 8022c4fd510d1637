"""Turn the flags that choose runs or generations into the ledger's filters."""

from datetime import datetime

from db.clock import now
from db.readers.audit.filters import Filter
from presswork.errors import ParameterError
from presswork.periods import moment_of
from presswork.terminal.filter_flags import FigureFlags

_SAME = "flow step endpoint template model status cause origin run trigger key replaced".split()


def wanted_by(flags: FigureFlags) -> Filter:
    """Return the filter that a command's flags ask for. Raises ParameterError or FilterError if one can't be right."""
    same = {name: getattr(flags, name, None) for name in _SAME}
    since, until = period_of(flags.since, flags.until)
    return Filter(**same, since=since, until=until)


def period_of(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    """Read a period as people type it. Raises ParameterError if a text is no date."""
    moment = now()
    return _read("since", since, moment), _read("until", until, moment)


def _read(name: str, text: str | None, moment: datetime) -> datetime | None:
    try:
        return None if text is None else moment_of(text, moment)
    except ValueError as error:
        raise ParameterError(f"--{name}: {error}.") from None

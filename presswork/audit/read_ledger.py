"""Keep the ledger open for reading, and notice when it comes, goes, is replaced or is migrated.

The audit room never creates or migrates a ledger. Each request asks for the engine; what was wrong a moment ago may be
right now.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from db.database_errors import LedgerUnreachableError
from db.ledger.connecting import check, refuse_unfit
from db.machine import monotonic_s
from db.session import file_of, parse_url, readable_url
from db.timed_reads import open_reader

CHECK_EVERY_S = 5.0
"""How long a ledger's version is taken for granted."""
CHOICES_KEPT_S = 30.0
"""How long the choices of a form are kept: reading them takes as long as many a page.

A new value can be asked for all the same; only the form does not offer it yet.
"""
CONNECT_WITHIN_S = 2  # a page is no run: it does not wait ten seconds for a database that does not answer

_Seen = tuple[str, object]
_ReadChoices = Callable[[Engine], object]


class ReadLedger:
    """The ledger that the pages read; `read_url` says which it is now."""

    def __init__(self, read_url: Callable[[], str]) -> None:
        self._read_url = read_url
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._seen: _Seen | None = None
        self._checked_at = 0.0
        self._choices: dict[_ReadChoices, tuple[float, object]] = {}

    def url(self) -> str:
        """Return the ledger's URL, which may hold a password."""
        return self._read_url()

    def name(self) -> str:
        """Name the ledger for people, without a password."""
        return readable_url(self._read_url())

    def engine(self) -> Engine:
        """Return an engine that reads the ledger; raises LedgerError if there is none that this code can read."""
        url = self._read_url()
        with self._lock:
            seen = url, _identity(url)
            if seen != self._seen:
                self._close()
            if self._engine is None:
                self._engine = _open(url)
                self._seen = seen
            if monotonic_s() - self._checked_at > CHECK_EVERY_S:
                self._check(self._engine, url)
            return self._engine

    def choices(self, read: _ReadChoices, engine: Engine) -> object:
        """Return what `read` finds in this ledger, or what it has just found."""
        read_at, found = self._choices.get(read, (None, None))
        if read_at is None or monotonic_s() - read_at > CHOICES_KEPT_S:
            found = read(engine)
            with self._lock:
                if engine is self._engine:
                    self._choices[read] = monotonic_s(), found
        return found

    def close(self) -> None:
        """Close all connections; the next request opens the ledger again."""
        with self._lock:
            self._close()

    def _check(self, engine: Engine, url: str) -> None:
        try:
            check(engine, url)
        except BaseException:
            self._close()
            raise
        self._checked_at = monotonic_s()

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
        self._engine, self._seen, self._checked_at, self._choices = None, None, 0.0, {}


def _identity(url: str) -> object:
    """Return what tells a SQLite file from another of the same path; raises LedgerUnreachableError without a file."""
    file = _file(url)
    if file is None:
        return None
    try:
        found = Path(file).stat()
    except PermissionError as error:
        raise _unreachable(url, error.strerror or str(error)) from None
    except OSError:
        # Connecting would create an empty file.
        raise LedgerUnreachableError(
            f"There is no ledger yet: {readable_url(url)} does not exist. `presswork demo` creates one, or the first "
            "`presswork run`."
        ) from None
    return found.st_dev, found.st_ino


def _file(url: str) -> str | None:
    try:
        return file_of(parse_url(url))
    except ValueError as error:
        raise _unreachable(url, str(error)) from None


def _open(url: str) -> Engine:
    try:
        parsed = parse_url(url)
        refuse_unfit(parsed)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_WITHIN_S)})
        return open_reader(parsed.render_as_string(hide_password=False))
    except (ImportError, ValueError) as error:
        raise _unreachable(url, str(error)) from None


def _unreachable(url: str, reason: str) -> LedgerUnreachableError:
    return LedgerUnreachableError(
        f"The ledger {readable_url(url)} can't be reached: {reason}. Check PRESSWORK_DATABASE_URL."
    )

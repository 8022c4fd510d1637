"""Errors of databases. Each message names the database and what to do.

    DatabaseError
    |-- LedgerError         the ledger can't be used as it is
    |   |-- LedgerUnreachableError
    |   |-- LedgerNotMigratedError
    |   |-- LedgerTooNewError
    |   |-- LedgerInUseError
    |   |-- LedgerDamagedError
    |   `-- TooSlowError
    |-- SpoolError          the records can't be stored while a run works on them
    `-- SourceError         the records can't be read
        |-- SourceUnreachableError
        |-- SelectError     the SQL fails or does not select the key
        `-- KeyValueError   keys are null or not unique

No message contains a password: URLs are shown with the password masked.
"""


class DatabaseError(Exception):
    """A database can't be used."""


class LedgerError(DatabaseError):
    """The ledger can't be used."""


class LedgerUnreachableError(LedgerError):
    """The ledger can't be reached."""


class LedgerNotMigratedError(LedgerError):
    """The ledger's tables are missing or older than this code."""


class LedgerTooNewError(LedgerError):
    """The ledger was migrated by a newer Presswork."""


class LedgerInUseError(LedgerError):
    """The ledger can't be changed while a run is active on it."""


class LedgerDamagedError(LedgerError):
    """The ledger's file is damaged, or is no database. Keep a copy of it, and restore the newest backup."""


class TooSlowError(LedgerError):
    """Reading the ledger took longer than its time limit. Choose a shorter period, or a flow or a step."""


class SpoolError(DatabaseError):
    """The selected records can't be stored on this machine."""


class SourceError(DatabaseError):
    """Records can't be read."""


class SourceUnreachableError(SourceError):
    """A source can't be reached."""


class SelectError(SourceError):
    """The select fails."""


class KeyValueError(SourceError):
    """The records' keys are null or not unique."""

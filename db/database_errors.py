"""What can go wrong with a database, said so that a person knows which one and what to do.

    DatabaseError
    |-- LedgerError         the ledger can't be used as it is
    |   |-- LedgerUnreachableError
    |   |-- LedgerNotMigratedError
    |   |-- LedgerTooNewError
    |   `-- LedgerInUseError
    |-- SpoolError          the records can't be kept while a run works on them
    `-- SourceError         the records can't be read
        |-- SourceUnreachableError
        |-- SelectError     the SQL fails, or lacks its key
        `-- KeyValueError   keys are null or not unique

No message holds a password: URLs are shown with it masked.
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
    """The ledger can't be migrated while a run is at work on it."""


class SpoolError(DatabaseError):
    """What a select gives can't be kept on this machine."""


class SourceError(DatabaseError):
    """Records can't be read."""


class SourceUnreachableError(SourceError):
    """A source can't be reached."""


class SelectError(SourceError):
    """The select fails."""


class KeyValueError(SourceError):
    """Keys of records are null or not unique."""

"""The flags of the `presswork db` commands, which keep the ledger."""

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from presswork.terminal.flags import Flags, OfSandbox


@dataclass(frozen=True)
class LedgerFlags(Flags):
    """The flags of all `presswork db` commands."""

    sandbox: OfSandbox = False


class UpgradeFlags(LedgerFlags):
    """Migrate the ledger to this release; create it if missing."""


class CheckFlags(LedgerFlags):
    """Check that the ledger's tables are current.

    Prints which ledger is used. Exit status: 0 its tables are current, 2 they are not.
    """


class RecoverFlags(LedgerFlags):
    """Import answers from spill files into the ledger.

    A run saves its answers in a spill file while the ledger is unavailable. Exit status: 0 all files are imported, 2 at
    least one can't be imported.
    """


class SizeFlags(LedgerFlags):
    """Show the ledger's size by table, and what can be freed."""


Yes = Annotated[bool, Option("--yes", help="Make the changes. Without this flag nothing is changed.")]


@dataclass(frozen=True)
class CompactFlags(LedgerFlags):
    """Remove history rows that only repeat the row before.

    Earlier releases wrote such rows when nothing had changed. Prints how many there are; --yes removes them. Content,
    counts, costs and records' histories (`history --key`) stay. Old runs lose their list of repeated failures and the
    savings by the cache. You can stop it at any moment and run it again. Fails while a run uses the ledger.
    """

    yes: Yes = False
    vacuum: Annotated[
        bool, Option("--vacuum", help="Also shrink a SQLite file on disk. Needs as much free space as the file has.")
    ] = False


@dataclass(frozen=True)
class PruneFlags(LedgerFlags):
    """Remove rows that nothing needs.

    These are the working rows of ended runs, and records, prompts and texts that no history refers to. Prints how many
    there are; --yes removes them. Fails while a run uses the ledger.
    """

    yes: Yes = False


@dataclass(frozen=True)
class RebuildFlags(LedgerFlags):
    """Compare the table `content` and the sums of closed runs with the history, and correct them.

    Prints the number of wrong records and runs; --yes corrects them. Exit status: 0 all are correct now, 1 some are
    wrong.
    """

    yes: Yes = False

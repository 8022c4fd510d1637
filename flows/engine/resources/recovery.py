"""Settle what earlier runs left behind when a run opens, and write its row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.database_errors import LedgerUnreachableError
from db.ledger import leases, spill
from db.ledger import writing as record
from db.ledger.refused_rows import RefusedRow, in_words
from db.ledger.rows import RunRow
from db.readers.runs import read_run
from db.session import is_unavailable, is_unwritable, readable_url, reason_of
from flows.engine.options import Shard
from flows.errors import ConfigurationError

_log = logging.getLogger("prefect.presswork")


def begin(ledger: Engine, run: RunRow, spill_folders: Sequence[Path]) -> None:
    """Settle the past and write the row of a run that begins; LedgerUnreachableError where it can't be written.

    The error of a ledger that may be back soon goes up as it is.
    """
    try:
        settle_the_past(ledger, spill_folders, but=run.id)
        record.open_run(ledger, run)
    except SQLAlchemyError as error:
        if is_unavailable(error) and not is_unwritable(error):
            raise
        raise LedgerUnreachableError(
            f"The ledger {readable_url(ledger.url)} can't be written: {reason_of(error, ledger.url)}. "
            "Check its permissions and the space on its disk."
        ) from None


def settle_the_past(ledger: Engine, spill_folders: Sequence[Path], *, but: str) -> None:
    """End leases of other runs that ran out, and import spill files of this ledger; a damaged one is named and kept."""
    leases.end_lapsed(ledger, but=but)
    for path in [found for folder in spill_folders for found in spill.find_spills(folder)]:
        if not spill.belongs_to(ledger, path):
            continue
        refused: list[RefusedRow] = []
        try:
            count = spill.recover(ledger, path, refused)
            _log.info("Imported %s generations that waited in %s.", count, path.name)
            if refused:
                _log.warning("%s As they were, they are kept in %s.", in_words(refused), spill.refused_file(path))
        except spill.SpillError as error:
            _log.warning("%s", error)


def require_parent(ledger: Engine, shard: Shard) -> None:
    """Raise ConfigurationError where a shard's worker has another ledger than the run that is spread."""
    if read_run(ledger, shard.parent) is None:
        raise ConfigurationError(
            f"The run {shard.parent}, of which this is a shard, is not in this worker's ledger "
            f"({readable_url(ledger.url)}). Give all workers of a work pool the same PRESSWORK_DATABASE_URL."
        )

"""Afterlife: what a run owes to those that died before it, and the heartbeat by which it is known to live."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db import claims, record, spill
from db.errors import LedgerUnreachableError
from db.record import Row
from db.refusals import Refusal, in_words
from db.session import is_unavailable, is_unwritable, readable_url, reason_of
from flows.engine.writer import Writer

_log = logging.getLogger("prefect.presswork")


def begin(ledger: Engine, run: Row, spill_folders: Sequence[Path]) -> None:
    """Settle the past and write the row of a run that begins; LedgerUnreachableError where it can't be written.

    The error of a ledger that may be back soon goes up as it is.
    """
    try:
        settle_the_past(ledger, spill_folders)
        record.open_run(ledger, run)
    except SQLAlchemyError as error:
        if is_unavailable(error) and not is_unwritable(error):
            raise
        raise LedgerUnreachableError(
            f"The ledger {readable_url(ledger.url)} can't be written: {reason_of(error, ledger.url)}. "
            "Check its permissions and the space on its disk."
        ) from None


def settle_the_past(ledger: Engine, spill_folders: Sequence[Path]) -> None:
    """Mark dead runs as crashed and write in spill files of this ledger; one that is damaged is named and kept."""
    claims.bury_the_dead(ledger)
    for path in [found for folder in spill_folders for found in spill.find_spills(folder)]:
        if not spill.belongs_to(ledger, path):
            continue
        refused: list[Refusal] = []
        try:
            count = spill.recover(ledger, path, refused)
            _log.info("Imported %s generations that waited in %s.", count, path.name)
            if refused:
                _log.warning("%s As they were, they are kept in %s.", in_words(refused), spill.refused_file(path))
        except spill.SpillError as error:
            _log.warning("%s", error)


@asynccontextmanager
async def beating(writer: Writer, ledger: Engine, run_id: str) -> AsyncIterator[None]:
    """Renew the run's lease while the context is open."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(claims.HEARTBEAT_S)
            # A ledger that is away for a while is the writer's business.
            with contextlib.suppress(SQLAlchemyError):
                await writer.call_once(claims.beat, ledger, run_id)

    heart = asyncio.create_task(beat(), name="presswork-heartbeat")
    try:
        yield
    finally:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)

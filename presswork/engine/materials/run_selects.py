"""Select the records that a run's steps work on, and decide which selects its helpers share.

Each select is executed once and spooled; a resumed run reads the spool.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import URL, Engine, make_url

from db.session import readable_url
from db.sources import select
from db.sources.access import open_source
from db.sources.spool import RunSpools, Spool, spool_name
from db.sources.statements import Query
from presswork.engine.materials.handles import Selected, Source, Together
from presswork.engine.resources.source_reads import SourceReader, query_of, source_of
from presswork.engine.resources.stopping import Stopper
from presswork.options import RunOptions
from presswork.prompts.templates import Template
from presswork.report.progress import Log, Progress
from presswork.report.totals import Totals
from presswork.settings import Settings

VERSION = 3
"""The version of a spool's content; files of another version are ignored."""
TELL_AFTER_S, TELL_EVERY_S = 5.0, 15.0
"""Seconds until the log first reports a long select, and then between two reports."""
_AGAIN = (
    "{name}: the select was executed again, because this machine does not have the records that the run {resumed} "
    "read. Answered prompts are not paid for again, but the records may differ."
)
_log = logging.getLogger("prefect.presswork")


class Spooling:
    """Finds or makes the spools of a run's selects; `log` is the run's.

    A helper on another machine normally executes the select again, so that is not reported.
    """

    def __init__(self, spools: RunSpools, progress: Progress, log: Log = _log, *, is_helper: bool = False) -> None:
        self.spools = spools
        self._is_helper = is_helper
        self._progress = progress
        self.log = log
        self._times: Counter[str] = Counter()
        self.trimmed = False
        """Whether a key column of the records is CHAR(n), whose trailing blanks are not part of the key."""

    def name(self, query: Query, source: URL | str) -> str:
        """Name the spool of a select; a second, equal select in the run gets another name."""
        parameters = [(name, value.type, value.value) for name, value in sorted(query.parameters.items())]
        name = spool_name(VERSION, query.name, readable_url(source), query.sql, query.key, parameters, query.limit)
        self._times[name] += 1
        return f"{name}-{self._times[name]}"

    async def records(self, name: str, query: Query, reader: SourceReader) -> Spool:
        """Return the records of a select: those that the resumed run read, else the source's current ones."""
        resumed = self.spools.resumed
        found = await reader.work(self.spools.find, name) if resumed else None
        if found is not None:
            read_at = f"{datetime.fromtimestamp(found.read_at, UTC):%Y-%m-%d %H:%M:%S}"
            self.log.info("%s: using the records that were read at %s UTC.", query.name, read_at)
        else:
            if resumed and not self._is_helper:
                again = _AGAIN.format(name=query.name, resumed=resumed[0])
                self.log.warning(again)
                self._progress.notes[f"selected again: {query.name}"] = again
            found = await self._read(name, query, reader)
        self.trimmed |= found.trimmed
        return found

    async def _read(self, name: str, query: Query, reader: SourceReader) -> Spool:
        reading = self._progress.selecting
        abandoned = False

        def tell(count: int) -> None:
            # A driver that can't be interrupted stops here.
            if abandoned or self._progress.is_stopping():
                raise InterruptedError
            reading[name] = query.name, count

        def read(engine: Engine) -> Spool:
            select.spool(engine, query, partial(self.spools.writing, name), tell=tell)
            return self.spools.open(name)

        reading[name] = query.name, 0
        telling = asyncio.create_task(self._tell_log(name), name="presswork-spooling")
        try:
            return await reader.read(read)
        except BaseException:
            abandoned = True
            raise
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            del reading[name]

    async def _tell_log(self, name: str) -> None:
        """Log how many records of a select have arrived, until the task is cancelled."""
        await asyncio.sleep(TELL_AFTER_S)
        while True:
            template, count = self._progress.selecting[name]
            self.log.info("%s: %s records read so far.", template, f"{count:,}")
            await asyncio.sleep(TELL_EVERY_S)


@dataclass
class Selects:
    """Makes the handles of a run's records; `read_from` maps each template that selected to its source's URL."""

    settings: Settings
    options: RunOptions
    ledger: URL
    spooling: Spooling
    stopper: Stopper
    totals: Totals
    read_from: dict[str, URL] = field(default_factory=dict)
    _readers: dict[str, SourceReader] = field(default_factory=dict)
    _selected: list[Selected] = field(default_factory=list)

    def select(self, template: Template, values: Mapping[str, Any]) -> Selected:
        """Make a handle of a template's records; `values` are those of its params."""
        params = template.parse_params(values)
        query = query_of(template, params)
        nth = 1 + sum(selected.query.name == query.name for selected in self._selected)
        query = replace(query, limit=self.options.limit)
        url, variable = source_of(self.settings, template.front.source, self.ledger)
        if url not in self._readers:
            self._readers[url] = SourceReader(partial(open_source, url, variable), self.stopper.pursuing)
        reader = self._readers[url]
        name = self.spooling.name(query, url)
        selected = Selected(
            query,
            find=partial(self.spooling.records, name, query, reader),
            read=reader.work,
            tell=partial(self._note, template.name, query, url),
            params=params,
            nth=nth,
        )
        self._selected.append(selected)
        return selected

    async def check(self) -> None:
        """Read the records of all selects so far, and check their keys; a helper reads only the divided select."""
        for selected in tuple(self._selected):
            if not self.is_left_to_the_run(selected):
                await selected.check()

    def is_left_to_the_run(self, source: Source) -> bool:
        """Return whether a helper leaves a source to its run, which alone has all records and generations."""
        helper = self.options.helper
        if helper is None:
            return False
        if isinstance(source, Selected):
            return (source.query.name, source.nth) != (helper.select, helper.nth)
        return isinstance(source, Together)

    def _note(self, name: str, query: Query, url: str, count: int) -> None:
        self.read_from[name] = make_url(url)
        self.spooling.log.info("%s selects %d records.", name, count)
        self.totals.records += count

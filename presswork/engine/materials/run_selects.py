"""The selects of a run: which records its steps work on, and which of them its helpers share.

Each is run once and spooled; a run that resumes takes what is there.
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
from presswork.report.prefect.totals import Totals
from presswork.report.progress import Log, Progress
from presswork.settings import Settings

VERSION = 3
"""What a spool holds; a file of another version is not taken."""
TELL_AFTER_S, TELL_EVERY_S = 5.0, 15.0
"""When a select that takes long is first told of in the log, and how often then."""
_AGAIN = (
    "{name}: the select ran again: this machine has no records of it as the run {resumed} read them. What is answered "
    "is not asked again, but the records may be others."
)
_log = logging.getLogger("prefect.presswork")


class Spooling:
    """Finds or makes the spools of a run's selects; `log` is the run's.

    A helper on another machine than its run reads the records once more as a matter of course.
    """

    def __init__(self, spools: RunSpools, progress: Progress, log: Log = _log, *, is_helper: bool = False) -> None:
        self.spools = spools
        self._is_helper = is_helper
        self._progress = progress
        self.log = log
        self._met: Counter[str] = Counter()
        self.trimmed = False
        """Whether a key column of the records is CHAR(n), whose blanks belong to no key."""

    def name(self, query: Query, source: URL | str) -> str:
        """Name the spool of a select; the second of two that are alike in one run has another name."""
        parameters = [(name, value.type, value.value) for name, value in sorted(query.parameters.items())]
        name = spool_name(VERSION, query.name, readable_url(source), query.sql, query.key, parameters, query.limit)
        self._met[name] += 1
        return f"{name}-{self._met[name]}"

    async def records(self, name: str, query: Query, reader: SourceReader) -> Spool:
        """Return a select's records, as a run that is resumed read them, else as the source gives them now."""
        resumed = self.spools.resumed
        found = await reader.work(self.spools.find, name) if resumed else None
        if found is not None:
            read_at = f"{datetime.fromtimestamp(found.read_at, UTC):%Y-%m-%d %H:%M:%S}"
            self.log.info("%s: these are the records that were read at %s UTC.", query.name, read_at)
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
        given_up = False

        def tell(count: int) -> None:
            # A driver that can't be interrupted goes on until here.
            if given_up or self._progress.is_stopping():
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
            given_up = True
            raise
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            del reading[name]

    async def _tell_log(self, name: str) -> None:
        """Tell the log how many records of a select have come, until that is cancelled."""
        await asyncio.sleep(TELL_AFTER_S)
        while True:
            template, count = self._progress.selecting[name]
            self.log.info("%s: %s records read so far.", template, f"{count:,}")
            await asyncio.sleep(TELL_EVERY_S)


@dataclass
class Selects:
    """Makes the handles of a run's records; `read_from` has the source's URL of each template that has selected."""

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
        """Select a template's records; `values` are those of its params."""
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
        """Read the records of all selects so far, and check their keys; a helper those alone that are divided."""
        for selected in tuple(self._selected):
            if not self.is_left_to_the_whole(selected):
                await selected.check()

    def is_left_to_the_whole(self, source: Source) -> bool:
        """Whether a helper leaves a source to the run that it helps: only there is everything that it gathers."""
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

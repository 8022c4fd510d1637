"""The selects of a run: which records its steps work on, and which part of them is a shard's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import URL, make_url

from db.sources.access import open_source
from db.sources.statements import Part, Query
from flows.engine.materials.handles import Selected, Source, Together
from flows.engine.options import RunOptions
from flows.engine.report.totals import Totals
from flows.engine.resources.source_reads import SourceReader, query_of, source_of
from flows.engine.resources.spooling import Spooling
from flows.engine.resources.stopping import Stopper
from flows.settings import Settings
from flows.steps.prompts.templates import Template


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
        query = self._bounded(query, nth)
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
        """Read the records of all selects so far, and check their keys; a shard's own part alone."""
        for selected in tuple(self._selected):
            if not self.is_left_to_the_whole(selected):
                await selected.check()

    def is_left_to_the_whole(self, source: Source) -> bool:
        """Whether a shard leaves a source to the run that is spread: only there is everything that it gathers."""
        if self.options.shard is None:
            return False
        if isinstance(source, Selected):
            return source.query.part is None
        return isinstance(source, Together)

    def _bounded(self, query: Query, nth: int) -> Query:
        shard = self.options.shard
        if shard is None or (shard.select, shard.nth) != (query.name, nth):
            return replace(query, limit=self.options.limit)
        # A shard's part is about as many records as each other, in the order of their keys.
        first, end = (shard.records * number // shard.of for number in (shard.number - 1, shard.number))
        return replace(query, limit=shard.limit, part=Part(first, end - first))

    def _note(self, name: str, query: Query, url: str, count: int) -> None:
        self.read_from[name] = make_url(url)
        if self.options.shard is None or query.part is not None:
            self.spooling.log.info("%s selects %d records.", name, count)
            self.totals.records += count

"""Keep the records of a session, so that all its trials are about the same ones.

They are read before a run opens, so that a select that fails leaves no run behind. They are read again, by their keys,
only if the select, its params or its source have changed: answers are compared on equal records, and a slow select is
not waited for at each save.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Engine

from db.database_errors import SelectError
from db.sources.select import find_record, read_first
from db.sources.spool import Unreadable
from db.sources.statements import Query
from db.sources.values import Record
from presswork.engine.materials.given import GivenMaterials
from presswork.engine.materials.handles import material_of
from presswork.engine.resources.preflight import open_existing_source, where_it_read
from presswork.engine.resources.source_reads import LEDGER_VARIABLE, SourceReader, query_of, source_of
from presswork.errors import ConfigurationError, TemplateError
from presswork.escaping import quoted
from presswork.prompts.templates import Template
from presswork.settings import Settings
from presswork.trying.trials import Asked

SelectedRecord = Record | Unreadable


@dataclass(frozen=True, slots=True)
class _Origin:
    """What decides which records are read. `variable` names the setting with the source's URL."""

    query: Query
    url: str
    variable: str


class KeptRecords:
    """The records of a session's first trial; `missing` are the keys that the current select does not find."""

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._origin: _Origin | None = None
        self._found: Sequence[SelectedRecord] = ()
        self.missing: tuple[str, ...] = ()

    async def given(self, settings: Settings, template: Template, asked: Asked, ledger: str) -> GivenMaterials:
        """Return a handle of the records; `ledger` is the URL of the ledger, which may be the source.

        Raises ConfigurationError if there are none or if the first trial names a key that does not exist, and a
        database error if the select fails.
        """
        if template.select_sql is None:
            raise TemplateError(
                f"{template.file}: it has no `select`, because it is a step of a flow. Name a run of the flow with "
                "`--run ID`: it is then tried on the inputs that it had there. `presswork history` lists the runs."
            )
        params = template.parse_params(asked.sets)
        origin = _Origin(query_of(template, params), *source_of(settings, template.front.source, ledger))
        if origin != self._origin:
            await self._read(template, origin, asked)
        return GivenMaterials([material_of(record) for record in self._found], params)

    async def _read(self, template: Template, origin: _Origin, asked: Asked) -> None:
        keys = self._keys or tuple(dict.fromkeys(asked.keys))
        reader = SourceReader(partial(open_existing_source, origin.url, origin.variable), nullcontext)
        try:
            found = await reader.read(lambda source: _records(source, origin.query, keys, asked.limit))
        except SelectError as error:
            raise SelectError(f"{error}{_hint(origin)}") from None
        missing = tuple(key for key in keys if found[key] is None)
        present = [record for record in found.values() if record is not None]
        if not present or (missing and not self._keys):
            raise ConfigurationError(_none_found(template, missing) + _hint(origin))
        self._keys, self._origin, self._found, self.missing = keys or tuple(found), origin, present, missing


def _records(source: Engine, query: Query, keys: Sequence[str], limit: int) -> Mapping[str, SelectedRecord | None]:
    """Return the records with these keys, or without keys the first ones."""
    if keys:
        return {key: find_record(source, query, key) for key in keys}
    return {record.key: record for record in read_first(source, replace(query, limit=limit))}


def _none_found(template: Template, missing: Sequence[str]) -> str:
    if not missing:
        return f"The select of {template.name!r} finds no records: there is nothing to try. Check its SQL and params."
    several = " If the key has several columns, join them with |, such as '10248|11'."
    return (
        f"The select of {template.name!r} finds no record whose {template.key} is "
        f"{' or '.join(quoted(key) for key in missing)}."
    ) + (several if len(template.front.key_columns) > 1 else "")


def _hint(origin: _Origin) -> str:
    return f" {where_it_read(origin.url)}" if origin.variable == LEDGER_VARIABLE else ""

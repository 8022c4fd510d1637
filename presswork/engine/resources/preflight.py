"""Preflight: all that can be known to be wrong with a run before Prefect is started or anything is sent.

A run checks the same things again when it opens, for it may have been started by a deployment; here they are checked
so that a person at a terminal is told within a second or two, and nothing has been written.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from db.database_errors import SelectError
from db.ledger.connecting import open_ledger
from db.session import readable_url
from db.sources.access import is_missing_file, open_source
from db.sources.select import check_columns
from presswork.engine.resources import source_reads
from presswork.errors import ConfigurationError, MissingKeyError
from presswork.prompts.templates import Template
from presswork.settings import Settings, ledger_url, source_url


class NoRecordsYetError(ConfigurationError):
    """There are no records to read: neither a source is set nor has the ledger been made."""

    def __init__(self, ledger: str) -> None:
        super().__init__(
            f"There is nothing to select from: no source is set, and the ledger {readable_url(ledger)}, which would be "
            "read instead, has not been made yet. Set PRESSWORK_SOURCE_URL to your database; `presswork demo` loads "
            "sample records."
        )


def require_credential() -> None:
    """Raise MissingKeyError where there is neither a key nor an endpoint that may do without; without the SDK."""
    names = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "PRESSWORK_API_KEY_BLOCK")
    if not any(os.environ.get(name) for name in names):
        raise MissingKeyError


async def name_endpoint(settings: Settings, templates: Iterable[Template] = ()) -> str:
    """Return the endpoint's name; an own base URL without PRESSWORK_ENDPOINT is asked what it is, which is free.

    Raises MissingKeyError, EndpointError, StoppingCallError where the endpoint refuses the key, or TemplateError where
    the model of one of the templates does not take it as it is.
    """
    from presswork.engine.resources.endpoint import open_endpoint  # noqa: PLC0415 - loads the SDK, which takes seconds

    endpoint = await open_endpoint(settings, 1)
    async with endpoint.client:
        await endpoint.require_fit(templates)
        return endpoint.name


def check_select(settings: Settings, template: Template, params: Mapping[str, Any], endpoint: str) -> None:
    """Ask the source for the columns of a select, executing nothing; params are as `Template.parse_params` returns.

    What only its rows tell, the run finds out. Raises ConfigurationError, and the errors of a source that can't be
    reached or a select that fails.
    """
    query = source_reads.query_of(template, params)
    with opened_source(settings, template, ledger_url(settings, endpoint)) as engine:
        try:
            source_reads.read_interruptibly(engine, lambda source: check_columns(source, query))
        except SelectError as error:
            if source_url(settings, template.front.source):
                raise
            raise SelectError(f"{error} {where_it_read(ledger_url(settings, endpoint))}") from None


def check_ledger(settings: Settings, endpoint: str) -> None:
    """Open the ledger, as the run will; a new SQLite ledger is made. Raises db.database_errors.LedgerError."""
    open_ledger(ledger_url(settings, endpoint)).dispose()


@contextmanager
def opened_source(settings: Settings, template: Template, ledger: str) -> Iterator[Engine]:
    """Open the database that a template reads from; without one of its own it is the ledger's."""
    url, variable = source_reads.source_of(settings, template.front.source, ledger)
    if variable == source_reads.LEDGER_VARIABLE and is_missing_file(ledger):
        raise NoRecordsYetError(ledger)
    engine = open_source(url, variable)
    try:
        yield engine
    finally:
        engine.dispose()


def given_params(template: Template, values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the values of a run to a template's params; those that it does not have are another template's."""
    own = {name: value for name, value in values.items() if name in template.front.params}
    return template.parse_params(own)


def where_it_read(ledger: str) -> str:
    """Say that a select ran in the ledger's own database, and how to name another."""
    return (
        f"It was read from the ledger's own database {readable_url(ledger)}: for another set PRESSWORK_SOURCE_URL; "
        "`presswork demo` loads the sample records."
    )

"""Check everything that can be checked before Prefect starts or a request is sent.

A run checks the same things when it opens, because a deployment may start it. These checks tell you at a terminal
within a second or two, before anything is written.
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
    """There are no records to read, because no source is set and the ledger does not exist yet."""

    def __init__(self, ledger: str) -> None:
        super().__init__(
            f"There is nothing to select from: no source is set, and the ledger {readable_url(ledger)} does not exist "
            "yet. Set PRESSWORK_SOURCE_URL to your database, or load the sample records with `presswork demo`."
        )


def require_credential() -> None:
    """Raise MissingKeyError if no key and no base URL is set; with a base URL, the key may be optional."""
    names = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "PRESSWORK_API_KEY_BLOCK")
    if not any(os.environ.get(name) for name in names):
        raise MissingKeyError


async def name_endpoint(settings: Settings, templates: Iterable[Template] = ()) -> str:
    """Return the endpoint's name. Without PRESSWORK_ENDPOINT, a free request to the base URL finds it out.

    Raises MissingKeyError, EndpointError, StoppingCallError if the endpoint refuses the key, or TemplateError if a
    model does not accept the settings of its template.
    """
    from presswork.engine.resources.endpoint import open_endpoint  # noqa: PLC0415 - loads the SDK, after cheaper checks

    endpoint = await open_endpoint(settings, 1)
    async with endpoint.client:
        await endpoint.require_fit(templates)
        return endpoint.name


def check_select(settings: Settings, template: Template, params: Mapping[str, Any], endpoint: str) -> None:
    """Ask the source for the columns of a select without executing it; `params` come from `Template.parse_params`.

    Only the run can check the rows. Raises ConfigurationError, and the database error of a source that can't be reached
    or of a select that fails.
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
    """Open the ledger as the run will, creating a new SQLite ledger. Raises db.database_errors.LedgerError."""
    open_ledger(ledger_url(settings, endpoint)).dispose()


@contextmanager
def opened_source(settings: Settings, template: Template, ledger: str) -> Iterator[Engine]:
    """Open the database that a template reads from; if it names none, the ledger's."""
    engine = open_existing_source(*source_reads.source_of(settings, template.front.source, ledger))
    try:
        yield engine
    finally:
        engine.dispose()


def open_existing_source(url: str, variable: str) -> Engine:
    """Open a source, which `variable` names; raises NoRecordsYetError if it is a ledger that does not exist yet."""
    if variable == source_reads.LEDGER_VARIABLE and is_missing_file(url):
        raise NoRecordsYetError(url)
    return open_source(url, variable)


def given_params(template: Template, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parse a run's values for a template's params; other values belong to other templates and are ignored."""
    own = {name: value for name, value in values.items() if name in template.front.params}
    return template.parse_params(own)


def where_it_read(ledger: str) -> str:
    """Explain that a select ran in the ledger's database, and how to set another."""
    return (
        f"The select ran in the ledger's database {readable_url(ledger)}. Set PRESSWORK_SOURCE_URL to use another, or "
        "load the sample records with `presswork demo`."
    )

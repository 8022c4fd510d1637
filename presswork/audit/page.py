"""Describe a page: its path, the query it accepts, what is read for it and the file that shows it.

The skeleton (responses.py) makes HTML, JSON and SQL of every page in the same way, and its error pages.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy import Engine

from presswork.errors import PressworkError

LONGEST_TEXT = 2_000
LONGEST_ASKED_KEY = 16_000  # an address must carry it, see serving.py
_YEARS = range(1971, 9000)  # ids hold the time since 1970, and a day more or less must be a date too
_NO_MOMENT = "is not a date. Write 2026-03-01 or 2026-03-01T14:30, in UTC"


class NotFoundError(PressworkError):
    """There is no such row in this ledger."""


class PageQuery(BaseModel):
    """What a page may be asked for, from its path and its query. A name that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_moment(value: Any) -> Any:
    """Read a date or an ISO moment as an aware datetime; one without a zone is UTC."""
    if not isinstance(value, str):
        return value
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(f"{value!r} {_NO_MOMENT}") from None
    if found.year not in _YEARS:
        raise ValueError(f"{value!r} is too far from today")
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


UtcMoment = Annotated[datetime, BeforeValidator(read_moment)]
"""A date or a moment in a query."""
ShortText = Annotated[str, Field(max_length=LONGEST_TEXT)]
"""A text in a query."""
AskedKey = Annotated[str, Field(max_length=LONGEST_ASKED_KEY)]
"""A record's key in a query: sources have longer ones than names and ids are, and blank ones."""


class PeriodQuery(PageQuery):
    """A query with a period, from `since` until just before `until`."""

    since: UtcMoment | None = None
    until: UtcMoment | None = None

    @model_validator(mode="after")
    def _forwards(self) -> "PeriodQuery":
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("the period is the wrong way round: it must begin before it ends")
        return self


AskedPage = TypeVar("AskedPage", bound=PageQuery)


@dataclass(frozen=True)
class Page(Generic[AskedPage]):
    """A page of the audit room.

    `path` is a Starlette path, without a suffix: the same path with `.json` and `.sql` gives the data and the
    statements. `read` gets a reader's engine and the query, and returns a frozen dataclass, which the file `html` in
    html/ gets as `view`; it raises NotFoundError. `choices` reads what the filter form offers; it is also called when
    the query is wrong, so that the form can be shown with its message. `drawn` makes what only the HTML has, such as
    charts, from the view. `blank` names what may be blank in a query; all else is left out of the address if it is.
    """

    path: str
    query: type[AskedPage]
    read: Callable[[Engine, AskedPage], object]
    html: str
    choices: Callable[[Engine], object] | None = None
    drawn: Callable[[Any], object] | None = None
    blank: frozenset[str] = frozenset()


def fields_alone(_engine: Engine) -> tuple[()]:
    """Offer no choices: the form of the page has only fields to write in. It is shown with a wrong query too."""
    return ()


AnyPage = Page[Any]
"""A page with any query."""
Given = Mapping[str, str]
"""The values of a query as they were given, for a form that shows them again."""

"""Answer a request for a page: as HTML, as JSON or as the SQL that was run, and say clearly what is wrong.

Endpoints are plain functions, which Starlette runs in threads: the readers block.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import orjson
from jinja2 import Environment
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from db.database_errors import LedgerError, TooSlowError
from db.readers.audit.filters import FilterError
from db.session import reason_of
from db.timed_reads import LIMIT_S, TimedReading, reading
from presswork.audit.page import AnyPage, Given, NotFoundError
from presswork.audit.read_ledger import ReadLedger
from presswork.audit.rendering import THEMES, Here, without_empty

SUFFIXES = (".json", ".sql", "")
"""The forms of a page; the empty one is HTML. The order is that of the routes."""
_OF_HOME = "/overview"
_NO_HTML = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane * 0x10000 + last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
PAGE_WITHIN_S = LIMIT_S
SHORTEST_S = 0.1
_NUL = "\0"
_PLAIN_REASONS = {"missing": "it is needed", "string_pattern_mismatch": "it is no id of a generation"}
"""Pydantic's own words for these name its types and patterns."""


@dataclass(frozen=True)
class PageFault:
    """Why a page can't be shown: a status, a title, and what to do."""

    status: int
    title: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A page as it was read: its query, its data, how it was read; or the trouble with it."""

    query: Any = None
    view: Any = None
    choices: Any = None
    read: TimedReading | None = None
    trouble: PageFault | None = None

    def statements(self) -> list[str]:
        """Write the statements out; that takes as long as running them, so only a page that shows them asks."""
        return [] if self.read is None else self.read.statements()


class WrongQueryError(ValueError):
    """A query asks for something that a page does not have."""


class Answering:
    """What all pages are answered with: the ledger and the templates."""

    def __init__(self, ledger: ReadLedger, environment: Environment) -> None:
        self._ledger = ledger
        self._environment = environment

    def routes(self, page: AnyPage) -> list[Route]:
        """Make the routes of a page, one for each of its forms."""
        home = _OF_HOME if page.path == "/" else page.path
        return [
            Route((home if suffix else page.path) + suffix, self._endpoint(page, suffix), methods=["GET"])
            for suffix in SUFFIXES
        ]

    def trouble(self, request: Request, trouble: PageFault) -> Response:
        """Answer with what is wrong, if no page is."""
        return self._html(request, "trouble.html", Shown(trouble=trouble), {})

    def _endpoint(self, page: AnyPage, suffix: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            query = _query_of(request)
            if (shorter := without_empty(query)) != query and len(shorter) < len(query):
                return RedirectResponse(quote(request.scope["path"]) + (f"?{shorter}" if shorter else ""), 303)
            given = _given(request)
            shown = self._read(page, request, given)
            if suffix == ".json":
                return _json(shown)
            if suffix == ".sql":
                return _sql(request, shown)
            drawn = None if page.drawn is None or shown.trouble is not None else page.drawn(shown.view)
            return self._html(request, page.html, shown, given, drawn)

        return answer

    def _read(self, page: AnyPage, request: Request, given: Given) -> Shown:
        query, choices = None, None
        try:
            with reading(PAGE_WITHIN_S) as first:
                engine = self._ledger.engine()
                choices = None if page.choices is None else self._ledger.choices(page.choices, engine)
            with reading(round(max(first.left_s, SHORTEST_S), 1)) as read:
                try:
                    query = page.query.model_validate(_asked(request, given))
                    return Shown(query, page.read(engine, query), choices, read)
                except (ValidationError, FilterError, WrongQueryError) as error:
                    return Shown(None, None, choices, None, PageFault(422, "This is not a filter", _faults(error)))
                except NotFoundError as error:
                    trouble = PageFault(404, "There is no such thing here", (str(error),))
                    return Shown(query, None, choices, read, trouble)
        except TooSlowError as error:
            return Shown(query, None, choices, None, PageFault(503, "This took too long", (str(error),)))
        except LedgerError as error:
            return Shown(trouble=PageFault(503, "The ledger can't be read", (str(error),)))
        except DBAPIError as error:
            self._ledger.close()
            return Shown(trouble=PageFault(503, "The ledger can't be read", (self._reason(error),)))

    def _reason(self, error: DBAPIError) -> str:
        reason = reason_of(error, self._ledger.url())
        return (
            f"The ledger {self._ledger.name()} can't be read: {reason}. Check PRESSWORK_DATABASE_URL, and that the "
            "database is running and undamaged."
        )

    def _html(self, request: Request, html: str, shown: Shown, given: Given, drawn: object = None) -> Response:
        trouble = shown.trouble
        values = {
            "here": Here(_path_of(request), _query_of(request)),
            "theme": theme_of(request),
            "ledger": self._ledger.name(),
            "query": shown.query,
            "given": given,
            "view": shown.view,
            "drawn": drawn,
            "choices": shown.choices,
            "trouble": trouble,
        }
        # Without its choices a form can't be drawn: the ledger could not be read at all.
        whole = trouble is None or (trouble.status != 404 and (shown.choices is not None))
        text = self._environment.get_template(html if whole else "trouble.html").render(values)
        return _response(text, "text/html", 200 if trouble is None else trouble.status)


def theme_of(request: Request) -> str:
    """Return the theme that the reader chose; empty if none."""
    chosen = request.cookies.get("theme", "")
    return chosen if chosen in THEMES else ""


def _given(request: Request) -> dict[str, str]:
    return dict(request.query_params)


def _asked(request: Request, given: Given) -> Mapping[str, Any]:
    names = Counter(name for name, _value in request.query_params.multi_items())
    if twice := [name for name, count in names.items() if count > 1]:
        raise WrongQueryError(f"{', '.join(twice)}: given more than once.")
    if both := sorted(set(given) & set(request.path_params)):
        raise WrongQueryError(f"{', '.join(both)}: part of the path, not a filter.")
    asked = {**given, **request.path_params}
    if odd := sorted(name for name, value in asked.items() if _NUL in f"{name}{value}"):
        raise WrongQueryError(f"{', '.join(odd)}: no text of the ledger has the character U+0000.")
    return asked


def _faults(error: ValidationError | FilterError | WrongQueryError) -> tuple[str, ...]:
    if not isinstance(error, ValidationError):
        return (str(error),)
    return tuple(_fault(item["loc"], item["type"], item["msg"]) for item in error.errors(include_url=False))


def _fault(place: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        return f"{name}: this page has no such filter."
    reason = _PLAIN_REASONS.get(kind) or message.removeprefix("Value error, ").replace(
        "Input should be", "it must be", 1
    )
    return f"{name}: {reason}." if name else f"{reason[:1].upper()}{reason[1:]}."


def _query_of(request: Request) -> str:
    # Not `request.url`: Starlette makes it of the path as it is meant, in which a name may have a question mark.
    raw: bytes = request.scope["query_string"]
    return raw.decode("latin-1")


def _path_of(request: Request) -> str:
    """Return the path of a page without a suffix; escaped again, because a name in it may hold anything."""
    path: str = request.scope["path"]
    plain = next((path.removesuffix(suffix) for suffix in SUFFIXES[:2] if path.endswith(suffix)), path)
    return "/" if plain == _OF_HOME else quote(plain)


def _response(text: str, media_type: str, status: int) -> Response:
    if media_type == "text/html":
        # A form repeats its values in attributes as they are. HTML has no way to write these characters.
        text = _NO_HTML.sub("\ufffd", text)
    # Bytes that are not UTF-8 come from a SQLite file as half characters.
    return Response(text.encode("utf-8", "backslashreplace"), status, media_type=f"{media_type}; charset=utf-8")


def _json(shown: Shown) -> Response:
    trouble = shown.trouble
    if trouble is not None:
        return _response(_dumped({"error": " ".join(trouble.messages)}), "application/json", trouble.status)
    return _response(_dumped(shown.view), "application/json", 200)


def _dumped(value: Any) -> str:
    option = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=_plain, option=option).decode()
    except orjson.JSONEncodeError:
        # It refuses half characters and numbers beyond 64 bits.
        return json.dumps(value, default=_plainer, indent=2)


def _plain(value: Any) -> Any:
    """Write money as a number of dollars, as `--json` does."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, BaseModel):
        return value.model_dump()
    return list(value)


def _plainer(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if hasattr(value, "isoformat") else _plain(value)


def _sql(request: Request, shown: Shown) -> Response:
    statements = shown.statements()
    if shown.trouble is not None and not statements:
        return _response(" ".join(shown.trouble.messages) + "\n", "text/plain", shown.trouble.status)
    here = Here(_path_of(request), _query_of(request))
    head = f"-- The statements behind {here.url}\n-- Money is in US dollars, times are UTC.\n\n"
    return _response(head + "".join(f"{sql.strip()};\n\n" for sql in statements), "text/plain", 200)

"""Put the audit room together: its pages, the vendored files, the theme, and the pages for what is wrong."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from presswork.audit.guards import HeaderGuard, Password, PasswordGuard
from presswork.audit.page import AnyPage
from presswork.audit.pages.compare_page import COMPARE
from presswork.audit.pages.difference_page import DIFFERENCE
from presswork.audit.pages.generation_page import GENERATION
from presswork.audit.pages.generations_page import GENERATIONS
from presswork.audit.pages.overview_page import AskNext, overview_page
from presswork.audit.pages.record_page import RECORDS
from presswork.audit.pages.run_page import RUN
from presswork.audit.pages.runs_page import RUNS
from presswork.audit.pages.template_page import TEMPLATE_PAGE
from presswork.audit.pages.templates_page import TEMPLATES_PAGE
from presswork.audit.read_ledger import ReadLedger
from presswork.audit.rendering import THEMES, make_environment, static_files
from presswork.audit.responses import Answering, PageFault

PAGES: tuple[AnyPage, ...] = (
    RUNS,
    RUN,
    GENERATIONS,
    GENERATION,
    RECORDS,
    DIFFERENCE,
    TEMPLATES_PAGE,
    COMPARE,
    TEMPLATE_PAGE,
)
"""All pages but the overview; of two paths that fit, the first one answers."""
OWN_HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")
"""The names by which a browser on this machine may reach the pages. Any other may be another page's trick."""
READ_AT_ONCE = 8
"""How many pages are read at once; each has a connection to the ledger."""
_YEAR_S = 365 * 24 * 3600
_SAID = {
    404: PageFault(404, "There is no such page", ("The address leads nowhere. Begin at the overview.",)),
    405: PageFault(405, "This can't be done here", ("The audit room only reads: it answers GET and HEAD.",)),
}


def create_app(
    read_url: Callable[[], str],
    *,
    hosts: Sequence[str] = OWN_HOSTS,
    password: Password | None = None,
    prefect_url: str | None = None,
    ask_next: AskNext | None = None,
) -> ASGIApp:
    """Make the audit room of the ledger that `read_url` names at each request; it need not exist yet.

    `hosts` are the names by which it may be reached. `prefect_url` is the address of Prefect's UI; `ask_next`
    says which runs come next.
    """
    ledger = ReadLedger(read_url)
    answering = Answering(ledger, make_environment({"prefect_url": prefect_url}))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = READ_AT_ONCE
        yield
        ledger.close()

    async def say_http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        other = PageFault(status, "This request can't be answered", ("Check its address.",))
        made = answering.trouble(request, _SAID.get(status, other))
        made.headers.update(getattr(error, "headers", None) or {})
        return made

    async def say_bug(request: Request, error: Exception) -> Response:
        messages = (f"Presswork met an unexpected error ({type(error).__name__}). The log has the details.",)
        return answering.trouble(request, PageFault(500, "This page has a fault", messages))

    pages = [route for page in (overview_page(ask_next), *PAGES) for route in answering.routes(page)]
    app: ASGIApp = Starlette(
        routes=[*pages, Route("/theme", choose_theme), Route("/static/{name}", _serve_static())],
        exception_handlers={HTTPException: say_http, Exception: say_bug},
        lifespan=lifespan,
    )
    if password is not None:
        app = PasswordGuard(app, password)
    # The guards stand outside of all that Starlette answers by itself, a fault included.
    return HeaderGuard(TrustedHostMiddleware(app, allowed_hosts=list(hosts), www_redirect=False))


async def choose_theme(request: Request) -> Response:
    """Keep the reader's theme in a cookie and go back to the page; another value follows the system again."""
    back = RedirectResponse(_own_address(request.query_params.get("back", "/")), 303)
    chosen = request.query_params.get("theme", "")
    if chosen in THEMES:
        back.set_cookie("theme", chosen, max_age=_YEAR_S, httponly=True, samesite="strict")
    else:
        back.delete_cookie("theme", httponly=True, samesite="strict")
    return back


def _own_address(back: str) -> str:
    """Return a path of this site; the overview for anything that may lead elsewhere."""
    fits = back.startswith("/") and back[1:2] not in {"/", "\\"} and back.isprintable() and "\\" not in back
    parts = urlsplit(back) if fits else None
    return back if parts is not None and not parts.scheme and not parts.netloc else "/"


def _serve_static() -> Callable[[Request], Awaitable[Response]]:
    files = static_files()

    async def answer(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        # A page names each file with its hash, so a new file has a new address.
        return Response(found[0], media_type=found[1], headers={"cache-control": f"max-age={_YEAR_S}, immutable"})

    return answer

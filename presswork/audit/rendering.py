"""Render the pages with an environment of our own, in which everything is escaped and nothing may be missing.

Starlette's own would escape by a file's name, and let a missing value pass as an empty one.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from db.readers.audit.filters import NO_CAUSE, WITHOUT_CONTENT
from db.words import PERHAPS_BILLED, RUN_STATUSES, SANDBOX, TRIGGERS, TRY
from presswork.audit import links, markup
from presswork.differences import html_marks

AUDIT_FOLDER = Path(__file__).parent
STATIC = AUDIT_FOLDER / "static"
_TYPES: Mapping[str, str] = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
"""The kinds of files in static/ that are served."""
THEMES = ("light", "dark")
"""The themes that a reader may choose; without a choice a page follows the system."""


@dataclass(frozen=True)
class Here:
    """The address of the page that is shown: its path without a suffix, and its query as it was given."""

    path: str
    query: str = ""

    @property
    def url(self) -> str:
        """The whole address."""
        return self._with_suffix("")

    @property
    def json(self) -> str:
        """The address of the same view as JSON."""
        return self._with_suffix(".json")

    @property
    def sql(self) -> str:
        """The address of the statements of the same view."""
        return self._with_suffix(".sql")

    def but(self, **changed: object) -> str:
        """The same address with other values in its query; None takes a name out."""
        kept: dict[str, object] = dict(parse_qsl(self.query, keep_blank_values=True))
        return links.address(self.path, **(kept | changed))

    def _with_suffix(self, suffix: str) -> str:
        path = "/overview" if suffix and self.path == "/" else self.path
        return f"{path}{suffix}{'?' if self.query else ''}{self.query}"


def static_files() -> dict[str, tuple[bytes, str]]:
    """Read the files that pages use: their bytes and their types, by their names."""
    found = (path for path in sorted(STATIC.iterdir()) if path.suffix in _TYPES)
    return {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in found}


def make_environment(site: Mapping[str, Any]) -> Environment:
    """Make the environment of all pages; `site` has what stays the same on all of them."""
    environment = Environment(
        loader=FileSystemLoader(AUDIT_FOLDER / "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(markup.FILTERS)
    environment.globals.update(markup.FUNCTIONS)
    environment.globals.update(html_marks.CHANGE_FUNCTIONS)
    files = {name: f"/static/{name}?v={_version(body)}" for name, (body, _type) in static_files().items()}
    environment.globals.update(
        {
            "link": links,
            "site": MappingProxyType(dict(site)),
            "static": files,
            "words": MappingProxyType(
                {
                    "no_cause": NO_CAUSE,
                    "perhaps_billed": PERHAPS_BILLED,
                    "run_statuses": RUN_STATUSES,
                    "sandbox": SANDBOX,
                    "trial": TRY,
                    "triggers": TRIGGERS,
                    "without_content": WITHOUT_CONTENT,
                }
            ),
        }
    )
    return environment


def without_empty(query: str, blank: Collection[str] = ()) -> str:
    """Return a query without the fields that a form left empty, so that its address can go into a report.

    `blank` names those of which an empty value means something.
    """
    given = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, value) for name, value in given if value.strip() or name in blank])


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]

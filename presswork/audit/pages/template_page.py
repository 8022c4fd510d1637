"""Show the versions of a template: when each was in use, their figures next to each other, and the source of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from sqlalchemy import Engine

from db.readers.audit.template_versions import TemplateVersion, VersionUse, chosen_version, template_versions
from presswork.audit.page import NotFoundError, Page, PageQuery, ShortText


class TemplateQuery(PageQuery):
    """The template's name, and the hash, or its beginning, of the version whose source is shown."""

    name: ShortText
    version: ShortText | None = None


@dataclass(frozen=True)
class VersionLine:
    """A version without its source. `before` is the version that was in use before it.

    For one that was only tried it is the version that is in use.
    """

    hash: str
    first_seen_at: datetime | None
    is_stored: bool
    use: VersionUse
    before: str | None


@dataclass(frozen=True)
class TemplateView:
    """A template's versions, the last used first. `sources` are the files of the version `shown`."""

    name: str
    versions: Sequence[VersionLine]
    shown: str
    sources: Mapping[str, str] | None


def read_template(engine: Engine, query: TemplateQuery) -> TemplateView:
    """Read the versions. Raises NotFoundError if neither a template nor a step has this name."""
    found = template_versions(engine, query.name)
    if not found:
        raise NotFoundError(f"No template and no step with the name {query.name!r} was ever used in this ledger.")
    shown = found[0] if query.version is None else chosen_version(found, query.version)
    return TemplateView(query.name, _lines(found), shown.hash, shown.sources)


def _lines(found: Sequence[TemplateVersion]) -> list[VersionLine]:
    # The versions that runs used stand first.
    in_use = [version.hash for version in found if version.use.runs]
    before = dict(pairwise([*in_use, None]))
    current = in_use[0] if in_use else None
    return [
        VersionLine(
            version.hash,
            version.first_seen_at,
            version.sources is not None,
            version.use,
            before.get(version.hash, current if version.use.figures.tried else None),
        )
        for version in found
    ]


TEMPLATE_PAGE = Page("/templates/{name:path}", TemplateQuery, read_template, "template.html")

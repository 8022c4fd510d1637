"""Show the same records under two versions of a template, their answers side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import Engine

from db.readers.audit.compared_versions import ComparedRecord, compared_versions
from db.readers.audit.template_versions import TemplateVersion, template_versions
from presswork.audit.page import AskedKey, NotFoundError, Page, PageQuery, ShortText
from presswork.audit.pages.template_page import VersionLine
from presswork.differences.json_differences import ValueDifference, compare_values

RECORDS_AT_ONCE = 20
SHORT_HASH = 10
MOST_COMPARED = 400_000
"""Characters of answers that are compared for one page; the rest is a link to its difference."""


class CompareQuery(PageQuery):
    """The template's name, and the hashes, or their beginnings, of the older version `a` and the newer one `b`.

    Without both, the page offers the versions.
    """

    name: ShortText
    a: ShortText | None = None
    b: ShortText | None = None
    after: AskedKey | None = None


@dataclass(frozen=True)
class PairedAnswers:
    """A record under both versions. `difference` is None if an answer is missing, or if both are too long."""

    record: ComparedRecord
    difference: ValueDifference | None
    is_long: bool = False


@dataclass(frozen=True)
class CompareView:
    """A page of records that both versions answered; `after` is where the next page begins, None at the end.

    `keys_read` is the number of records that this page looked at.
    """

    name: str
    older: VersionLine
    newer: VersionLine
    pairs: Sequence[PairedAnswers]
    keys_read: int
    after: str | None

    @property
    def equal(self) -> int:
        """The number of records on this page whose answers are equal."""
        return sum(pair.record.same_answer for pair in self.pairs)


@dataclass(frozen=True)
class OfferedVersions:
    """The hashes of the versions that can be compared, the last used first."""

    name: str
    versions: Sequence[str]


def read_compared_answers(engine: Engine, query: CompareQuery) -> CompareView | OfferedVersions:
    """Read a page of records. Raises NotFoundError if there is no such template."""
    versions = {version.hash: version for version in template_versions(engine, query.name)}
    if not versions:
        raise NotFoundError(f"No template and no step with the name {query.name!r} was ever used in this ledger.")
    if query.a is None or query.b is None:
        return OfferedVersions(query.name, list(versions))
    found = compared_versions(engine, query.name, query.a, query.b, query.after, RECORDS_AT_ONCE)
    older, newer = (_line(versions, each) for each in (found.a, found.b))
    return CompareView(query.name, older, newer, _paired(found.records), found.keys_read, found.after)


def _line(versions: Mapping[str, TemplateVersion], version: str) -> VersionLine:
    found = versions.get(version)
    if found is None:
        raise NotFoundError(f"This template has no version {version[:SHORT_HASH]}.")
    return VersionLine(found.hash, found.first_seen_at, found.sources is not None, found.use, None)


def _paired(records: Sequence[ComparedRecord]) -> list[PairedAnswers]:
    found = []
    left = MOST_COMPARED
    for record in records:
        if record.a.output is None or record.b.output is None:
            found.append(PairedAnswers(record, None))
            continue
        left -= len(orjson.dumps([record.a.output, record.b.output]))
        if left < 0:
            found.append(PairedAnswers(record, None, is_long=True))
        else:
            found.append(PairedAnswers(record, compare_values(record.a.output, record.b.output)))
    return found


COMPARE = Page("/templates/{name:path}/compare", CompareQuery, read_compared_answers, "compare.html")

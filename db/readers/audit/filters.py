"""What the lists of the audit room can be filtered by, and the checks of what people enter.

Pages, commands and export share these two filters. A list whose filter is wrong would be empty and look like an answer,
so each value that can't be right is an error that says what there is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, select

from db.columns import aliased
from db.database_errors import DatabaseError
from db.readers.runs import SHORTEST_ID, matches
from db.rollups.known_names import NAMED, names_instead
from db.session import rows_of
from db.tables import Generation, OutcomeRollup, RolledUp, StoredPrompt, StoredRun, StoredTemplate
from db.words import ORIGINS, RUN_STATUSES, STATUSES, SUCCEEDED, TRIGGERS

ANY_ENDING = "*"
"""At the end of a record key: all keys with this beginning."""
WITHOUT_CONTENT = "without_content"
"""As a status: all but succeeded."""
NO_CAUSE = "none"
"""As a cause: without content, and the row names no cause."""
CHOSEN_STATUSES = (*STATUSES, WITHOUT_CONTENT)
"""What generations can be filtered by as their status."""
ID_SLACK = timedelta(hours=1)
"""A generation gets its id before its time of creation; the two clocks may differ by a correction of this size."""
_FIRST_YEAR, _LAST_YEAR = 1971, 9998
# PostgreSQL has no NUL, and no database has halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LISTED = 10
_SHOWN = 100
_WHOLE_HASH, _ID_LENGTH = 64, 36
_EQUAL = {
    "flow": "flow",
    "step": "step",
    "endpoint": "endpoint",
    "template": "template_hash",
    "origin": "origin",
    "run": "run_id",
}
_LAST_CHARACTER = "\U0010ffff"


class FilterError(DatabaseError):
    """A filter can't be right. The message says what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which generations are meant; None sets no condition. Raises FilterError for a word or a period that can't be.

    `template` is a version's hash or its beginning, `model` the requested one, `run` an id, or the beginning or end of
    one, and `trigger` what started the run. `key` is a record key, or a beginning followed by `*`. `status` may be
    WITHOUT_CONTENT. `cause` is why one has no content, the kind of its error or NO_CAUSE. `since` and `until` are times
    with a zone: from the one up to, and not with, the other. `words` are for the search; lists ignore them. Generations
    that another one of their run replaced are meant only if `replaced` is true; figures leave them out too, and an
    export has all.
    """

    flow: str | None = None
    step: str | None = None
    endpoint: str | None = None
    template: str | None = None
    model: str | None = None
    status: str | None = None
    cause: str | None = None
    origin: str | None = None
    run: str | None = None
    trigger: str | None = None
    key: str | None = None
    words: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    replaced: bool | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        check_word("status", self.status, CHOSEN_STATUSES)
        check_word("origin", self.origin, ORIGINS)
        check_word("trigger", self.trigger, TRIGGERS)
        check_period(self.since, self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are meant; None sets no condition. `status` is a state, see runs.py. The period is of their start.

    Trials are meant only if `trigger` says so: while a template is written there are more of them than of runs.
    """

    flow: str | None = None
    status: str | None = None
    trigger: str | None = None
    endpoint: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        check_word("status", self.status, RUN_STATUSES)
        check_word("trigger", self.trigger, TRIGGERS)
        check_period(self.since, self.until)


def check_word(name: str, value: str | None, words: Sequence[str]) -> None:
    """Raise FilterError if a value is none of these words."""
    if value is not None and value not in words:
        raise FilterError(f"{value!r} is no {name}. Available: {', '.join(words)}.")


def check_text(name: str, value: str | None) -> None:
    """Raise FilterError for a text with a character that no ledger can hold, so that no database meets it."""
    if value is not None and _UNSTORABLE.search(value):
        raise FilterError(f"The value of {name!r} contains a character that no text in the ledger has: {value!r}.")


def _check_texts(given: "Filter | RunFilter") -> None:
    for each in fields(given):
        value = getattr(given, each.name)
        check_text(each.name, value if isinstance(value, str) else None)


def check_period(since: datetime | None, until: datetime | None) -> None:
    """Raise FilterError for a period that ends before it begins, or a time without a zone."""
    for name, moment in (("since", since), ("until", until)):
        if moment is not None and moment.utcoffset() is None:
            raise FilterError(f"The time of {name!r} has no time zone. Write it in UTC, such as 2026-03-01T12:00Z.")
        # Days and ids are computed from it, and these end with the calendar.
        if moment is not None and not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise FilterError(f"The time of {name!r} must be in the years {_FIRST_YEAR} to {_LAST_YEAR}: {moment}.")
    if since is not None and until is not None and until <= since:
        raise FilterError(
            f"The period ends at {until:%Y-%m-%d %H:%M}, before it begins at {since:%Y-%m-%d %H:%M}. "
            "Exchange since and until."
        )


def resolved(engine: Engine, wanted: Filter) -> Filter:
    """Return the filter with the full hash of its template and the full id of its run.

    Raises FilterError if there are none or several, and for a name that no run had.
    """
    check_names(engine, wanted)
    template = None if wanted.template is None else find_template(engine, wanted.template)
    run = None if wanted.run is None else _find_run_id(engine, wanted.run)
    return replace(wanted, template=template, run=run)


def check_names(engine: Engine, wanted: Filter | RunFilter) -> None:
    """Raise FilterError for a flow, step, endpoint or model that the ledger does not have; an empty one has none."""
    for name in NAMED:
        value = getattr(wanted, name, None)
        if value is not None and (names := names_instead(engine, name, value)):
            raise FilterError(f"There is no {name} {value[:_SHOWN]!r} in this ledger. Available: {_listed(names)}.")


def find_template(engine: Engine, beginning: str, name: str | None = None) -> str:
    """Return the full hash of the template version with this beginning, among those of `name` or all.

    Raises FilterError if there is none or several.
    """
    check_text("template", beginning)
    check_text("name", name)
    known = _known_templates(engine, name)
    found = sorted({each for each, _name in known if each.startswith(beginning.lower())})
    if len(found) == 1:
        return found[0]
    if not found and len(beginning) == _WHOLE_HASH and _is_used_now(engine, beginning):
        return beginning
    if found:
        raise FilterError(f"{beginning!r} is the beginning of {len(found)} template versions: {_listed(found)}.")
    listed = _listed([f"{each[:12]} ({of})" if of else each[:12] for each, of in known]) or "none"
    raise FilterError(f"There is no template version {beginning[:_WHOLE_HASH]!r}. Available: {listed}.")


def conditions_of(wanted: Filter, of: Any = Generation) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter that is `resolved`, without its words, on generations or columns of these."""
    found: list[ColumnElement[bool]] = [
        getattr(of, column) == getattr(wanted, name)
        for name, column in _EQUAL.items()
        if getattr(wanted, name) is not None
    ]
    if wanted.status is not None:
        found.append(status_is(of.status, wanted.status))
    if wanted.since is not None:
        found.append(of.created_at >= wanted.since)
    if wanted.until is not None:
        found += [of.created_at < wanted.until, of.id < id_of(wanted.until + ID_SLACK)]
    if wanted.key is not None:
        found += key_is(of.record_key, wanted.key)
    if wanted.model is not None:
        # A scalar subquery: PostgreSQL would turn EXISTS into a join with all prompts.
        model = select(StoredPrompt.model).where(StoredPrompt.hash == of.prompt_hash).scalar_subquery()
        found.append(model == wanted.model)
    if wanted.trigger is not None:
        run = StoredRun.__table__.alias()
        found.append(select(run.c.trigger).where(run.c.id == of.run_id).scalar_subquery() == wanted.trigger)
    return found + _late_conditions(wanted, of)


def _late_conditions(wanted: Filter, of: Any) -> list[ColumnElement[bool]]:
    """Return the conditions on columns that stand after long texts: they are looked up for what matches otherwise."""
    found: list[ColumnElement[bool]] = []
    if wanted.cause is not None:
        kind = _looked_up("error_kind", of)
        found += [of.status != SUCCEEDED, kind.is_(None) if wanted.cause == NO_CAUSE else kind == wanted.cause]
    return found if wanted.replaced else [*found, _looked_up("replaced_by", of) == ""]


def _looked_up(column: str, of: Any) -> Any:
    if of is Generation:
        return getattr(of, column)
    row = aliased(Generation)
    return select(getattr(row, column)).where(row.id == of.id).scalar_subquery()


def columns_of(wanted: Filter) -> list[Any]:
    """Return the columns of generations that the conditions of a filter need at once, as well as the id."""
    others = {
        "status": "status",
        "cause": "status",
        "since": "created_at",
        "until": "created_at",
        "key": "record_key",
        "model": "prompt_hash",
        "trigger": "run_id",
    }
    names = [column for name, column in (_EQUAL | others).items() if getattr(wanted, name) is not None]
    return [getattr(Generation, name) for name in dict.fromkeys(names)]


def key_is(column: Any, key: str) -> list[ColumnElement[bool]]:
    """Select a record key, or all with a beginning if it ends in `*`."""
    if not key.endswith(ANY_ENDING):
        return [column == key]
    beginning = key.removesuffix(ANY_ENDING)
    # Not LIKE, which has wildcards of its own and can't use the index everywhere.
    return [column >= beginning, column < beginning + _LAST_CHARACTER] if beginning else []


def status_is(column: Any, status: str) -> ColumnElement[bool]:
    """Select a status, or all but succeeded for WITHOUT_CONTENT."""
    found: ColumnElement[bool] = column != SUCCEEDED if status == WITHOUT_CONTENT else column == status
    return found


def id_of(moment: datetime) -> str:
    """Return the smallest UUIDv7 of a moment: ids of later milliseconds are greater."""
    digits = f"{max(int(moment.timestamp() * 1000), 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def _known_templates(engine: Engine, name: str | None) -> list[tuple[str, str]]:
    """List the template versions as hash and name, the newest first; then those that were used but are not stored."""
    stored = select(StoredTemplate.hash, StoredTemplate.name).order_by(StoredTemplate.first_seen_at.desc())
    used = select(OutcomeRollup.template_hash, OutcomeRollup.step).distinct()
    if name is not None:
        stored, used = stored.where(StoredTemplate.name == name), used.where(OutcomeRollup.step == name)
    known = [(row.hash, row.name) for row in rows_of(engine, stored)]
    hashes = {each for each, _name in known}
    return known + sorted((row[0], "") for row in rows_of(engine, used) if row[0] and row[0] not in hashes)


def _is_used_now(engine: Engine, template_hash: str) -> bool:
    """Whether a run that is not added up yet used this version; a step made in code has no stored template."""
    is_open = Generation.run_id.not_in(select(RolledUp.run_id))
    return bool(
        rows_of(engine, select(Generation.id).where(is_open, Generation.template_hash == template_hash).limit(1))
    )


def _find_run_id(engine: Engine, text: str) -> str:
    # Longer ones only exceed what databases accept as a pattern.
    alike = select(StoredRun.id).where(matches(StoredRun.id, text[: _ID_LENGTH + 1])).limit(3)
    found = [row.id for row in rows_of(engine, alike)]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise FilterError(f"{text!r} is the beginning or end of several runs, such as {_listed(found)}. Enter more.")
    newest = rows_of(engine, select(StoredRun.id).order_by(StoredRun.id.desc()).limit(3))
    listed = f"The newest are {_listed([row.id for row in newest])}" if newest else "There is none"
    shown = text[:_WHOLE_HASH]
    raise FilterError(
        f"There is no run {shown!r}. {listed}. Enter an id, or at least {SHORTEST_ID} characters of its start or end."
    )


def _listed(names: Sequence[str]) -> str:
    unlike = list(dict.fromkeys(names))
    more = f" and {len(unlike) - _LISTED} more" if len(unlike) > _LISTED else ""
    return ", ".join(unlike[:_LISTED]) + more

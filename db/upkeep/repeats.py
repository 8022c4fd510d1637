"""Find the rows of a record's history that repeat the row before them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from db.sameness import compared_fields
from db.words import CACHE, FAILED, LIVE, SKIPPED, SUCCEEDED


@dataclass(frozen=True, slots=True)
class PastRow:
    """A row of history, with the columns needed to compare it.

    It `is_needed` if something else refers to it: content, a working row, an attempt, a cached row, another outcome of
    its run, or an unfinished run.
    """

    id: str
    run_id: str
    step: str
    record_key: str
    record_hash: str | None
    template_hash: str
    prompt_hash: str | None
    output_hash: str | None
    status: str
    origin: str
    source_generation_id: str | None
    error_kind: str | None
    error_message: str | None
    created_at: datetime
    confirmed: int | None
    confirmed_at: datetime | None
    is_needed: bool

    @property
    def says(self) -> tuple[str | None, ...]:
        """The fields by which rows are compared; parents are compared separately."""
        if self.status != SUCCEEDED:
            return compared_fields(self)
        return (self.source_generation_id or self.id, self.prompt_hash, self.output_hash, *compared_fields(self))

    @property
    def may_go(self) -> bool:
        """Whether it may be removed if it repeats another: nothing was requested for it, and nothing refers to it."""
        if self.is_needed:
            return False
        if self.status == SUCCEEDED:
            return self.origin == CACHE and self.source_generation_id is not None
        return self.status in {FAILED, SKIPPED} and self.origin == LIVE

    @property
    def last_seen(self) -> datetime:
        """The time when a run last found this outcome."""
        return self.confirmed_at or self.created_at


@dataclass(frozen=True, slots=True)
class Repeat:
    """A row that may be removed, because it and all rows since `kept` repeat `kept`."""

    row: PastRow
    kept: PastRow


def find_repeats(rows: Iterable[PastRow], parents: Mapping[str, bytes]) -> Iterator[Repeat]:
    """Yield the rows that repeat others; `rows` must be sorted by key and id.

    The newest row of a record and its newest one with content are never yielded: they are current, even if the table
    content is wrong. `parents` has a digest of each generation's parents.
    """
    for _key, group in groupby(rows, key=lambda row: row.record_key):
        of_record = list(group)
        newest = {of_record[-1].id, next((row.id for row in reversed(of_record) if row.status == SUCCEEDED), None)}
        kept = of_record[0]
        for row in of_record[1:]:
            alike = row.says == kept.says and parents.get(row.id) == parents.get(kept.id)
            if alike and row.may_go and row.id not in newest:
                yield Repeat(row, kept)
            else:
                kept = row

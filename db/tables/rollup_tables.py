"""Sums over closed runs, so that figures over months need not read every attempt.

The transaction that closes a run writes its rows and its row in `rolled_up`. A later writer to a closed run deletes
that row in the same transaction; then the run counts by live sums again. Text columns are '' where the summed rows have
null, because they are part of a key. Money is in whole units of 1e-10 USD: SQLite would add doubles.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, Hash, Id, UtcDateTime


class RolledUp(Base):
    """A closed run whose sums are in the rollups and still true."""

    __tablename__ = "rolled_up"

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    rolled_up_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UsageRollup(Base):
    """The sums of a run's attempts that are alike. `day` is the UTC day of their start, as in usage_by_day.

    `step` and `template_hash` are those of the attempt's generation, '' if it has none. `cost_e10` and `likely_e10` are
    sums of known prices, and of the likely costs of requests that were perhaps billed; `priced` and `estimated` count
    the attempts in them.
    """

    __tablename__ = "usage_rollup"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    template_hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    model: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    service_tier: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    error_type: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    attempts: Mapped[int] = mapped_column(sa.BigInteger)
    requests: Mapped[int] = mapped_column(sa.BigInteger)
    input_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    output_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    cache_creation_5m_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    cache_creation_1h_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    cache_read_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    cost_e10: Mapped[int] = mapped_column(sa.BigInteger)
    priced: Mapped[int] = mapped_column(sa.BigInteger)
    unpriced: Mapped[int] = mapped_column(sa.BigInteger)
    perhaps_billed: Mapped[int] = mapped_column(sa.BigInteger)
    likely_e10: Mapped[int] = mapped_column(sa.BigInteger)
    estimated: Mapped[int] = mapped_column(sa.BigInteger)
    rate_limited: Mapped[int] = mapped_column(sa.BigInteger)
    latency_ms: Mapped[int] = mapped_column(sa.BigInteger)
    timed: Mapped[int] = mapped_column(sa.BigInteger)


class OutcomeRollup(Base):
    """The number of a run's generations that are alike. `day` is the UTC day of their creation.

    `model` is the requested one, '' if nothing was rendered. `generations` count in the run, `replaced` are the others.
    Unchanged records have no generation; run_steps counts them.
    """

    __tablename__ = "outcome_rollup"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    template_hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    model: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    status: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    origin: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    generations: Mapped[int] = mapped_column(sa.BigInteger)
    replaced: Mapped[int] = mapped_column(sa.BigInteger)


class PromptCacheRollup(Base):
    """What a run's requests with the same prices wrote to the prompt cache and read from it.

    `day` is the UTC day of their end and `prompt_tokens` their input rounded up to a thousand, because prices depend on
    both. Requests that did neither are left out.
    """

    __tablename__ = "prompt_cache_rollup"
    __table_args__ = ({"sqlite_with_rowid": False},)

    run_id: Mapped[str] = mapped_column(Id, primary_key=True)
    day: Mapped[str] = mapped_column(sa.String(10), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    template_hash: Mapped[str] = mapped_column(Hash, primary_key=True)
    model: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    service_tier: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    inference_geo: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    speed: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    prompt_tokens: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True)
    written_5m: Mapped[int] = mapped_column(sa.BigInteger)
    written_1h: Mapped[int] = mapped_column(sa.BigInteger)
    read: Mapped[int] = mapped_column(sa.BigInteger)
    writes: Mapped[int] = mapped_column(sa.BigInteger)
    reads: Mapped[int] = mapped_column(sa.BigInteger)

"""Sums over closed runs, so that figures over months need not read every attempt.

The transaction that closes a run writes its rows and its row in `rolled_up`. A later writer to a closed run deletes
that row in the same transaction; then the run counts by live sums again. Text columns are '' where the summed rows have
null, because they are part of a key. Money is in whole units of 1e-10 USD: SQLite would add doubles.
"""

import sqlalchemy as sa

from db.columns import Base, Hash, Id, UtcDateTime, column


class RolledUp(Base):
    """A closed run whose sums are in the rollups and still true."""

    __tablename__ = "rolled_up"

    run_id = column(Id, primary_key=True)
    rolled_up_at = column(UtcDateTime)


class UsageRollup(Base, sqlite_with_rowid=False):
    """The sums of a run's attempts that are alike. `day` is the UTC day of their start, as in usage_by_day.

    `step` and `template_hash` are those of the attempt's generation, '' if it has none. `cost_e10` and `likely_e10` are
    sums of known prices, and of the likely costs of requests that were perhaps billed; `priced` and `estimated` count
    the attempts in them.
    """

    __tablename__ = "usage_rollup"

    run_id = column(Id, primary_key=True)
    day = column(sa.String(10), primary_key=True)
    step = column(sa.String(200), primary_key=True)
    template_hash = column(Hash, primary_key=True)
    model = column(sa.Text, primary_key=True)
    service_tier = column(sa.Text, primary_key=True)
    kind = column(sa.String(20), primary_key=True)
    error_type = column(sa.Text, primary_key=True)
    attempts = column(sa.BigInteger)
    requests = column(sa.BigInteger)
    input_tokens = column(sa.BigInteger)
    output_tokens = column(sa.BigInteger)
    cache_creation_5m_tokens = column(sa.BigInteger)
    cache_creation_1h_tokens = column(sa.BigInteger)
    cache_read_tokens = column(sa.BigInteger)
    cost_e10 = column(sa.BigInteger)
    priced = column(sa.BigInteger)
    unpriced = column(sa.BigInteger)
    perhaps_billed = column(sa.BigInteger)
    likely_e10 = column(sa.BigInteger)
    estimated = column(sa.BigInteger)
    rate_limited = column(sa.BigInteger)
    latency_ms = column(sa.BigInteger)
    timed = column(sa.BigInteger)


class OutcomeRollup(Base, sqlite_with_rowid=False):
    """The number of a run's generations that are alike. `day` is the UTC day of their creation.

    `model` is the requested one, '' if nothing was rendered. `generations` count in the run, `replaced` are the others.
    Unchanged records have no generation; run_steps counts them.
    """

    __tablename__ = "outcome_rollup"

    run_id = column(Id, primary_key=True)
    day = column(sa.String(10), primary_key=True)
    step = column(sa.String(200), primary_key=True)
    template_hash = column(Hash, primary_key=True)
    model = column(sa.String(100), primary_key=True)
    status = column(sa.String(20), primary_key=True)
    origin = column(sa.String(20), primary_key=True)
    generations = column(sa.BigInteger)
    replaced = column(sa.BigInteger)


class PromptCacheRollup(Base, sqlite_with_rowid=False):
    """What a run's requests with the same prices wrote to the prompt cache and read from it.

    `day` is the UTC day of their end and `prompt_tokens` their input rounded up to a thousand, because prices depend on
    both. Requests that did neither are left out.
    """

    __tablename__ = "prompt_cache_rollup"

    run_id = column(Id, primary_key=True)
    day = column(sa.String(10), primary_key=True)
    step = column(sa.String(200), primary_key=True)
    template_hash = column(Hash, primary_key=True)
    model = column(sa.Text, primary_key=True)
    service_tier = column(sa.Text, primary_key=True)
    inference_geo = column(sa.Text, primary_key=True)
    speed = column(sa.Text, primary_key=True)
    prompt_tokens = column(sa.BigInteger, primary_key=True)
    written_5m = column(sa.BigInteger)
    written_1h = column(sa.BigInteger)
    read = column(sa.BigInteger)
    writes = column(sa.BigInteger)
    reads = column(sa.BigInteger)

"""Claims: who is asking for what just now, so that two runs at once do not buy the same answer.

A claim is taken before a prompt is asked and released with its outcome. It is a lease: the owner's heartbeat renews
it with the run's own, and where the owner has died it runs out, at once where its process is seen to be gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from db.models import Attempt, Base, Claim, Run, now
from db.session import begin_write

LEASE = timedelta(seconds=120)
HEARTBEAT_S = 15.0

_CLAIMS: Table = Base.metadata.tables[Claim.__tablename__]
_RUNS: Table = Base.metadata.tables[Run.__tablename__]
_ATTEMPTS: Table = Base.metadata.tables[Attempt.__tablename__]
_release = delete(_CLAIMS).where(_CLAIMS.c.prompt_hash == bindparam("claimed"), _CLAIMS.c.owner == bindparam("by"))


def take(engine: Engine, owner: str, hashes: Iterable[str]) -> set[str]:
    """Claim prompts for a run and return those that are now its own; another's that has run out is taken over."""
    # In one order everywhere, so that two that claim at once wait for each other and never in a circle.
    wanted = sorted(set(hashes))
    if not wanted:
        return set()
    moment = now()
    rows = [{"prompt_hash": wish, "owner": owner, "expires_at": moment + LEASE} for wish in wanted]
    with begin_write(engine) as connection:
        connection.execute(_claim(connection), [{**row, "moment": moment} for row in rows])
        owned: set[str] = set()
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            owned |= set(
                connection.scalars(
                    select(_CLAIMS.c.prompt_hash).where(_CLAIMS.c.prompt_hash.in_(part), _CLAIMS.c.owner == owner)
                )
            )
        return owned


def release(connection: Connection, claimed: Sequence[tuple[str, str]]) -> None:
    """Release claims, as (owner, prompt hash), in the transaction that records their outcomes."""
    if claimed:
        connection.execute(_release, [{"claimed": done, "by": owner} for owner, done in sorted(claimed)])


def release_all(connection: Connection, owner: str) -> None:
    """Release all that a run still claims, in the transaction that ends it."""
    connection.execute(delete(_CLAIMS).where(_CLAIMS.c.owner == owner))


def beat(engine: Engine, owner: str) -> None:
    """Renew a run's lease and those of its claims."""
    until = now() + LEASE
    with begin_write(engine) as connection:
        connection.execute(update(_RUNS).where(_RUNS.c.id == owner).values(alive_until=until))
        connection.execute(update(_CLAIMS).where(_CLAIMS.c.owner == owner).values(expires_at=until))


def bury_the_dead(engine: Engine) -> list[str]:
    """Mark runs whose process has died as crashed, and what they had in flight as perhaps billed; return their ids.

    A run is dead when its lease has run out, or when it ran on this machine and its process is gone.
    """
    statement = select(_RUNS.c.id, _RUNS.c.process, _RUNS.c.alive_until).where(_RUNS.c.status == "running")
    moment = now()
    with engine.connect() as connection:
        running = list(connection.execute(statement))
    dead = [row.id for row in running if row.alive_until < moment or _is_gone(row.process)]
    if dead:
        with begin_write(engine) as connection:
            _bury(connection, dead, moment)
    return dead


def _bury(connection: Connection, dead: Sequence[str], moment: Any) -> None:
    for run_id in dead:
        connection.execute(
            update(_ATTEMPTS)
            .where(_ATTEMPTS.c.run_id == run_id, _ATTEMPTS.c.ended_at.is_(None))
            .values(ended_at=moment, error_type="crashed")
        )
        connection.execute(delete(_CLAIMS).where(_CLAIMS.c.owner == run_id))
        connection.execute(
            update(_RUNS)
            .where(_RUNS.c.id == run_id, _RUNS.c.status == "running")
            .values(status="crashed", ended_at=moment)
        )


def this_process() -> str:
    """Name this process so that another on the same machine can tell whether it still lives."""
    return f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}"


def _is_gone(process: str | None) -> bool:
    host, _, rest = (process or "").rpartition("/")[0].partition("/")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    pid = int(rest)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # A number is given to another process in time: the moment it started tells them apart, where it is known.
    return (process or "").rpartition("/")[2] != _started(pid)


def _started(pid: int) -> str:
    try:
        # Field 22 of proc(5)'s stat, in clock ticks since boot; the name before it may hold spaces.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "-"


@lru_cache(maxsize=2)
def _claim_for(dialect: str) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(_CLAIMS)
    return statement.on_conflict_do_update(
        index_elements=[_CLAIMS.c.prompt_hash],
        set_={"owner": statement.excluded.owner, "expires_at": statement.excluded.expires_at},
        where=_CLAIMS.c.expires_at < bindparam("moment", type_=_CLAIMS.c.expires_at.type),
    )


def _claim(connection: Connection) -> Any:
    return _claim_for(connection.dialect.name)

"""Claims: one owner a prompt, whoever asks at the same moment; what a dead owner leaves is taken over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, func, select, update

from db import claims
from db.models import Attempt, Claim, Run, new_id, now
from db.record import Batch, close_run, write
from tests.db.rows import Book, sha

HASHES = {sha(word) for word in ("one", "two", "three")}
ELSEWHERE = "another-host/1/1"


def owners(ledger: Engine) -> dict[str, str]:
    with ledger.connect() as connection:
        return {row.prompt_hash: row.owner for row in connection.execute(select(Claim.prompt_hash, Claim.owner))}


def run_out(ledger: Engine, owner: str) -> None:
    """Let an owner's leases have ended a second ago."""
    past = now() - timedelta(seconds=1)
    with ledger.begin() as connection:
        connection.execute(update(Claim).where(Claim.owner == owner).values(expires_at=past))
        connection.execute(update(Run).where(Run.id == owner).values(alive_until=past))


def open_attempts(ledger: Engine, run_id: str) -> int:
    with ledger.connect() as connection:
        statement = select(func.count()).where(Attempt.run_id == run_id, Attempt.ended_at.is_(None))
        return connection.scalar(statement) or 0


def status_of(ledger: Engine, run_id: str) -> tuple[str, bool]:
    with ledger.connect() as connection:
        row = connection.execute(select(Run.status, Run.ended_at).where(Run.id == run_id)).one()
    return row.status, row.ended_at is not None


def test_a_prompt_has_one_owner_who_may_ask_again(ledger: Engine) -> None:
    assert claims.take(ledger, "first", HASHES) == HASHES
    assert claims.take(ledger, "first", HASHES) == HASHES
    assert claims.take(ledger, "second", HASHES | {sha("four")}) == {sha("four")}
    assert owners(ledger) == {**dict.fromkeys(HASHES, "first"), sha("four"): "second"}
    assert claims.take(ledger, "second", []) == set()


def test_claim_that_has_run_out_is_taken_over(ledger: Engine) -> None:
    claims.take(ledger, "first", HASHES)
    run_out(ledger, "first")
    assert claims.take(ledger, "second", HASHES) == HASHES
    assert claims.take(ledger, "first", HASHES) == set()


def test_heartbeat_renews_a_run_and_its_claims_and_no_others(book: Book) -> None:
    claims.take(book.ledger, book.run_id, HASHES)
    claims.take(book.ledger, "other", {sha("four")})
    for owner in (book.run_id, "other"):
        run_out(book.ledger, owner)
    claims.beat(book.ledger, book.run_id)
    assert claims.take(book.ledger, "second", HASHES | {sha("four")}) == {sha("four")}
    with book.ledger.connect() as connection:
        assert connection.scalars(select(Run.alive_until)).one() > now() + claims.LEASE / 2


def test_claim_goes_with_its_outcome_and_only_its_owner_can_release_it(book: Book) -> None:
    claims.take(book.ledger, book.run_id, HASHES)
    write(book.ledger, Batch(released=[("other", wish) for wish in HASHES]))
    assert set(owners(book.ledger)) == HASHES
    write(book.ledger, Batch(released=[(book.run_id, sha("one"))]))
    assert set(owners(book.ledger)) == HASHES - {sha("one")}
    close_run(book.ledger, book.run_id, "completed", now())
    assert owners(book.ledger) == {}


def test_many_that_claim_at_once_share_without_overlap(ledger: Engine) -> None:
    wanted = [sha(str(number)) for number in range(1200)]
    claimants = [f"run {number}" for number in range(4)]
    # Each wants the same prompts in another order, in several claims: a lock taken in a circle would show.
    parts = {name: wanted[::-1] if number % 2 else wanted for number, name in enumerate(claimants)}

    def claim(name: str) -> set[str]:
        mine: set[str] = set()
        for start in range(0, len(wanted), 300):
            mine |= claims.take(ledger, name, parts[name][start : start + 300])
        return mine

    with ThreadPoolExecutor(len(claimants)) as threads:
        owned = list(threads.map(claim, claimants))
    assert sum(map(len, owned)) == len(wanted)
    assert set().union(*owned) == set(wanted)


def dead_process() -> str:
    """The name of a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    return f"{socket.gethostname()}/{ended.pid}/1"


def crash(ledger: Engine, process: str) -> str:
    """Write a run that has claims and a request in flight; its id."""
    book = Book(ledger, process=process)
    batch = Batch()
    book.attempt(batch, "one", new_id())
    write(ledger, batch)
    claims.take(ledger, book.run_id, HASHES)
    return book.run_id


def test_run_whose_process_is_gone_is_buried_at_once(ledger: Engine) -> None:
    dead = crash(ledger, dead_process())
    assert claims.bury_the_dead(ledger) == [dead]
    assert status_of(ledger, dead) == ("crashed", True)
    assert (open_attempts(ledger, dead), owners(ledger)) == (0, {})
    with ledger.connect() as connection:
        assert connection.scalars(select(Attempt.error_type)).all() == ["crashed"]
    assert claims.bury_the_dead(ledger) == []


def test_run_whose_number_another_process_got_is_buried_too(ledger: Engine) -> None:
    host, pid, _started = claims.this_process().split("/")
    dead = crash(ledger, f"{host}/{pid}/1")
    assert claims.bury_the_dead(ledger) == [dead]


@pytest.mark.parametrize("process", [claims.this_process(), ELSEWHERE, "odd"], ids=["here", "elsewhere", "unknown"])
def test_run_that_may_live_is_left_alone_until_its_lease_runs_out(ledger: Engine, process: str) -> None:
    alive = crash(ledger, process)
    assert claims.bury_the_dead(ledger) == []
    assert status_of(ledger, alive) == ("running", False)
    assert (open_attempts(ledger, alive), set(owners(ledger))) == (1, HASHES)
    run_out(ledger, alive)
    assert claims.bury_the_dead(ledger) == [alive]
    assert owners(ledger) == {}


def test_several_that_bury_at_once_do_not_get_into_each_others_way(ledger: Engine) -> None:
    dead = {crash(ledger, dead_process())}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _number: claims.bury_the_dead(ledger), range(4)))
    assert set().union(*map(set, found)) == dead
    assert {status_of(ledger, run_id) for run_id in dead} == {("crashed", True)}


def test_run_that_ended_while_it_was_taken_for_dead_stays_as_it_ended(book: Book) -> None:
    run_out(book.ledger, book.run_id)
    close_run(book.ledger, book.run_id, "completed", now())
    assert claims.bury_the_dead(book.ledger) == []
    assert status_of(book.ledger, book.run_id) == ("completed", True)


def test_this_process_is_named_so_that_it_is_known_again() -> None:
    host, pid, started = claims.this_process().split("/")
    assert (host, pid, started.isdigit()) == (socket.gethostname(), str(os.getpid()), True)

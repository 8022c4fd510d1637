"""Each prompt has one claim and one owner, also under contention; claims of an expired lease are taken over."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, insert, select

from db.clock import new_id, now
from db.ledger import claims, leases
from db.ledger.lifecycle import close_run
from db.ledger.rows import WriteBatch
from db.ledger.writing import write
from db.session import begin_write
from db.tables import Claim
from tests.db.rows import Book, sha, take_up
from tests.db.test_leases import ELSEWHERE, run_out
from tests.db.test_standing import waits_for_a_lock

HASHES = {sha(word) for word in ("one", "two", "three")}


def owners(ledger: Engine) -> dict[str, str]:
    with ledger.connect() as connection:
        return {row.prompt_hash: row.owner for row in connection.execute(select(Claim.prompt_hash, Claim.owner))}


def test_a_prompt_has_one_owner_who_may_ask_again(ledger: Engine) -> None:
    first, second = (Book(ledger).lease.id for _number in range(2))
    assert claims.take(ledger, first, HASHES) == HASHES
    assert claims.take(ledger, first, HASHES) == HASHES
    assert claims.take(ledger, second, HASHES | {sha("four")}) == {sha("four")}
    assert owners(ledger) == {**dict.fromkeys(HASHES, first), sha("four"): second}
    assert claims.take(ledger, second, []) == set()


def test_claims_of_a_lease_that_has_run_out_are_taken_over(ledger: Engine) -> None:
    first, second = Book(ledger, process=ELSEWHERE).lease.id, Book(ledger).lease.id
    claims.take(ledger, first, HASHES)
    run_out(ledger, first)
    assert claims.take(ledger, second, HASHES) == HASHES
    with pytest.raises(leases.LeaseLostError):
        claims.take(ledger, first, HASHES)
    assert owners(ledger) == dict.fromkeys(HASHES, second)


def test_claims_of_a_lease_that_has_ended_or_never_was_are_taken_over(ledger: Engine) -> None:
    ended, mine = Book(ledger).lease, Book(ledger).lease
    close_run(ledger, ended, "completed", now())
    # Earlier releases left such claims.
    left = [{"prompt_hash": sha("one"), "owner": "no lease"}, {"prompt_hash": sha("two"), "owner": ended.id}]
    with ledger.begin() as connection:
        connection.execute(insert(Claim), [each | {"expires_at": now()} for each in left])
    assert claims.take(ledger, mine.id, HASHES) == HASHES


def test_lease_that_has_ended_gets_no_claims_which_nothing_would_release(ledger: Engine) -> None:
    ended = Book(ledger).lease
    close_run(ledger, ended, "completed", now())
    with pytest.raises(leases.LeaseLostError):
        claims.take(ledger, ended.id, HASHES)
    assert owners(ledger) == {}


@pytest.mark.postgres
def test_lease_that_is_ended_while_it_claims_leaves_no_claims(ledger: Engine) -> None:
    if ledger.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer")
    superseded = Book(ledger).lease
    with ThreadPoolExecutor(1) as threads:
        with begin_write(ledger) as connection:
            claims._claim(connection, superseded.id, sorted(HASHES))
            newer = threads.submit(take_up, ledger, superseded.run_id, new_id())
            while not waits_for_a_lock(ledger) and not newer.done():
                time.sleep(0.01)
        newer.result(30)
    assert owners(ledger) == {}


def test_heartbeat_keeps_a_leases_claims_and_no_others(ledger: Engine) -> None:
    mine, other, third = (Book(ledger, process=ELSEWHERE).lease for _number in range(3))
    claims.take(ledger, mine.id, HASHES)
    claims.take(ledger, other.id, {sha("four")})
    for owner in (mine, other):
        run_out(ledger, owner.id)
    leases.renew(ledger, mine)
    assert claims.take(ledger, third.id, HASHES | {sha("four")}) == {sha("four")}


def test_claim_goes_with_its_outcome_and_only_its_owner_can_release_it(book: Book) -> None:
    claims.take(book.ledger, book.lease.id, HASHES)
    write(book.ledger, WriteBatch(released=[("other", wish) for wish in HASHES]))
    assert set(owners(book.ledger)) == HASHES
    write(book.ledger, WriteBatch(released=[(book.lease.id, sha("one"))]))
    assert set(owners(book.ledger)) == HASHES - {sha("one")}
    close_run(book.ledger, book.lease, "completed", now())
    assert owners(book.ledger) == {}


def test_many_that_claim_at_once_share_without_overlap(ledger: Engine) -> None:
    wanted = [sha(str(number)) for number in range(1200)]
    claimants = [Book(ledger).lease.id for _number in range(4)]
    # Each thread wants the same prompts in another order, in several claims, so a deadlock would show.
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


def test_several_that_take_over_at_once_share_without_overlap(ledger: Engine) -> None:
    asleep = Book(ledger, process=ELSEWHERE).lease.id
    wanted = [sha(str(number)) for number in range(600)]
    claims.take(ledger, asleep, wanted)
    run_out(ledger, asleep)
    claimants = [Book(ledger).lease.id for _number in range(4)]
    with ThreadPoolExecutor(len(claimants)) as threads:
        owned = list(threads.map(lambda name: claims.take(ledger, name, wanted), claimants))
    assert sum(map(len, owned)) == len(wanted)
    assert set().union(*owned) == set(wanted)

"""Check the promises of a night from its ledger and from what its endpoint served, and from nothing else.

Each check is a function over rows and exchanges, in the module that it belongs to. test_promises.py breaks each.
"""

from collections.abc import Callable, Iterator

from tests.nights.promised.all_ends import check_alive, check_finishes, check_nothing_left
from tests.nights.promised.caps_hold import check_caps
from tests.nights.promised.content_stands import (
    check_current,
    check_good_content,
    check_one_row,
    check_own_records,
    check_taken,
)
from tests.nights.promised.evidence import Evidence, Violation
from tests.nights.promised.ledger_rows import read_rows
from tests.nights.promised.money_matches import check_perhaps_billed, check_served, check_settled
from tests.nights.promised.night_result import NightResult
from tests.nights.promised.paid_once import check_lost_by_kills, check_paid_once, check_told
from tests.nights.promised.requests_in_order import (
    check_bound,
    check_nothing_sent,
    check_own_attempt,
    check_registered,
    check_within_runs,
)
from tests.nights.promised.rows_add_up import (
    check_all_records,
    check_rollups,
    check_summaries,
    check_usage_by_day,
)
from tests.nights.promised.secrets_kept import check_errors, check_secrets
from tests.nights.promised.words_found import check_words

CHECKS: tuple[Callable[[Evidence], Iterator[Violation]], ...] = (
    check_paid_once,
    check_lost_by_kills,
    check_told,
    check_one_row,
    check_all_records,
    check_good_content,
    check_own_records,
    check_taken,
    check_current,
    check_settled,
    check_served,
    check_perhaps_billed,
    check_summaries,
    check_rollups,
    check_usage_by_day,
    check_caps,
    check_nothing_left,
    check_finishes,
    check_alive,
    check_registered,
    check_own_attempt,
    check_within_runs,
    check_nothing_sent,
    check_bound,
    check_words,
    check_secrets,
    check_errors,
)


def find_violations(night: NightResult) -> list[Violation]:
    """Return the broken promises of a night, in the order of the checks."""
    evidence = Evidence(night, read_rows(night.ledger))
    return [found for check in CHECKS for found in check(evidence)]


__all__ = ["CHECKS", "Violation", "find_violations"]

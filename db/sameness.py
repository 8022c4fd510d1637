"""Compare outcomes of a record: a later one that is equal confirms the earlier one."""

from typing import Any

from db.words import COST_CAP


def compared_fields(outcome: Any) -> tuple[str | None, ...]:
    """Return the fields of an outcome, except its content, by which it is compared with another.

    An outcome is any object with these columns of `generations`.
    """
    # The message of a cost cap contains the amount spent, which differs each time.
    message = None if outcome.error_kind == COST_CAP else outcome.error_message
    return (outcome.status, outcome.error_kind, message, outcome.record_hash, outcome.template_hash)

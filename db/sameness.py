"""When two outcomes of a record say the same, so that the later one confirms the earlier."""

from typing import Any

from db.words import COST_CAP


def what_it_says(outcome: Any) -> tuple[str | None, ...]:
    """Return what an outcome says of its record, apart from its content, to be compared with what another says.

    An outcome is anything with these columns of `generations`.
    """
    # The message of a cost cap has what was spent, which differs each time.
    message = None if outcome.error_kind == COST_CAP else outcome.error_message
    return (outcome.status, outcome.error_kind, message, outcome.record_hash, outcome.template_hash)

"""Define every error that Presswork raises about a call, a template or an answer, in one tree.

    PressworkError
    |-- ConfigurationError      the call or the configuration is wrong: exit status 2, nothing was sent
    |   |-- MissingKeyError
    |   |-- EndpointError       the endpoint is not the one that the settings name
    |   |-- OutputClassError
    |   |-- TemplateError
    |   |-- ParameterError
    |   `-- TrialError          no run can resume a trial
    |-- RecordError             one record can't be used: it fails alone, by its key
    |-- RunEndedError           the run of this helper has ended
    |-- LedgerAwayError         answers could not be written to the ledger, at best to a spill file
    `-- CallError               a request produced no usable answer
        |-- PassingCallError    may succeed later: retried
        `-- FinalCallError      can't succeed later: never retried
            `-- StoppingCallError   no request of this run can succeed: the run stops
                |-- CostCapError    the run has reached its cost cap: the rest is skipped
                |-- UntoldCostError there is a cost cap, but the endpoint reports no usage
                `-- StoppedError    a person stopped the run

The ledger's and the sources' errors have their own root in db/database_errors.py.
A class's docstring is its default message and names the remedy.
"""

import copy
import inspect
from decimal import Decimal
from typing import Any

from db.words import CALL_ERROR, COST_CAP, RENDER

_PASSING_STATUSES = frozenset({408, 409, 429})


def may_pass(status: int) -> bool:
    """Whether an error with this HTTP status may be gone at the next try: 408, 409, 429 and all from 500 on."""
    return status in _PASSING_STATUSES or status >= 500


class PressworkError(Exception):
    """Something went wrong in Presswork. The log shows what happened before."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class ConfigurationError(PressworkError):
    """The call or the configuration is wrong. Nothing was sent."""


def place_in(file: str, line: int | None) -> str:
    """Name a place in a template, as messages show it."""
    return f"{file}, line {line}" if line else file


class MissingKeyError(ConfigurationError):
    """There is no API key. Set ANTHROPIC_API_KEY, or start `presswork sandbox` and set ANTHROPIC_BASE_URL to it."""


class EndpointError(ConfigurationError):
    """PRESSWORK_ENDPOINT and ANTHROPIC_BASE_URL name different endpoints. Correct or unset one of them."""


class OutputClassError(ConfigurationError):
    """The output class can't be used. Define it in flows/outputs.py as a pydantic model."""


class TemplateError(ConfigurationError):
    """The template has a mistake. Run `presswork templates lint` to see where.

    `what` is the message without its place. The place is `file` and `line`, if they are known.
    """

    def __init__(self, what: str | None = None, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(what if what is None or file is None else f"{place_in(file, line)}: {what}")
        self.what = what
        self.file = file
        self.line = line


class ParameterError(ConfigurationError):
    """A parameter of the run is wrong. Run `presswork templates show NAME` to list a template's parameters."""


class TrialError(ConfigurationError):
    """The run is a trial, which can't be resumed. Start a new run: what the trial paid for costs nothing more."""


class RunEndedError(PressworkError):
    """The run of this helper has ended. There is nothing left to do."""


class RecordError(PressworkError):
    """This record can't be rendered; the others continue. Its generation stores `kind` as the error's kind."""

    def __init__(self, message: str, *, kind: str = RENDER) -> None:
        super().__init__(message)
        self.kind = kind


class CallError(PressworkError):
    """A request produced no usable answer.

    Attempts and generations store `kind`. `limits` are the rate limits in the error's headers. `alike` is equal for
    rejections with the same cause, and None if the cause is in the record itself.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        kind: str = CALL_ERROR,
        http_status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        limits: Any = None,
        alike: str | None = None,
    ) -> None:
        super().__init__(message)
        self.limits = limits
        self.alike = alike
        self.kind = kind
        self.http_status = http_status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class PassingCallError(CallError):
    """The endpoint is busy or unavailable. The request is retried after a pause."""

    may_pass = True


class FinalCallError(CallError):
    """The endpoint rejects this request, and a retry can't help. Change the template or the record."""

    may_pass = False


class StoppingCallError(FinalCallError):
    """The endpoint rejects every request of this run. Fix the cause, then run again."""


def copy_of(error: StoppingCallError) -> StoppingCallError:
    """Copy the error that stopped a run, so that each stopped task raises its own copy.

    One exception raised in many tasks would be chained to itself, and contextlib would follow that circle forever.
    """
    fresh = copy.copy(error)
    fresh.__traceback__ = fresh.__context__ = fresh.__cause__ = None
    return fresh


class CostCapError(StoppingCallError):
    """The run has reached its cost cap. Raise --max-cost (or PRESSWORK_MAX_COST), then run again for the rest.

    `next_usd` is what the request that did not fit may cost, in US dollars.
    """

    def __init__(self, message: str | None = None, *, next_usd: Decimal | None = None) -> None:
        super().__init__(message, kind=COST_CAP)
        self.next_usd = next_usd


class UntoldCostError(StoppingCallError):
    """The cost cap can't be kept: the endpoint reports no usage. Run again without --max-cost or PRESSWORK_MAX_COST."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, kind="untold_cost")


class StoppedError(StoppingCallError):
    """The run was stopped. Run again to answer the rest."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, kind="stopped")


class LedgerAwayError(PressworkError):
    """Answers could not be written to the ledger; they are in a spill file, if one could be written. Run again."""

"""Every error that Presswork raises about a call, a template or an answer; one tree, so that each is handled once.

    PressworkError
    |-- ConfigurationError      the call or the set-up is wrong: exit status 2, nothing was sent
    |   |-- MissingKeyError
    |   |-- EndpointError       the endpoint is not what the run was told it is
    |   |-- OutputClassError
    |   |-- TemplateError
    |   `-- ParameterError
    |-- RecordError             one record can't be used: it fails alone, by name
    |-- RunEndedError           the run that this one is to help is over: there is nothing to do
    |-- LedgerAwayError         answers could not be written, and wait in a file
    `-- CallError               a request brought no usable answer
        |-- PassingCallError    may go better later: retried
        `-- FinalCallError      will not get better: never retried
            `-- StoppingCallError   no request of this run can succeed: the run stops
                |-- CostCapError    the run has spent what it may: the rest is skipped
                |-- UntoldCostError the endpoint does not tell what an answer used, and there is a cost cap
                `-- StoppedError    someone stopped the run

The ledger's and the sources' errors have a root of their own in db/database_errors.py.
A class's docstring is its default message and names the remedy.
"""

import copy
import inspect
from typing import Any

from db.words import CALL_ERROR, COST_CAP, RENDER


class PressworkError(Exception):
    """Something went wrong in Presswork; see the log for what preceded it."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)


class ConfigurationError(PressworkError):
    """The call or the configuration is wrong; nothing was sent."""


def place_in(file: str, line: int | None) -> str:
    """Name a place in a template as messages do."""
    return f"{file}, line {line}" if line else file


class MissingKeyError(ConfigurationError):
    """There is no API key: set ANTHROPIC_API_KEY, or start `presswork sandbox` and set ANTHROPIC_BASE_URL to it."""


class EndpointError(ConfigurationError):
    """The endpoint is not what PRESSWORK_ENDPOINT says it is; unset one of the two or correct it."""


class OutputClassError(ConfigurationError):
    """The output class can't be used; define it in flows/outputs.py as a pydantic model."""


class TemplateError(ConfigurationError):
    """The template has a mistake; `presswork templates lint` shows where.

    `what` is the message without its place: `file`, where one is known, and the `line` in it.
    """

    def __init__(self, what: str | None = None, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(what if what is None or file is None else f"{place_in(file, line)}: {what}")
        self.what = what
        self.file = file
        self.line = line


class ParameterError(ConfigurationError):
    """A parameter of the run is wrong; `presswork templates show NAME` lists what a template takes."""


class RunEndedError(PressworkError):
    """The run that this one is to help has ended: there is nothing left to help with."""


class RecordError(PressworkError):
    """This record can't be rendered; the others go on. `kind` is what its generation keeps of the error."""

    def __init__(self, message: str, *, kind: str = RENDER) -> None:
        super().__init__(message)
        self.kind = kind


class CallError(PressworkError):
    """A request brought no usable answer.

    `kind` is what attempts and generations keep of it; `limits` are the rate limits that came with the error. `alike`
    is equal for refusals that say the same, None where a refusal is its record's own.
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
    """The endpoint is busy or away; the request is asked again after a pause."""

    may_pass = True


class FinalCallError(CallError):
    """The endpoint refuses this request, and would each time; change the template or the record."""

    may_pass = False


class StoppingCallError(FinalCallError):
    """The endpoint rejects every request of this run. Fix the cause, then run again."""


def copy_of(error: StoppingCallError) -> StoppingCallError:
    """Copy the error that stopped a run, so that each task that it stops raises its own.

    One exception raised in many tasks would be chained to itself, and contextlib would follow that circle without end.
    """
    fresh = copy.copy(error)
    fresh.__traceback__ = fresh.__context__ = fresh.__cause__ = None
    return fresh


class CostCapError(StoppingCallError):
    """The run's cost cap is reached; raise --max-cost (or PRESSWORK_MAX_COST) and run again for the rest."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, kind=COST_CAP)


class UntoldCostError(StoppingCallError):
    """The cost cap can't be kept: the endpoint tells no usage. Run again without --max-cost (or PRESSWORK_MAX_COST)."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, kind="untold_cost")


class StoppedError(StoppingCallError):
    """The run was stopped; run again to go on with what it has not answered."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, kind="stopped")


class LedgerAwayError(PressworkError):
    """The ledger is away; what was answered waits in a file, which `presswork db recover` writes in."""

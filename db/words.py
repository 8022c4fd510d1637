"""The words that the ledger stores and people read, each defined once.

These words are a contract: the rows of all earlier releases contain them. tests/test_words.py checks the tables, the
views, docs/ledger.md and the screens against them.
"""

from typing import Final, Literal, get_args

# How a generation ended

Status = Literal["succeeded", "invalid", "truncated", "refused", "failed", "skipped"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)
SUCCEEDED: Final = "succeeded"
INVALID: Final = "invalid"
TRUNCATED: Final = "truncated"
REFUSED: Final = "refused"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CACHED: Final = "cached"
"""The count of generations that succeeded because the ledger already had their answer."""
COUNTED: Final = (CACHED, *STATUSES)
"""The counts of a run, in the order of display."""
BAD_OUTCOMES: Final = (REFUSED, TRUNCATED, INVALID)
"""The statuses of generations whose answer was paid for but is not content."""

# Where a generation's text comes from

Origin = Literal["live", "batch", "cache"]
ORIGINS: Final[tuple[Origin, ...]] = get_args(Origin)
LIVE: Final = "live"
BATCH: Final = "batch"
CACHE: Final = "cache"
REQUESTED: Final = (LIVE, BATCH)
"""The origins of generations whose answer was requested, not reused."""

# Why an attempt was made

Kind = Literal["call", "retry", "repair", "escalation", "batch", "warm_up"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CALL: Final = "call"
RETRY: Final = "retry"
REPAIR: Final = "repair"
ESCALATION: Final = "escalation"

# How a run sends its requests, how it ended, and what started it

MODE_LIVE: Final = "live"
"""The mode of a run that waits for the answers to its requests."""

RunStatus = Literal["running", "suspended", "completed", "failed", "cancelled", "crashed", "capped"]
RUN_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
RUNNING: Final = "running"
SUSPENDED: Final = "suspended"
"""The status of a run that is suspended until its due time, or until a person resumes it."""
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
CRASHED: Final = "crashed"
CAPPED: Final = "capped"
NOT_OVER: Final = (RUNNING, SUSPENDED, CRASHED)
"""The stored statuses of runs that may still be resumed."""

Trigger = Literal["command", "schedule", "deployment", "shard", "try"]
TRIGGERS: Final[tuple[Trigger, ...]] = get_args(Trigger)
COMMAND: Final = "command"
SCHEDULE: Final = "schedule"
DEPLOYMENT: Final = "deployment"
SHARD: Final = "shard"
TRY: Final = "try"
"""The trigger of a trial: its answers can be reused, but they are no record's content."""

# Who works on a run, and how far its steps are

MAIN: Final = "main"
"""The worker name of a run's main lease; all others are helpers."""
HELPER: Final = "helper"
"""The prefix of a helper's worker name, such as `helper 3`."""
StepState = Literal["open", "done"]
STEP_STATES: Final[tuple[StepState, ...]] = get_args(StepState)
OPEN: Final = "open"
DONE: Final = "done"

# Errors of attempts that affect the counts

NOT_SENT: Final = "not_sent"
CONNECT: Final = "connect"
UNSENT: Final = (NOT_SENT, CONNECT)
"""Errors that exclude any bill, because no byte of the request reached the endpoint."""
CONNECTION: Final = "connection"
TIMEOUT: Final = "timeout"
ABANDONED: Final = "abandoned"
PROXY: Final = "proxy"
PERHAPS_BILLED: Final = (CONNECTION, TIMEOUT, ABANDONED, CRASHED, PROXY)
"""Errors after which the endpoint may have generated and billed an answer that never arrived.

`proxy` is a 502 or 504 from a proxy in front of the endpoint: the endpoint itself may have answered.
"""

# Why a generation has no content, if the endpoint's own error does not say it

CALL_ERROR: Final = "call"
"""An error of a call without further details."""
RENDER: Final = "render"
UNREADABLE: Final = "unreadable"
CONDITION: Final = "condition"
WRONG_MODEL: Final = "wrong_model"
WRONG_ENDPOINT: Final = "wrong_endpoint"
GIVEN_UP: Final = "given_up"
COST_CAP: Final = "cost_cap"
REFUSED_BY_LEDGER: Final = "refused_by_ledger"

# Endpoints

ANTHROPIC: Final = "anthropic"
SANDBOX: Final = "sandbox"

# The program

PROGRAM: Final = "presswork"
"""The name of the Python package, of the command, and of Prefect's resource for all content."""

# Prefect

TAG: Final = "presswork"
"""The tag of all our deployments and runs."""
SHARD_TAG: Final = "presswork-shard"
"""The only tag of shards: automations that act on tagged runs, such as reruns, must not act on shards."""
POOL: Final = "presswork"
"""The work pool of one machine."""
SHARDS: Final = "-shards"
"""The suffix of the deployment that a deployment's runs create for their shards."""

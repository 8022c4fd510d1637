"""The words that the ledger stores and that people read, each said once.

What stands here is a contract: rows of every earlier release hold these words. tests/test_words.py holds the tables,
the views, docs/ledger.md and the screens against them.
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
"""How a generation is counted that succeeded because the ledger had its answer."""
COUNTED: Final = (CACHED, *STATUSES)
"""The counts of a run, in the order in which they are shown."""
BAD_OUTCOMES: Final = (REFUSED, TRUNCATED, INVALID)
"""How a generation ends whose answer was paid for and is no content."""

# Where its text comes from

Origin = Literal["live", "batch", "cache"]
ORIGINS: Final[tuple[Origin, ...]] = get_args(Origin)
LIVE: Final = "live"
BATCH: Final = "batch"
CACHE: Final = "cache"
ASKED: Final = (LIVE, BATCH)
"""The origins of generations that were asked for."""

# What an attempt was made for

Kind = Literal["call", "retry", "repair", "escalation", "batch", "warm_up"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
CALL: Final = "call"
RETRY: Final = "retry"
REPAIR: Final = "repair"
ESCALATION: Final = "escalation"

# How a run asks, how it ended, and what started it

MODE_LIVE: Final = "live"
"""The mode of a run whose requests are answered while it waits."""

RunStatus = Literal["running", "suspended", "completed", "failed", "cancelled", "crashed", "capped"]
RUN_STATUSES: Final[tuple[RunStatus, ...]] = get_args(RunStatus)
RUNNING: Final = "running"
SUSPENDED: Final = "suspended"
"""The status of a run that was left until its due time, or until somebody takes it up."""
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
CRASHED: Final = "crashed"
CAPPED: Final = "capped"
NOT_OVER: Final = (RUNNING, SUSPENDED, CRASHED)
"""The stored statuses of runs that may still be taken up."""

Trigger = Literal["command", "schedule", "deployment", "shard"]
TRIGGERS: Final[tuple[Trigger, ...]] = get_args(Trigger)
COMMAND: Final = "command"
SCHEDULE: Final = "schedule"
DEPLOYMENT: Final = "deployment"
SHARD: Final = "shard"

# Who works on a run, and how far its steps are

MAIN: Final = "main"
"""The worker of the lease that leads its run; the others are helpers."""
HELPER: Final = "helper"
"""What the worker of a helper's lease begins with: `helper 3`."""
StepState = Literal["open", "done"]
STEP_STATES: Final[tuple[StepState, ...]] = get_args(StepState)
OPEN: Final = "open"
DONE: Final = "done"

# Errors of attempts that decide what is counted

NOT_SENT: Final = "not_sent"
CONNECT: Final = "connect"
UNSENT: Final = (NOT_SENT, CONNECT)
"""Errors after which nothing can have been billed: no byte of the request reached the endpoint."""
CONNECTION: Final = "connection"
TIMEOUT: Final = "timeout"
ABANDONED: Final = "abandoned"
PROXY: Final = "proxy"
PERHAPS_BILLED: Final = (CONNECTION, TIMEOUT, ABANDONED, CRASHED, PROXY)
"""Errors after which an answer may have been generated, and billed, that never arrived.

`proxy` is a 502 or 504 of something that stands before the endpoint: the endpoint itself may have answered.
"""

# Why a generation has no content, where that is not the endpoint's own word

CALL_ERROR: Final = "call"
"""An error of a call that nothing tells more of."""
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
"""What the Python package and the command are called, and Prefect's resource of all content."""

# Prefect

TAG: Final = "presswork"
"""The tag of every deployment and run of ours."""
SHARD_TAG: Final = "presswork-shard"
"""The only tag of shards: what an automation does for runs by their tags, such as rerunning them, is not for these."""
POOL: Final = "presswork"
"""The work pool of one machine."""
SHARDS: Final = "-shards"
"""What follows a deployment's name in the one that its runs make for their shards."""

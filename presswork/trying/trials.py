"""Say what to try, and what came of it: plain values, so that whatever shows a trial loads neither engine nor SDK."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from presswork.output_classes.validate import Fault
from presswork.report.sent_prompts import SentPrompt

FIRST_RECORDS = 3
"""How many records are tried if none is named."""
SKIPPED_BY_CAP = "Not asked: the cost cap of the session is reached."
LABEL_HASH = 12
"""Characters of a version's hash that people see; --against finds the version by them."""
TRIAL_CAP_USD = 1.0
"""What all trials of one session may cost, unless something else is said."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to try.

    - `keys`: the records; if empty, the first `limit` records of the select.
    - `sets`: values of the template's params, as `--set` gives them.
    - `inputs_of`: the run whose outputs are the inputs of a step of a flow.
    - `max_cost`: US dollars that all trials of one session may cost together. If costs are unknown, such as those of
      a model without a known price, there is no cap, unless `keeps_cap`: then the trial fails.
    - `refresh`: request again what the ledger has, once in a session.
    """

    template: str
    keys: tuple[str, ...] = ()
    limit: int = FIRST_RECORDS
    sets: Mapping[str, Any] = field(default_factory=dict)
    inputs_of: str | None = None
    max_cost: float = TRIAL_CAP_USD
    keeps_cap: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The tokens of requests; `input_tokens` include those written to and read from the prompt cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TriedRecord:
    """What came of one record.

    - `status`: one of db.words.STATUSES; `generation_id` is the row of it, for `presswork show`.
    - `is_cached`: the ledger had the answer, so this trial made no request for it.
    - `system`, `prompt`: what Claude reads, and its user's part without examples; empty if it could not be rendered.
    - `sent`: the same request laid out for reading, with what came from the record marked.
    - `output`: the content; None without one. `raw`: the last answer as it came, if it is not content.
    - `faults`: what validation said about the last answer that it refused. With content, a repair followed.
    - `error`: why there is no content.
    - `requests`, `tokens`, `cost_usd`, `latency_ms`: of this trial's own requests. A cost of None is unknown.
    - `elapsed_ms`: from the first of these to the end of the last, with the pauses after errors.
    - `answer_tokens`, `answer_usd`: of all requests that led to the answer, also if an earlier run made them.
    """

    key: str
    generation_id: str
    status: str
    is_cached: bool = False
    system: str = ""
    prompt: str = ""
    sent: SentPrompt | None = None
    output: Any = None
    raw: str | None = None
    faults: tuple[Fault, ...] = ()
    error: str | None = None
    requests: int = 0
    tokens: TokenCounts = TokenCounts()
    cost_usd: Decimal | None = Decimal(0)
    latency_ms: int = 0
    elapsed_ms: int = 0
    answer_tokens: TokenCounts = TokenCounts()
    answer_usd: Decimal | None = Decimal(0)


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial: a run of the ledger, and its records in the order in which they were selected.

    - `missing`: keys of the session's first trial that the select no longer finds.
    - `note`: what is uncertain about the inputs that a past run gave, or why there is no cap.
    - `requests`, `tokens`, `cost_usd`: of all its requests; `unpriced` is how many have no known price.
    - `session_usd`: what all trials of the session have cost so far, with those that were perhaps billed.
    - `wall_s`: seconds from the call to the end, reading the records included.
    - `stopped`: why not all records were asked, such as the cost cap.
    - `is_capped`: false if no cap could be kept, because costs are unknown.
    """

    run_id: str
    template: str
    template_hash: str
    endpoint: str
    records: Sequence[TriedRecord]
    missing: tuple[str, ...] = ()
    note: str | None = None
    requests: int = 0
    tokens: TokenCounts = TokenCounts()
    cost_usd: Decimal | None = Decimal(0)
    unpriced: int = 0
    session_usd: Decimal = Decimal(0)
    wall_s: float = 0.0
    stopped: str | None = None
    is_capped: bool = True

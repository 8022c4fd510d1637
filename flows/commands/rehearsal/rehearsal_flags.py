"""The flags of `presswork rehearse`, in the two groups that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class RehearsedRunFlags:
    """What the rehearsed run is started with: the fields are those of RunOptions."""

    limit: Annotated[
        int | None, typer.Option(help="The first records of the select; default: all, as in the real run.")
    ] = None
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight at most.")] = None
    chunk_size: Annotated[int | None, typer.Option(help="Prompts that one Prefect task run carries.")] = None
    rpm: Annotated[int | None, typer.Option(help="Requests a minute that the run holds to by itself.")] = None
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="Stop before more than this is spent.")] = None


@dataclass(frozen=True)
class TermFlags:
    """How the sandbox answers; what is not given is known from the ledger, or assumed."""

    latency_ms: Annotated[
        float | None, typer.Option(help="Median latency; default: that of your ledger's answers, else 3,000.")
    ] = None
    latency_spread: Annotated[
        float | None, typer.Option(help="Sigma of the lognormal; default: as your ledger has it, else 0.3.")
    ] = None
    rpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: requests a minute.")] = None
    itpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: input tokens a minute.")] = None
    otpm_limit: Annotated[int | None, typer.Option(help="Your account's limit: output tokens a minute.")] = None
    rate_limited: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are 429.")] = None
    overloaded: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are 529.")] = None
    drops: Annotated[float | None, typer.Option(metavar="PERCENT", help="Connections that are lost.")] = None
    invalid: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that break a constraint.")] = None
    truncated: Annotated[float | None, typer.Option(metavar="PERCENT", help="Answers that are cut off.")] = None
    refused: Annotated[float | None, typer.Option(metavar="PERCENT", help="Prompts that are refused.")] = None
    switches: Annotated[
        list[str] | None,
        typer.Option("--switch", metavar="NAME=VALUE", help="Any switch of `presswork sandbox`; may be repeated."),
    ] = None
    seed: Annotated[int, typer.Option(help="With another seed other requests meet the faults.")] = 0

"""The arguments and flags of each command; a class's docstring is the command's help. presswork/cli.py has the table.

They are separate from the commands' work, so that help and typing mistakes appear before slow modules are loaded. A
flag means the same in every command that has it.
"""

from dataclasses import dataclass, field
from typing import Annotated

from typer import Argument, Option

from db.words import POOL
from presswork.errors import ParameterError

OfSandbox = Annotated[bool, Option("--sandbox", help="Use the sandbox's ledger if PRESSWORK_DATABASE_URL is not set.")]
Sets = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Set a parameter of the flow or template. Can be repeated."),
]


@dataclass(frozen=True)
class Flags:
    """The flags of every command; they come after its own."""

    as_json: Annotated[bool, Option("--json", help="Print JSON for programs.")] = field(default=False, kw_only=True)


class DemoFlags(Flags):
    """Try Presswork on sample records, without any setup.

    Generates product copy, support replies and a newsletter. Without an API key the sandbox answers: nothing leaves
    this machine, and nothing is billed.
    """


@dataclass(frozen=True)
class RunFlags(Flags):
    """Run a flow or a template on the records it selects.

    Content that the ledger already has is reused. Exit status: 0 all records have content, 1 some have none, 2 the
    call, the configuration, the key or the account is wrong, 3 the cost cap stopped the run.
    """

    name: Annotated[str | None, Argument(help="A flow in flows/, or a template in templates/.")] = None
    sets: Sets = None
    limit: Annotated[int | None, Option(help="Take only this many records, in the select's order.")] = None
    refresh: Annotated[bool, Option("--refresh", help="Generate again what the ledger has. This costs money.")] = False
    concurrency: Annotated[int | None, Option(help="Send at most this many requests at once.")] = None
    chunk_size: Annotated[int | None, Option(help="Put this many prompts in one Prefect task run.")] = None
    rpm: Annotated[int | None, Option(help="Send at most this many requests a minute.")] = None
    max_cost: Annotated[
        float | None, Option(metavar="USD", help="Stop before spending more than this, including resumed runs.")
    ] = None
    shards: Annotated[
        int | None, Option(metavar="N", help="Split the run into N shards across its deployment's workers.")
    ] = None
    resume: Annotated[str | None, Option(metavar="RUN_ID", help="Resume a run, with that run's arguments.")] = None


@dataclass(frozen=True)
class RehearseFlags(Flags):
    """Rehearse a run for free, to see its time, cost and failures.

    The sandbox answers, with the latency, limits and faults that you set. Its answers go to a temporary ledger. Nothing
    is sent to the API, and your ledger is only read. Exit status: as for `presswork run`.
    """

    name: Annotated[str, Argument(metavar="NAME", help="A flow in flows/, or a template in templates/.")]
    sets: Sets = None
    limit: Annotated[int | None, Option(help="Take only this many records. Default: all.")] = None
    concurrency: Annotated[int | None, Option(help="Send at most this many requests at once.")] = None
    chunk_size: Annotated[int | None, Option(help="Put this many prompts in one Prefect task run.")] = None
    rpm: Annotated[int | None, Option(help="Send at most this many requests a minute.")] = None
    max_cost: Annotated[float | None, Option(metavar="USD", help="Stop before spending more than this.")] = None
    latency_ms: Annotated[float | None, Option(help="Set the median latency. Default: your ledger's, or 3,000.")] = None
    latency_spread: Annotated[
        float | None, Option(help="Set the sigma of the lognormal latency. Default: your ledger's, or 0.3.")
    ] = None
    rpm_limit: Annotated[int | None, Option(help="Simulate your account's limit of requests a minute.")] = None
    itpm_limit: Annotated[int | None, Option(help="Simulate your account's limit of input tokens a minute.")] = None
    otpm_limit: Annotated[int | None, Option(help="Simulate your account's limit of output tokens a minute.")] = None
    rate_limited: Annotated[float | None, Option(metavar="PERCENT", help="Answer this share with HTTP 429.")] = None
    overloaded: Annotated[float | None, Option(metavar="PERCENT", help="Answer this share with HTTP 529.")] = None
    drops: Annotated[float | None, Option(metavar="PERCENT", help="Drop this share of the connections.")] = None
    invalid: Annotated[float | None, Option(metavar="PERCENT", help="Make this share of answers invalid.")] = None
    truncated: Annotated[float | None, Option(metavar="PERCENT", help="Cut off this share of answers.")] = None
    refused: Annotated[float | None, Option(metavar="PERCENT", help="Refuse this share of prompts.")] = None
    switches: Annotated[
        list[str] | None,
        Option("--switch", metavar="NAME=VALUE", help="Set a switch of `presswork sandbox`. Can be repeated."),
    ] = None
    seed: Annotated[int, Option(help="Choose another number to make other requests fail.")] = 0
    keep: Annotated[bool, Option("--keep", help="Keep the rehearsal's ledger, and print its path.")] = False
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class DeployFlags(Flags):
    """Deploy flows and templates to a Prefect server.

    Deploys the flows in prefect.yaml, and each template that selects its own records and is not a step of a flow.
    Deploying again changes only what differs; an active or paused schedule stays so. Exit status: 0 all are deployed, 1
    some were left out, 2 the call or the configuration is wrong.
    """

    pool: Annotated[str, Option(help="Choose the work pool whose workers execute the runs.")] = POOL


@dataclass(frozen=True)
class UpFlags(Flags):
    """Start Prefect's server with its UI, a worker and the audit room; deploy.

    Keeps the services that already run, and restarts those that ended. They accept connections from this machine only,
    unless PREFECT_SERVER_API_HOST is set.
    """

    foreground: Annotated[
        bool, Option("--foreground", help="Supervise in the foreground, for systemd and containers.")
    ] = False


class StatusFlags(Flags):
    """Show services, runs, recent failures and retiring models.

    Exit status: 0 the server and the worker are healthy, 1 at least one is not, or was never started.
    """


class DownFlags(Flags):
    """Stop what `presswork up` started, and the server that stayed after a command.

    Stops the worker's flow runs as Ctrl-C does: they wait for the requests in flight and record them.
    """


@dataclass(frozen=True)
class SandboxFlags(Flags):
    """Run the sandbox: a local Messages API that costs nothing.

    It makes up each answer from the JSON schema of the request. It listens on loopback only.
    """

    port: Annotated[int, Option(min=0, max=65535, help="Listen on this port. Use 0 for any free port.")] = 8765
    switches: Annotated[
        list[str] | None,
        Option(
            "--switch",
            metavar="NAME=VALUE",
            help="Set latency, limits or faults, such as latency_ms=350, overloaded=0.02. Can be repeated.",
        ),
    ] = None


class TemplatesFlags(Flags):
    """List the templates, and which can run by themselves."""


@dataclass(frozen=True)
class LintFlags(Flags):
    """Find mistakes in templates, without sending a request.

    Needs neither a database nor a key. Exit status: 0 no errors, 2 a template has an error.
    """

    names: Annotated[list[str] | None, Argument(metavar="[NAME]...", help="The templates to check. Default: all.")] = (
        None
    )
    online: Annotated[
        bool, Option("--online", help="Also check the models' limits and retirement at the endpoint.")
    ] = False


@dataclass(frozen=True)
class RequestFlags(Flags):
    """Print the request for one record, without sending it."""

    name: Annotated[str, Argument(help="A template that selects its own records.")]
    key: Annotated[str, Option(help="The key of the record.")]
    sets: Sets = None
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class TryFlags(Flags):
    """Try a template on a few records, and see each prompt, its answer and what it cost.

    Answers go to the ledger, so a run does not pay for them again, but none is current content until a run uses it.
    Exit status: as for `presswork run`; 0 if you end --watch while it waits.
    """

    name: Annotated[str, Argument(metavar="NAME", help="A template in templates/.")]
    keys: Annotated[
        list[str] | None, Option("--key", metavar="KEY", help="Try the record with this key. Can be repeated.")
    ] = None
    limit: Annotated[
        int | None,
        Option(min=1, max=100, help="Try this many records, the first of the select. Default: 3, at most 100."),
    ] = None
    sets: Sets = None
    watch: Annotated[bool, Option("--watch", help="Ask again at each save, and show what changed in the answers.")] = (
        False
    )
    against: Annotated[
        str | None,
        Option(metavar="HASH|git:REV", help="Show another version of the template next to this one, such as git:HEAD."),
    ] = None
    run: Annotated[str | None, Option(metavar="ID", help="Take a step's inputs from this run.")] = None
    max_cost: Annotated[
        float | None, Option(metavar="USD", help="Stop before all versions cost more than this. Default: 1.")
    ] = None
    refresh: Annotated[
        bool, Option("--refresh", help="Ask again for answers that the ledger has. This costs money.")
    ] = False
    sandbox: Annotated[bool, Option("--sandbox", help="Let the sandbox make up the answers, for nothing.")] = False


def parse_sets(items: list[str] | None) -> dict[str, str]:
    """Read `--set name=value`. Raises ParameterError if the `=` or the name is missing, or a name comes twice."""
    found: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ParameterError(f"--set takes name=value, such as --set category=tea. Given: {item!r}.")
        if name in found:
            raise ParameterError(f"--set gives {name!r} twice. Give it once.")
        found[name] = value
    return found

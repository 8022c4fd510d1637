"""What people type: each command's arguments and flags, and as its docstring its help; presswork/cli.py has the list.

They stand apart from the work, so that help and mistakes of typing appear before anything is loaded that takes time.
Flags that several commands share mean the same everywhere.
"""

from dataclasses import dataclass, field
from typing import Annotated

from typer import Argument, Option

from db.words import POOL
from presswork.errors import ParameterError

OfSandbox = Annotated[
    bool, Option("--sandbox", help="Use the sandbox's own ledger, where PRESSWORK_DATABASE_URL names none.")
]
Sets = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="A parameter of the flow or template; may be repeated."),
]


@dataclass(frozen=True)
class Flags:
    """What every command takes, after its own."""

    as_json: Annotated[bool, Option("--json", help="Print JSON for programs.")] = field(default=False, kw_only=True)


class DemoFlags(Flags):
    """Try Presswork on sample records; nothing to set up.

    They become product copy, support replies and a newsletter. Without an API key the sandbox answers: then nothing
    is sent anywhere and nothing is billed.
    """


@dataclass(frozen=True)
class RunFlags(Flags):
    """Run a flow or a template on the records it selects.

    What the ledger already has is not asked for again. Exit status: 0 all records have content, 1 some have
    not, 2 the call, the configuration, the key or the account is wrong, 3 the cost cap stopped the run.
    """

    name: Annotated[str | None, Argument(help="A flow in flows/, or a template in templates/.")] = None
    sets: Sets = None
    limit: Annotated[int | None, Option(help="The first records of the select, in its own order.")] = None
    refresh: Annotated[bool, Option("--refresh", help="Ask again for what the ledger already has. It costs money.")] = (
        False
    )
    concurrency: Annotated[int | None, Option(help="Requests in flight at most.")] = None
    chunk_size: Annotated[int | None, Option(help="Prompts that one Prefect task run carries.")] = None
    rpm: Annotated[int | None, Option(help="Requests a minute at most.")] = None
    max_cost: Annotated[
        float | None,
        Option(metavar="USD", help="Stop before more than this is spent, by earlier runs that it resumes too."),
    ] = None
    shards: Annotated[
        int | None, Option(metavar="N", help="Spread the run over the workers of its deployment, in N parts.")
    ] = None
    resume: Annotated[str | None, Option(metavar="RUN_ID", help="Go on from a run, with what it was started with.")] = (
        None
    )


@dataclass(frozen=True)
class RehearseFlags(Flags):
    """Rehearse a run on its own records, for no money: how long it takes, what it costs, what breaks.

    The sandbox answers, with the latency, limits and faults that you name, into a ledger that is thrown away. Nothing
    is sent to the API, and your own ledger is not written. Exit status as that of `presswork run`.
    """

    name: Annotated[str, Argument(metavar="NAME", help="A flow in flows/, or a template in templates/.")]
    sets: Sets = None
    limit: Annotated[int | None, Option(help="The first records of the select; default: all, as in the real run.")] = (
        None
    )
    concurrency: Annotated[int | None, Option(help="Requests in flight at most.")] = None
    chunk_size: Annotated[int | None, Option(help="Prompts that one Prefect task run carries.")] = None
    rpm: Annotated[int | None, Option(help="Requests a minute that the run holds to by itself.")] = None
    max_cost: Annotated[float | None, Option(metavar="USD", help="Stop before more than this is spent.")] = None
    latency_ms: Annotated[
        float | None, Option(help="Median latency; default: that of your ledger's answers, else 3,000.")
    ] = None
    latency_spread: Annotated[
        float | None, Option(help="Sigma of the lognormal; default: as your ledger has it, else 0.3.")
    ] = None
    rpm_limit: Annotated[int | None, Option(help="Your account's limit: requests a minute.")] = None
    itpm_limit: Annotated[int | None, Option(help="Your account's limit: input tokens a minute.")] = None
    otpm_limit: Annotated[int | None, Option(help="Your account's limit: output tokens a minute.")] = None
    rate_limited: Annotated[float | None, Option(metavar="PERCENT", help="Answers that are 429.")] = None
    overloaded: Annotated[float | None, Option(metavar="PERCENT", help="Answers that are 529.")] = None
    drops: Annotated[float | None, Option(metavar="PERCENT", help="Connections that are lost.")] = None
    invalid: Annotated[float | None, Option(metavar="PERCENT", help="Answers that break a constraint.")] = None
    truncated: Annotated[float | None, Option(metavar="PERCENT", help="Answers that are cut off.")] = None
    refused: Annotated[float | None, Option(metavar="PERCENT", help="Prompts that are refused.")] = None
    switches: Annotated[
        list[str] | None,
        Option("--switch", metavar="NAME=VALUE", help="Any switch of `presswork sandbox`; may be repeated."),
    ] = None
    seed: Annotated[int, Option(help="With another seed other requests meet the faults.")] = 0
    keep: Annotated[bool, Option("--keep", help="Keep the rehearsal's ledger, and say where it is.")] = False
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class DeployFlags(Flags):
    """Deploy the flows of prefect.yaml, and each template that selects its own records and is no step of a flow.

    Deploying again changes only what differs, and leaves each schedule on or paused as it stands. Exit status: 0 all
    is deployed, 1 some could not be and was left out, 2 the call or the configuration is wrong.
    """

    pool: Annotated[str, Option(help="The work pool whose workers make the runs.")] = POOL


@dataclass(frozen=True)
class HistoryFlags(Flags):
    """List the runs, or show one of them, or the life of one record.

    The newest run first; one run with its steps and failures. With --key a record's life in a flow or a step: which
    content stood from when to when, and how often runs found that it still did.
    """

    run: Annotated[
        str | None,
        Argument(metavar="RUN|NAME", help="A run's id, or 6 characters of it or more; with --key a flow or a step."),
    ] = None
    key: Annotated[str | None, Option(help="Show the life of the record with this key.")] = None
    flow: Annotated[str | None, Option(help="Only runs of this flow.")] = None
    limit: Annotated[int, Option(min=1, help="Runs at most, the newest first.")] = 20
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class ShowFlags(Flags):
    """Show one generation, from record to cost.

    Its record, the prompt as it was sent, the answer, each attempt with its usage and cost, and lineage.
    """

    identifier: Annotated[
        str, Argument(metavar="ID", help="A generation's id, or at least 6 characters of its beginning or end.")
    ]
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class UpFlags(Flags):
    """Start what one machine needs: Prefect's server with its UI, the deployments, a worker.

    What already runs is kept, what has ended is started again. All of it listens on this machine only, unless
    PREFECT_SERVER_API_HOST says otherwise.
    """

    foreground: Annotated[
        bool,
        Option(
            "--foreground", help="Stay, and end all when told to or when one of them ends: for systemd and containers."
        ),
    ] = False


class StatusFlags(Flags):
    """Say what is running, what is scheduled next, what failed last, and which models retire soon.

    Exit status: 0 server and worker are well, 1 one of them is not, or neither was started.
    """


class DownFlags(Flags):
    """Stop what `presswork up` has started, and nothing else.

    Flow runs that its worker has started are stopped as by Ctrl-C: what is in flight is waited for and recorded.
    """


@dataclass(frozen=True)
class SandboxFlags(Flags):
    """Run the sandbox: a local Messages API that costs nothing.

    Its answers are made up by the JSON schema of each request; it listens on loopback only.
    """

    port: Annotated[int, Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes any free one.")] = 8765
    switches: Annotated[
        list[str] | None,
        Option(
            "--switch",
            metavar="NAME=VALUE",
            help="What it simulates, such as latency_ms=350, rpm=1000, overloaded=0.02; may be repeated.",
        ),
    ] = None


class TemplatesFlags(Flags):
    """List the templates: what each is for, and which can run by themselves."""


@dataclass(frozen=True)
class LintFlags(Flags):
    """Check templates without a database, a key or a request; exit status 2 where one has an error."""

    names: Annotated[list[str] | None, Argument(metavar="[NAME]...", help="Templates; default: all.")] = None
    online: Annotated[
        bool, Option("--online", help="Ask the endpoint what the models take, and when they retire; needs a key.")
    ] = False


@dataclass(frozen=True)
class RequestFlags(Flags):
    """Print the exact request that one record makes; nothing is sent."""

    name: Annotated[str, Argument(help="A template that selects its own records.")]
    key: Annotated[str, Option(help="The key of the record to fill it with.")]
    sets: Sets = None
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class LedgerFlags(Flags):
    """What the commands of `presswork db` take."""

    sandbox: OfSandbox = False


class UpgradeFlags(LedgerFlags):
    """Bring the ledger's tables up to what this code needs; a ledger that is not there yet is made."""


class CheckFlags(LedgerFlags):
    """Say which ledger is used and whether its tables are current; exit status 2 where they are not."""


class RecoverFlags(LedgerFlags):
    """Write in what waits in spill files since the ledger was away; exit status 2 where one is refused."""


class SizeFlags(LedgerFlags):
    """Say what takes the room of the ledger: by table, and about how much of it can be freed."""


Yes = Annotated[bool, Option("--yes", help="Do it. Without this flag nothing is changed.")]


@dataclass(frozen=True)
class CompactFlags(LedgerFlags):
    """Remove the rows by which runs of earlier releases said that nothing had changed.

    Says how many they are, and removes them with --yes. Content, counts, costs and lives of records stay as they are.
    Not kept, of old runs: the list of failures that were the same as before, and what the cache had saved. Stop it at
    any moment and go on by running it again. Refused while a run is at work on the ledger.
    """

    yes: Yes = False
    vacuum: Annotated[
        bool, Option("--vacuum", help="Give the room of a SQLite file back to the disk; that needs as much meanwhile.")
    ] = False


@dataclass(frozen=True)
class PruneFlags(LedgerFlags):
    """Remove what nothing needs: working rows of runs that are over; records, prompts and texts that no history names.

    Says how many they are, and removes them with --yes. Refused while a run is at work on the ledger.
    """

    yes: Yes = False


@dataclass(frozen=True)
class RebuildFlags(LedgerFlags):
    """Compare the table `content` with the history that it is made from.

    Says for how many records it is wrong, and makes it right with --yes. Exit status: 0 it is right, 1 it is not.
    """

    yes: Yes = False


def parse_sets(items: list[str] | None) -> dict[str, str]:
    """Read `--set name=value`; ParameterError where there is no `=`, no name, or the name a second time."""
    found: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ParameterError(f"--set takes name=value, such as --set category=tea, not {item!r}.")
        if name in found:
            raise ParameterError(f"--set gives {name!r} twice; give it once.")
        found[name] = value
    return found

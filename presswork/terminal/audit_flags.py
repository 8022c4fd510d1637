"""The flags of the commands that read the ledger: what was generated, from what, by which prompt, at what price."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from presswork.terminal.filter_flags import (
    FigureFlags,
    FilterFlags,
    OfCause,
    OfEndpoint,
    OfModel,
    OfOrigin,
    OfStep,
    OfTemplate,
    OfTrigger,
    Since,
    Until,
)
from presswork.terminal.flags import Flags, OfSandbox

OfReplaced = Annotated[
    bool | None,
    Option("--replaced", help="Also list generations that another one of their run replaced. Figures leave them out."),
]


@dataclass(frozen=True)
class HistoryFlags(Flags):
    """List the runs or the generations, or show one run or one record's history.

    Lists begin with the newest. A single run is shown with its steps and failures. --key with a flow or step shows a
    record's history: when each content was current, and how many runs confirmed it. --generations lists generations,
    of the run that you name or of all, and takes --step, --template, --model, --cause, --origin and --key as filters
    too.
    """

    run: Annotated[
        str | None,
        Argument(
            metavar="RUN|NAME",
            help="A run's id, or at least 6 characters of its start or end; with --generations, list only those of "
            "this run. With --key: a flow or step.",
        ),
    ] = None
    key: Annotated[str | None, Option(help="Show the history of the record with this key.")] = None
    generations: Annotated[bool, Option("--generations", help="List generations, of this run or of all.")] = False
    flow: Annotated[str | None, Option(help="List only what is of this flow.")] = None
    status: Annotated[str | None, Option(help="List only what has this status.")] = None
    trigger: OfTrigger = None
    endpoint: OfEndpoint = None
    step: OfStep = None
    template: OfTemplate = None
    model: OfModel = None
    cause: OfCause = None
    origin: OfOrigin = None
    replaced: OfReplaced = None
    since: Since = None
    until: Until = None
    sort: Annotated[
        Literal["started", "cost", "failures", "duration"] | None,
        Option(help="List the runs with the greatest first."),
    ] = None
    limit: Annotated[int, Option(min=1, help="List at most this many.")] = 20
    before: Annotated[str | None, Option(metavar="END", help="Go on where a list has ended.")] = None
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class ShowFlags(Flags):
    """Show one generation, from record to cost.

    Shows its record, the prompt as sent, the answer, each attempt with its usage and cost, and its lineage.
    """

    identifier: Annotated[
        str, Argument(metavar="ID", help="A generation's id, or at least 6 characters of its start or end.")
    ]
    sandbox: OfSandbox = False


Comparable = Literal["answer", "prompt", "record", "template"]


@dataclass(frozen=True)
class DiffFlags(Flags):
    """Show what differs between two generations, word by word.

    Compares answers, prompts or records, and with --of template two versions of a template. Exit status 0, whether or
    not they differ.
    """

    old: Annotated[
        str,
        Argument(metavar="A", help="A generation's id, or at least 6 characters of its start or end. Or a version."),
    ]
    new: Annotated[
        str | None, Argument(metavar="B", help="The newer one. Without it, A is compared with the one before it.")
    ] = None
    of: Annotated[Comparable, Option(help="Compare this.")] = "answer"
    whole: Annotated[bool, Option("--all", help="Also print long texts that are equal.")] = False
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class TemplateHistoryFlags(Flags):
    """List the versions of a template that were used.

    Shows when each was in use, how many generations it made, and their failures, repairs, tokens and costs. Without a
    name it lists all templates.
    """

    name: Annotated[str | None, Argument(metavar="NAME", help="A template, or a step of a flow.")] = None
    version: Annotated[
        str | None, Option(metavar="HASH", help="Show the source of this version. The beginning of its hash is enough.")
    ] = None
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class AuditFlags(Flags):
    """Serve the audit room: pages that show what was generated.

    Shows from what, by which prompt and at what price. It only reads the ledger, and ends with Ctrl-C. On an address
    that other machines reach, PRESSWORK_AUDIT_USER and PRESSWORK_AUDIT_PASSWORD are required.
    """

    port: Annotated[
        int | None, Option(min=0, max=65535, help="Listen on this port. Use 0 for any free port. Default: 4201.")
    ] = None
    host: Annotated[str | None, Option(help="Listen on this address. Default: 127.0.0.1.")] = None
    uds: Annotated[Path | None, Option(metavar="PATH", help="Listen on this Unix socket, which only you can open.")] = (
        None
    )
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class IndexFlags(Flags):
    """Index the words of all answers, for a faster search.

    From then on each run is indexed when it closes. Without an index, a search reads the answers, newest first. You
    can stop it at any moment and run it again to continue.
    """

    remove: Annotated[bool, Option("--remove", help="Remove the index.")] = False
    sandbox: OfSandbox = False


@dataclass(frozen=True)
class BundleFlags(Flags):
    """Write all about one record into one file.

    Holds each generation of the record with its record, prompt, answer, attempts, run and template.
    """

    key: Annotated[str, Option(help="The key of the record.")]
    to: Annotated[Path, Option(metavar="FILE", help="Write to this file, which must not exist.")]
    flow: Annotated[str | None, Option(help="Only content of this flow.")] = None
    sandbox: OfSandbox = False


@dataclass(frozen=True, kw_only=True)
class CostFlags(FigureFlags):
    """Add up what was requested, used and paid.

    Sums are over all requests that match, failed ones included. Days are UTC days.
    """

    by: Annotated[
        str,
        Option(
            metavar="WORDS", help="Add up by these, with commas: day, flow, step, template, model, endpoint, trigger."
        ),
    ] = "flow,model,endpoint"


@dataclass(frozen=True, kw_only=True)
class SearchFlags(FilterFlags):
    """Find generations by the words in their answers, the newest first.

    Finds answers that have all the words, whole and in any case. Put a phrase in quotes of its own: '"red shoe"'. A
    search stops after about a second and says how far it came; `presswork audit index` makes it faster.
    """

    words: Annotated[list[str], Argument(metavar="WORDS", help="Words, and phrases in quotes.")]
    limit: Annotated[int, Option(min=1, max=1000, help="Find at most this many.")] = 20
    replaced: OfReplaced = None
    before: Annotated[str | None, Option(metavar="ID", help="Continue where a search has ended.")] = None


@dataclass(frozen=True, kw_only=True)
class ExportFlags(FilterFlags):
    """Write all generations that match to a file, with records, answers, usage and cost.

    Generations that another one replaced are among them. The ending of the file decides the format: .jsonl, .csv, or
    .parquet (needs the extra `parquet`). An export that was stopped resumes when you run the same command again.
    docs/ledger.md lists the columns.
    """

    to: Annotated[str, Option(metavar="FILE", help="Write to this file, which must not exist. Use - for the screen.")]
    kind: Annotated[
        str | None, Option("--format", help="Write jsonl, csv or parquet, whatever the ending of the file.")
    ] = None
    bom: Annotated[bool, Option("--bom", help="Begin CSV with the mark by which Excel recognizes UTF-8.")] = False
    restart: Annotated[bool, Option("--restart", help="Delete what a stopped export left, and begin again.")] = False

"""`presswork audit bundle`: write a record's life into one file, for anyone who asks.

The file is written generation by generation, so memory does not grow with the length of a life.
"""

from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy import Engine

from db.clock import now
from db.readers.audit.exports import EXPORT_COLUMNS, count_usage
from db.readers.audit.filters import Filter
from db.readers.audit.life_reasons import explain_periods
from db.readers.audit.ways.matching_ids import ids_of_record
from db.readers.lives import read_life
from db.readers.stored_generations import Audit, read_generation
from db.rollups.attempt_sums import dollars_of
from db.session import readable_url
from db.words import PROGRAM
from presswork.commands.ledger.life import period_json
from presswork.commands.ledger.show import audit_json
from presswork.errors import ConfigurationError
from presswork.escaping import quoted
from presswork.exports.unfinished import Unfinished
from presswork.terminal import screen
from presswork.terminal.audit_flags import BundleFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, first_with, ledger_name, ledger_urls, opened

FORMAT = 1
RELATED = 1_000
"""The most parents, and the most children, that a bundle lists of one generation."""
_WHAT = (
    "All that a Presswork ledger holds about one record: each generation with the record as it was read, the prompt as "
    "it was sent, the answer, and each request with its usage and cost; the runs and the sources of the templates; and "
    "what was current when, and why it changed. Times are UTC, money is US dollars, hashes are sha256."
)


def write_bundle(command: CommandContext, flags: BundleFlags) -> None:
    """Write the file, and report what it holds. Raises ConfigurationError if the record is unknown."""
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    files = Unfinished(flags.to)
    with files.claimed():
        found = first_with(urls, lambda ledger: ids_of_record(ledger, flags.key, Filter(flow=flags.flow)))
        if found is None:
            flow = f" in the flow {flags.flow!r}" if flags.flow else ""
            raise ConfigurationError(
                f"No record with the key {quoted(flags.key)} was found{flow} in {' or '.join(map(ledger_name, urls))}. "
                "Give the key as in the column record_key of current_content."
            )
        url, ids = found
        with opened(url) as ledger, files.at_once() as file:
            for part in _parts(ledger, flags, ids):
                file.write(part)
    size = flags.to.stat().st_size
    answer = {"file": str(flags.to), "ledger": readable_url(url), "key": flags.key, "generations": len(ids)}
    said = f"Wrote {len(ids):,} generations of {flags.key} to {flags.to} ({size:,} bytes)."
    command.answer(answer | {"bytes": size}, lambda console: console.print(screen.data(said), soft_wrap=True))


def _parts(ledger: Engine, flags: BundleFlags, ids: list[str]) -> Iterator[bytes]:
    """Yield the JSON object member by member."""
    runs: dict[str, Any] = {}
    templates: dict[str, Any] = {}
    flows: dict[str, None] = {}
    head = _head(ledger, flags, now())
    yield screen.json_text(head).removesuffix(b"\n}") + b',\n  "generations": ['
    for number, generation_id in enumerate(ids):
        audit = read_generation(ledger, generation_id, RELATED)
        if audit is None:
            raise ConfigurationError(f"The generation {generation_id} was removed meanwhile. Try again.")
        runs[str(audit.run["id"])] = audit.run
        flows[str(audit.generation["flow"])] = None
        if audit.template is not None:
            templates[f"{audit.template['name']} {audit.template['hash']}"] = audit.template
        yield (b",\n" if number else b"\n") + screen.json_text(_told(audit))
    yield b"\n  ]"
    lives = [period for flow in flows for period in _life(ledger, flow, flags.key)]
    # Read after the generations, so that no request is listed that is not in them.
    figures = {"generations": len(ids), **_figures(ledger, ids)}
    others = {"life": lives, "runs": list(runs.values()), "templates": list(templates.values()), "figures": figures}
    for name, value in others.items():
        yield f',\n  "{name}": '.encode() + screen.json_text(value)
    yield b"\n}\n"


def _head(ledger: Engine, flags: BundleFlags, moment: datetime) -> dict[str, Any]:
    return {
        "presswork_bundle": FORMAT,
        "what": _WHAT,
        "made_at": moment,
        "made_by": f"{PROGRAM} {version(PROGRAM)}",
        "ledger": readable_url(ledger.url),
        "record_key": flags.key,
        "flow": flags.flow,
    }


def _told(audit: Audit) -> dict[str, Any]:
    """Return a generation without its run and its template, which are in the bundle once."""
    told = audit_json(audit)
    del told["run"], told["template"]
    return told | {"parents_left_out": audit.more_parents, "children_left_out": audit.more_children}


def _life(ledger: Engine, flow: str, key: str) -> Iterator[dict[str, Any]]:
    periods = [period for period in read_life(ledger, flow, key) if period.flow == flow]
    return map(period_json, explain_periods(ledger, periods))


def _figures(ledger: Engine, ids: list[str]) -> dict[str, Any]:
    """Return the usage of the record's own requests; answers that others requested are not in it."""
    return {
        name: dollars_of(value) if value is not None and EXPORT_COLUMNS[name] == "dollars" else value
        for name, value in count_usage(ledger, ids).items()
    }

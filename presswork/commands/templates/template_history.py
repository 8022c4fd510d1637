"""List the versions of templates that the ledger knows: when each was in use, and what its generations came to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from db.readers.audit.template_versions import (
    TemplateLine,
    TemplateVersion,
    VersionFigures,
    chosen_version,
    list_templates,
    template_versions,
)
from presswork.errors import ConfigurationError
from presswork.report.amounts import dollars, percent
from presswork.terminal import screen
from presswork.terminal.audit_flags import TemplateHistoryFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, ledger_name, ledger_urls, opened, say_ledger

HASH_PART = 12
"""Characters of a version's hash in a table."""
_COLUMNS = ["generations", "reused", "no content", "repairs", "tokens in", "tokens out", "cost", "cost each"]


def show_template_history(command: CommandContext, flags: TemplateHistoryFlags) -> None:
    """Print all templates, the versions of one, or the source of a version. ConfigurationError for an unknown one."""
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    with opened(urls[0]) as ledger:
        if not command.as_json:
            say_ledger(urls[0], others=len(urls) > 1)
        if flags.name is None:
            lines = list_templates(ledger)
            command.answer([_line_json(line) for line in lines], lambda console: _print_templates(console, lines))
            return
        versions = template_versions(ledger, flags.name)
    if not versions:
        raise ConfigurationError(
            f"No template and no step with the name {flags.name!r} was ever used in {ledger_name(urls[0])}. "
            f"`{screen.command('templates history')}` lists all."
        )
    if flags.version is not None:
        chosen = chosen_version(versions, flags.version)
        command.answer(_version_json(chosen), lambda console: _print_sources(console, chosen))
        return
    command.answer([_version_json(version) for version in versions], lambda console: _print_versions(console, versions))


def _print_templates(console: Console, lines: Sequence[TemplateLine]) -> None:
    if not lines:
        console.print("No template was used yet.")
        return
    rows = [
        (
            line.name,
            f"{line.versions:,}",
            screen.moment(line.last_used_at),
            (line.last_used or "")[:HASH_PART],
            *_cells(line.figures),
        )
        for line in lines
    ]
    columns = ["template", "versions", "last used (UTC)", "version", *_COLUMNS]
    console.print(screen.table(columns, rows, ["versions", *_COLUMNS]))
    _say_parts(console, [line.figures for line in lines])
    console.print(Text(f"\n`{screen.command('templates history NAME')}` shows the versions of one.", "dim"))


def _print_versions(console: Console, versions: Sequence[TemplateVersion]) -> None:
    rows = [
        (
            version.hash[:HASH_PART],
            screen.moment(version.use.first_used_at) or ("only tried" if version.use.figures.tried else "never"),
            screen.moment(version.use.last_used_at),
            f"{version.use.runs:,}",
            *_cells(version.use.figures),
        )
        for version in versions
    ]
    columns = ["version", "in use from (UTC)", "until", "runs", *_COLUMNS]
    console.print(screen.table(columns, rows, ["runs", *_COLUMNS]))
    _say_parts(console, [version.use.figures for version in versions])
    if len(versions) > 1:
        newer, older = (version.hash[:HASH_PART] for version in versions[:2])
        console.print()
        console.print(Text(f"`{screen.command(f'diff {older} {newer} --of template')}` shows what changed.", "dim"))


def _say_parts(console: Console, figures: Sequence[VersionFigures]) -> None:
    if count := sum(each.on_sandbox for each in figures):
        console.print(Text(f"\n{count:,} of these generations are of the sandbox, which bills nothing.", "yellow"))
    if count := sum(each.tried for each in figures):
        console.print(
            Text(f"\n{count:,} of these generations are of trials. They make no version one in use.", "yellow")
        )


def _print_sources(console: Console, version: TemplateVersion) -> None:
    if version.sources is None:
        console.print("The ledger does not have its source: the step was made in code.")
        return
    for file, text in version.sources.items():
        screen.turn(console, file, text)


def _cells(figures: VersionFigures) -> list[str | Text]:
    without = figures.without_content
    rate = f" ({percent(figures.failure_rate)})" if figures.failure_rate else ""
    usage, each = figures.usage, figures.cost_each_usd
    return [
        f"{figures.generations:,}",
        f"{figures.cached:,}",
        Text(f"{without:,}{rate}", "red" if without else "dim"),
        f"{figures.repairs:,}",
        "" if figures.input_tokens_each is None else f"{figures.input_tokens_each:,.0f}",
        "" if figures.output_tokens_each is None else f"{figures.output_tokens_each:,.0f}",
        "" if usage.cost_usd is None else dollars(usage.cost_usd, usage.unpriced),
        "" if each is None else dollars(each),
    ]


def _line_json(line: TemplateLine) -> dict[str, Any]:
    return {**asdict(line), "figures": _figures_json(line.figures)}


def _version_json(version: TemplateVersion) -> dict[str, Any]:
    use: Mapping[str, Any] = asdict(version.use)
    return {**asdict(version), "use": {**use, "figures": _figures_json(version.use.figures)}}


def _figures_json(figures: VersionFigures) -> dict[str, Any]:
    return {
        **asdict(figures),
        "failure_rate": figures.failure_rate,
        "input_tokens_each": figures.input_tokens_each,
        "output_tokens_each": figures.output_tokens_each,
        "cost_each_usd": figures.cost_each_usd,
    }

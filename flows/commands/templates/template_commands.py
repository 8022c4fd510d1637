"""`presswork templates`: which there are, what is wrong with them, and the exact request for one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from db.words import ANTHROPIC
from flows.commands.terminal import screen
from flows.commands.terminal.endings import WRONG, command_context
from flows.commands.terminal.flags import AsJson, OfSandbox, Sets, parse_sets
from flows.commands.terminal.prompt_view import print_request
from flows.engine.report.amounts import counted
from flows.errors import ConfigurationError

if TYPE_CHECKING:
    from flows.settings import Settings
    from flows.steps.prompts.front_matter import FrontMatter
    from flows.steps.prompts.lint import Finding
    from flows.steps.prompts.render import Prompt

app = typer.Typer(help="List, check and try the prompt files in templates/.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the templates: what each is for, and which can run by themselves."""
    with command_context(as_json=as_json) as command:
        from flows.steps.prompts.templates import read_heads  # noqa: PLC0415 - as above

        folder = command.settings.templates_dir
        found = [{"name": name, **_summary(head)} for name, head in read_heads(folder)]
        command.answer(found, lambda console: _print_list(console, found, folder))


@app.command()
def lint(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Templates; default: all.")] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Ask the endpoint what the models take, and when they retire; needs a key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check templates without a database, a key or a request; exit status 2 where one has an error."""
    with command_context(as_json=as_json) as command:
        from flows.commands.templates.retiring import ask_endpoint, models_of  # noqa: PLC0415 - see commands/__init__.py
        from flows.steps.prompts.lint import lint_template  # noqa: PLC0415
        from flows.steps.prompts.templates import list_templates  # noqa: PLC0415

        settings = command.settings
        folder = settings.templates_dir
        known = list_templates(folder)
        unknown = [name for name in names or [] if name not in known]
        if unknown:
            raise ConfigurationError(
                f"There is no template {unknown[0]!r} in {folder.name}/; there are: {', '.join(known) or 'none'}."
            )
        chosen = names or known
        said = ask_endpoint(settings, models_of(folder, chosen)) if online else {}
        findings = [finding for name in chosen for finding in lint_template(folder, name, told=said)]
        findings = list(dict.fromkeys(findings))  # what stands in an include is found with each that includes it
        errors = sum(finding.level == "error" for finding in findings)
        answer = {"templates": chosen, "errors": errors, "findings": [asdict(finding) for finding in findings]}
        command.answer(answer, lambda console: _print_findings(console, findings, len(chosen), errors))
        if errors:
            raise typer.Exit(WRONG)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A template that selects its own records.")],
    key: Annotated[str, typer.Option(help="The key of the record to fill it with.")],
    sets: Sets = None,
    sandbox: OfSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Print the exact request that one record makes; nothing is sent."""
    with command_context(as_json=as_json) as command:
        from flows.steps.prompts.render import request_body  # noqa: PLC0415

        values = parse_sets(sets)
        settings = command.settings
        prompt, nulls = _render(settings, name, key, values, sandbox=sandbox)
        request, endpoint = request_body(prompt), prompt.brief.endpoint
        answer = {"endpoint": endpoint, "prompt_hash": prompt.hash, "nulls": nulls, "request": request}
        if settings.endpoint is None:
            endpoint += " (assumed, as PRESSWORK_ENDPOINT is not set; another endpoint gives another hash)"
        facts = [("prompt hash", prompt.hash), ("endpoint", endpoint), ("sent", "nothing")]
        # Below the request, which stays what Claude would read: there a NULL is nothing.
        facts = [("NULL", ", ".join(nulls)), *facts] if nulls else facts
        command.answer(answer, lambda console: _print_request(console, request, facts))


def _summary(front: FrontMatter | ConfigurationError) -> dict[str, Any]:
    if isinstance(front, Exception):
        return {"error": str(front)}
    return {
        "description": front.description,
        "output": front.output_name,
        "model": front.model,
        "source": front.source,
        "selects": front.select is not None,
        "params": {
            name: {"type": param.type, "required": param.required, "default": None if param.required else param.default}
            for name, param in front.params.items()
        },
    }


def _print_list(console: Console, found: Sequence[dict[str, Any]], folder: Path) -> None:
    if not found:
        console.print(screen.data(f"There is no template in {folder}: a template is a file NAME.md.j2."))
        return
    rows: list[tuple[Any, ...]] = []
    for item in found:
        if "error" in item:
            rows.append((item["name"], "", "", screen.data(item["error"], "red")))
            continue
        takes = " ".join(f"--set {name}=..." for name in item["params"])
        what = screen.data(item["description"] or "")
        if not item["selects"]:
            what.append(" (a step of a flow)", "dim")
        rows.append((item["name"], item["output"], takes, what))
    console.print(screen.table(["template", "output", "takes", "what it is for"], rows))


def _print_findings(console: Console, findings: Sequence[Finding], checked: int, errors: int) -> None:
    for finding in findings:
        text = Text()
        text.append(f"{finding.level}: ", "bold red" if finding.level == "error" else "yellow")
        text.append(screen.visible(str(finding)))
        console.print(text)
    notes = len(findings) - errors
    total = f"{counted(checked, 'template')}: {counted(errors, 'error')}, {counted(notes, 'note')}"
    console.print(Text(total + ".", "bold red" if errors else "bold green"))


def _render(
    settings: Settings, name: str, key: str, values: dict[str, str], *, sandbox: bool
) -> tuple[Prompt, list[str]]:
    """Return the prompt of a record, and which values of the record and the params are NULL."""
    from db.sources.select import read_record  # noqa: PLC0415 - see commands/__init__.py
    from flows.commands.ledger.ledgers import first_url  # noqa: PLC0415 - see commands/__init__.py
    from flows.engine.resources.preflight import opened_source  # noqa: PLC0415
    from flows.engine.resources.source_reads import query_of, read_interruptibly  # noqa: PLC0415
    from flows.steps.prompts.nulls import paths_of_nulls  # noqa: PLC0415 - as above
    from flows.steps.prompts.render import make_brief, render_prompt  # noqa: PLC0415
    from flows.steps.prompts.templates import load_template  # noqa: PLC0415

    template = load_template(settings.templates_dir, name)
    params = template.parse_params(values)
    query = query_of(template, params)
    brief = make_brief(template, settings.endpoint or ANTHROPIC, params)
    with opened_source(settings, template, first_url(settings, sandbox=sandbox)) as source:
        record = read_interruptibly(source, lambda engine: read_record(engine, query, key))
    if record is None:
        several = " The key of several columns is their texts with | between them, such as '10248|11'."
        raise ConfigurationError(
            f"The select of {name!r} yields no record whose {template.key} is {key!r}."
            + (several if len(template.front.key_columns) > 1 else "")
        )
    nulls = [*paths_of_nulls(record.data, "record"), *paths_of_nulls(params, "params")]
    return render_prompt(brief, {"record": record.data}), nulls


def _print_request(console: Console, request: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> None:
    print_request(console, request)
    console.print()
    screen.print_facts(console, facts)

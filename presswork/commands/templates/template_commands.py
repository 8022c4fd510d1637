"""List the templates, and print the mistakes that the lint finds in them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from presswork.claude.kept_schemas import schemas_kept
from presswork.errors import ConfigurationError
from presswork.escaping import visible
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.lint import Finding, ModelsByName, lint_template
from presswork.prompts.templates import list_templates, read_heads
from presswork.report.amounts import counted
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_WRONG, CommandContext
from presswork.terminal.flags import LintFlags, TemplatesFlags


@dataclass(frozen=True)
class ChosenTemplates:
    """The templates to lint."""

    names: list[str]


def show_templates(command: CommandContext, _flags: TemplatesFlags) -> None:
    """Print all templates."""
    folder = command.settings.templates_dir
    found = [{"name": name, **_summary(head)} for name, head in read_heads(folder)]
    command.answer(found, lambda console: _print_list(console, found, folder))


def lint(command: CommandContext, flags: LintFlags) -> int | ChosenTemplates:
    """Lint the named templates, by default all. With --online, only choose them: asking.py lints them."""
    folder = command.settings.templates_dir
    known = list_templates(folder)
    unknown = [name for name in flags.names or [] if name not in known]
    if unknown:
        raise ConfigurationError(
            f"There is no template {unknown[0]!r} in {folder.name}/. Available: {', '.join(known) or 'none'}."
        )
    chosen = ChosenTemplates(flags.names or known)
    return chosen if flags.online else print_lint(command, chosen, {})


def print_lint(command: CommandContext, chosen: ChosenTemplates, reported: ModelsByName) -> int:
    """Lint templates and print the findings; return EXIT_WRONG if one is an error.

    `reported` is what the endpoint said about models, if it was asked.
    """
    folder, names = command.settings.templates_dir, chosen.names
    with schemas_kept(command.settings.state_dir / "schemas"):
        findings = [finding for name in names for finding in lint_template(folder, name, told=reported)]
    findings = list(dict.fromkeys(findings))  # a mistake in an include is found once for each template that includes it
    errors = sum(finding.level == "error" for finding in findings)
    answer = {"templates": names, "errors": errors, "findings": [asdict(finding) for finding in findings]}
    command.answer(answer, lambda console: _print_findings(console, findings, len(names), errors))
    return EXIT_WRONG if errors else 0


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
        console.print(screen.data(f"There are no templates in {folder}. A template is a file NAME.md.j2."))
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
    console.print(screen.table(["template", "output", "parameters", "description"], rows))


def _print_findings(console: Console, findings: Sequence[Finding], checked: int, errors: int) -> None:
    for finding in findings:
        level = Text(f"{finding.level}: ", "bold red" if finding.level == "error" else "yellow")
        console.print(Text.assemble(level, visible(str(finding))))
    notes = len(findings) - errors
    total = f"{counted(checked, 'template')}: {counted(errors, 'error')}, {counted(notes, 'note')}"
    console.print(Text(total + ".", "bold red" if errors else "bold green"))

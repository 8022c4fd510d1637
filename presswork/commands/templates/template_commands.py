"""`presswork templates list` and `lint`: which there are, and what is wrong with them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from presswork.commands.templates.retiring import ask_endpoint, models_of
from presswork.errors import ConfigurationError
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.lint import Finding, lint_template
from presswork.prompts.templates import list_templates, read_heads
from presswork.report.amounts import counted
from presswork.terminal import screen
from presswork.terminal.endings import EXIT_WRONG, CommandContext
from presswork.terminal.flags import LintFlags, TemplatesFlags


def list_(command: CommandContext, _flags: TemplatesFlags) -> None:
    """Print the templates."""
    folder = command.settings.templates_dir
    found = [{"name": name, **_summary(head)} for name, head in read_heads(folder)]
    command.answer(found, lambda console: _print_list(console, found, folder))


def lint(command: CommandContext, flags: LintFlags) -> int:
    """Print what is found in the templates that are named, or in all; return EXIT_WRONG where one has an error."""
    settings = command.settings
    folder = settings.templates_dir
    known = list_templates(folder)
    unknown = [name for name in flags.names or [] if name not in known]
    if unknown:
        raise ConfigurationError(
            f"There is no template {unknown[0]!r} in {folder.name}/; there are: {', '.join(known) or 'none'}."
        )
    chosen = flags.names or known
    said = ask_endpoint(settings, models_of(folder, chosen)) if flags.online else {}
    findings = [finding for name in chosen for finding in lint_template(folder, name, told=said)]
    findings = list(dict.fromkeys(findings))  # what stands in an include is found with each that includes it
    errors = sum(finding.level == "error" for finding in findings)
    answer = {"templates": chosen, "errors": errors, "findings": [asdict(finding) for finding in findings]}
    command.answer(answer, lambda console: _print_findings(console, findings, len(chosen), errors))
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
        level = Text(f"{finding.level}: ", "bold red" if finding.level == "error" else "yellow")
        console.print(Text.assemble(level, screen.visible(str(finding))))
    notes = len(findings) - errors
    total = f"{counted(checked, 'template')}: {counted(errors, 'error')}, {counted(notes, 'note')}"
    console.print(Text(total + ".", "bold red" if errors else "bold green"))

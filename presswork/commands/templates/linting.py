"""Print the mistakes that the lint finds in templates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.text import Text

from presswork.catalog import ModelsByName
from presswork.claude.kept_schemas import schemas_kept
from presswork.escaping import visible
from presswork.prompts.lint import Finding, lint_template
from presswork.prompts.templates import list_templates, no_such_template
from presswork.report.amounts import counted
from presswork.terminal.endings import EXIT_WRONG, CommandContext
from presswork.terminal.flags import LintFlags


@dataclass(frozen=True)
class ChosenTemplates:
    """The templates to lint."""

    names: list[str]


def lint(command: CommandContext, flags: LintFlags) -> int | ChosenTemplates:
    """Lint the named templates, by default all. With --online, only choose them: asking.py lints them."""
    folder = command.settings.templates_dir
    known = list_templates(folder)
    unknown = [name for name in flags.names or [] if name not in known]
    if unknown:
        raise no_such_template(folder, unknown[0])
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


def _print_findings(console: Console, findings: Sequence[Finding], checked: int, errors: int) -> None:
    for finding in findings:
        level = Text(f"{finding.level}: ", "bold red" if finding.level == "error" else "yellow")
        console.print(Text.assemble(level, visible(str(finding))))
    notes = len(findings) - errors
    total = f"{counted(checked, 'template')}: {counted(errors, 'error')}, {counted(notes, 'note')}"
    console.print(Text(total + ".", "bold red" if errors else "bold green"))

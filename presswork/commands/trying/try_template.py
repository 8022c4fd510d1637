"""Check the flags and the template of `presswork templates try`, quickly, so that mistakes are reported at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.text import Text

from db.words import SANDBOX
from presswork.errors import ConfigurationError, MissingKeyError, ParameterError, TemplateError
from presswork.prompts.flow_source import FLOWS, list_flows, read_flow
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.lint import Finding, errors_that_stop, lint_template
from presswork.prompts.templates import list_templates, no_such_template, read_heads
from presswork.report.amounts import counted
from presswork.settings import Settings, load_settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.environment import environment
from presswork.terminal.flags import TryFlags, parse_sets
from presswork.trying.trials import FIRST_RECORDS, TRIAL_CAP_USD, Asked
from sandbox import Switches, sandbox_process

MISTAKES_LISTED = 10
KEY_VARIABLES = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "PRESSWORK_API_KEY_BLOCK")


@dataclass(frozen=True)
class AskedTrials:
    """The flags of `templates try`, checked, and what they ask a session for."""

    flags: TryFlags
    to_try: Asked

    @property
    def most_records(self) -> int:
        """How many records are tried, or fewer if the select has fewer."""
        return len(self.to_try.keys) or self.to_try.limit


def check_template(command: CommandContext, flags: TryFlags) -> AskedTrials:
    """Check the flags, the template and the key.

    With --watch the template may have mistakes: the watch waits until they are corrected. Raises ParameterError,
    MissingKeyError, TemplateError, or ConfigurationError for an unknown template.
    """
    sets = parse_sets(flags.sets)
    if flags.keys and flags.limit is not None:
        raise ParameterError("--limit chooses the first records, and --key names them. Give one of the two.")
    if flags.max_cost is not None and flags.max_cost <= 0:
        raise ParameterError("--max-cost takes more than 0 US dollars.")
    if flags.watch and flags.against is not None:
        raise ParameterError("--watch shows each version against the one before it. Give --watch or --against.")
    settings = load_settings()
    _require_name(settings, flags.name)
    if not flags.watch:
        _require_inputs(settings, flags)
        _require_no_mistakes(settings, flags.name)
    if flags.sandbox:
        # Before the command reads its settings, because the endpoint is one of them.
        command.hold(_sandbox(say=not command.as_json))
    if not any(os.environ.get(name) for name in KEY_VARIABLES):
        free = screen.command(f"templates try {flags.name} --sandbox")
        raise MissingKeyError(
            f"There is no API key. Set ANTHROPIC_API_KEY, or add --sandbox: `{free}` asks a local sandbox, which makes "
            "up its answers and bills nothing."
        )
    return AskedTrials(flags, _asked(flags, sets, settings))


def _asked(flags: TryFlags, sets: Mapping[str, str], settings: Settings) -> Asked:
    # A cap of the installation is meant for runs of all records, so it can only lower that of trials.
    of_installation = TRIAL_CAP_USD if settings.max_cost is None else min(settings.max_cost, TRIAL_CAP_USD)
    return Asked(
        template=flags.name,
        keys=tuple(dict.fromkeys(flags.keys or ())),
        limit=flags.limit or FIRST_RECORDS,
        sets=sets,
        inputs_of=flags.run,
        max_cost=of_installation if flags.max_cost is None else flags.max_cost,
        keeps_cap=flags.max_cost is not None or settings.max_cost is not None,
        refresh=flags.refresh,
    )


@contextmanager
def _sandbox(*, say: bool) -> Iterator[None]:
    """Let a sandbox answer for as long as the block lasts, whatever endpoint is configured."""
    if say:
        told = "The sandbox answers: a local Messages API that makes up its texts. Nothing is billed."
        screen.err().print(Text(told, "yellow"), soft_wrap=True)
    with (
        sandbox_process(Switches(latency_ms=200, latency_spread=0.3)) as url,
        environment({"ANTHROPIC_BASE_URL": url, "PRESSWORK_ENDPOINT": SANDBOX}),
    ):
        yield


def _require_name(settings: Settings, name: str) -> None:
    folder = settings.templates_dir
    known = list_templates(folder)
    if name in known:
        return
    source = read_flow(FLOWS / f"{name}.py", name) if name.isidentifier() else None
    if source is not None:
        steps = ", ".join(source.templates(known))
        raise ConfigurationError(f"{name!r} is a flow. Try one of its templates: {steps or 'none'}.")
    raise no_such_template(folder, name)


def _require_inputs(settings: Settings, flags: TryFlags) -> None:
    """Raise ParameterError if the template is a step, whose inputs come from a run that is not named."""
    ((_name, head),) = read_heads(settings.templates_dir, [flags.name])
    if not isinstance(head, FrontMatter) or head.select is not None or flags.run is not None:
        return
    flows = [flow for flow in list_flows() if flags.name in _steps_of(settings, flow)]
    of = f" of {' and '.join(flows)}" if flows else ""
    lists = screen.command(f"history --flow {flows[0]}" if flows else "history")
    raise ParameterError(
        f"{flags.name!r} selects no records: it is a step{of}. Take its inputs from a run with --run ID. "
        f"`{lists}` lists the runs."
    )


def _steps_of(settings: Settings, flow: str) -> Sequence[str]:
    source = read_flow(FLOWS / f"{flow}.py", flow)
    return source.templates(list_templates(settings.templates_dir)) if source is not None else ()


def _require_no_mistakes(settings: Settings, name: str) -> None:
    errors = errors_that_stop(lint_template(settings.templates_dir, name, schema=False))
    if errors:
        raise TemplateError(mistakes_in_words(errors))


def mistakes_in_words(errors: Sequence[Finding]) -> str:
    """Write a template's mistakes, a line each if there are several."""
    if len(errors) == 1:
        return str(errors[0])
    more = len(errors) - MISTAKES_LISTED
    lines = [*map(str, errors[:MISTAKES_LISTED]), *([f"and {more} more"] if more > 0 else [])]
    return "\n  ".join([f"The template has {counted(len(errors), 'mistake')}:", *lines])

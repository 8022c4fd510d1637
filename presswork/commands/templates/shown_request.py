"""Show the exact request that one record makes."""

import asyncio
import os
from contextlib import suppress

from rich.console import Console

from db.sources.select import read_record
from db.words import ANTHROPIC
from presswork.commands.templates.asking import ENDPOINT_TIMEOUT_S
from presswork.engine.resources.preflight import name_endpoint, opened_source
from presswork.engine.resources.source_reads import query_of, read_interruptibly
from presswork.errors import CallError, ConfigurationError
from presswork.escaping import quoted
from presswork.prompts.nulls import paths_of_nulls
from presswork.prompts.render import make_brief, render_prompt, request_body
from presswork.prompts.templates import load_template
from presswork.settings import Settings
from presswork.terminal import screen
from presswork.terminal.endings import CommandContext
from presswork.terminal.flags import RequestFlags, parse_sets
from presswork.terminal.ledgers import first_url


def show_request(command: CommandContext, flags: RequestFlags) -> None:
    """Fill the template with the record, and print the request without sending it."""
    values = parse_sets(flags.sets)
    settings = command.settings
    template = load_template(settings.templates_dir, flags.name)
    params = template.parse_params(values)
    query = query_of(template, params)
    endpoint, how = _endpoint_of(settings)
    brief = make_brief(template, endpoint, params)
    with opened_source(settings, template, first_url(settings, sandbox=flags.sandbox)) as source:
        record = read_interruptibly(source, lambda engine: read_record(engine, query, flags.key))
    if record is None:
        several = " If the key has several columns, join them with |, such as '10248|11'."
        raise ConfigurationError(
            f"The select of {flags.name!r} finds no record whose {template.key} is {quoted(flags.key)}."
            + (several if len(template.front.key_columns) > 1 else "")
        )
    prompt = render_prompt(brief, {"record": record.data})
    request = request_body(prompt)
    nulls = [*paths_of_nulls(record.data, "record"), *paths_of_nulls(params, "params")]
    answer = {"endpoint": endpoint, "prompt_hash": prompt.hash, "nulls": nulls, "request": request}
    facts = [("prompt hash", prompt.hash), ("endpoint", endpoint + how), ("sent", "nothing")]

    def show(console: Console) -> None:
        screen.print_request(console, request)
        console.print()
        # Below the request: what Claude reads shows nothing for a NULL.
        screen.print_facts(console, [("NULL", ", ".join(nulls)), *facts] if nulls else facts)

    command.answer(answer, show)


def _endpoint_of(settings: Settings) -> tuple[str, str]:
    """Return the name that a run would find for the endpoint, and how it is known.

    The hash depends on the name. So an endpoint at another URL is asked which one it is, as a run does; without an
    answer it counts as Claude's.
    """
    if settings.endpoint is not None:
        return settings.endpoint, ""
    if os.environ.get("ANTHROPIC_BASE_URL"):
        with suppress(TimeoutError, CallError, ConfigurationError):
            return asyncio.run(asyncio.wait_for(name_endpoint(settings), ENDPOINT_TIMEOUT_S)), ""
    return ANTHROPIC, " (assumed: PRESSWORK_ENDPOINT is not set, and the hash depends on it)"

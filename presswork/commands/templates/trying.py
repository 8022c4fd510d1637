"""Show the exact request that one record makes."""

from rich.console import Console

from db.sources.select import read_record
from db.words import ANTHROPIC
from presswork.engine.resources.preflight import opened_source
from presswork.engine.resources.source_reads import query_of, read_interruptibly
from presswork.errors import ConfigurationError
from presswork.prompts.nulls import paths_of_nulls
from presswork.prompts.render import make_brief, render_prompt, request_body
from presswork.prompts.templates import load_template
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
    brief = make_brief(template, settings.endpoint or ANTHROPIC, params)
    with opened_source(settings, template, first_url(settings, sandbox=flags.sandbox)) as source:
        record = read_interruptibly(source, lambda engine: read_record(engine, query, flags.key))
    if record is None:
        several = " If the key has several columns, join them with |, such as '10248|11'."
        raise ConfigurationError(
            f"The select of {flags.name!r} finds no record whose {template.key} is {flags.key!r}."
            + (several if len(template.front.key_columns) > 1 else "")
        )
    prompt = render_prompt(brief, {"record": record.data})
    request, endpoint = request_body(prompt), brief.endpoint
    nulls = [*paths_of_nulls(record.data, "record"), *paths_of_nulls(params, "params")]
    answer = {"endpoint": endpoint, "prompt_hash": prompt.hash, "nulls": nulls, "request": request}
    if settings.endpoint is None:
        endpoint += " (assumed: PRESSWORK_ENDPOINT is not set, and the hash depends on it)"
    facts = [("prompt hash", prompt.hash), ("endpoint", endpoint), ("sent", "nothing")]

    def show(console: Console) -> None:
        screen.print_request(console, request)
        console.print()
        # Below the request: what Claude reads shows nothing for a NULL.
        screen.print_facts(console, [("NULL", ", ".join(nulls)), *facts] if nulls else facts)

    command.answer(answer, show)

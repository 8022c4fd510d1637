"""`presswork search`: find generations by the words in their answers."""

from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from db.readers.audit.searches import FoundAnswer, SearchPage, search
from db.words import SANDBOX, TRY
from presswork.terminal import screen
from presswork.terminal.asked_filters import wanted_by
from presswork.terminal.audit_flags import SearchFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import NoLedgerError, ledger_urls, opened, say_ledger


def search_answers(command: CommandContext, flags: SearchFlags) -> None:
    """Print the newest answers that have the words. Raises FilterError for words or filters that can't be right."""
    wanted = replace(wanted_by(flags), words=" ".join(flags.words))
    urls = ledger_urls(command.settings, sandbox=flags.sandbox)
    if not urls:
        raise NoLedgerError
    with opened(urls[0]) as ledger:
        page = search(ledger, wanted, flags.before, flags.limit)
    if not command.as_json:
        say_ledger(urls[0], others=len(urls) > 1)
        if page.note:
            screen.say(page.note, "yellow")
    answer = {
        "hits": [_for_programs(hit) for hit in page.hits],
        "before": page.before,
        "searched_back_to": page.searched_back_to,
        "is_indexed": page.is_indexed,
        "note": page.note,
    }
    command.answer(answer, lambda console: _print_page(console, page))


def _for_programs(hit: FoundAnswer) -> dict[str, Any]:
    text = "".join(piece.text for piece in hit.surroundings)
    return {
        **asdict(hit.line),
        "surroundings": text,
        "found": [each.text for each in hit.surroundings if each.is_found],
    }


def _print_page(console: Console, page: SearchPage) -> None:
    for hit in page.hits:
        console.print(_heading(hit), soft_wrap=True)
        pieces = [screen.data(piece.text, "bold yellow" if piece.is_found else "") for piece in hit.surroundings]
        console.print(Text.assemble("  ", *pieces), soft_wrap=not console.is_terminal)
    if not page.hits and page.searched_back_to is None:
        console.print("No answer has these words.")
    if page.before is None:
        return
    back = page.searched_back_to
    how_far = "There may be more." if back is None else f"Searched back to {screen.moment(back)} (UTC)."
    console.print(f"\n{how_far} Add `--before {page.before}` to continue.")


def _heading(hit: FoundAnswer) -> Text:
    line = hit.line
    parts = [
        Text(screen.moment(line.created_at), "dim"),
        screen.data(line.flow if line.step == line.flow else f"{line.flow} {line.step}", "cyan"),
        screen.data(line.record_key, "bold"),
        screen.status(line.status),
        Text(screen.short(line.id)),
    ]
    if line.endpoint == SANDBOX:
        parts.append(Text(SANDBOX, "yellow"))
    if line.trigger == TRY:
        parts.append(Text(TRY, "dim"))
    if not line.counts_in_run:
        parts.append(Text("replaced", "dim"))
    return Text("  ").join(parts)

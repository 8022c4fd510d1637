"""Print a tried record: what Claude read, with the data in it marked, its answer, and what validation says."""

from collections.abc import Sequence
from decimal import Decimal

from rich.console import Console
from rich.text import Text

from db.words import SKIPPED, SUCCEEDED
from presswork.commands.trying.try_fields import answer_rows, cut, print_block, print_rows, with_rest
from presswork.escaping import visible
from presswork.output_classes.validate import Fault
from presswork.prompts.rendering.marking import PromptPiece
from presswork.report.amounts import counted, dollars, duration
from presswork.terminal import screen
from presswork.terminal.difference_view import is_plain
from presswork.trying.trials import TokenCounts, TriedRecord

SYSTEM_LINES, PROMPT_LINES = 8, 16
LONGEST_PROMPT = 2_000
"""Characters of a prompt that are printed; `templates show` prints all."""
_KEY_MARKS = {ord("\n"): "␊", ord("\t"): "␉"}
"""Marks as those of `visible`, for what it leaves as it is."""
FROM_DATA = "cyan"


def print_record(console: Console, record: TriedRecord) -> None:
    """Print a record's prompt, answer and figures."""
    console.print()
    console.print(headline(record), soft_wrap=not console.is_terminal)
    if record.prompt:
        _print_prompt_title(console)
        pieces = record.sent.user.pieces if record.sent is not None else [PromptPiece(record.prompt)]
        print_block(console, prompt_text(pieces, plain=is_plain(console)))
    print_answer(console, record)


def print_answer(console: Console, record: TriedRecord) -> None:
    """Print an answer field by field, its faults, and why it is no content."""
    if rows := answer_rows(record):
        _title(console, "answer" if record.output is not None else "answer, not content")
        print_rows(console, rows)
    if record.output is not None:
        # Nothing else says why more than one request was made.
        for fault in record.faults:
            print_block(console, screen.data(f"repaired: {in_words(fault)}", "yellow"), indent=2)
    elif why := _why_no_content(record, are_faults_shown=bool(rows)):
        print_block(console, screen.data(why, "red"), indent=2)


def _why_no_content(record: TriedRecord, *, are_faults_shown: bool) -> str:
    """Say why there is no content, without the faults that are shown at their fields."""
    faults = "; ".join(map(in_words, record.faults)) if are_faults_shown else ""
    return (record.error or "").removeprefix(faults).lstrip(". ")


def print_system(console: Console, record: TriedRecord) -> None:
    """Print the beginning of the system block, which all records share."""
    if record.system:
        _title(console, "system, the same for all records")
        print_block(console, cut(record.system, SYSTEM_LINES))


def headline(record: TriedRecord, moved: str = "") -> Text:
    """Say in one line how a record ended, what it took, and how that moved."""
    mark, style = "✘", "red"
    if record.status == SUCCEEDED:
        mark, style = ("↺", "cyan") if record.is_cached else ("✔", "green")
    elif record.status == SKIPPED:
        mark, style = "■", "yellow"
    parts = [
        ending_of(record),
        *figures_of(record),
        *([moved] if moved else []),
        # Of a record that was skipped, there is nothing more to show.
        *([f"show {screen.short(record.generation_id)}"] if record.status != SKIPPED else []),
    ]
    made = Text.assemble((f"{mark} ", style), (key_in_words(record.key), "bold"), "  ", (parts[0], style))
    return made.append(f" · {' · '.join(parts[1:])}", "dim")


def key_in_words(key: str) -> str:
    """Write a key on one line: in quotes if it is empty, or has blanks or line ends that would not be seen."""
    shown = visible(key).translate(_KEY_MARKS)
    return shown if key and key == key.strip() and "\n" not in key and "\t" not in key else f'"{shown}"'


def in_words(fault: Fault) -> str:
    """Write a fault with its place."""
    return f"{fault.where}: {fault.what}" if fault.where else fault.what


def ending_of(record: TriedRecord) -> str:
    """Say in a word or two how a record ended."""
    if record.status != SUCCEEDED:
        return record.status
    return "from the ledger" if record.is_cached else "valid"


def figures_of(record: TriedRecord) -> list[str]:
    """Say how long a record took, with its tokens and cost; of an answer from the ledger, what it took."""
    if record.is_cached:
        took = record.answer_tokens
        return [f"nothing sent; it took {tokens_in_words(took)}, {cost_in_words(record.answer_usd)}"]
    if not record.requests:
        return ["nothing sent"]
    several = [counted(record.requests, "request")] if record.requests > 1 else []
    cost = cost_in_words(record.cost_usd)
    return [
        duration(max(record.latency_ms, record.elapsed_ms) / 1000),
        *several,
        f"{tokens_in_words(record.tokens)}, {cost}",
    ]


def tokens_in_words(used: TokenCounts) -> str:
    """Write tokens in and out, and how many of them came from the prompt cache."""
    cached = f" ({used.cache_read_tokens:,} from the prompt cache)" if used.cache_read_tokens else ""
    return f"{used.input_tokens:,} tokens in{cached}, {used.output_tokens:,} out"


def cost_in_words(cost: Decimal | None) -> str:
    """Write a cost, or that it is unknown, in a line that has no room for the reason."""
    return "cost unknown" if cost is None else dollars(cost)


def prompt_text(pieces: Sequence[PromptPiece], *, plain: bool) -> Text:
    """Write a prompt's beginning; what came from data has a colour, or signs around it."""
    made = Text()
    for piece in pieces:
        text = visible(piece.text)
        is_marked = piece.source is not None and bool(text.strip())
        made.append(f"«{text}»" if plain and is_marked else text, FROM_DATA if is_marked else "")
    lines = made.split("\n", allow_blank=True)
    kept = Text("\n").join(lines[:PROMPT_LINES])[:LONGEST_PROMPT]
    return with_rest(kept, len(made) - len(kept))


def _print_prompt_title(console: Console) -> None:
    data = "«data»" if is_plain(console) else "data"
    console.print(Text.assemble(("  prompt, with ", "dim"), (data, FROM_DATA), (" marked", "dim")))


def _title(console: Console, title: str) -> None:
    console.print(Text(f"  {title}", "dim"))

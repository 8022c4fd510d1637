"""Print what an edit changed: in what Claude reads, in each answer word by word, and in tokens and cost."""

import json
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from db.words import SANDBOX
from presswork.commands.trying.try_fields import WHOLE, FieldRow, clipped, print_block, print_rows
from presswork.commands.trying.try_record import (
    cost_in_words,
    headline,
    in_words,
    key_in_words,
    print_answer,
    tokens_in_words,
)
from presswork.differences.json_differences import compare_values
from presswork.differences.text_differences import compare_texts
from presswork.escaping import visible
from presswork.report.amounts import counted, dollars, exact_dollars
from presswork.terminal import screen
from presswork.terminal.difference_view import in_one, is_plain
from presswork.trying.trials import LABEL_HASH, Trial, TriedRecord

SCHEMA = "output schema"
MOST_CHANGES = 30
"""Changes of one answer that are printed."""
AROUND = 60
"""Characters of equal text that are printed around a change."""
LONGEST_REASON = 120
SMALLEST_MOVE = Decimal("0.00005")
"""US dollars. A smaller change of a cost would be printed as nothing."""


def print_version(console: Console, number: int, why: str) -> None:
    """Print the line that begins a version; `why` says what was saved, and when."""
    console.print()
    title = f"version {number:,} · {visible(why)}"
    console.print(Rule(Text(title, "bold"), align="left", style="dim") if console.is_terminal else Text(f"== {title}"))


def is_same(before: TriedRecord, now: TriedRecord) -> bool:
    """Whether nothing was asked about a record, because neither its prompt nor its answer changed."""
    return not now.requests and _seen(before) == _seen(now)


def reads_other(before: TriedRecord, now: TriedRecord) -> bool:
    """Whether Claude reads another text about a record than before, or is asked with other settings."""
    return texts_read(before) != texts_read(now)


def _seen(record: TriedRecord) -> tuple[object, ...]:
    return texts_read(record), record.status, record.output, record.raw, record.error


def texts_read(record: TriedRecord) -> dict[str, str]:
    """Return all that Claude reads about a record, and the settings of the request, by what it is."""
    texts = {"system": record.system, f"prompt of {key_in_words(record.key)}": record.prompt}
    if (sent := record.sent) is not None:
        texts["examples"] = "\n\n".join(f"{said.role}: {said.text}" for said in sent.examples)
        texts[SCHEMA] = sent.schema
        texts["settings"] = "\n".join(f"{name}: {value}" for name, value in sent.settings.items())
    return texts


def print_prompt_change(console: Console, before: TriedRecord, now: TriedRecord) -> None:
    """Print what changed in what Claude reads about a record; for the others it changed in the same way."""
    old = texts_read(before)
    for title, text in texts_read(now).items():
        if (earlier := old.get(title, "")) == text:
            continue
        console.print(screen.data(f"  {title}", "dim"))
        if title == SCHEMA and earlier and text:
            print_rows(console, changed_rows(json.loads(earlier), json.loads(text), plain=is_plain(console)))
        else:
            marked = in_one(compare_texts(earlier, text), plain=is_plain(console), context=AROUND)
            print_block(console, clipped(marked))


def print_change(console: Console, before: TriedRecord | None, now: TriedRecord) -> None:
    """Print how a record ended, and what differs from its answer before, field by field."""
    console.print()
    moved = "" if before is None else moved_figures(before, now)
    console.print(headline(now, moved), soft_wrap=not console.is_terminal)
    if before is None or before.output is None or now.output is None:
        if before is not None:
            why = screen.one_line("; ".join(map(in_words, before.faults)) or before.error or "", LONGEST_REASON)
            print_block(console, screen.data(f"before: {before.status}{why and ', '}{why}", "dim"), indent=2)
        print_answer(console, now)
        return
    rows = changed_rows(before.output, now.output, plain=is_plain(console))
    print_rows(console, rows)
    unchanged = compare_values(before.output, now.output).unchanged
    if not rows:
        print_block(console, Text("the same answer as before", "dim"), indent=2)
    elif unchanged:
        print_block(console, screen.data(f"equal: {screen.one_line(', '.join(unchanged), LONGEST_REASON)}", "dim"))


def changed_rows(old: Any, new: Any, *, plain: bool) -> list[FieldRow]:
    """Return a row for each value that changed in an answer or a schema, with marks on its words."""
    changes = compare_values(old, new).changes
    rows = [
        (change.place or WHOLE, clipped(in_one(change.operations, plain=plain, context=AROUND)))
        for change in changes[:MOST_CHANGES]
    ]
    if (more := len(changes) - MOST_CHANGES) > 0:
        rows.append(("", Text(f"… {more:,} more changes", "dim")))
    return rows


def moved_figures(before: TriedRecord, now: TriedRecord) -> str:
    """Say how the tokens and the cost of the answer moved, whenever it was requested; empty if they did not."""
    old, new = before.answer_tokens, now.answer_tokens
    parts = [_moved(new.input_tokens - old.input_tokens, "in"), _moved(new.output_tokens - old.output_tokens, "out")]
    if before.answer_usd is not None and now.answer_usd is not None:
        parts.append(_moved_cost(now.answer_usd - before.answer_usd))
    return ", ".join(filter(None, parts))


def print_session(console: Console, now: Trial, before: Trial | None, cap: float) -> None:
    """Print what a version took, how that moved, and what all versions have cost, against the cap if there is one."""
    parts = [now.template_hash[:LABEL_HASH], "nothing sent"]
    if now.requests:
        requests = counted(now.requests, "request")
        parts[-1] = f"{requests}, {tokens_in_words(now.tokens)}, {cost_in_words(now.cost_usd)}"
    if before is not None and before.requests and now.requests and before.cost_usd and now.cost_usd:
        moved = _moved_cost(now.cost_usd - before.cost_usd)
        parts[-1] += f" ({moved})" if moved else ""
    made_up = " (sandbox)" if now.endpoint == SANDBOX else ""
    of_cap = f" of {exact_dollars(cap)}" if now.is_capped else ""
    parts.append(f"in all {dollars(now.session_usd)}{of_cap}{made_up}")
    console.print()
    console.print(Text(" · ".join(parts), "bold"), soft_wrap=not console.is_terminal)


def _moved(by: int, what: str) -> str:
    return f"{by:+,} {what}" if by else ""


def _moved_cost(by: Decimal) -> str:
    return f"{'+' if by > 0 else '-'}{dollars(abs(by))}" if abs(by) >= SMALLEST_MOVE else ""

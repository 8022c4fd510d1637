"""Show a finished rehearsal to people and to programs: an estimate of the real run, and what failed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.text import Text

from db.readers.failures import Loss, Trouble
from presswork.rehearsal.forecast import StepForecast, added
from presswork.rehearsal.terms import Terms
from presswork.report.amounts import counted, dollars, duration
from presswork.report.summary import Summary
from presswork.terminal import screen
from presswork.terminal.ledgers import ledger_name
from presswork.terminal.summary_view import headline, print_steps

NOTES = """\
The sandbox answered, so nothing was billed. Times and failures are measured on these terms; the texts are made up.
The rehearsal requested all records. The real run requests only those that your ledger does not have yet."""


@dataclass(frozen=True)
class Rehearsed:
    """A rehearsal's figures. `history` is the ledger with past answers, `kept` the path of its own ledger, if kept."""

    summary: Summary
    terms: Terms
    steps: Sequence[StepForecast]
    troubles: Sequence[Trouble]
    losses: Sequence[Loss]
    history: str | None
    kept: str | None

    @property
    def cost_usd(self) -> Decimal | None:
        """What the real run will probably cost."""
        return added(step.cost_usd for step in self.steps)

    @property
    def at_most_usd(self) -> Decimal | None:
        """The cost if each answer fills its max_tokens."""
        return added(step.at_most_usd for step in self.steps)

    @property
    def output_tokens(self) -> int:
        """How many tokens the answers will probably have."""
        return sum(step.output_tokens for step in self.steps)

    @property
    def lengths_from(self) -> str:
        """The source of the answers' lengths: history, sandbox, or mixed if only some steps have history."""
        known = {step.past_answers > 0 for step in self.steps}
        return "mixed" if len(known) > 1 else "history" if known == {True} else "sandbox"

    def for_programs(self) -> dict[str, Any]:
        """Return the summary of `run` and the figures of the rehearsal as plain JSON values."""
        return {
            **self.summary.for_programs(),
            "terms": self.terms.for_programs(),
            "forecast": {
                "wall_s": self.summary.wall_s,
                "requests": self.summary.requests,
                "input_tokens": self.summary.input_tokens,
                "output_tokens": self.output_tokens,
                "lengths_from": self.lengths_from,
                "cost_usd": self.cost_usd,
                "cost_usd_at_most": self.at_most_usd,
                "steps": [asdict(step) for step in self.steps],
            },
            "troubles": [asdict(trouble) for trouble in self.troubles],
            "losses": [asdict(loss) for loss in self.losses],
            "kept": self.kept,
        }


def print_rehearsed(console: Console, rehearsed: Rehearsed) -> None:
    """Print the estimate of the real run, and what failed."""
    console.print(headline(rehearsed.summary, "rehearsed"))
    print_steps(console, rehearsed.summary.steps)
    console.print()
    screen.print_facts(console, _figures(rehearsed))
    console.print()
    _print_failed(console, rehearsed)
    console.print()
    console.print(Text(NOTES, "dim"), soft_wrap=True)
    if rehearsed.kept:
        console.print(screen.data(f"The rehearsal's ledger was kept: {rehearsed.kept}"), soft_wrap=True)


def _figures(rehearsed: Rehearsed) -> list[tuple[str, str]]:
    summary = rehearsed.summary
    pace = summary.pace.words()
    return [
        ("time", f"{duration(summary.wall_s)}, measured here"),
        ("requests", f"{summary.requests:,}"),
        ("tokens in", f"{summary.input_tokens:,}, estimated from the length of the prompts"),
        ("tokens out", f"{rehearsed.output_tokens:,}, {_lengths(rehearsed)}"),
        ("cost", _cost(rehearsed)),
        *([("pace", pace)] if pace else []),
    ]


def _lengths(rehearsed: Rehearsed) -> str:
    answers = sum(step.past_answers for step in rehearsed.steps)
    known = f"from the length of {counted(answers, 'answer')} in {ledger_name(rehearsed.history or '')}"
    guess = "the sandbox's guess, as your ledger has no real answers to these prompts yet"
    without = ", ".join(step.step for step in rehearsed.steps if not step.past_answers)
    return {"history": known, "sandbox": guess, "mixed": f"{known}; for {without} the sandbox's guess"}[
        rehearsed.lengths_from
    ]


def _cost(rehearsed: Rehearsed) -> str:
    if not rehearsed.steps:
        return dollars(Decimal(0))
    likely = {
        "history": "likely",
        "sandbox": "if answers are as long as the sandbox's",
        "mixed": "likely, in part a guess",
    }
    if rehearsed.cost_usd is None or rehearsed.at_most_usd is None:
        return dollars(None)
    return (
        f"{dollars(rehearsed.cost_usd)}, {likely[rehearsed.lengths_from]}; "
        f"{dollars(rehearsed.at_most_usd)} if each answer fills its max_tokens"
    )


def _print_failed(console: Console, rehearsed: Rehearsed) -> None:
    if not rehearsed.troubles and not rehearsed.losses:
        console.print(Text("Nothing failed.", "bold green"))
        return
    console.print(Text("What failed", "bold"))
    if rehearsed.troubles:
        listed = ", ".join(f"{trouble.requests:,} {trouble.kind}" for trouble in rehearsed.troubles)
        console.print(screen.data(f"  Requests without a usable answer: {listed}."))
    if not rehearsed.losses:
        console.print("  Retries helped: every record has content.")
        return
    rows = []
    for loss in rehearsed.losses:
        keys = ", ".join(loss.record_keys) + (", ..." if loss.count > len(loss.record_keys) else "")
        rows.append((f"{loss.count:,}", loss.step, screen.status(loss.status), loss.kind or "", keys))
    console.print(screen.table(["records", "step", "status", "kind", "such as"], rows, right=["records"]))
    for loss in rehearsed.losses:
        if loss.message:
            console.print(screen.data(f"  {loss.kind or loss.status}: {screen.one_line(loss.message, 200)}"))

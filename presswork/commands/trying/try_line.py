"""The line below the answers while a trial waits: for answers, or for a save."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from db.machine import monotonic_s
from presswork.commands.trying.try_record import key_in_words
from presswork.escaping import visible
from presswork.report.amounts import counted
from presswork.report.progress import Progress, watch
from presswork.terminal import screen
from presswork.trying.trials import TriedRecord

FILES_NAMED, LONGEST_KEYS = 4, 40


class TrialLine:
    """What is waited for now; nothing at the start. `progress` is that of the trial that opened last."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._asked = self._left = 0
        self._keys: Sequence[str] = ()
        self._files: Sequence[str] = ()
        self._began = monotonic_s()
        self._doing: Callable[[], str | None] = lambda: None
        self._spinner = Spinner("dots", style="cyan")

    def follow(self, doing: Callable[[], str | None]) -> None:
        """Ask `doing` what the trials of a session do before they can send requests."""
        self._doing = doing

    def opened(self, progress: Progress) -> None:
        """Follow a trial that has opened."""
        self.progress = progress

    def ask(self, records: int, keys: Sequence[str] = ()) -> None:
        """Begin to wait for the answers about this many records, or fewer; `keys` are theirs, if they are known."""
        self._asked = self._left = records
        self._keys = list(keys)
        self._files, self._began = (), monotonic_s()

    def one_ended(self, key: str) -> None:
        """Take a record that has its answer, or none."""
        self._left -= 1
        self._keys = [each for each in self._keys if each != key]

    def watch(self, files: Sequence[str]) -> None:
        """Begin to wait for a save of one of these files."""
        self._files = files

    def words(self) -> str:
        """Write the line."""
        if self._files:
            return waiting_in_words(self._files)
        if self.progress is not None and self.progress.is_stopping():
            return stopping_in_words(self.progress.in_flight())
        seconds = f"{monotonic_s() - self._began:.1f} s"
        if (doing := self._doing()) is not None:
            return f"{doing}, {seconds}"
        if self._left <= 0:
            return f"recording, {seconds}"
        named = screen.one_line(", ".join(map(key_in_words, self._keys)), LONGEST_KEYS) or counted(
            self._asked, "record"
        )
        return f"asking about {named}: {self._left:,} to come, {seconds}"

    def render(self) -> Spinner:
        """Draw the line."""
        self._spinner.update(text=Text(self.words(), "dim"))
        return self._spinner


@dataclass
class Telling:
    """Prints records as they end. If the output is closed, such as by `head`, the trial goes on: it is paid for."""

    print_one: Callable[[TriedRecord], None]
    is_unread: bool = False

    def __call__(self, record: TriedRecord) -> None:
        """Print a record, if somebody still reads."""
        if self.is_unread:
            return
        try:
            self.print_one(record)
        except (BrokenPipeError, SystemExit):  # rich exits if the output is closed
            self.is_unread = True


def stopping_in_words(in_flight: int) -> str:
    """Say how many answers a trial waits for before it ends."""
    if not in_flight:
        return "Stopping."
    them = "it" if in_flight == 1 else "them"
    return f"Stopping: waiting for {counted(in_flight, 'answer')}. Ctrl-C again gives {them} up."


def waiting_in_words(files: Sequence[str]) -> str:
    """Say that a save of these files is waited for."""
    named = ", ".join(map(visible, files[:FILES_NAMED]))
    more = f" and {len(files) - FILES_NAMED:,} more" if len(files) > FILES_NAMED else ""
    return f"Waiting for a save of {named}{more}. Ctrl-C ends."


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM end a trial as Ctrl-C does, with a screen that is put right: a line hides the cursor."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def live_line(*, say: bool) -> Iterator[tuple[TrialLine, Console]]:
    """Show a line for as long as the block lasts, and yield it with the console for answers.

    With `say` false, for --json, and where nobody sees it, nothing is shown.
    """
    line, answers = TrialLine(), screen.out()
    with ExitStack() as stack, _sigterm_as_ctrl_c():
        stack.callback(watch(line.opened))
        # Where answers go to a terminal, one console must know of both, or the line would be drawn into them.
        console = answers if answers.is_terminal else screen.err()
        if say and console.is_terminal:
            live = Live(get_renderable=line.render, console=console, refresh_per_second=8, transient=True)
            stack.enter_context(live)
        yield line, answers

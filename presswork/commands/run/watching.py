"""Show the progress of a run: a moving bar on a terminal, a plain line every few seconds elsewhere."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from db.machine import monotonic_s
from presswork.report.amounts import counted, dollars
from presswork.report.progress import Progress, counts_in_words, watch
from presswork.terminal import screen

LINE_EVERY_S = 5.0
GLANCE_S = 0.2
WINDOW_S = 10.0
OPENING = "Opening the run ..."
STOPPING = "Stopping: waiting for the requests in flight. Ctrl-C again cuts them off and loses their answers."


@contextmanager
def watching(*, show: bool) -> Iterator["Watcher"]:
    """Watch the run that opens inside the block; with `show`, print its progress on standard error."""
    watcher = Watcher()
    console = screen.err()
    with ExitStack() as stack:
        stack.callback(watch(watcher.begin))
        if show and console.is_terminal:
            live = Live(get_renderable=watcher.render, console=console, refresh_per_second=8, transient=True)
            stack.enter_context(live)
        elif show:
            stack.enter_context(_lines(watcher, console))
        yield watcher


class Watcher:
    """Follows a run; `progress` is None until the run has opened."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._seen: deque[tuple[float, int]] = deque()
        self._step = ""
        self._spinner = Spinner("dots", OPENING)

    def begin(self, progress: Progress) -> None:
        """Follow a run that has opened."""
        self.progress = progress

    @property
    def run_id(self) -> str | None:
        """The run's id, once it has opened."""
        return self.progress.run_id if self.progress else None

    def rate(self) -> float:
        """Return the generations a second, over the last WINDOW_S seconds of this step."""
        progress = self.progress
        if progress is None:
            return 0.0
        now = monotonic_s()
        if progress.step != self._step:
            self._step = progress.step
            self._seen.clear()
        self._seen.append((now, progress.done_in_step))
        while now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        then, done = self._seen[0]
        return (progress.done_in_step - done) / (now - then) if now > then else 0.0

    @property
    def is_stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self.progress is not None and self.progress.is_stopping()

    def counts(self) -> list[str]:
        """Describe how many generations had each outcome."""
        return list(counts_in_words(self.progress.counts).values()) if self.progress else []

    def line(self) -> str:
        """Describe the progress in one line."""
        progress = self.progress
        if progress is None:
            return OPENING
        if self.is_stopping:
            return STOPPING
        rate = self.rate()
        left = time_left(progress, rate)
        parts = [
            f"{progress.flow}: {progress.step or 'selecting'} {_done(progress)}",
            *progress.selected(),
            *self.counts(),
            f"{rate:,.1f}/s" if rate else "",
            *progress.pace.parts(),
            dollars(progress.cost_usd),
            f"{left} left" if left else "",
        ]
        return ", ".join(filter(None, parts))

    def render(self) -> RenderableType:
        """Draw the progress for a terminal."""
        progress = self.progress
        if progress is None:
            return self._spinner
        rate = self.rate()
        total = progress.total
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            Text(progress.step or "selecting", "bold"),
            ProgressBar(total=total, completed=progress.done_in_step, width=32, pulse=total is None),
            Text(_done(progress)),
            Text(f"{rate:,.1f}/s" if rate else "", "dim"),
            Text(time_left(progress, rate), "dim"),
        )
        counts = Text("  ")
        for status, words in counts_in_words(progress.counts).items():
            counts.append(f"{words}  ", screen.style_of(status))
        counts.append(f"{counted(progress.requests, 'request')}  {dollars(progress.cost_usd)}", "dim")
        lines: list[RenderableType] = [bar, *(screen.data(f"  {line}") for line in progress.selected()), counts]
        if pace := progress.pace.words():
            lines.append(Text(f"  {pace}", "dim"))
        if self.is_stopping:
            lines.append(Text(STOPPING, "bold yellow"))
        return Group(*lines)


def time_left(progress: Progress, rate: float) -> str:
    """Say how long the rest of this step will take; empty if that is unknown."""
    if not progress.total or not rate:
        return ""
    seconds = round((progress.total - progress.done_in_step) / rate)
    minutes, seconds = divmod(max(seconds, 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _done(progress: Progress) -> str:
    total = f"/{progress.total:,}" if progress.total is not None else ""
    return f"{progress.done_in_step:,}{total}"


@contextmanager
def _lines(watcher: Watcher, console: Console) -> Iterator[None]:
    ended = threading.Event()

    def print_progress() -> None:
        last, said_stop = monotonic_s(), False
        while not ended.wait(GLANCE_S):
            at_once = watcher.is_stopping and not said_stop
            if at_once or monotonic_s() - last >= LINE_EVERY_S:
                console.print(screen.data(watcher.line()), soft_wrap=True)
                last, said_stop = monotonic_s(), watcher.is_stopping

    thread = threading.Thread(target=print_progress, name="presswork-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

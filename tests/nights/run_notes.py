"""What is known of one process's work on one run while the night goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from presswork.report.summary import Summary
from presswork.settings import Settings
from tests.nights.plan import Start
from tests.nights.promised.night_result import RunStory


@dataclass
class RunNotes:
    """What is known of one process's work on one run while it goes on."""

    process: str
    start: Start
    began_at: float
    must_finish: bool = False
    run_id: str | None = None
    lease_id: str | None = None
    worker: str = "main"
    settings: Settings | None = None
    summary: Summary | None = None
    summed_up_at: float | None = None
    exit_status: int | None = None
    error: str | None = None
    ended_at: float | None = None
    records: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def story(self) -> RunStory:
        """Return the notes for promises.py."""
        start, settings = self.start, self.settings
        return RunStory(
            process=self.process,
            run_id=self.run_id,
            lease_id=self.lease_id,
            worker=self.worker,
            refresh=start.refresh,
            max_cost=None if start.max_cost is None else Decimal(str(start.max_cost)),
            max_paid_requests=8 if settings is None else settings.max_paid_requests,
            concurrency=start.concurrency,
            give_up_after=3 if settings is None else settings.give_up_after,
            chunk_retries=5 if settings is None else settings.chunk_retries,
            records=self.records,
            began_at=self.began_at,
            ended_at=self.ended_at,
            exit_status=self.exit_status,
            error=self.error,
            summary=None if self.summary is None else self.summary.for_programs(),
            summed_up_at=self.summed_up_at,
            must_finish=self.must_finish,
        )

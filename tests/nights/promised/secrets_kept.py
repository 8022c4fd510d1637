"""Promise 4, and what nobody expects: no secret is written anywhere, and no process ends by an error of its own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.nights.promised.evidence import Evidence, Violation

NOWHERE = "no secret is written anywhere"
UNEXPECTED = "no process ends by an error that nobody expects"


def check_secrets(evidence: Evidence) -> Iterator[Violation]:
    """Find secrets in the files of the ledger, in spill files, in errors and in logs."""
    night = evidence.night
    files = [path for path in _files(night.ledger, night.spill_folders) if path.is_file()]
    errors = [*night.errors, *(each.error for each in night.runs if each.error is not None)]
    for number, secret in enumerate(night.secrets):
        for path in files:
            if secret.encode() in path.read_bytes():
                yield Violation(NOWHERE, f"secret {number} is in {path.name}")
        if any(secret in each for each in errors):
            yield Violation(NOWHERE, f"secret {number} is in an error")
        if any(secret in each for each in night.logged):
            yield Violation(NOWHERE, f"secret {number} was logged")


def check_errors(evidence: Evidence) -> Iterator[Violation]:
    """Report the errors that no code handled."""
    for each in evidence.night.errors:
        yield Violation(UNEXPECTED, each)


def _files(ledger: Path, spill_folders: Sequence[Path]) -> Iterator[Path]:
    for suffix in ("", "-wal"):
        yield Path(f"{ledger}{suffix}")
    for folder in spill_folders:
        yield from sorted(folder.rglob("*"))

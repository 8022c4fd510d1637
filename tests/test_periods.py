"""Dates are read as people type them, always in UTC; anything else is an error that shows how."""

from datetime import UTC, datetime

import pytest

from presswork.periods import moment_of

NOW = datetime(2026, 3, 1, 14, 30, 59, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-02-28", "2026-02-28T00:00:00+00:00"),
        ("2026-02-28T23:30", "2026-02-28T23:30:00+00:00"),
        ("2026-02-28 23:30:15Z", "2026-02-28T23:30:15+00:00"),
        ("2026-02-28T23:30+05:30", "2026-02-28T18:00:00+00:00"),
        ("today", "2026-03-01T00:00:00+00:00"),
        (" Yesterday ", "2026-02-28T00:00:00+00:00"),
        ("7d", "2026-02-22T00:00:00+00:00"),
        ("2w", "2026-02-15T00:00:00+00:00"),
        ("12h", "2026-03-01T02:30:00+00:00"),
    ],
)
def test_moment_is_read_in_utc(text: str, meant: str) -> None:
    assert moment_of(text, NOW).isoformat() == meant


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-02-30", "1.3.2026", "7", "7m", "-7d", "0001-01-01T00:00+14:00", "\u0667d"]
)
def test_anything_else_is_an_error_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is no date or moment; examples: 2026-03-01"):
        moment_of(text, NOW)

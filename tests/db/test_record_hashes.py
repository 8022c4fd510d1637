"""Record hashes and key texts are pinned: a change would make unchanged records stale, or orphan their content."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from db.sources.values import key_text, make_record

TOKYO = timezone(timedelta(hours=9))
NOON = datetime.fromisoformat("2026-03-01T12:30")
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "integers": (
        {"a": 0, "b": -7, "c": 2**63, "d": 2**53 + 1},
        "cc52490380fd7b46de98c9da1ca9ebb001fc6cc4ee9e50278050fcf310ba174f",
    ),
    "decimals": (
        {
            "a": Decimal("10.00"),
            "b": Decimal("9.50"),
            "c": Decimal("0.00005"),
            "d": Decimal(12345678901234560),
            "e": Decimal("12345678901234567890.12"),
            "f": Decimal("NaN"),
        },
        "26f5d13ca7a8d178ccb455416de8361dcd5ba6fba6f9a4bea14038ee643fcf8d",
    ),
    "floats": (
        {"a": 10.0, "b": 0.1, "c": 1e300, "d": 5e-324, "e": float("inf"), "f": -0.0},
        "a2216bc03d34f1a77b1c7189b2325f0a8d32be9f27530e8930d8d6b425035c84",
    ),
    "texts": (
        {"a": "", "b": "☕ مرحبا", "c": "a\x00b", "d": "half: \ud83d"},
        "f5487eb6502fd995acfa03540e8025798a764176cd14dcc5cd0d2b155029deec",
    ),
    "moments": (
        {
            "a": date(2026, 3, 1),
            "b": NOON,
            "c": datetime(2026, 3, 1, 21, 30, 0, 500, tzinfo=TOKYO),
            "d": time(12, 30),
            "e": time(9, 5, 0, 250000),
            "f": timedelta(days=1, hours=2),
        },
        "dd1a6194db88c6aa71ccc0419f62f14a02a54553703259fa0812375bff3c3163",
    ),
    "others": (
        {"a": None, "b": True, "c": b"\x00\xff", "d": UUID(int=1), "e": 2**64},
        "09b339c037fbb95cc2d0436f4657c55f1cc53e3137075d1d5dbf6c3e9aae0645",
    ),
    "nested": (
        {"a": [1.0, Decimal("2.50"), [b"a", None]], "b": {"z": 1, "a": {"b": Decimal("0.1")}}},
        "c5ff4433f2f26f7d5a6110ee214ae06efb6d04c62db1bc5eb9a631709ea67ee4",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_golden_hash_of_a_record(name: str) -> None:
    row, expected = ROWS[name]

    assert make_record("k", row).hash == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        ("7  ", "7  "),
        (Decimal("7.00"), "7.00"),
        (Decimal("1E+3"), "1E+3"),
        (7.0, "7.0"),
        (1.5, "1.5"),
        (1e22, "1e+22"),
        (True, "True"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (date(2026, 3, 1), "2026-03-01"),
        (NOON, "2026-03-01 12:30:00"),
        (NOON.replace(tzinfo=TOKYO), "2026-03-01 03:30:00+00:00"),
        (NOON.replace(tzinfo=UTC), "2026-03-01 12:30:00+00:00"),
        (time(9, 5), "09:05:00"),
        (b"\x00\xff", "00ff"),
    ],
)
def test_golden_text_of_a_key(value: Any, text: str) -> None:
    assert key_text(value) == text

"""A row has one canonical form, whichever database it came from."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from db.sources.values import key_text, make_record, parse_key

TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("text", "text"),
        ("a\x00b", "a\x00b"),
        ("☕ مرحبا", "☕ مرحبا"),
        ("half a pair: \ud83d", "half a pair: \ufffd"),
        (True, True),
        (None, None),
        (2**63, 2**63),
        (2**64, "18446744073709551616"),
        (10.0, 10),
        (-0.0, 0),
        (9.5, 9.5),
        (1e300, 1e300),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Decimal("10.00"), 10),
        (Decimal("9.50"), 9.5),
        (Decimal("0.1"), 0.1),
        (Decimal("12345678901234567890.12"), "12345678901234567890.12"),
        (Decimal("NaN"), "NaN"),
        (Decimal("1.2345678901234567890E-31"), f"0.{'0' * 30}12345678901234567890"),
        (Decimal("1E+400"), f"1{'0' * 400}"),
        (Decimal("1E+999999"), "1E+999999"),
        (date(2026, 3, 1), "2026-03-01"),
        (datetime.fromisoformat("2026-03-01T12:30"), "2026-03-01T12:30:00"),
        (datetime(2026, 3, 1, 21, 30, tzinfo=TOKYO), "2026-03-01T12:30:00+00:00"),
        (datetime.min.replace(tzinfo=TOKYO), "0001-01-01T00:00:00+09:00"),
        (time(12, 30), "12:30:00"),
        (timedelta(days=1), "1 day, 0:00:00"),
        (b"\x00\xff", "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({"b", "a", "c"}, ["a", "b", "c"]),
        ([1.0, Decimal("2.50"), [b"a"]], [1, 2.5, ["YQ=="]]),
        ({"a": {"b": Decimal(1)}, 1: "\udc80"}, {"a": {"b": 1}, "1": "\ufffd"}),
    ],
)
def test_value_becomes_plain_json(value: Any, plain: Any) -> None:
    record = make_record("k", {"value": value})

    assert record.data["value"] == plain
    assert type(record.data["value"]) is type(plain)


def test_order_of_columns_does_not_change_the_hash() -> None:
    assert make_record("k", {"a": 1, "b": 2}) == make_record("k", {"b": 2, "a": 1})


def test_record_read_back_from_its_body_has_the_same_hash() -> None:
    record = make_record("k", {"price": Decimal("9.50"), "odd": "\ud800", "big": 2**70, "when": datetime.now(UTC)})

    assert make_record("k", orjson.loads(record.body)) == record


@pytest.mark.parametrize("levels", [300, 900, 5000])
def test_value_nested_too_deep_is_an_error_that_can_be_named(levels: int) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = [deep]

    with pytest.raises(ValueError, match=r"Recursion|nested too deep"):
        make_record("k", {"deep": deep})


@pytest.mark.parametrize(
    "value",
    [
        7,
        -7,
        "007",
        "",
        "a b",
        Decimal("9.50"),
        1.5,
        True,
        UUID(int=5),
        date(2026, 3, 1),
        datetime(2026, 3, 1, 12, tzinfo=UTC),
        datetime.fromisoformat("2026-03-01T12:00"),
        b"\x00\xff",
    ],
)
def test_key_as_text_names_the_same_value_again(value: Any) -> None:
    assert parse_key(key_text(value), value) == value


@pytest.mark.parametrize("like", [7, 1.5, Decimal(1), UUID(int=1), date(2026, 3, 1), b"x"])
def test_text_that_is_no_key_of_that_type_is_an_error(like: Any) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        parse_key("not one", like)

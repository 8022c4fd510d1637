"""Draw the views that are measured: each page and each filter with many different values of the ledger."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar
from urllib.parse import urlencode

from sqlalchemy import Engine, Row, text

from db.session import rows_of

Drawn = TypeVar("Drawn")
VALUES = 50
WORDS = ("ka", "mi", "so", "re")
"""Words that are in nearly every answer."""
PHRASE = 2
_SAMPLE = "SELECT {columns} FROM {table} WHERE id >= '{start}' ORDER BY id LIMIT 1"


def page_cases(ledger: Engine, values: int = VALUES, seed: int = 1) -> dict[str, list[str]]:
    """Return the URLs of the views to measure, by the name of the page or filter."""
    return _Cases(ledger, values, random.Random(seed)).all()


def drawn_words(ledger: Engine, values: int = VALUES, seed: int = 1) -> dict[str, list[str]]:
    """Return queries of words: rare ones, common ones and phrases."""
    return _Cases(ledger, values, random.Random(seed)).words()


class _Cases:
    def __init__(self, ledger: Engine, values: int, draw: random.Random) -> None:
        self._ledger, self._values, self._draw = ledger, values, draw
        (self._first, self._last) = rows_of(ledger, text("SELECT MIN(id), MAX(id) FROM generations"))[0]

    def all(self) -> dict[str, list[str]]:
        sampled = [self._generation() for _number in range(self._values)]
        runs = [str(row.run_id) for row in sampled]
        versions = self._rows("SELECT name, hash FROM templates ORDER BY name, first_seen_at")
        ended = self._cycle("failed", "crashed", "capped")
        bad = list(self._cycle("failed", "refused"))
        pairs = [(one, other) for one, other in pairwise(versions) if one[0] == other[0]]
        lives = [
            {"flow": row.flow, "step": row.step, "endpoint": row.endpoint, "key": row.record_key} for row in sampled
        ]
        return {
            "overview": self._urls("/", self._periods()),
            "overview of a flow": self._urls("/", ({"flow": row.flow, **self._period()} for row in sampled)),
            "runs": self._urls("/runs", ({"before": run} for run in runs)),
            "runs by flow": self._urls("/runs", ({"flow": row.flow} for row in sampled)),
            "runs by cost": self._urls("/runs", ({"sort": "cost", **self._period()} for _row in sampled)),
            "runs by status": self._urls("/runs", ({"status": each} for each in ended)),
            "run": [f"/runs/{run}" for run in runs],
            "generations": self._urls("/generations", ({"before": row.id} for row in sampled)),
            **{
                f"generations by {name}": self._urls("/generations", ({name: value} for value in found))
                for name, found in self._filters(sampled).items()
            },
            "generations by three": self._urls(
                "/generations",
                ({"step": row.step, "status": each, **self._period()} for row, each in zip(sampled, bad, strict=True)),
            ),
            "generation": [f"/generations/{row.id}" for row in sampled],
            "record's life": self._urls("/records", lives),
            "difference of answers": self._differences(sampled),
            "templates": self._urls("/templates", self._periods()),
            "template": [f"/templates/{name}" for name, _version in self._any(versions)],
            "difference of templates": self._urls(
                "/difference", ({"of": "template", "name": a[0], "a": a[1], "b": b[1]} for a, b in self._any(pairs))
            ),
            "two versions": [
                f"/templates/{a[0]}/compare?{urlencode({'a': a[1], 'b': b[1]})}" for a, b in self._any(pairs)
            ],
        }  # fmt: skip

    def words(self) -> dict[str, list[str]]:
        answers = [self._answer().split() for _number in range(self._values)]
        rare = [f"zyx{self._draw.randrange(0, 900) * 1_000:07d}" for _number in range(self._values)]
        starts = [self._draw.randrange(0, len(answer) - PHRASE) for answer in answers]
        phrases = [f'"{" ".join(answer[at : at + PHRASE])}"' for answer, at in zip(answers, starts, strict=True)]
        return {"a rare word": rare, "a common word": list(self._cycle(*WORDS)), "a phrase": phrases}

    def _filters(self, sampled: Sequence[Row[Any]]) -> dict[str, list[str]]:
        day = [self._day() for _row in sampled]
        return {
            "flow": [row.flow for row in sampled],
            "step": [row.step for row in sampled],
            "template": [row.template_hash for row in sampled],
            "model": list(self._cycle("claude-sonnet-4-6", "claude-sonnet-4-5", "claude-haiku-4-5")),
            "status": list(self._cycle("succeeded", "failed", "refused", "truncated", "invalid")),
            "origin": list(self._cycle("live", "batch", "cache")),
            "endpoint": list(self._cycle("anthropic", "sandbox", "gateway")),
            "run": [row.run_id for row in sampled],
            "key": [row.record_key for row in sampled],
            "until": [f"{each:%Y-%m-%d}" for each in day],
        }

    def _differences(self, sampled: Sequence[Row[Any]]) -> list[str]:
        pairs = zip(sampled, [*sampled[1:], sampled[0]], strict=True)
        return list(self._urls("/difference", ({"of": "answer", "a": a.id, "b": b.id} for a, b in pairs)))

    def _generation(self) -> Row[Any]:
        columns = "id, run_id, flow, step, endpoint, record_key, template_hash"
        return self._rows(_SAMPLE.format(columns=columns, table="generations", start=self._id()))[0]

    def _answer(self) -> str:
        where = f"WHERE output IS NOT NULL AND id >= '{self._id()}'"
        return str(self._rows(f"SELECT CAST(output AS TEXT) FROM generations {where} ORDER BY id LIMIT 1")[0][0]).split(
            '"'
        )[7]

    def _rows(self, statement: str) -> list[Row[Any]]:
        return rows_of(self._ledger, text(statement))

    def _id(self) -> str:
        """An id somewhere between the first and the last generation."""
        first, last = (int(each.replace("-", "")[:12], 16) for each in (self._first, self._last))
        moment = f"{self._draw.randint(first, last - 1):012x}"
        return f"{moment[:8]}-{moment[8:]}-7000-8000-000000000000"

    def _day(self) -> datetime:
        millis = int(self._id().replace("-", "")[:12], 16)
        return datetime.fromtimestamp(millis / 1000, UTC)

    def _period(self) -> dict[str, str]:
        day = self._day()
        return {
            "since": f"{day:%Y-%m-%d}",
            "until": f"{day + timedelta(days=self._draw.choice((1, 7, 30, 90))):%Y-%m-%d}",
        }

    def _periods(self) -> Iterator[dict[str, str]]:
        yield {}
        for _number in range(self._values - 1):
            yield self._period()

    def _cycle(self, *values: str) -> Iterator[str]:
        for number in range(self._values):
            yield values[number % len(values)]

    def _any(self, found: Sequence[Drawn]) -> list[Drawn]:
        return [self._draw.choice(found) for _number in range(self._values)]

    def _urls(self, path: str, queries: Iterable[Mapping[str, str]]) -> list[str]:
        return [f"{path}?{urlencode(query)}" for query in queries]

"""Ask again at each save: which saves lead to a version, and what a broken file does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from db.database_errors import LedgerUnreachableError, SelectError
from db.words import CONNECT
from presswork.errors import (
    ConfigurationError,
    EndpointError,
    MissingKeyError,
    ParameterError,
    StoppedError,
    StoppingCallError,
    TemplateError,
    UntoldCostError,
)
from presswork.prompts.templates import Template, load_template
from presswork.trying import changes
from presswork.trying.saves import Broken, Capped, Gone, Started, Unchanged, Version, Waiting, WatchEvent, watch_saves
from presswork.trying.trials import Trial
from tests.pieces import Put

NOTE = "---\noutput: {{title: {{type: str}}}}\n---\n{{% block user %}}{text}{{% endblock %}}\n"
SHOP = "---\noutput: shop.Entry\n---\n{% block user %}x{% endblock %}\n"
ENTRY = "from pydantic import BaseModel\n\nclass Entry(BaseModel):\n    {field}: str\n"
Kind = TypeVar("Kind")
WITHIN_S = 60


@dataclass
class Desk:
    """A folder with a template and its watch; `asked` are the templates as they were, `failing` errors instead."""

    folder: Path
    asked: list[Template] = field(default_factory=list)
    failing: list[Exception] = field(default_factory=list)
    stopped: str | None = None
    during: Callable[[], Awaitable[None]] | None = None

    def save(self, text: str, name: str = "note.md.j2") -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def touch(self, name: str = "note.md.j2") -> None:
        os.utime(self.folder / name, (1, 1))

    async def ask(self) -> Trial:
        if self.failing:
            raise self.failing.pop(0)
        template = load_template(self.folder, "note")
        self.asked.append(template)
        if self.during is not None:
            during, self.during = self.during, None
            await during()
        return Trial("run", "note", template.hash, "sandbox", (), stopped=self.stopped)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watched]:
        async with asyncio.timeout(WITHIN_S), aclosing(watch_saves(self.folder, "note", self.ask)) as events:
            yield Watched(events)


class Watched:
    """The events of a watch."""

    def __init__(self, events: AsyncIterator[WatchEvent]) -> None:
        self._events = events
        self.seen: list[WatchEvent] = []

    async def next(self, kind: type[Kind]) -> Kind:
        """Return the next event of a kind; others before it are in `seen`."""
        async for event in self._events:
            self.seen.append(event)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"the watch ended after {self.seen}")

    async def version(self) -> Version:
        """Wait until a version was asked and the next save is awaited; a broken one fails."""
        version = await self.next(Version)
        await self.next(Waiting)
        assert not any(isinstance(event, Broken) for event in self.seen), self.seen
        return version


@pytest.fixture
def desk(folder: Path) -> Desk:
    desk = Desk(folder)
    desk.save(NOTE.format(text="one"))
    return desk


async def test_template_is_asked_at_once_and_at_each_save(desk: Desk) -> None:
    async with desk.watched() as watched:
        first = await watched.version()
        desk.save(NOTE.format(text="two"))
        second = await watched.version()

    assert (first.version, second.version) == (1, 2)
    assert first.trial.template_hash != second.trial.template_hash
    assert [event for event in watched.seen if isinstance(event, Started)] == [Started(1), Started(2, ("note.md.j2",))]


async def test_save_without_a_change_asks_nothing(desk: Desk) -> None:
    async with desk.watched() as watched:
        await watched.version()
        desk.touch()
        unchanged = await watched.next(Unchanged)
        desk.save(NOTE.format(text="two"))
        await watched.version()

    assert unchanged == Unchanged(("note.md.j2",))
    assert len(desk.asked) == 2


async def test_template_that_is_broken_at_the_start_is_asked_when_it_is_repaired(desk: Desk) -> None:
    desk.save(NOTE.format(text="\n{{ record.title"))
    async with desk.watched() as watched:
        broken = await watched.next(Broken)
        desk.save(NOTE.format(text="two"))
        version = await watched.next(Version)

    (mistake,) = broken.mistakes
    assert (mistake.file, mistake.line) == ("note.md.j2", 5)
    assert version.version == 2
    assert len(desk.asked) == 1


async def test_all_mistakes_are_listed_with_their_files(desk: Desk) -> None:
    desk.save("{% macro m() %}{{ 1|nofilter }}{% endmacro %}", "_part.j2")
    desk.save(
        NOTE.format(text="{% include '_part.j2' %}").replace("output:", "max_tokens: 99999999\nmodel: x\noutput:")
    )
    async with desk.watched() as watched:
        broken = await watched.next(Broken)

    assert [mistake.file for mistake in broken.mistakes] == ["_part.j2"]
    assert "nofilter" in broken.mistakes[0].message


async def test_name_of_no_template_is_an_error(desk: Desk) -> None:
    desk.remove("note.md.j2")
    async with desk.watched() as watched:
        with pytest.raises(TemplateError, match="There is no template 'note'"):
            await watched.next(Version)


async def test_template_may_disappear_and_come_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "VANISHED_S", 0.1)
    async with desk.watched() as watched:
        await watched.version()
        desk.remove("note.md.j2")
        gone = await watched.next(Gone)
        desk.save(NOTE.format(text="one"))
        version = await watched.next(Version)

    assert gone == Gone(("note.md.j2",))
    assert (version.version, len(desk.asked)) == (2, 2)
    assert not [event for event in watched.seen if isinstance(event, Broken)]


async def test_part_that_an_edit_includes_is_watched_and_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "VANISHED_S", 0.1)
    async with desk.watched() as watched:
        await watched.version()
        desk.save(NOTE.format(text="{% include '_new.j2' %}"))
        missing = await watched.next(Broken)
        assert (await watched.next(Waiting)).files == ("note.md.j2", "_new.j2")
        desk.save("a part", "_new.j2")
        await watched.next(Version)
        await watched.next(Waiting)
        desk.remove("_new.j2")
        gone = await watched.next(Gone)
        desk.save("a part again", "_new.j2")
        await watched.next(Version)

    assert "'_new.j2', which is not in" in str(missing.mistakes[0])
    assert gone == Gone(("_new.j2",))
    assert watched.seen[-2] == Started(4, ("_new.j2",))


async def test_part_that_is_deleted_when_nothing_includes_it_any_more_is_not_waited_for(desk: Desk) -> None:
    desk.save("a part", "_old.j2")
    desk.save(NOTE.format(text="{% include '_old.j2' %}"))
    async with desk.watched() as watched:
        await watched.version()
        desk.save(NOTE.format(text="two"))
        desk.remove("_old.j2")
        await watched.version()

    assert not [event for event in watched.seen if isinstance(event, Gone | Broken)]


async def test_saves_during_a_trial_wait_for_its_end_and_only_the_newest_counts(desk: Desk) -> None:
    async def saves() -> None:
        for text in ("two", "three", "four"):
            desk.save(NOTE.format(text=text))
            await asyncio.sleep(0.2)

    desk.during = saves
    async with desk.watched() as watched:
        first = await watched.version()
        second = await watched.version()

    assert [len(desk.asked), first.version, second.version] == [2, 1, 2]
    assert "four" in desk.asked[1].sources["note.md.j2"]


async def test_saved_output_class_is_asked_with(desk: Desk, put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    desk.save(SHOP)
    async with desk.watched() as watched:
        await watched.version()
        put("shop.py", ENTRY.format(field="headline"))
        await watched.version()

    assert [list(template.schema["properties"]) for template in desk.asked] == [["title"], ["headline"]]
    assert Started(2, ("flows/shop.py",)) in watched.seen


async def test_module_that_an_output_class_imports_is_watched(desk: Desk, put: Put) -> None:
    put("shelf.py", "LENGTH = 10\n")
    put("shop.py", "from flows.shelf import LENGTH\nfrom pydantic import Field\n" + ENTRY.format(field="title"))
    put(
        "shop.py",
        (desk.folder.parent / "flows" / "shop.py").read_text().replace(": str", ": str = Field(max_length=LENGTH)"),
    )
    desk.save(SHOP)
    async with desk.watched() as watched:
        await watched.version()
        put("shelf.py", "LENGTH = 20\n")
        await watched.version()

    assert "20" in str(desk.asked[1].schema)
    assert "20" not in str(desk.asked[0].schema)


async def test_broken_module_says_where_and_its_repair_is_asked(desk: Desk, put: Put) -> None:
    put("shop.py", ENTRY.format(field="title"))
    desk.save(SHOP)
    async with desk.watched() as watched:
        await watched.version()
        put("shop.py", ENTRY.format(field="title") + "    stars: Nothing\n")
        broken = await watched.next(Broken)
        put("shop.py", ENTRY.format(field="headline").replace("Entry", "Other"))
        vanished = await watched.next(Broken)
        put("shop.py", ENTRY.format(field="headline"))
        await watched.next(Version)

    assert "flows/shop.py, line 5, can't be loaded: NameError" in str(broken.mistakes[0])
    assert "no output class 'Entry' in flows/shop.py. Available: Other" in str(vanished.mistakes[0])
    assert list(desk.asked[-1].schema["properties"]) == ["headline"]


async def test_module_that_is_broken_or_missing_at_the_start_is_waited_for(desk: Desk, put: Put) -> None:
    put("shop.py", "").unlink()
    desk.save(SHOP)
    async with desk.watched() as watched:
        missing = await watched.next(Broken)
        put("shop.py", "class Entry(:\n")
        broken = await watched.next(Broken)
        put("shop.py", ENTRY.format(field="title"))
        await watched.next(Version)

    assert "no module flows/shop.py" in str(missing.mistakes[0])
    assert "flows/shop.py, line 1, can't be loaded: SyntaxError" in str(broken.mistakes[0])


async def test_cap_ends_the_watch(desk: Desk) -> None:
    desk.stopped = "the cap of $1.00 is reached"
    async with desk.watched() as watched:
        capped = await watched.next(Capped)
        with pytest.raises(AssertionError, match="the watch ended"):
            await watched.next(Started)

    assert capped == Capped("the cap of $1.00 is reached")


async def test_select_that_fails_waits_for_a_save(desk: Desk) -> None:
    desk.failing = [SelectError("note: no such column: nam")]
    async with desk.watched() as watched:
        broken = await watched.next(Broken)
        desk.save(NOTE.format(text="two"))
        await watched.next(Version)

    assert [str(mistake) for mistake in broken.mistakes] == ["note.md.j2: note: no such column: nam"]


@pytest.mark.parametrize(
    "error",
    [
        MissingKeyError(),
        StoppingCallError("the key is refused", http_status=401),
        LedgerUnreachableError("gone"),
        StoppedError(),
    ],
)
@pytest.mark.parametrize("versions", [0, 1])
async def test_error_that_no_save_repairs_ends_the_watch(desk: Desk, error: Exception, versions: int) -> None:
    async with desk.watched() as watched:
        for _version in range(versions):
            await watched.version()
        desk.failing = [error]
        desk.save(NOTE.format(text="two"))
        with pytest.raises(type(error)):
            await watched.next(Version)


@pytest.mark.parametrize("error", [ConfigurationError("no record with this key"), ParameterError("no parameter x")])
async def test_wrong_argument_ends_the_watch_only_at_its_start(desk: Desk, error: Exception) -> None:
    desk.failing = [error]
    async with desk.watched() as watched:
        with pytest.raises(type(error)):
            await watched.next(Version)
    async with desk.watched() as watched:
        await watched.version()
        desk.failing = [error]
        desk.save(NOTE.format(text="two"))
        broken = await watched.next(Broken)
        desk.save(NOTE.format(text="three"))
        await watched.next(Version)

    assert [mistake.message for mistake in broken.mistakes] == [str(error)]


@pytest.mark.parametrize(
    "error", [EndpointError("It can't be reached."), StoppingCallError("It can't be reached.", kind=CONNECT)]
)
async def test_outage_ends_the_watch_only_at_its_start_and_any_save_asks_again(desk: Desk, error: Exception) -> None:
    desk.failing = [error]
    async with desk.watched() as watched:
        with pytest.raises(type(error)):
            await watched.next(Version)
    async with desk.watched() as watched:
        await watched.version()
        desk.failing = [error]
        desk.save(NOTE.format(text="two"))
        broken = await watched.next(Broken)
        await watched.next(Waiting)
        desk.touch()
        version = await watched.next(Version)

    assert [mistake.message for mistake in broken.mistakes] == ["It can't be reached. Save again to ask again."]
    assert version.version == 3
    assert not [event for event in watched.seen if isinstance(event, Unchanged)]


@pytest.mark.parametrize(
    "error", [UntoldCostError("no price of a model is known"), StoppingCallError("no such model", http_status=404)]
)
async def test_request_that_the_endpoint_refuses_waits_for_a_save(desk: Desk, error: Exception) -> None:
    desk.failing = [error]
    async with desk.watched() as watched:
        broken = await watched.next(Broken)
        desk.save(NOTE.format(text="two"))
        await watched.next(Version)

    assert [mistake.message for mistake in broken.mistakes] == [str(error)]


async def test_mistake_of_a_moment_is_reported_as_it_was(desk: Desk) -> None:
    desk.failing = [TemplateError("the file was half saved")]
    async with desk.watched() as watched:
        broken = await watched.next(Broken)

    assert [mistake.message for mistake in broken.mistakes] == ["the file was half saved"]

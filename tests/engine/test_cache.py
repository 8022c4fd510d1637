"""An answered prompt is not requested again, unless something that changes the answer has changed."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from flows import outputs
from flows.outputs import SubjectLine
from presswork.settings import ROOT
from tests.engine.workshop import USER, Workshop
from tests.waiting import until


@pytest.mark.chinook
async def test_album_notes_are_asked_once_and_only_for_what_changed(
    workshop_on_each: Workshop, chinook_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = workshop_on_each
    shutil.copytree(ROOT / "templates", workshop.templates, dirs_exist_ok=True)
    copied = tmp_path / "music.sqlite"
    shutil.copy(chinook_url.removeprefix("sqlite:///"), copied)
    monkeypatch.setenv("PRESSWORK_SOURCE_CHINOOK_URL", f"sqlite:///{copied}")

    first = await workshop.run("album_notes")
    assert (first.records, first.succeeded, first.requests, first.exit_status) == (347, 347, 347, 0)

    again = await workshop.run("album_notes")
    assert (again.cached, again.succeeded, again.requests, again.exit_status) == (347, 0, 0, 0)

    music = create_engine(f"sqlite:///{copied}")
    with music.begin() as connection:
        connection.execute(text("UPDATE Album SET Title = 'Another Title' WHERE AlbumId = 7"))
    music.dispose()
    changed = await workshop.run("album_notes")
    assert (changed.cached, changed.succeeded, changed.requests) == (346, 1, 1)

    template = workshop.templates / "album_notes.md.j2"
    source = template.read_text()
    template.write_text(source.replace("{% block user %}\n", "{% block user %}\n{# only a comment #}\n"))
    commented = await workshop.run("album_notes")
    assert (commented.cached, commented.requests) == (347, 0)

    template.write_text(source.replace("Track list:", "Track listing:"))
    reworded = await workshop.run("album_notes")
    assert (reworded.cached, reworded.succeeded, reworded.requests) == (0, 347, 347)

    assert workshop.requests == 347 + 1 + 347
    assert workshop.value("SELECT count(*) FROM current_content") == 347


async def test_run_in_which_nothing_has_changed_writes_no_history(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.template("{{ (record.name * 1) | length }} letters: {{ record.name }}")
    workshop.numbered(5)
    workshop.items({"bad": None})
    first = await workshop.run()
    again = [await workshop.run(limit=limit) for limit in (None, 4, None)]

    history = workshop.value("SELECT count(*) FROM generations")
    assert (history, first.succeeded, first.failed) == (6, 5, 1)
    assert [(run.cached, run.failed, run.succeeded, run.requests) for run in again] == [
        (5, 1, 0, 0),
        (4, 0, 0, 0),
        (5, 1, 0, 0),
    ]
    assert [failure.record_key for failure in again[-1].failures] == ["bad"]
    for run in again:
        assert workshop.written(run.run_id) == {}
        assert run.steps[0].generations == run.records
    confirmed = workshop.counts("SELECT record_key, confirmed FROM current_content")
    assert confirmed == {"00000": 3, "00001": 3, "00002": 3, "00003": 3, "00004": 2}
    assert workshop.value("SELECT count(*) FROM working_rows") == 0


async def test_cached_generation_points_at_the_one_with_the_text(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.numbered(5)
    first = await workshop.run()
    # Another template with the same prompts.
    workshop.template(USER + "{# only a comment #}")
    again = await workshop.run()

    cached = workshop.rows("SELECT * FROM generations WHERE run_id = :id", id=again.run_id)
    live = {row["id"]: row for row in workshop.rows("SELECT * FROM generations WHERE run_id = :id", id=first.run_id)}
    assert len(cached) == len(live) == 5
    for row in cached:
        source = live[row["source_generation_id"]]
        assert (row["origin"], row["output"], row["status"]) == ("cache", None, "succeeded")
        assert (row["record_key"], row["output_hash"]) == (source["record_key"], source["output_hash"])
    assert workshop.value("SELECT count(*) FROM attempts WHERE run_id = :id", id=again.run_id) == 0
    assert await workshop.task_states(again.run_id, 0) == []


async def test_max_tokens_does_not_buy_an_answer_again(workshop: Workshop) -> None:
    workshop.numbered(3)
    await workshop.run()
    workshop.template(max_tokens=300)
    assert (await workshop.run()).cached == 3


async def test_stricter_validator_makes_a_hit_a_miss(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.numbered(4)
    await workshop.run()
    short = workshop.rows("SELECT output FROM generations ORDER BY record_key LIMIT 1")[0]["output"]

    def too_long(line: SubjectLine) -> None:
        # A rule that is not in the schema, so that the prompt stays the same.
        if line.model_dump_json() == SubjectLine.model_validate_json(short).model_dump_json():
            raise ValueError("no longer good enough")

    class Stricter(SubjectLine):
        def model_post_init(self, _context: object) -> None:
            too_long(self)

    Stricter.__name__ = Stricter.__qualname__ = "SubjectLine"
    Stricter.__doc__ = SubjectLine.__doc__
    Stricter.model_rebuild(force=True)
    monkeypatch.setattr(outputs, "SubjectLine", Stricter)
    assert Stricter.model_json_schema() == SubjectLine.model_json_schema()

    again = await workshop.run()
    assert (again.cached, again.succeeded + again.invalid) == (3, 1)


async def test_same_prompt_twice_in_one_run_is_one_request_and_two_generations(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.items({"a": "twin", "b": "twin", "c": "single", "d": "twin"})
    summary = await workshop.run()

    assert (summary.requests, summary.succeeded, summary.cached) == (2, 2, 2)
    assert workshop.counts("SELECT origin, count(*) FROM generations GROUP BY 1") == {"live": 2, "cache": 2}
    assert workshop.value("SELECT count(*) FROM current_content") == 4
    texts = workshop.rows("SELECT DISTINCT output_hash FROM current_content WHERE record_key IN ('a', 'b', 'd')")
    assert len(texts) == 1


async def test_same_prompt_twice_is_one_request_when_it_goes_badly_too(workshop: Workshop) -> None:
    workshop.items({"a": "twin", "b": "twin"})
    workshop.sandbox.configure(refused=1)
    summary = await workshop.run()

    assert (summary.requests, summary.refused, summary.cached) == (1, 2, 0)
    assert workshop.value("SELECT count(*) FROM current_content") == 0
    assert workshop.counts("SELECT origin, count(*) FROM generations GROUP BY 1") == {"live": 1, "cache": 1}


@pytest.mark.parametrize("fault", ["", "refused"])
async def test_same_prompt_on_two_pages_is_one_request(workshop: Workshop, fault: str) -> None:
    # 501 records are two pages: the second is read while the first is being answered.
    workshop.items({f"{number:04}": "the very same" for number in range(501)})
    if fault:
        workshop.sandbox.configure(**{fault: 1})
    summary = await workshop.run()

    assert sum(workshop.statuses(summary.run_id).values()) == 501
    assert workshop.requests == 1


async def test_prompt_that_is_met_again_while_its_answer_is_committed_is_one_request(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Answers arrive at once and are committed late, so each page is planned before the answers of others are committed.
    monkeypatch.setenv("PRESSWORK_COMMIT_INTERVAL_S", "0.1")
    monkeypatch.setattr("presswork.engine.materials.handles.PAGE", 20)
    workshop.items({f"{number:04}": f"one of {number % 67}" for number in range(600)})
    summary = await workshop.run(chunk_size=5)

    assert (summary.succeeded + summary.cached, workshop.requests) == (600, 67)
    twice = "SELECT prompt_hash FROM generations WHERE origin = 'live' GROUP BY 1 HAVING count(*) > 1"
    assert workshop.rows(twice) == []


async def test_refresh_asks_again_and_passes_prefects_cache_by(workshop: Workshop) -> None:
    workshop.numbered(3)
    await workshop.run()
    again = await workshop.run(refresh=True, chunk_size=1)

    assert (again.cached, again.succeeded, again.requests) == (0, 3, 3)
    assert await workshop.task_states(again.run_id, 3) == ["Completed"] * 3
    assert workshop.value("SELECT count(*) FROM current_content") == 3


async def test_refresh_asks_each_prompt_once_a_run_also_where_two_refresh_at_once(workshop_on_each: Workshop) -> None:
    workshop = workshop_on_each
    workshop.items({f"{number:05}": f"item {number % 40}" for number in range(1200)})
    await workshop.run()
    workshop.sandbox.configure(latency_ms=20)
    one, two = await asyncio.gather(workshop.run(refresh=True, concurrency=5), workshop.run(refresh=True, chunk_size=3))

    twice = "SELECT prompt_hash FROM attempts GROUP BY run_id, prompt_hash HAVING count(*) > 1"
    assert workshop.rows(twice) == []
    for summary in (one, two):
        assert (summary.succeeded + summary.cached, summary.status) == (1200, "completed")
    # The fresh answers of both come from these two runs, not from the one before.
    stale = "SELECT count(*) FROM generations g JOIN generations s ON s.id = g.source_generation_id WHERE g.run_id IN "
    stale += "(:one, :two) AND s.run_id NOT IN (:one, :two)"
    assert workshop.value(stale, one=one.run_id, two=two.run_id) == 0


async def test_refresh_that_was_cut_short_goes_on_where_it_was(workshop: Workshop) -> None:
    workshop.numbered(6)
    await workshop.run()
    cut = await workshop.run(refresh=True, limit=4)

    rest = await workshop.run(refresh=True, resumes=cut.run_id)
    assert (rest.cached, rest.succeeded, rest.requests) == (4, 2, 2)


async def test_limit_takes_the_first_records_by_key(workshop: Workshop) -> None:
    workshop.numbered(6)
    summary = await workshop.run(limit=2)
    assert (summary.records, summary.succeeded) == (2, 2)
    keys = [row["record_key"] for row in workshop.rows("SELECT record_key FROM generations ORDER BY 1")]
    assert keys == ["00000", "00001"]


async def test_nothing_selected_is_a_run_of_nothing(workshop_on_each: Workshop) -> None:
    workshop_on_each.items({})
    summary = await workshop_on_each.run()
    assert (summary.records, summary.requests, summary.status, summary.exit_status) == (0, 0, "completed", 0)


async def test_every_word_of_the_user_block_is_part_of_the_prompt(workshop: Workshop) -> None:
    workshop.numbered(2)
    await workshop.run()
    workshop.template(USER.replace("A line", "One line"))
    assert (await workshop.run()).succeeded == 2


@pytest.fixture
def held(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """A workshop with an overloaded endpoint, in which a chunk waits for its next try."""
    monkeypatch.setenv("PRESSWORK_REQUEST_RETRIES", "0")
    monkeypatch.setenv("PRESSWORK_CHUNK_RETRY_DELAY_S", "8")
    workshop.sandbox.configure(overloaded=1)
    return workshop


async def when_held(workshop: Workshop) -> None:
    """Wait until the only chunk waits for its next try; then make the endpoint available."""
    await workshop.asked(1)
    await until(lambda: not workshop.value("SELECT count(*) FROM claims"))
    workshop.sandbox.configure(overloaded=0)


@pytest.mark.parametrize("fault", ["invalid", "refused"])
async def test_bad_outcome_is_no_hit(held: Workshop, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    held.numbered(1)
    running = asyncio.create_task(held.run(chunk_size=1))
    await when_held(held)
    held.sandbox.configure(**{fault: 1})
    assert getattr(await held.run(), fault) == 1
    held.sandbox.configure(**{fault: 0})
    summary = await running

    assert await held.task_states(summary.run_id, 1) == ["Completed"]
    assert (summary.cached, summary.succeeded) == (0, 1)


async def test_content_that_a_stricter_validator_refuses_is_no_hit(
    held: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stricter(SubjectLine):
        def model_post_init(self, _context: object) -> None:
            raise ValueError("nothing is good enough any more")

    Stricter.__name__ = Stricter.__qualname__ = "SubjectLine"
    Stricter.__doc__ = SubjectLine.__doc__
    Stricter.model_rebuild(force=True)
    held.numbered(1)
    with monkeypatch.context() as patch:
        patch.setattr(outputs, "SubjectLine", Stricter)
        running = asyncio.create_task(held.run(chunk_size=1))
        await when_held(held)
    assert (await held.run()).succeeded == 1
    summary = await running

    assert await held.task_states(summary.run_id, 1) == ["Completed"]
    assert (summary.cached, summary.invalid) == (0, 1)

"""Sample records load exactly once, and the templates that come with Presswork render all of them."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from db.samples import load_samples
from db.sources.select import read_record, spool
from db.sources.spool import RunSpools
from db.sources.statements import Parameter, Query
from db.sources.values import Record
from presswork.prompts.render import make_brief, render_prompt
from presswork.prompts.templates import Template, list_templates, load_template

PROJECT = Path(__file__).parents[1]
TEMPLATES = PROJECT / "templates"
CHINOOK = Path(os.environ.get("PRESSWORK_TEST_CHINOOK", PROJECT.parent / "shared/data/chinook.sqlite"))
NORTHWIND = Path(os.environ.get("PRESSWORK_TEST_NORTHWIND", PROJECT.parent / "shared/data/northwind.sqlite"))
COUNTS = {"products": 40, "support_tickets": 30, "articles": 24}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.sqlite'}")
    yield engine
    engine.dispose()


@pytest.fixture
def shop(empty: Engine) -> Engine:
    load_samples(empty)
    return empty


@pytest.fixture
def chinook() -> Iterator[Engine]:
    yield from of_others(CHINOOK, "Chinook")


@pytest.fixture
def northwind() -> Iterator[Engine]:
    yield from of_others(NORTHWIND, "Northwind")


def of_others(file: Path, name: str) -> Iterator[Engine]:
    """Open a published sample database; skip if it is missing."""
    if not file.is_file():
        pytest.skip(f"there is no {name} database at {file}: set PRESSWORK_TEST_{name.upper()} to its path")
    engine = create_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    yield engine
    engine.dispose()


def rows(engine: Engine, sql: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]


def read(engine: Engine, template: Template) -> list[Record]:
    assert template.select_sql is not None
    parameters = {name: Parameter(param.type, None) for name, param in template.front.params.items()}
    return selected(engine, Query(template.name, template.select_sql, template.front.key_columns, parameters))


def selected(engine: Engine, query: Query) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        spools = RunSpools(Path(folder), "run")
        spool(engine, query, lambda: spools.writing("records"))
        records = [record for page in spools.open("records").pages(7) for record in page]
        spools.close()
    assert all(isinstance(record, Record) for record in records)
    return [record for record in records if isinstance(record, Record)]


def test_readme_has_the_number_of_samples() -> None:
    assert f"the {sum(COUNTS.values())} sample records" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_samples_fill_an_empty_database(empty: Engine) -> None:
    assert load_samples(empty) == COUNTS


def test_loading_twice_changes_nothing(shop: Engine) -> None:
    before = {table: rows(shop, f"SELECT * FROM {table}") for table in COUNTS}

    assert load_samples(shop) == COUNTS
    assert {table: rows(shop, f"SELECT * FROM {table}") for table in COUNTS} == before


def test_edited_row_stays_and_deleted_row_is_loaded_again(shop: Engine) -> None:
    with shop.begin() as connection:
        connection.execute(text("UPDATE products SET name = 'Mine' WHERE sku = 'TEA-001'"))
        connection.execute(text("DELETE FROM products WHERE sku = 'TEA-002'"))

    assert load_samples(shop) == COUNTS
    found = rows(shop, "SELECT name FROM products WHERE sku IN ('TEA-001', 'TEA-002') ORDER BY sku")
    assert [row["name"] for row in found] == ["Mine", "Spring Darjeeling, Margaret's Slope"]


def test_rows_that_a_user_adds_are_counted_and_kept(shop: Engine) -> None:
    with shop.begin() as connection:
        connection.execute(text("INSERT INTO products VALUES ('OWN-1', 'Mug', 'kitchen', 'blue', 9.5, 'EUR', NULL)"))

    assert load_samples(shop)["products"] == COUNTS["products"] + 1


@pytest.mark.parametrize(
    ("trouble", "condition"),
    [
        ("an empty body", "body = ''"),
        ("a body of blanks", "body <> '' AND trim(body, ' ' || char(10)) = ''"),
        ("template signs", "body LIKE '%{{ 7*7 }}%'"),
        ("markup", "body LIKE '%<script>%'"),
        ("emoji", "body LIKE '%☕%' OR subject LIKE '%☕%'"),
        ("a prompt injection", "body LIKE 'Ignore all previous instructions%'"),
        ("no order", "order_ref IS NULL"),
        ("German", "language = 'de'"),
        ("Japanese", "language = 'ja'"),
        ("Arabic", "language = 'ar'"),
    ],
)
def test_there_is_a_ticket_with(shop: Engine, trouble: str, condition: str) -> None:
    assert rows(shop, f"SELECT ticket_id FROM support_tickets WHERE {condition}"), trouble


def test_every_address_is_of_an_example_domain(shop: Engine) -> None:
    domains = {row["customer_email"].rpartition("@")[2] for row in rows(shop, "SELECT * FROM support_tickets")}

    assert domains == {"example.com", "example.org"}


def test_articles_are_short(shop: Engine) -> None:
    lengths = [len(row["body"].split()) for row in rows(shop, "SELECT body FROM articles")]

    assert min(lengths) >= 90
    assert max(lengths) <= 180


@pytest.mark.parametrize(("name", "count"), [("product_copy", 40), ("support_triage", 30), ("newsletter_summary", 24)])
def test_template_renders_every_sample(shop: Engine, name: str, count: int) -> None:
    template = load_template(TEMPLATES, name)
    brief = make_brief(template, "sandbox", dict.fromkeys(template.front.params))

    prompts = [render_prompt(brief, {"record": record.data}) for record in read(shop, template)]

    assert len({prompt.hash for prompt in prompts}) == count


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("product_copy", "category", "tea"),
        ("support_triage", "language", "de"),
        ("newsletter_summary", "section", "people"),
    ],
)
def test_parameter_narrows_the_select(shop: Engine, name: str, param: str, value: str) -> None:
    template = load_template(TEMPLATES, name)
    query = Query(name, str(template.select_sql), (template.key,), {param: Parameter("str", value)})

    assert {record.data[param] for record in selected(shop, query)} == {value}


def test_template_signs_in_a_ticket_stay_text(shop: Engine) -> None:
    template = load_template(TEMPLATES, "support_triage")
    (record,) = [record for record in read(shop, template) if "7*7" in record.data["body"]]

    prompt = render_prompt(make_brief(template, "sandbox", {}), {"record": record.data})

    assert "{{ 7*7 }}" in prompt.messages[-1]["content"]
    assert "<script>alert('tea')</script>" in prompt.messages[-1]["content"]


def test_ticket_without_text_renders_a_note(shop: Engine) -> None:
    template = load_template(TEMPLATES, "support_triage")
    brief = make_brief(template, "sandbox", {})

    said = [render_prompt(brief, {"record": record.data}).messages[-1]["content"] for record in read(shop, template)]

    assert sum("(no text)" in content for content in said) == 2


ENTRY = {"headline": "Cooler water makes sencha sweet", "teaser": "Nine of eleven preferred it."}
LATER_STEPS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "newsletter_digest",
        {"newsletter_summary": [{"headline": f"H{n}", "summary": "S", "takeaway": "T"} for n in (1, 2)]},
        ["Summaries: 2", "1. H1", "2. H2", "Takeaway: T"],
    ),
    (
        "newsletter_subject",
        {"newsletter_digest": {"title": "A matter of degrees", "intro": "Hot or not.", "entries": [ENTRY]}},
        ["Title: A matter of degrees", "1. Cooler water makes sencha sweet"],
    ),
    (
        "newsletter_choice",
        {"newsletter_subject": [{"subject": f"Line {n}", "preheader": "P"} for n in "abcde"]},
        ["Candidates: 5", "1. Line a", "5. Line e"],
    ),
]


@pytest.mark.parametrize(("name", "inputs", "expected"), LATER_STEPS)
def test_later_step_reads_earlier_outputs(name: str, inputs: dict[str, Any], expected: list[str]) -> None:
    template = load_template(TEMPLATES, name)

    lines = render_prompt(make_brief(template, "sandbox", {}), inputs).messages[-1]["content"].splitlines()

    assert set(expected) <= set(lines)
    assert template.reads == set(inputs)


def test_every_template_loads_and_has_a_description() -> None:
    loaded = [load_template(TEMPLATES, name) for name in list_templates(TEMPLATES)]

    assert all(template.front.description for template in loaded)


def test_shared_prefix_of_product_copy_is_long_enough_to_be_cached() -> None:
    # Claude Sonnet 4.6 caches prefixes of 1,024 tokens and more; English has fewer than 5 characters a token.
    assert len(make_brief(load_template(TEMPLATES, "product_copy"), "sandbox", {}).system) > 1024 * 5


@pytest.mark.parametrize(("name", "count"), [("album_notes", 347), ("customer_thanks", 59)])
@pytest.mark.chinook
def test_chinook_select_yields_each_key_once_and_renders(chinook: Engine, name: str, count: int) -> None:
    template = load_template(TEMPLATES, name)
    brief = make_brief(template, "sandbox", {})

    records = read(chinook, template)

    assert len({record.key for record in records}) == len(records) == count
    assert len({render_prompt(brief, {"record": record.data}).hash for record in records}) == count


@pytest.mark.chinook
def test_tracks_have_the_order_of_the_album(chinook: Engine) -> None:
    records = read(chinook, load_template(TEMPLATES, "album_notes"))
    for record in records:
        tracks = rows(chinook, f"SELECT Name FROM Track WHERE AlbumId = {record.key} ORDER BY TrackId")
        lines = record.data["tracks"].splitlines()
        assert len(lines) == record.data["track_count"]
        assert all(line.startswith(f"- {row['Name']}") for line, row in zip(lines, tracks, strict=True))


def test_order_lines_of_northwind_have_a_key_of_two_columns(northwind: Engine) -> None:
    sql = 'SELECT OrderID, ProductID, UnitPrice, Quantity, Discount FROM "Order Details"'
    # As docs/ledger.md writes the key in SQL.
    joined = """SELECT CAST(OrderID AS TEXT) || '|' || CAST(ProductID AS TEXT) AS record_key FROM "Order Details" """

    query = Query("lines", sql, ("OrderID", "ProductID"), {})
    records = selected(northwind, query)

    assert len(records) == 2155
    assert {record.key for record in records} == {row["record_key"] for row in rows(northwind, joined)}
    found = read_record(northwind, query, "10248|42")
    assert found is not None
    assert (found.data["UnitPrice"], found.data["Quantity"]) == (9.8, 10)

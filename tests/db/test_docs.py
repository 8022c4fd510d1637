"""Run the queries of docs/ledger.md and of the README on both databases, and check what they find."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from db.clock import now
from db.columns import Base
from db.ledger.lifecycle import begin_step
from db.ledger.rows import StepRow, TemplateRow
from db.ledger.writing import add_templates
from db.readers.audit.exports import EXPORT_COLUMNS
from db.readers.figures import cost_reused, usage
from db.sources.values import joined_key
from db.words import ORIGINS, RUN_STATUSES, STATUSES, TRY
from tests.db.rows import Book, sha

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)

MARKED = re.compile(r"-- (SQLite|PostgreSQL|MariaDB|DuckDB)\n")
STOCK = [
    "CREATE TABLE stock (depot VARCHAR(20), shelf INT)",
    r"INSERT INTO stock VALUES ('a\b|c', 7), ('plain', 8)",
]
KEYED = [
    *STOCK,
    "CREATE TABLE order_lines (order_id INT, line INT)",
    "INSERT INTO order_lines VALUES (10248, 11), (10248, 12)",
]


@pytest.fixture
def shop(ledger: Engine) -> Engine:
    """A ledger with products in its database: fresh, renamed, without content; and content without a product."""
    long_ago = now() - timedelta(days=100)
    book = Book(ledger, started_at=long_ago)
    with ledger.begin() as connection:
        moment = "TIMESTAMP WITH TIME ZONE" if ledger.dialect.name == "postgresql" else "TIMESTAMP"
        connection.execute(text(f"CREATE TABLE products (sku VARCHAR(20) PRIMARY KEY, name TEXT, updated_at {moment})"))
        connection.execute(
            text("INSERT INTO products VALUES (:sku, :name, :at)"),
            [
                {"sku": "TEA-001", "name": "Sencha", "at": str(long_ago - timedelta(days=1))},
                {"sku": "TEA-002", "name": "Renamed", "at": str(now() - timedelta(days=1))},
                {"sku": "TEA-003", "name": "New", "at": str(now())},
            ],
        )
        for statement in KEYED:
            connection.exec_driver_sql(statement)
    for flow, key in (("line_notes", "10248|11"), ("stock_notes", "a\\\\b\\|c|7")):
        Book(ledger, flow=flow).add(key, step=flow, created_at=now())
    first = book.add("TEA-001", record='{"name":"Sencha"}', created_at=long_ago)
    book.add("TEA-002", record='{"name":"Gyokuro"}', created_at=long_ago)
    book.add("GONE-1", created_at=long_ago)
    lost = dict.fromkeys(("http_status", "model", "input_tokens", "output_tokens", "cost_usd"))
    book.add("TEA-003", status="failed", output=None, settled=lost | {"error_type": "timeout"}, created_at=long_ago)
    row = TemplateRow(hash=sha("newer"), name="product_copy", sources={}, first_seen_at=now() + timedelta(days=1))
    add_templates(ledger, [row])
    again = Book(ledger)
    begin_step(ledger, again.run_id, StepRow("product_copy", total=1))
    again.reuse("TEA-001", first, record='{"name":"Sencha"}', template_hash=sha("newer"), created_at=now())
    again.close()
    # What somebody tries afterwards changes what no query about content finds.
    trial = Book(ledger, trigger=TRY)
    for key in ("TEA-001", "TEA-003"):
        trial.add(key, prompt=f"try {key}", output={"title": "Tried"}, template_hash=sha("newest"), created_at=now())
    trial.close()
    book.close()
    return ledger


def run(engine: Engine, block: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.exec_driver_sql(block.replace("%", "%%")).mappings()]


def find(engine: Engine, *words: str) -> list[dict[str, Any]]:
    """Run the only block that has all these words and is for this database."""
    (block,) = [block for block in BLOCKS if all(word in block for word in words) and is_for(engine, block)]
    return run(engine, block)


def is_for(engine: Engine, block: str) -> bool:
    marked = MARKED.match(block)
    return marked is None or marked[1].lower() in {engine.dialect.name, "mariadb" * (engine.dialect.name == "mysql")}


def test_every_query_of_the_page_finds_something(shop: Engine) -> None:
    for block in BLOCKS:
        if is_for(shop, block):
            assert run(shop, block), block


def test_content_is_joined_to_products(shop: Engine) -> None:
    rows = find(shop, "p.name, c.output")

    assert [(row["sku"], row["output"] is not None) for row in rows] == [
        ("TEA-001", True),
        ("TEA-002", True),
        ("TEA-003", False),
    ]


def test_content_of_a_key_of_several_columns_is_joined(shop: Engine) -> None:
    lines, stock = find(shop, "FROM order_lines l"), find(shop, "FROM stock s", "c.output")

    assert [(row["order_id"], row["line"]) for row in lines] == [(10248, 11)]
    assert [(row["depot"], row["shelf"]) for row in stock] == [("a\\b|c", 7)]


@pytest.mark.parametrize("kind", ["duckdb", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_sql_writes_a_key_of_several_columns(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"duckdb:///{tmp_path / 'own.duckdb'}" if kind == "duckdb" else request.getfixturevalue("mariadb_server")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(STOCK[0].replace("TABLE", "TEMPORARY TABLE"))
        connection.execute(text("INSERT INTO stock VALUES (:depot, 7)"), {"depot": "a\\b|c"})
        (block,) = [block for block in BLOCKS if MARKED.match(block) and is_for(engine, block) and "stock s" in block]
        (row,) = connection.exec_driver_sql(block).mappings()
    engine.dispose()

    assert row["record_key"] == joined_key(["a\\b|c", "7"])


def test_join_of_the_readme_finds_content_in_one_database(ledger: Engine) -> None:
    with ledger.begin() as connection:
        connection.execute(text("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT)"))
        connection.execute(text("INSERT INTO products VALUES (1, 'Chai'), (2, 'Chang')"))
    Book(ledger, flow="product_notes").add("2", step="product_notes", output={"title": "Chang", "text": "Malt."})
    (query,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    # Here the reader's tables are in the ledger's database, so nothing is attached.
    join = query.partition(";")[2].replace("shop.products", "products")

    found = [tuple(row.values()) for row in run(ledger, join)]

    assert found == [(1, "Chai", None, None), (2, "Chang", "Chang", "Malt.")]


def test_orphaned_missing_and_stale_content_is_found(shop: Engine) -> None:
    assert [row["record_key"] for row in find(shop, "p.sku IS NULL")] == ["GONE-1"]
    assert [row["sku"] for row in find(shop, "c.generation_id IS NULL")] == ["TEA-003"]
    assert [row["sku"] for row in find(shop, "p.updated_at > c.confirmed_at")] == ["TEA-002"]
    assert [(row["name_then"], row["name_now"]) for row in find(shop, "name_then")] == [("Gyokuro", "Renamed")]
    assert {row["record_key"] for row in find(shop, "c.template_hash <>")} == {"TEA-002", "GONE-1"}
    assert {row["record_key"] for row in find(shop, "age_days > 90")} == {"TEA-001", "TEA-002", "GONE-1"}


def test_history_of_a_record_has_its_text_each_time(shop: Engine) -> None:
    rows = find(shop, "g.record_key = 'TEA-001'")

    assert [row["origin"] for row in rows] == ["live", "cache"]
    assert all("About TEA-001" in str(row["output"]) for row in rows)


def test_figures_of_a_run_are_those_of_its_summary(shop: Engine) -> None:
    # The other rows are runs with one generation.
    row = max(find(shop, "FROM runs r", "requests"), key=lambda row: row["requests"])
    found = usage(shop, row["id"])

    assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (4, found.input_tokens, found.output_tokens)
    assert Decimal(str(row["cost_usd"])) == found.cost_usd == Decimal("0.03")
    assert (row["unpriced"], row["perhaps_billed"]) == (found.unpriced, found.perhaps_billed) == (0, 1)


def test_saving_of_the_cache_is_the_former_cost(shop: Engine) -> None:
    (row,) = find(shop, "saved_usd")
    assert Decimal(str(row["saved_usd"])) == Decimal("0.01")

    (before,) = run(shop, "SELECT * FROM content WHERE record_key = 'TEA-002'")
    for _run in range(2):
        later = Book(shop)
        begin_step(shop, later.run_id, StepRow("product_copy", total=1))
        later.confirm("TEA-002", before["generation_id"], confirmed_at=now())
        later.close()
    # The figure of the first run does not shrink because the second one confirmed the same record.
    assert [Decimal(str(row["saved_usd"])) for row in find(shop, "saved_usd")] == [Decimal("0.01")] * 3
    assert cost_reused(shop, later.run_id) == Decimal("0.01")


def test_sums_of_closed_runs_are_those_of_the_attempts(shop: Engine) -> None:
    days, versions = find(shop, "FROM usage_rollup"), find(shop, "FROM outcome_rollup")
    assert {(row["flow"], int(row["requests"]), Decimal(str(row["cost_usd"]))) for row in days} == {
        ("product_copy", 4, Decimal("0.03")),
        ("product_copy", 2, Decimal("0.02")),
    }
    counts = {row["template_hash"]: (int(row["generations"]), int(row["without_content"])) for row in versions}
    assert counts == {sha("template"): (4, 1), sha("newer"): (1, 0), sha("newest"): (2, 0)}


def test_records_of_a_run_are_counted_with_and_without_a_row(shop: Engine) -> None:
    (before,) = run(shop, "SELECT * FROM content WHERE record_key = 'TEA-002'")
    later = Book(shop)
    later.add("TEA-003", status="failed", output=None)
    later.add("TEA-003")
    later.confirm("TEA-002", before["generation_id"])

    found = {row["ended"]: row["records"] for row in find(shop, "failed_again") if row["run_id"] == later.run_id}
    assert found == {"succeeded": 1, "cached": 1}


def test_page_names_every_table_column_and_word() -> None:
    for table in Base.metadata.tables.values():
        assert f"`{table.name}`" in PAGE
        for column in table.columns:
            assert f"`{column.name}`" in PAGE, f"{table.name}.{column.name}"
    for word in (*STATUSES, *ORIGINS, *RUN_STATUSES):
        assert re.search(rf"\b{word}\b", PAGE), word


def test_page_lists_the_columns_of_an_export_in_their_order() -> None:
    table = PAGE.partition("## Exports")[2].partition("| column |")[2].partition("\n\n")[0]
    listed = [
        name for line in table.splitlines() for name in re.findall(r"`(\w+)`", line.partition("|")[2].partition("|")[0])
    ]

    assert listed == list(EXPORT_COLUMNS)


def test_page_names_every_column_of_the_views(shop: Engine) -> None:
    with shop.connect() as connection:
        for view in ("current_content", "usage_by_day"):
            (row, *_) = connection.execute(text(f"SELECT * FROM {view}")).mappings()
            for name in row:
                assert f"`{name}`" in PAGE, f"{view}.{name}"

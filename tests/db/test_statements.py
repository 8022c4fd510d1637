"""What in a user's SQL is a parameter, and what only looks like one."""

from __future__ import annotations

import pytest

from db.statements import Parameter, bound, read_statement


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1", ()),
        ("SELECT :a, :b, :a", ("a", "b")),
        ("SELECT '12:30', 'a:b', ' :no', ':smile:'", ()),
        ("SELECT 'it''s :no' || :yes", ("yes",)),
        ("""SELECT '{"a":1}'::jsonb ->> ':no'""", ()),
        ('SELECT "odd:name", "a "":b" FROM t', ()),
        ("SELECT `odd :name` FROM t", ()),
        ("SELECT :a::int, CAST(:b AS date)::text", ("a", "b")),
        ("SELECT items[1:2], items[:n]", ("n",)),
        ("SELECT 1 -- not :this\n, :that /* nor :these\n :ones */", ("that",)),
        ("SELECT E'it\\'s :no', :yes", ("yes",)),
        ("SELECT name'x' , $$ :no $$, $tag$ :no $$ $tag$, :yes", ("yes",)),
        (r"SELECT 'C:\:no'", ()),
    ],
)
def test_parameters_are_found_outside_of_texts_and_comments(sql: str, names: tuple[str, ...]) -> None:
    statement = read_statement(sql)

    assert statement.names == names
    clause = bound(statement.body, {name: Parameter("str", None) for name in names}, "postgresql")
    assert set(clause.compile().params) == set(names)


@pytest.mark.parametrize(
    "trailing",
    [";", " ; \n", "-- done", ";-- done; really\n", "/* done */;", "\n-- one\n-- two :no\n;\n", ""],
)
def test_what_trails_a_select_is_left_out(trailing: str) -> None:
    assert read_statement(f"  SELECT ';--' {trailing}").body == "SELECT ';--'"


def test_text_goes_to_the_database_as_it_was_written() -> None:
    sql = r"""SELECT 'a:b', ':x:', "c:d", E'\'' || :p, x::int, 'C\:', y[1:2] -- c:d
    FROM t"""

    compiled = str(bound(read_statement(sql).body, {"p": Parameter("int", 1)}, "sqlite"))

    assert compiled == sql

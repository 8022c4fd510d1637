"""The lint reports each mistake with its file and line, and nothing that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from db.database_errors import SelectError
from flows.outputs import Output
from presswork.prompts.lint import Finding, errors_that_stop, lint_template
from presswork.prompts.select_shapes import NotASelect, NotRead, Shape, parameters_of, read_select
from presswork.prompts.templates import list_templates
from presswork.settings import ROOT
from tests.db.conftest import as_it_stands, dialect_of

SHIPPED = ROOT / "templates"
LONG = "{% block system %}" + "You write copy. " * 300 + "{% endblock %}\n"


def write(folder: Path, blocks: str, name: str = "made", **front: str) -> None:
    lines = {"select": "SELECT id, name FROM things", "key": "id", "output": "SubjectLine"} | front
    head = "".join(f"{field}: {value}\n" for field, value in lines.items() if value)
    (folder / f"{name}.md.j2").write_text(f"---\n{head}---\n{blocks}", encoding="utf-8")


def user(text: str) -> str:
    return LONG + "{% block user %}\n" + text + "\n{% endblock %}\n"


def lint(folder: Path) -> list[tuple[str, int | None, str, str]]:
    return [(found.level, found.line, found.code, found.message) for found in lint_template(folder, "made")]


@pytest.mark.parametrize("name", list_templates(SHIPPED))
def test_shipped_templates_have_no_error(name: str) -> None:
    assert [str(found) for found in lint_template(SHIPPED, name) if found.level == "error"] == []


@pytest.mark.parametrize("name", ["q&a", "50%", "a<b", "a>b", "a\nb", "", "made-shards"])
def test_name_that_no_deployment_can_have_is_an_error_and_stops_no_run(tmp_path: Path, name: str) -> None:
    write(tmp_path, user("{{ record.name }}"))
    write(tmp_path, user("{{ record.name }}"), name)
    (found,) = lint_template(tmp_path, name)
    assert (found.file, found.level, found.code) == (f"{name}.md.j2", "error", "name")
    assert found.message.endswith("Rename the template's file.")
    assert errors_that_stop([found]) == []
    assert lint(tmp_path) == []


@pytest.mark.parametrize("name", ["two words", "商品", "Käse", "what?#", "x" * 248, "made2-shards", "Made", ".x"])
def test_other_names_are_allowed(tmp_path: Path, name: str) -> None:
    write(tmp_path, user("{{ record.name }}"), name)
    assert lint_template(tmp_path, name) == []


def test_name_of_a_step_is_free_as_it_has_no_deployment(tmp_path: Path) -> None:
    write(tmp_path, user("x"), "q&a", select="", key="")
    assert lint_template(tmp_path, "q&a") == []


def test_a_template_without_fault_has_no_finding(tmp_path: Path) -> None:
    write(tmp_path, user("{{ record.name }} {{ record['id'] }}{% for key in record.keys() %}{{ key }}{% endfor %}"))

    assert lint(tmp_path) == []


# The user block's text is on line 8.
@pytest.mark.parametrize(
    ("text", "level", "code", "message"),
    [
        ("{{ record.title }}", "error", "variable", "does not provide `record.title`; it yields id, name"),
        ("{{ record['title'] }}", "error", "variable", "`record.title`"),
        ("{% if record.title %}x{% endif %}", "error", "variable", "`record.title`"),
        ("{{ record.Name }}", "note", "variable", "The database decides if"),
        ("{{ record.items }}", "error", "variable", "does not provide `record.items`; it yields id, name"),
        ("{{ params.tone }}", "error", "params", "'tone' is not declared"),
        ("{{ triage.topic }}", "error", "step", "is not `record`, `params` or a step"),
    ],
)
def test_variables_are_compared_with_columns_params_and_steps(
    tmp_path: Path, text: str, level: str, code: str, message: str
) -> None:
    write(tmp_path, user(text))

    ((found_level, line, found_code, found_message),) = lint(tmp_path)

    assert (found_level, line, found_code) == (level, 8, code)
    assert message in found_message


@pytest.mark.parametrize(
    "text",
    [
        "{{ record.title | default('none') }}",
        "{% if record.title is defined %}{{ record.title }}{% endif %}",
        "{% set title = record.name %}{{ title }}",
        "{% for word in record.name.split() %}{{ word.lower() }} {{ loop.index }}{% endfor %}",
        "{{ other.anything }}",
    ],
)
def test_optional_names_and_names_made_in_the_template_are_not_mistakes(tmp_path: Path, text: str) -> None:
    write(tmp_path, "{% block user %}x{% endblock %}", name="other", select="", key="")
    write(tmp_path, user(text))

    assert lint(tmp_path) == []


@pytest.mark.parametrize("named", ["'_part.md.j2'", "['_part.md.j2']"])
def test_variables_of_an_include_are_found_in_its_file(tmp_path: Path, named: str) -> None:
    (tmp_path / "_part.md.j2").write_text("fine\n{{ record.colour }}{{ word }}")
    write(tmp_path, user("{% for word in ['a'] %}{% include " + named + " %}{% endfor %}"))

    (found,) = lint_template(tmp_path, "made")

    assert (found.file, found.line, found.level) == ("_part.md.j2", 2, "error")


@pytest.mark.parametrize(
    ("front", "line", "code", "message"),
    [
        ({"model": "claude-sonet-4"}, 5, "model", "'claude-sonet-4' is unknown"),
        (
            {"model": "claude-sonnet-4"},
            5,
            "model",
            "claude-sonnet-4 is retired since 2026-06-15: requests that name it",
        ),
        ({"max_tokens": "200000"}, 5, "limits", "max_tokens: claude-sonnet-4-6 answers with 128,000 tokens at most"),
        ({"output": "Nothing"}, 4, "outputclass", "no output class 'Nothing'"),
        ({"key": "number"}, 2, "key", "does not yield the key 'number'"),
        ({"key": "[id, number]"}, 2, "key", "does not yield the key 'number'"),
        ({"select": "SELECT id, name FROM things WHERE id = :which"}, 2, "params", "uses :which"),
        (
            {"select": "DROP TABLE things"},
            2,
            "sql",
            "The select begins with DROP, but it may only read. Write a SELECT.",
        ),
        ({"select": "SELECT 1 AS id; SELECT 2 AS id"}, 2, "sql", "The select has several statements."),
        (
            {"select": "WITH gone AS (DELETE FROM things RETURNING id) SELECT id, id AS name FROM gone"},
            2,
            "sql",
            "The select contains DELETE, but it may only read.",
        ),
    ],
)
def test_mistakes_of_the_front_matter_are_errors(
    tmp_path: Path, front: dict[str, str], line: int, code: str, message: str
) -> None:
    write(tmp_path, user("{{ record.name }}"), **front)

    errors = [found for found in lint_template(tmp_path, "made") if found.level == "error"]

    assert [(found.line, found.code) for found in errors] == [(line, code)]
    assert message in errors[0].message


@pytest.mark.parametrize(
    ("front", "code", "message"),
    [
        ({"colour": "red"}, "template", "colour"),
        ({"output": ""}, "template", "output"),
    ],
)
def test_a_front_matter_that_does_not_load_is_one_error(
    tmp_path: Path, front: dict[str, str], code: str, message: str
) -> None:
    write(tmp_path, user("{{ record.name }}"), **front)

    ((level, _line, found_code, found_message),) = lint(tmp_path)

    assert (level, found_code) == ("error", code)
    assert message in found_message


def test_an_error_in_jinja_has_its_line_and_hides_no_other(tmp_path: Path) -> None:
    write(tmp_path, user("{{ record.name"), model="claude-9", output="Nothing")

    found = lint(tmp_path)

    assert {code for _level, _line, code, _message in found} == {"template", "model", "outputclass"}
    assert any(code == "template" and line for _level, line, code, _message in found)


def test_mistake_has_its_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    write(tmp_path, user("{{ record.name | nofilter }}"), "two words, and: more")

    (found,) = lint_template(tmp_path, "two words, and: more")

    assert (found.file, found.line) == ("two words, and: more.md.j2", 8)
    assert not found.message.startswith(("two words", "line"))


def test_front_matter_that_is_nested_too_deeply_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, user("{{ record.name }}"), examples="[" * 1000)

    ((level, _line, code, message),) = lint(tmp_path)

    assert (level, code) == ("error", "template")
    assert message == "the front matter can't be read: it is nested too deeply."


def test_an_output_class_that_the_api_cannot_take_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Free(Output):
        counts: dict[str, int]

    monkeypatch.setattr("flows.outputs.Free", Free, raising=False)
    monkeypatch.setattr(Free, "__module__", "flows.outputs")
    write(tmp_path, user("x"), output="Free")

    errors = [found for found in lint_template(tmp_path, "made") if found.level == "error"]

    assert [found.code for found in errors] == ["outputclass"]
    assert [found for found in lint_template(tmp_path, "made", schema=False) if found.level == "error"] == []


@pytest.mark.parametrize(
    ("front", "code", "message"),
    [
        ({"select": "SELECT * FROM things"}, "star", "Name the columns"),
        ({"select": "SELECT t.*, 1 AS one FROM things t"}, "star", "Name the columns"),
        ({"select": "SELECT id, lower(name) FROM things"}, "variable", "with AS"),
        ({"select": "SELECT id, name FROM things WHERE >>>"}, "sql", "can't be read here"),
        ({"params": "{tone: {type: str, default: null}}"}, "params", "'tone' is declared but not used"),
    ],
)
def test_checks_that_are_impossible_are_notes(tmp_path: Path, front: dict[str, str], code: str, message: str) -> None:
    write(tmp_path, user("{{ record.name }}"), **front)

    ((level, _line, found_code, found_message),) = lint(tmp_path)

    assert (level, found_code) == ("note", code)
    assert message in found_message


def test_a_short_system_block_is_a_note_unless_caching_is_off(tmp_path: Path) -> None:
    blocks = "{% block system %}Short.{% endblock %}\n{% block user %}x{% endblock %}\n"
    write(tmp_path, blocks)
    ((level, _line, code, message),) = lint(tmp_path)
    write(tmp_path, blocks, cache='"off"')

    assert (level, code) == ("note", "cache")
    assert "1,024" in message
    assert "not marked" in message
    assert lint(tmp_path) == []


@pytest.mark.parametrize("read", ["{{ params.tone }}", "{{ params.tone | default('dry') }}"])
def test_a_param_may_be_used_by_the_prompt_alone(tmp_path: Path, read: str) -> None:
    write(tmp_path, user("{{ record.name }} " + read), params="{tone: {type: str, default: dry}}")

    assert lint(tmp_path) == []


def test_an_unknown_model_stops_no_run() -> None:
    findings = [Finding("f", 1, "error", "model", "unknown"), Finding("f", 1, "note", "star", "")]

    assert errors_that_stop(findings) == []
    assert errors_that_stop([*findings, error := Finding("f", 2, "error", "step", "")]) == [error]


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT a, t.b, c AS d, count(*) AS n FROM t", ("a", "b", "d", "n")),
        ("WITH q AS (SELECT 1 AS a) SELECT a, 'x' AS b FROM q", ("a", "b")),
        ("SELECT a FROM t UNION ALL SELECT b FROM u", ("a",)),
        ("(SELECT a FROM t)", ("a",)),
        ("SELECT (SELECT max(x) FROM u) AS most, a FROM (SELECT a FROM t) AS s;", ("most", "a")),
        ('SELECT "Q w", a::int AS a FROM t -- tail', ("Q w", "a")),
        ("SELECT a FROM t; -- tail\n;/* and more */", ("a",)),
        ("SELECT group_concat(a, char(10)) AS a, printf('%.2f', b) AS b FROM t", ("a", "b")),
        ("SELECT a->>'x' AS x, CAST(:d AS date) AS d FROM t WHERE (:k IS NULL OR k = :k)", ("x", "d")),
        ("SELECT TOP 5 [a] FROM t", ("a",)),
        ("SELECT `a` FROM t", ("a",)),
    ],
)
def test_columns_of_a_select(sql: str, columns: tuple[str, ...]) -> None:
    shape = read_select(sql)

    assert isinstance(shape, Shape)
    assert shape.columns == columns
    assert not shape.star


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "PRAGMA foo", ""])
def test_sql_that_does_not_select_is_reported(sql: str) -> None:
    assert isinstance(read_select(sql), NotASelect)


def test_sql_that_no_dialect_reads_has_a_line() -> None:
    shape = read_select("SELECT a\nFROM t WHERE WHERE")

    assert isinstance(shape, NotRead)
    assert shape.line == 2


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT a::int\nFROM t WHERE b = :b AND c = :c OR d = :b", {"b": 2, "c": 2}),
        ("SELECT attrs @> '{\"active\":true}', items[1:2] FROM t -- :no\nWHERE b = :b", {"b": 2}),
        ("SELECT 'it\\'s :no', `a:no` FROM t # it's :no\nWHERE b = :b", {"b": 2}),
        ("SELECT q'[it's :no]' AS q FROM dual WHERE b = :b", {"b": 1}),
        ("SELECT {'a':x, 'b': :b} AS s FROM t", {"b": 1}),
        # The database is unknown. An undeclared name is a parameter only if every database would read it as one.
        ("SELECT [odd :no] AS a FROM t WHERE b = :b", {"b": 1}),
        ("SELECT [:b] AS a FROM t", {"b": 1}),
        ("SELECT a FROM t WHERE x = :undeclared AND b = :b", {"undeclared": 1, "b": 1}),
        ("SELECT a FROM t WHERE WHERE b = :b", {"b": 1}),
        ("SELECT 'a FROM t WHERE b = :b", {}),
    ],
)
def test_parameters_are_found_as_they_are_bound(sql: str, found: dict[str, int]) -> None:
    assert parameters_of(sql, {"b", "c"}) == found


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT a FROM t FOR UPDATE", "locks rows (FOR UPDATE)"),
        ("SELECT a FROM t WHERE >>> FOR UPDATE", "locks rows (FOR UPDATE)"),
        ("SELECT a FROM t LOCK IN SHARE MODE", "locks rows (LOCK IN SHARE MODE)"),
        ("SELECT a FROM (SELECT a FROM t FOR SHARE) AS s", "locks rows (FOR SHARE)"),
        ("SELECT a INTO b FROM t", "contains INTO"),
        ("SELECT a FROM t FOR XML AUTO", "returns all records as one text (FOR XML)"),
        ("WITH n AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM n", "contains INSERT"),
        ("WITH n AS (UPDATE t SET a = 1 RETURNING a) SELECT a FROM n", "contains UPDATE"),
        ("SELECT a FROM t)", "can't be read: its brackets do not match"),
        ("SELECT 'a FROM t", "can't be read: a quote or a comment in it is not closed"),
    ],
)
def test_a_select_that_does_more_than_read_is_refused_as_the_run_refuses_it(sql: str, reason: str) -> None:
    shape = read_select(sql)

    assert isinstance(shape, NotASelect)
    assert shape.reason.startswith(f"the select {reason}")
    for driver in ("sqlite", "postgresql+psycopg"):
        with pytest.raises(SelectError) as raised:
            as_it_stands(sql, {}, dialect_of(driver))
        assert str(raised.value) == shape.reason


@pytest.mark.parametrize("sql", ["VALUES (1)", "TABLE t", "SELECT a FROM t WHERE >>>"])
def test_sql_that_a_run_accepts_is_not_an_error_without_columns(sql: str) -> None:
    shape = read_select(sql)

    assert isinstance(shape, NotRead) or (isinstance(shape, Shape) and shape.star)
    as_it_stands(sql, {}, dialect_of("postgresql+psycopg"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a, UPPER(INSERT(b, 1, 1, 'c')) AS b FROM t WHERE lock IN ('share') AND c IN (updated, merge)",
        "SELECT a, substring(b FROM 1 FOR no) AS b, trim(FROM c) AS c FROM (SELECT * FROM t) AS delete_from",
        "SELECT a, (SELECT b FROM u FOR JSON PATH) AS b FROM t",
    ],
)
def test_select_that_only_looks_like_writing_is_not_refused(sql: str) -> None:
    assert not isinstance(read_select(sql), NotASelect)
    for driver in ("sqlite", "postgresql+psycopg", "mysql+pymysql", "mssql+pyodbc"):
        as_it_stands(sql, {}, dialect_of(driver))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT TOP (:n) t.a, [b b] AS b FROM dbo.[t t] t WITH (NOLOCK) ORDER BY a OPTION (RECOMPILE)",
        "WITH q(a, b) AS (SELECT 1, 2) SELECT a, CONVERT(VARCHAR(10), b, 120) AS b FROM q CROSS APPLY f(a) x",
        "SELECT a, LISTAGG(b, ',') WITHIN GROUP (ORDER BY b) AS b FROM t WHERE ROWNUM < 5 AND c(+) = d GROUP BY a",
        "SELECT LEVEL AS a, CONNECT_BY_ROOT b AS b FROM t START WITH c = 1 CONNECT BY PRIOR c = d",
        "SELECT a, b FROM t ORDER BY a OFFSET 2 ROWS FETCH NEXT 5 ROWS ONLY",
        "SELECT a, GROUP_CONCAT(b ORDER BY b SEPARATOR '|') AS b FROM `t` FORCE INDEX (i) GROUP BY a LIMIT 2, 5",
        "SELECT a, IFNULL(b, JSON_VALUE(c, '$.d')) AS b FROM t WHERE a REGEXP '^x' # done",
        "SELECT a, {'x': b}.x AS b FROM t QUALIFY ROW_NUMBER() OVER (PARTITION BY a) = 1",
        "FROM t SELECT a, list_transform(l, x -> x + 1) AS b",
    ],
)
def test_selects_of_every_dialect_are_read(sql: str) -> None:
    shape = read_select(sql)

    assert isinstance(shape, Shape)
    assert shape.columns == ("a", "b")


@pytest.mark.parametrize(
    ("select", "is_noted"),
    [
        ("SELECT id, a #> '{x}' AS name FROM things", True),
        ("SELECT id, name FROM things # all of them", True),
        ("\"SELECT id, a #> '{x}' AS name FROM things\"", False),
        ("|\n  SELECT id, a #> '{x}' AS name FROM things", False),
        ("SELECT id, a#>'{x}' AS name FROM things", False),
    ],
)
def test_select_that_yaml_cuts_at_a_comment_is_noted(tmp_path: Path, select: str, is_noted: bool) -> None:
    write(tmp_path, user("{{ record.id }}"), select=select)

    assert any("YAML drops the text after" in said for *_, said in lint(tmp_path)) is is_noted


# Examples


def test_scalar_that_may_be_meant_as_more_than_text_is_noted_by_its_line(tmp_path: Path) -> None:
    examples = (
        "\n- record:\n    id: 7\n    name: NO\n    made: 2026-03-01\n    price: 9.5\n    list: [0123, 'on', !!str 10]\n"
        "  inputs: {triage: {sure: yes}}\n  answer: {subject: A fine subject line, preheader: And a fine preheader}"
    )
    write(tmp_path, user("{{ record.name }}"), examples=examples)

    found = [(line, message.partition(",")[2]) for level, line, code, message in lint(tmp_path) if code == "scalar"]

    assert [(line, said.partition(" as written")[0]) for line, said in found] == [
        (8, " record.name is the text 'NO',"),
        (11, " record.list[0] is the text '0123',"),
        (12, " inputs.triage.sure is the text 'yes',"),
    ]


def test_example_that_computes_with_a_doubtful_number_is_reported_with_the_scalar(tmp_path: Path) -> None:
    examples = "\n- record: {price: 1.10}\n  answer: {}"
    write(tmp_path, user("{{ '%.2f' | format(record.price) }}"), examples=examples)

    found = lint(tmp_path)

    assert any(level == "error" and "with the record of example 1" in said for level, _line, _code, said in found)
    assert any(code == "scalar" and "record.price is the text '1.10'" in said for _level, _line, code, said in found)


# A byte order mark


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path, user("{{ record.name }}{{ record.gone }}"), select="made.sql", max_tokens="5")
    (tmp_path / "made.sql").write_text("SELECT id, name FROM things", encoding="utf-8")
    before = lint(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    assert lint(tmp_path) == before
    assert before


def test_byte_order_mark_is_not_reported_in_a_template_that_does_not_load(tmp_path: Path) -> None:
    write(tmp_path, user("{{ 1 + }}"), output="Nothing", model="gpt")
    before = lint(tmp_path)
    file = tmp_path / "made.md.j2"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    assert lint(tmp_path) == before
    assert {code for _level, _line, code, _message in before} == {"template", "outputclass", "model"}

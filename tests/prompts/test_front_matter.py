"""Each mistake in a template's front matter is reported by field or line, before anything else happens."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from presswork.errors import ParameterError, TemplateError
from presswork.prompts.front_matter import blank_front_matter, read_front_matter
from tests.pieces import Write


def test_least_front_matter_has_the_defaults() -> None:
    front = read_front_matter("note", "---\noutput: Note\n---\n")

    assert (front.model, front.max_tokens, front.cache) == ("claude-sonnet-4-6", 1024, "5m")
    assert (front.thinking, front.effort, front.select, front.key) == (None, None, None, None)


@pytest.mark.parametrize("source", ["", "no head", "---\noutput: Note\n", "\n---\noutput: Note\n---\n", "--- \n"])
def test_missing_front_matter_is_reported_with_its_form(source: str) -> None:
    with pytest.raises(TemplateError, match=r"note\.md\.j2: the front matter is missing\. Begin the file with ---"):
        read_front_matter("note", source)


@pytest.mark.parametrize(
    ("head", "field"),
    [
        ("output: Note\nmax_token: 5\n", "max_token"),
        ("model: x\n", "output"),
        ("", "output"),
        ("output: Note\nmax_tokens: 0\n", "max_tokens"),
        ("output: Note\nmax_tokens: true\n", "max_tokens"),
        ("output: Note\neffort: huge\n", "effort"),
        ("output: Note\nthinking: 12\n", "thinking"),
        ("output: Note\nthinking: 2048\nmax_tokens: 2048\n", "thinking"),
        ("output: Note\nthinking: on\n", "thinking"),
        ("output: Note\nthinking: between_tools\n", "thinking"),
        ("output: Note\ncache: 2h\n", "cache"),
        ("output: Note\nsource: two words\n", "source"),
        ("output: Note\nselect: SELECT 1\n", "key"),
        ("output: Note\nselect: SELECT 1\nkey: []\n", "key: must name a column, or list columns"),
        ("output: Note\nselect: SELECT 1\nkey: [a, [b]]\n", "key: must name a column, or list columns"),
        ("output: Note\nselect: SELECT 1\nkey: ['']\n", "key: must name a column, or list columns"),
        ("output: Note\nselect: SELECT 1\nkey: {a: b}\n", "key: must name a column, or list columns"),
        ("output: Note\nselect: SELECT 1\nkey: [a, b, a]\n", "key: names a column twice"),
        ("output: Note\nkey: [a, b]\n", "key: a list of columns needs a `select`"),
        ("output: Note\nparams: {tone: {type: text}}\n", "params.tone.type"),
        ("output: Note\nparams: {tone: {kind: str}}\n", "params.tone.kind"),
        ("output: Note\nparams: {_tone: {type: str}}\n", "params._tone"),
        ("output: Note\nparams: {n: {type: int, default: many}}\n", "params.n"),
        ("output: Note\nparams: {n: {type: int, choices: [1, two]}}\n", "params.n"),
        ("output: Note\nparams: {n: {type: int, choices: [1, 2], default: 3}}\n", "params.n"),
        ("output: Note\nparams: {n: {choices: []}}\n", "params.n.choices"),
        ("output: Note\nexamples: [{record: {}}]\n", "examples.0.answer"),
        ("- a\n- list\n", "must be keys and values"),
        ("output: Note\nselct: x\n", "selct: unknown key; docs/templates.md lists the available ones."),
        ("output: Note\nparams: {n: int}\n", "params.n: must be keys and values, such as {type: int}."),
        ("output: Note\nparams: [n]\n", "params: must be keys and values, such as {a: b}."),
        ("output: Note\naccept_models: a\n", "accept_models: must be a list, such as [a, b]."),
        (
            "output: Note\nthinking: 12\n",
            "wrong: thinking: must be `off`, `adaptive` or a budget of at least 1,024 tokens.",
        ),
    ],
)
def test_mistake_is_reported_by_its_field(head: str, field: str) -> None:
    with pytest.raises(TemplateError, match=r"^note\.md\.j2: the front matter is wrong: ") as raised:
        read_front_matter("note", f"---\n{head}---\n")

    assert field in str(raised.value)


@pytest.mark.parametrize(
    ("key", "columns"), [("sku", ("sku",)), ("[order_id, line]", ("order_id", "line")), ("[sku]", ("sku",))]
)
def test_key_is_a_column_or_several(key: str, columns: tuple[str, ...]) -> None:
    front = read_front_matter("note", f"---\noutput: Note\nselect: SELECT 1\nkey: {key}\n---\n")

    assert front.key_columns == columns


def test_all_wrong_fields_are_reported_at_once() -> None:
    with pytest.raises(TemplateError, match=r"colour.*; shape"):
        read_front_matter("note", "---\noutput: Note\ncolour: red\nshape: round\n---\n")


@pytest.mark.parametrize(
    ("head", "line"),
    [("output: Note\nkey: [1\nmodel: x\n", 4), ("output: Note\n\tkey: x\n", 3), ("output: Note\nkey: a: b\n", 3)],
)
def test_mistake_of_yaml_has_the_line_of_the_file(head: str, line: int) -> None:
    with pytest.raises(TemplateError, match=rf"^note\.md\.j2, line {line}: the front matter is not valid YAML: "):
        read_front_matter("note", f"---\n{head}---\n")


def test_tag_that_does_not_fit_is_reported() -> None:
    with pytest.raises(TemplateError, match=r"not valid YAML: invalid literal for int"):
        read_front_matter("note", "---\noutput: Note\nmax_tokens: !!int many\n---\n")


@pytest.mark.parametrize("tag", ["!!set {x}", "!!python/name:os.system ''", "!mine 5"])
def test_tag_of_a_value_that_is_not_plain_is_refused(tag: str) -> None:
    with pytest.raises(TemplateError, match=r"^note\.md\.j2, line 3: .*could not determine a constructor for the tag"):
        read_front_matter("note", f"---\noutput: Note\nkey: {tag}\n---\n")


@pytest.mark.parametrize(
    ("written", "read"),
    [*((word, "off") for word in ("off", "Off", "OFF", "'off'", "no", "NO", "false")), ("5m", "5m"), ("1h", "1h")],
)
def test_cache_is_read_as_it_is_written(written: str, read: str) -> None:
    assert read_front_matter("note", f"---\noutput: Note\ncache: {written}\n---\n").cache == read


@pytest.mark.parametrize(
    ("written", "read"), [("off", "off"), ("'off'", "off"), ("adaptive", "adaptive"), ("1024", 1024), ("null", None)]
)
def test_thinking_is_read_as_it_is_written(written: str, read: str | int | None) -> None:
    source = f"---\noutput: Note\nmax_tokens: 2048\nthinking: {written}\n---\n"

    assert read_front_matter("note", source).thinking == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("y", "y"),
        ("yes", "yes"),
        ("0123", "0123"),
        ("12:30", "12:30"),
        ("2026-03-01", "2026-03-01"),
        ("2026-09-14T10:20:00Z", "2026-09-14T10:20:00Z"),
        ("2026-13-45", "2026-13-45"),
        ("1.10", "1.10"),
        ("10.0", "10.0"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("+5", "+5"),
        (".5", ".5"),
        (".inf", ".inf"),
        ("=", "="),
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("123456789012345678901234", "123456789012345678901234"),
        ("9.5", 9.5),
        ("-0.5", -0.5),
        ("0.00005", 0.00005),
        ("10", 10),
        ("-3", -3),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'9.5'", "9.5"),
        ("'null'", "null"),
        ("[NO, 1.10, 7]", ["NO", "1.10", 7]),
        ("{no: NO, 2026: 0123}", {"no": "NO", "2026": "0123"}),
        ("!!timestamp 2026-03-01", "2026-03-01"),
        ("!!binary aGVsbG8=", "aGVsbG8="),
        ("!!float 10", 10),
        ("!!str 10", "10"),
    ],
)
def test_value_of_an_example_is_plain_and_as_it_is_written(written: str, read: Any) -> None:
    head = (
        f"output: Note\nexamples:\n- record: {{v: {written}}}\n  inputs: {{step: {{v: {written}}}}}\n  answer: {{}}\n"
    )

    (example,) = read_front_matter("note", f"---\n{head}---\n").examples

    for found in (example.record["v"], example.inputs["step"]["v"]):
        assert (type(found), found) == (type(read), read)


def test_merge_of_yaml_still_works() -> None:
    examples = "- record: &one {a: 1, b: NO}\n  answer: {}\n- record: {<<: *one, b: x}\n  answer: {}\n"

    front = read_front_matter("note", f"---\noutput: Note\nexamples:\n{examples}---\n")

    assert [found.record for found in front.examples] == [
        {"a": 1, "b": "NO"},
        {"a": 1, "b": "x"},
    ]


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ("str", "off", "off"),
        ("str", "NO", "NO"),
        ("str", "0123", "0123"),
        ("str", "2026-03-01", "2026-03-01"),
        ("str", "1.10", "1.10"),
        ("int", "0123", 123),
        ("int", "1_000", 1000),
        ("int", "0x1F", 31),
        ("float", ".inf", float("inf")),
        ("float", "0x1F", 31.0),
        ("float", "1.10", 1.1),
        ("bool", "no", False),
        ("bool", "on", True),
        ("date", "2026-03-01", date(2026, 3, 1)),
        ("datetime", "2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_default_and_choices_of_a_parameter_are_as_they_are_written(kind: str, written: str, read: Any) -> None:
    head = f"output: Note\nparams: {{p: {{type: {kind}, default: {written}, choices: [{written}]}}}}\n"

    param = read_front_matter("note", f"---\n{head}---\n").params["p"]

    assert param.default == read
    assert param.choices == [read]


@pytest.mark.parametrize(
    ("written", "read"),
    [("1_500", 1500), ("0x600", 1536), ("03000", 1536), ("0b110_0000_0000", 1536), ("+1500", 1500), ("25:00", 1500)],
)
def test_number_of_tokens_may_be_any_number_of_yaml_1_1(written: str, read: int) -> None:
    front = read_front_matter("note", f"---\noutput: Note\nmax_tokens: {written}\n---\n")
    other = read_front_matter("note", f"---\noutput: Note\nmax_tokens: 3000\nthinking: {written}\n---\n")

    assert (front.max_tokens, other.thinking) == (read, read)


@pytest.mark.parametrize(
    "written", ["many", "1500.5", "2026-13-45", "yes", "'1.5e+3'", "0x", "0x_", "=", "'<<'", "[1500]"]
)
def test_value_that_is_not_a_number_of_tokens_is_refused(written: str) -> None:
    with pytest.raises(TemplateError, match="max_tokens"):
        read_front_matter("note", f"---\noutput: Note\nmax_tokens: {written}\n---\n")


@pytest.mark.parametrize("source", ["---\na: 1\nb: 2\n---\nbody", "---\n---\nbody", "---\na: |\n  {# x #}\n---\nbody"])
def test_blanked_front_matter_keeps_the_lines(source: str) -> None:
    blanked = blank_front_matter(source)

    assert blanked.count("\n") == source.count("\n")
    assert blanked.endswith("#}body")


def test_text_without_front_matter_stays_as_it_is() -> None:
    assert blank_front_matter("A part.\n---\nof others\n---\n") == "A part.\n---\nof others\n---\n"


# Parameters


@pytest.mark.parametrize(
    ("kind", "given", "parsed"),
    [
        ("str", "tea", "tea"),
        ("str", "", ""),
        ("int", "5", 5),
        ("int", 6, 6),
        ("float", "2.5", 2.5),
        ("bool", "true", True),
        ("bool", "no", False),
        ("date", "2026-11-22", date(2026, 11, 22)),
        ("datetime", "2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
    ],
)
def test_parameter_is_converted_to_its_type(write: Write, kind: str, given: Any, parsed: Any) -> None:
    template = write(front=f"params: {{value: {{type: {kind}}}}}\n")

    assert template.parse_params({"value": given}) == {"value": parsed}


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("int", "five", "The parameter 'value' takes an int, not 'five'."),
        ("bool", "perhaps", "The parameter 'value' takes a bool, not 'perhaps'."),
        ("date", "yesterday", "The parameter 'value' takes a date, not 'yesterday'."),
        ("str", 5, "The parameter 'value' takes a str, not 5."),
        ("str", None, "The parameter 'value' must have a value of type str."),
    ],
)
def test_wrong_value_is_reported_with_the_type(write: Write, kind: str, given: Any, message: str) -> None:
    template = write(front=f"params: {{value: {{type: {kind}}}}}\n")

    with pytest.raises(ParameterError) as raised:
        template.parse_params({"value": given})

    assert str(raised.value) == message


def test_choices_are_kept(write: Write) -> None:
    template = write(front="params: {size: {choices: [small, large], default: small}}\n")

    assert template.parse_params({}) == {"size": "small"}
    assert template.parse_params({"size": "large"}) == {"size": "large"}
    with pytest.raises(ParameterError, match="takes one of small, large, not 'huge'"):
        template.parse_params({"size": "huge"})


def test_default_has_the_parameters_type(write: Write) -> None:
    template = write(front='params: {since: {type: date, default: "2026-01-31"}, until: {type: date, default: null}}\n')

    assert template.parse_params({}) == {"since": date(2026, 1, 31), "until": None}
    assert template.parse_params({"until": None})["until"] is None


@pytest.mark.parametrize("kind", ["str", "int", "float", "bool", "date", "datetime"])
def test_empty_text_is_null_where_null_is_allowed(write: Write, kind: str) -> None:
    template = write(front=f"params: {{value: {{type: {kind}, default: null}}}}\n")
    assert template.parse_params({"value": ""}) == {"value": None}
    assert template.parse_params({"value": None}) == {"value": None}


def test_empty_text_is_null_for_choices_too(write: Write) -> None:
    template = write(front="params: {size: {choices: [small, large], default: null}}\n")
    assert template.parse_params({"size": ""}) == {"size": None}


@pytest.mark.parametrize("kind", ["int", "float", "bool", "date", "datetime"])
def test_empty_text_is_an_error_where_neither_null_nor_an_empty_text_is_allowed(write: Write, kind: str) -> None:
    template = write(front=f"params: {{value: {{type: {kind}}}}}\n")
    with pytest.raises(ParameterError, match=f"'value' must have a value of type {kind}"):
        template.parse_params({"value": ""})


def test_parameter_without_a_default_must_be_given(write: Write) -> None:
    with pytest.raises(ParameterError, match=r"needs the parameter 'tone'\. Set it with --set tone=VALUE"):
        write(front="params: {tone: {}}\n").parse_params({})


def test_unknown_parameter_is_reported_with_the_available_ones(write: Write) -> None:
    with pytest.raises(ParameterError, match=r"has no parameter 'tune'\. Available: tone, when"):
        write(front="params: {tone: {}, when: {}}\n").parse_params({"tune": 1})
    with pytest.raises(ParameterError, match=r"\. Available: none\."):
        write().parse_params({"tune": 1})


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("float", "nan", "a finite number"),
        ("float", "1e400", "a finite number"),
        ("int", "99999999999999999999", "at most 64 bits"),
    ],
)
def test_number_that_databases_read_in_different_ways_is_refused(kind: str, value: str, said: str) -> None:
    param = read_front_matter("note", f"---\noutput: Note\nparams: {{p: {{type: {kind}}}}}\n---\n").params["p"]

    with pytest.raises(ParameterError, match=f"'p' takes .*{said}"):
        param.parse("p", value)

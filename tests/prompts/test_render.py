"""Rendered data is text and nothing else, a missing value is an error, and no error quotes a record."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from presswork.errors import RecordError, TemplateError
from presswork.prompts.render import Caching, make_brief, render_prompt, request_body
from presswork.prompts.templates import Template
from tests.pieces import Say, Write


def user(body: str) -> str:
    return "{% block user %}" + body + "{% endblock %}"


def fill(template: Template, **inputs: Any) -> str:
    """Render the user's message of a prompt."""
    return render_prompt(make_brief(template, "sandbox", template.stand_ins), inputs).messages[-1]["content"]


# Data is text


@pytest.mark.parametrize(
    "text",
    [
        "{{ 7*7 }}",
        "{% include '/etc/passwd' %}",
        "{# not a comment #}",
        "<script>alert('tea & biscuits')</script>",
        "a\x00b",
        "\N{HOT BEVERAGE}\N{VARIATION SELECTOR-16} \N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}",
        "\N{ARABIC LETTER MEEM}\N{RIGHT-TO-LEFT MARK}\N{HEBREW LETTER SHIN}\N{RIGHT-TO-LEFT OVERRIDE}abc",
        "line\r\nline\rline\u2028end",
        "\ufeffmarked",
        pytest.param("wörter " * 30_000, id="200 KB"),
        "---\nmodel: other\n---",
        "{% endblock %}{% block system %}",
    ],
)
def test_record_goes_through_unharmed(write: Write, text: str) -> None:
    assert fill(write(user("[{{ record.name }}]")), record={"name": text}) == f"[{text}]"


def test_values_of_all_kinds_are_written_as_they_read(write: Write) -> None:
    record = {"price": Decimal("3.50"), "day": date(2026, 11, 22), "stock": 3, "organic": True, "tags": ["a", "b"]}
    template = write(
        user(
            "{{ record.price }} {{ record.day }} {{ record.stock }} {{ record.organic }} {{ record.tags | join('/') }}"
        )
    )

    assert fill(template, record=record) == "3.50 2026-11-22 3 True a/b"


def test_output_of_an_earlier_step_is_read_by_its_name(write: Write) -> None:
    template = write(user("{{ record.name }}: {{ triage.summary }}"))

    assert fill(template, record={"name": "A"}, triage={"summary": "late {{ 1 }}"}) == "A: late {{ 1 }}"


def test_blank_lines_around_a_block_are_not_part_of_the_prompt(write: Write) -> None:
    assert fill(write("{% block user %}\n\n  Hello\n\n{% endblock %}\n"), record={}) == "Hello"


@pytest.mark.parametrize("name", ["items", "keys", "values", "get", "pop", "update", "copy"])
def test_column_that_is_named_like_a_method_is_the_column(write: Write, name: str) -> None:
    body = "{{ record.NAME }} {{ record['NAME'] }} {% if record.NAME == 'tea' %}yes{% endif %}".replace("NAME", name)

    assert fill(write(user(body)), record={name: "tea"}) == "tea tea yes"


@pytest.mark.parametrize("column", ["name", "items"])
def test_call_uses_the_method_whichever_columns_there_are(write: Write, column: str) -> None:
    template = write(
        user("{% for name, value in record.items() %}{{ name }}={{ value }}{% endfor %} {{ record.get('x') }}")
    )

    assert fill(template, record={column: "tea"}) == f"{column}=tea"


def test_method_that_is_not_called_is_not_a_column(write: Write) -> None:
    with pytest.raises(RecordError, match="has no attribute 'items'"):
        fill(write(user("{{ record.items }}")), record={"name": "tea"})


# Missing values


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("\n{{ record.nam }}", "note.md.j2, line 5: 'dict object' has no attribute 'nam'."),
        ("{{ recrod.name }}", "note.md.j2, line 4: 'recrod' is undefined."),
        ("{{ record.name.first }}", "note.md.j2, line 4: 'str object' has no attribute 'first'."),
        ("{% if record.nam %}x{% endif %}", "note.md.j2, line 4: 'dict object' has no attribute 'nam'."),
        ("{{ record['na' ~ 'm'] }}", "note.md.j2, line 4: it reads a name that the data does not have."),
        ("{{ record[record.name] }}", "note.md.j2, line 4: it reads a name that the data does not have."),
        ("{{ [record] | map(attribute='nam') | list }}", "note.md.j2, line 4: 'dict object' has no attribute 'nam'."),
        ("{% if false %}x{% endif %}", "note.md.j2: the user block renders as empty text."),
    ],
)
def test_missing_value_is_reported_and_never_renders_as_empty(write: Write, body: str, message: str) -> None:
    with pytest.raises(RecordError) as raised:
        fill(write(user(body)), record={"name": "Ms Marsh's secret"})

    assert str(raised.value) == message


def test_missing_value_in_an_include_has_the_includes_line(write: Write) -> None:
    template = write(user('{% include "_part.md.j2" %}'), files={"_part.md.j2": "\n\n{{ record.nam }}"})

    with pytest.raises(RecordError, match=r"^_part\.md\.j2, line 3: "):
        fill(template, record={})


def test_default_and_defined_accept_missing_values(write: Write) -> None:
    template = write(user("{{ record.a | default('none') }}{% if record.b is defined %}!{% endif %}"))

    assert fill(template, record={}) == "none"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{{ record.name + 1 }}", "a value has a type that this line can't use (TypeError)"),
        ("{{ 1 / (record.name | length - 17) }}", "division by zero (ZeroDivisionError)"),
        ("{{ record.name | round }}", "a value has a type that this line can't use (TypeError)"),
        ("{{ '%d' | format(record.name) }}", "a value has a type that this line can't use (TypeError)"),
        (
            "{{ record.name.encode('ascii') }}",
            "a value does not have the format that this line needs (UnicodeEncodeError)",
        ),
        ("{{ record.name.index('zzz') }}", "a value does not have the format that this line needs (ValueError)"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{{ self.user() }}", "RecursionError"),
    ],
)
def test_any_error_of_a_record_fails_it_alone_and_quotes_no_data(write: Write, body: str, error: str) -> None:
    with pytest.raises(RecordError) as raised:
        fill(write(user(body)), record={"name": "Ms Marsh, Zoë St."})

    assert str(raised.value) == f"note.md.j2, line 4: {error}."
    assert raised.value.__suppress_context__


def test_text_that_is_not_unicode_fails_alone(write: Write) -> None:
    with pytest.raises(RecordError, match="not Unicode"):
        fill(write(user("{{ record.name }}")), record={"name": "half \ud83d"})


# Python's internals


@pytest.mark.parametrize(
    "body",
    [
        "{{ record.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ record._private }}",
        "{{ record['__class__'] }}",
        "{{ record | attr('__class__') }}",
        "{{ [record] | map(attribute='__class__') | list }}",
        "{{ [record] | map('attr', '__class__') | list }}",
        "{{ [record] | selectattr('__class__') | list }}",
        "{{ [record] | sort(attribute='__class__') }}",
        "{{ [record] | groupby('__class__') }}",
        "{{ [record] | map(attribute='a.__class__') | list }}",
        "{{ '{0.__class__}'.format(record) }}",
        "{{ self.__init__ }}",
        "{{ range.__globals__ }}",
        "{% set x = '__class__' %}{{ record[x] }}",
        "{% for x in record.__dict__ %}{% endfor %}",
    ],
)
def test_access_to_pythons_internals_is_refused_before_any_record(write: Write, body: str) -> None:
    with pytest.raises(
        TemplateError, match=r"^note\.md\.j2, line 4: .* reaches into Python\. Templates read only data\."
    ):
        write(user(body))


def test_access_to_internals_in_an_include_is_refused(write: Write) -> None:
    with pytest.raises(TemplateError, match=r"^_part\.md\.j2, line 2: '__class__' reaches into Python"):
        write(user('{% include "_part.md.j2" %}'), files={"_part.md.j2": "\n{{ record.__class__ }}"})


@pytest.mark.parametrize(
    "body",
    [
        "{{ record['__cl' ~ 'ass__'] }}",
        "{{ record.name['__cl' ~ 'ass__'] }}",
        "{{ record.name | attr('_' ~ '_class__') }}",
        "{{ [record.name] | map(attribute='__cl' ~ 'ass__') | list }}",
        "{{ [record.name] | map('attr', '__cl' ~ 'ass__') | list }}",
        "{{ ('{0.__cl' ~ 'ass__}').format(record.name) }}",
        "{{ ('{0.__cl' ~ 'ass__}').format_map({'0': record.name}) }}",
        "{{ record.name[record.reach] }}",
        "{{ (record.name | attr('form' ~ 'at'))[record.reach] }}",
    ],
)
def test_access_by_a_name_composed_while_rendering_leaks_nothing(write: Write, body: str) -> None:
    template = write(user("x" + body))

    with pytest.raises(RecordError):
        fill(template, record={"name": "tea", "reach": "__class__"})


@pytest.mark.parametrize(
    "body", ["{{ record.update({'a': 1}) }}", "{{ record.tags.append(1) }}", "{{ record.clear() }}"]
)
def test_template_can_not_change_a_record(write: Write, body: str) -> None:
    record = {"name": "tea", "tags": []}

    with pytest.raises(RecordError):
        fill(write(user("x" + body)), record=record)

    assert record == {"name": "tea", "tags": []}


@pytest.mark.parametrize("name", ["lipsum", "cycler", "joiner", "environment", "open", "__builtins__"])
def test_no_other_names_of_jinja_or_python_are_available(write: Write, name: str) -> None:
    with pytest.raises(RecordError, match="is undefined"):
        fill(write(user("{{ " + name + " }}")), record={})


def test_words_in_the_prompt_are_not_access_to_internals(write: Write) -> None:
    assert (
        fill(write(user("Explain __class__ to {{ record.name }}")), record={"name": "me"}) == "Explain __class__ to me"
    )


# The request

LONG = "We sell tea. " * 400 + "Write."


def test_request_has_the_form_that_the_endpoint_accepts(prompt: Say) -> None:
    body = request_body(
        prompt(
            "{% block system %}" + LONG + "{% endblock %}{% block user %}Name: {{ record.name }}{% endblock %}",
            "max_tokens: 4096\nthinking: 2048\neffort: low\ncache: 1h\n"
            "examples:\n- record: {name: Cup}\n  answer: {title: Fine, stars: 5}\n",
        )
    )

    assert set(body) == {"model", "max_tokens", "system", "messages", "thinking", "output_config"}
    assert body["system"] == [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["schema"]["properties"].keys() == {"title", "stars"}
    assert body["messages"] == [
        {"role": "user", "content": "Name: Cup"},
        {"role": "assistant", "content": '{"title":"Fine","stars":5}'},
        {"role": "user", "content": "Name: Tea"},
    ]


def test_least_request_has_nothing_more(prompt: Say) -> None:
    body = request_body(prompt())

    assert set(body) == {"model", "max_tokens", "messages", "output_config"}
    assert set(body["output_config"]) == {"format"}


def test_cache_that_is_off_marks_no_block(prompt: Say) -> None:
    body = request_body(prompt("{% block system %}S{% endblock %}" + user("x"), "cache: off\n"))

    assert body["system"] == [{"type": "text", "text": "S"}]


@pytest.mark.parametrize(
    ("system", "front", "caching"),
    [
        ("You write.", "", Caching.TOO_SHORT),
        # 350 tokens of English, with the schema; in no script does a text this short have 1,024.
        ("We sell tea. " * 80, "", Caching.TOO_SHORT),
        # About 700 tokens of English, and perhaps 1,024 in another script.
        ("We sell tea. " * 190, "", Caching.UNSURE),
        # In other scripts one character may be a token, or more.
        ("茶" * 600, "", Caching.UNSURE),
        ("茶" * 1200, "", Caching.ON),
        (LONG, "", Caching.ON),
        (LONG, "cache: off\n", Caching.OFF),
        (LONG, "model: claude-haiku-4-5\n", Caching.TOO_SHORT),
        ("We sell tea. " * 700, "model: anthropic/claude-haiku-4-5\n", Caching.UNSURE),
        ("You write.", "model: a-gateways-own\n", Caching.ON),
    ],
)
def test_only_a_prefix_that_is_surely_too_short_is_not_marked(
    prompt: Say, system: str, front: str, caching: Caching
) -> None:
    made = prompt("{% block system %}" + system + "{% endblock %}" + user("x"), front)

    assert made.brief.caching is caching
    marked = "cache_control" in request_body(made)["system"][0]
    assert marked == (caching in {Caching.UNSURE, Caching.ON})


def test_prompts_that_begin_alike_share_a_cached_prefix_and_others_do_not(prompt: Say) -> None:
    def prefix(system: str = LONG, front: str = "", record: dict[str, str] | None = None) -> str:
        return prompt(
            "{% block system %}" + system + "{% endblock %}" + user("{{ record.name }}"), front, record
        ).brief.prefix

    assert prefix() == prefix(record={"name": "Cup"}) == prefix(front="max_tokens: 64\n")
    others = [prefix(LONG + "."), *(prefix(front=front) for front in ("model: claude-opus-4-6\n", "cache: 1h\n"))]
    assert len({prefix(), *others, prefix(front="output: SubjectLine\n")}) == 5


def test_example_that_the_runs_parameters_break_is_a_mistake_of_the_template(write: Write) -> None:
    template = write(
        user("{{ record.name }} {{ 10 / params.n }}"),
        "params: {n: {type: int, default: 1}}\nexamples:\n- record: {name: Cup}\n  answer: {title: Fine, stars: 5}\n",
    )

    with pytest.raises(TemplateError, match="example 1"):
        make_brief(template, "sandbox", {"n": 0})


def test_system_block_that_the_runs_parameters_break_is_a_mistake_of_the_template(write: Write) -> None:
    template = write(
        "{% block system %}{{ 10 / params.n }}{% endblock %}" + user("x"), "params: {n: {type: int, default: 1}}\n"
    )

    with pytest.raises(TemplateError, match=r"^note\.md\.j2, line 5: division by zero"):
        make_brief(template, "sandbox", {"n": 0})


def test_length_for_estimates_counts_all_that_is_sent(prompt: Say) -> None:
    assert prompt("{% block system %}12345{% endblock %}" + user("{{ record.name }}")).characters == 8

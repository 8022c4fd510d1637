"""Each mistake in a template is reported before any request, with its file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from presswork.errors import OutputClassError, TemplateError
from presswork.prompts.front_matter import FrontMatter
from presswork.prompts.templates import list_templates, load_template, read_heads
from tests.pieces import Write

USER = "{% block user %}Name: {{ record.name }}{% endblock %}"
FRONT_LINES = 3  # `write` makes these: ---, output, ---


def mistake(write: Write, body: str, front: str = "", files: dict[str, str] | None = None) -> str:
    """Load a template with a mistake, and return the error's message."""
    with pytest.raises(TemplateError) as raised:
        write(body, front, files)
    return str(raised.value)


# Syntax


@pytest.mark.parametrize("front", ["", "description: A\nmax_tokens: 5\n", "description: |\n  {{ }}\n  {# x #}\n"])
@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("{% block user %}\n\n{{ 1 + }}{% endblock %}", 3),
        ("\n\n{% block user %}\n{% if x %}\n{% endblock %}", 5),
        ("{% block user %}\n{{ record.x | nofilter }}\n{% endblock %}", 2),
        ("{% block user %}\n\n{% if record is notest %}{% endif %}{% endblock %}", 3),
        ("{% block user %}\n{% nonsense %}{% endblock %}", 2),
    ],
)
def test_mistake_of_syntax_has_the_line_of_the_file(write: Write, front: str, body: str, line: int) -> None:
    line += FRONT_LINES + front.count("\n")

    assert mistake(write, body, front).startswith(f"note.md.j2, line {line}: ")


@pytest.mark.parametrize("part", ["Fine.\n{{ 1 + }}", "Fine.\n{{ x | nofilter }}"])
def test_mistake_in_an_include_is_reported_by_its_file(write: Write, part: str) -> None:
    body = '{% block user %}{% include "_part.md.j2" %}{% endblock %}'

    assert mistake(write, body, files={"_part.md.j2": part}).startswith("_part.md.j2, line 2: ")


def test_message_says_the_mistake_once(write: Write) -> None:
    message = mistake(write, "{% block user %}{{ 1 + }}{% endblock %}")

    assert message == "note.md.j2, line 4: unexpected 'end of print statement'."


@pytest.mark.parametrize(
    ("body", "front", "file", "line"),
    [
        ("{% block user %}{{ 1 + }}{% endblock %}", "", "note.md.j2", 4),
        (USER, "key: [\n", "note.md.j2", 4),
        (USER, "colour: red\n", "note.md.j2", None),
        ('{% block user %}{% include "_part.md.j2" %}{% endblock %}', "", "_part.md.j2", 2),
        (USER, "examples: [{record: {}, answer: {}}]\n", "note.md.j2", 5),
    ],
)
def test_mistake_carries_its_file_and_line_apart_from_what_it_says(
    write: Write, body: str, front: str, file: str, line: int | None
) -> None:
    with pytest.raises(TemplateError) as raised:
        write(body, front, {"_part.md.j2": "Fine.\n{{ record.__class__ }}"})

    error = raised.value
    assert (error.file, error.line) == (file, line)
    assert str(error) == (f"{file}, line {line}: {error.what}" if line else f"{file}: {error.what}")


# Blocks


def test_user_block_is_needed(write: Write) -> None:
    assert "The `user` block is missing" in mistake(write, "{% block system %}You write.{% endblock %}")


@pytest.mark.parametrize(
    "body",
    [
        USER + "{% block footer %}Bye{% endblock %}",
        "{% block user %}{% block inner %}x{% endblock %}{% endblock %}",
        "{% block user %}{% block system %}x{% endblock %}{% endblock %}",
        "{% if params %}" + USER + "{% endif %}" + USER.replace("user", "other"),
    ],
)
def test_other_blocks_are_refused(write: Write, body: str) -> None:
    assert "the blocks `system` and `user`, side by side" in mistake(write, body)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("You write for a shop.\n" + USER, 4),
        (USER + "\n\n\nSincerely", 7),
        ("{{ params.tone }}" + USER, 4),
        ('\n{% include "_part.md.j2" %}\n' + USER, 5),
        ("{% for x in [1] %}{% endfor %}" + USER, 4),
    ],
)
def test_text_outside_the_blocks_is_refused_as_it_would_not_be_sent(write: Write, body: str, line: int) -> None:
    message = mistake(write, body, files={"_part.md.j2": "x"})

    assert message.startswith(f"note.md.j2, line {line}: content outside the blocks")


def test_comments_and_blank_lines_are_allowed_outside_the_blocks(write: Write) -> None:
    write("\n{# why #}\n\n" + USER + "\n\n{# end #}\n")


# The system block


@pytest.mark.parametrize(
    "system",
    [
        "{{ record.name }}",
        "{% if params.tone == 'never' %}{{ record.name }}{% endif %}",
        "{% set n = record.name %}{{ n }}",
        "{% for x in record['list'] %}{% endfor %}",
        "{{ product_copy.title }}",
    ],
)
def test_record_in_the_system_block_is_refused_in_any_branch(write: Write, system: str) -> None:
    body = "{% block system %}\n" + system + "{% endblock %}" + USER

    message = mistake(write, body, "params: {tone: {default: warm}}\n")

    assert message.startswith("note.md.j2, line 6: the system block is shared by all records")
    assert "'record'" in message or "'product_copy'" in message


def test_record_in_an_include_of_the_system_block_is_refused(write: Write) -> None:
    body = '{% block system %}{% include "_part.md.j2" %}{% endblock %}' + USER

    message = mistake(write, body, files={"_part.md.j2": "Fine.\n{{ record.name }}"})

    assert message.startswith("_part.md.j2, line 2: the system block is shared by all records")


@pytest.mark.parametrize("above", ["{% set name = record.name %}", "{% set name = recrod %}{% set x = name.y %}"])
def test_record_above_the_blocks_is_refused_if_there_is_a_system_block(write: Write, above: str) -> None:
    body = above + "{% block system %}{{ name }}{% endblock %}" + USER

    assert "can read only `params`" in mistake(write, body)


def test_parameters_may_be_read_by_the_system_block(write: Write) -> None:
    kinds = ["str", "int", "float", "bool", "date", "datetime"]
    front = "params:\n" + "".join(f"  {kind}_: {{type: {kind}}}\n" for kind in kinds)
    system = "{{ params.str_.upper() }}{{ 10 / params.int_ }}{{ params.float_ + 1 }}{{ params.date_.year }}"

    write("{% block system %}" + system + "{{ params.datetime_.isoformat() }}{% endblock %}" + USER, front)


@pytest.mark.parametrize("system", ["{{ 1 / 0 }}", "{{ params.nothing }}", "{{ [] | first.x }}", "{{ 1 + 'a' }}"])
def test_system_block_that_does_not_render_is_a_mistake(write: Write, system: str) -> None:
    assert mistake(write, "{% block system %}\n" + system + "{% endblock %}" + USER).startswith("note.md.j2, line 5: ")


# Files


def test_unknown_template_is_reported_with_the_available_ones(write: Write, folder: Path) -> None:
    write()
    write(name="other")

    with pytest.raises(TemplateError, match=r"There is no template 'mine' in templates/\. Available: note, other\."):
        load_template(folder, "mine")


@pytest.mark.parametrize(
    "typed", ["templates/note.md.j2", "./templates/note.md.j2", "note.md.j2", "noet", "C:\\t\\note"]
)
def test_path_of_a_template_suggests_its_name(write: Write, folder: Path, typed: str) -> None:
    write()
    write(name="other")

    with pytest.raises(TemplateError, match=r"in templates/\. Did you mean 'note'\? Available: note, other\."):
        load_template(folder, typed)


def test_empty_folder_and_no_folder_have_no_templates(folder: Path) -> None:
    for empty in (folder, folder / "nowhere"):
        with pytest.raises(TemplateError, match="Available: none"):
            load_template(empty, "mine")


def test_parts_are_not_listed(write: Write, folder: Path) -> None:
    write(files={"_part.md.j2": "x", "note.sql": "SELECT 1"})

    assert list_templates(folder) == ["note"]


def test_other_files_are_not_listed(write: Write, folder: Path) -> None:
    write()
    (folder / ".#note.md.j2").symlink_to("someone@host.1234:5678")  # Emacs's lock of an open file
    (folder / "._note.md.j2").write_bytes(b"\x00\x05\x16\x07")  # macOS leaves such files on memory sticks
    (folder / "old.md.j2").mkdir()
    (folder / "gone.md.j2").symlink_to("/nowhere")

    assert list_templates(folder) == ["note"]


@pytest.mark.parametrize("name", ["../secret", "/etc/secret", "sub/../../secret", "folder", "with\0nul", "x" * 5000])
def test_name_without_a_file_in_the_folder_is_not_a_template(folder: Path, name: str) -> None:
    (folder.parent / "secret.md.j2").write_text("---\noutput: Note\n---\n" + USER, encoding="utf-8")
    (folder / "folder.md.j2").mkdir()

    with pytest.raises(TemplateError):
        load_template(folder, name)


def test_symbolic_link_out_of_the_folder_is_not_a_template(write: Write, folder: Path) -> None:
    (folder.parent / "secret.txt").write_text("the secret", encoding="utf-8")
    (folder / "_part.md.j2").symlink_to(folder.parent / "secret.txt")

    message = mistake(write, '{% block user %}{% include "_part.md.j2" %}{% endblock %}')

    assert message == "note.md.j2: it includes '_part.md.j2', which is not in templates/."


def test_file_that_can_not_be_read_is_reported(write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> str:
        raise PermissionError(13, "Permission denied")

    write()
    monkeypatch.setattr(Path, "read_text", refuse)

    with pytest.raises(TemplateError, match=r"note\.md\.j2: the file can't be read: Permission denied\."):
        load_template(folder, "note")


def test_file_that_is_not_utf_8_is_reported(folder: Path) -> None:
    (folder / "note.md.j2").write_bytes(b"---\noutput: Note\n---\nCaf\xe9")

    with pytest.raises(TemplateError, match=r"note\.md\.j2: the file is not UTF-8 text \(byte 24\)"):
        load_template(folder, "note")


@pytest.mark.parametrize(("mark", "end"), [("", "\r\n"), ("\ufeff", "\n"), ("\ufeff", "\r\n")])
def test_line_ends_and_byte_order_marks_do_not_change_the_version(
    write: Write, folder: Path, mark: str, end: str
) -> None:
    before = write("{% block user %}\nName:\n{{ record.name }}\n{% endblock %}\n")
    path = folder / "note.md.j2"
    path.write_bytes((mark + path.read_text(encoding="utf-8").replace("\n", end)).encode())

    after = load_template(folder, "note")

    assert after.hash == before.hash
    assert after.render_block("user", {"record": {"name": "x"}}) == "Name:\nx"


# Parts of other files


def test_missing_include_is_reported_with_the_file_that_includes_it(write: Write) -> None:
    message = mistake(
        write,
        '{% block user %}{% include "_part.md.j2" %}{% endblock %}',
        files={"_part.md.j2": '{% include "_gone.md.j2" %}'},
    )

    assert message == "_part.md.j2: it includes '_gone.md.j2', which is not in templates/."


@pytest.mark.parametrize(
    "files",
    [
        {"_a.md.j2": '{% include "_b.md.j2" %}', "_b.md.j2": '{% include "_a.md.j2" %}'},
        {"_a.md.j2": '{% include "_a.md.j2" %}'},
        {"_a.md.j2": '{% include "note.md.j2" %}'},
        {"_a.md.j2": '{% if false %}{% import "_b.md.j2" as b %}{% endif %}', "_b.md.j2": '{% include "_a.md.j2" %}'},
    ],
)
def test_files_that_include_each_other_are_refused(write: Write, files: dict[str, str]) -> None:
    message = mistake(write, '{% block user %}{% include "_a.md.j2" %}{% endblock %}', files=files)

    assert "these files include each other in a circle" in message
    assert "_a.md.j2 -> " in message


def test_file_may_be_included_twice(write: Write) -> None:
    files = {"_a.md.j2": '{% include "_c.md.j2" %}', "_b.md.j2": '{% include "_c.md.j2" %}', "_c.md.j2": "tea"}
    template = write('{% block user %}{% include "_a.md.j2" %} {% include "_b.md.j2" %}{% endblock %}', files=files)

    assert template.render_block("user", {}) == "tea tea"


@pytest.mark.parametrize(
    "body",
    [
        "{% include record.file %}",
        '{% include "_" ~ record.kind ~ ".md.j2" %}',
        "{% import record.file as macros %}",
        "{% from record.file import x %}",
    ],
)
def test_include_whose_name_is_made_while_rendering_is_refused(write: Write, body: str) -> None:
    assert "must name their file" in mistake(write, "{% block user %}" + body + "{% endblock %}")


def test_extends_is_refused(write: Write) -> None:
    message = mistake(write, '{% extends "_base.md.j2" %}' + USER, files={"_base.md.j2": "x"})

    assert "`extends` is not supported" in message


MACROS = {"_macros.md.j2": "{% macro shout(text) %}{{ text | upper }}!{% endmacro %}"}


@pytest.mark.parametrize(
    ("above", "used"),
    [
        ('{% import "_macros.md.j2" as macros %}', "{{ macros.shout(record.name) }}"),
        ('{% from "_macros.md.j2" import shout %}', "{{ shout(record.name) }}"),
        ('{% from "_macros.md.j2" import shout as cry %}', "{{ cry(record.name) }}"),
        ("{% macro shout(text) %}{{ text | upper }}!{% endmacro %}", "{{ shout(record.name) }}"),
        ("{% macro shout() %}{{ record.name | upper }}!{% endmacro %}", "{{ shout() }}"),
        ('{% set end = "!" %}', "{{ record.name | upper }}{{ end }}"),
        ("{% set end %}!{% endset %}", "{{ record.name | upper }}{{ end }}"),
        ("{% set end = params.end %}", "{{ record.name | upper }}{{ end }}"),
        ("{% set name = record.name | upper %}", "{{ name }}!"),
    ],
)
def test_names_made_above_the_blocks_work_inside_them(write: Write, above: str, used: str) -> None:
    template = write(above + "\n{% block user %}" + used + "{% endblock %}", "params: {end: {}}\n", MACROS)

    for name in ("tea", "kettle"):
        assert template.render_block("user", {"record": {"name": name}, "params": {"end": "!"}}) == name.upper() + "!"


def test_system_block_sees_names_made_above_it(write: Write) -> None:
    body = "{% set tone = params.tone %}{% block system %}Be {{ tone }}.{% endblock %}" + USER

    template = write(body, "params: {tone: {default: warm}}\n")

    assert template.render_block("system", {"params": {"tone": "cold"}}) == "Be cold."


def test_include_may_have_a_front_matter_of_its_own(write: Write) -> None:
    template = write(
        '{% block user %}{% include "_part.md.j2" %}{% endblock %}', files={"_part.md.j2": "---\na: 1\n---\ntea"}
    )

    assert template.render_block("user", {}) == "tea"


# Variables that a template reads


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (USER, {"record"}),
        ("{% block user %}Hello{% endblock %}", set()),
        ("{% block user %}{{ record.a }}{{ params.b }}{{ triage.c }}{% endblock %}", {"record", "params", "triage"}),
        ("{% block system %}{{ params.tone }}{% endblock %}{% block user %}x{% endblock %}", set()),
        ("{% block user %}{% for s in summaries %}{{ loop.index }}{{ s }}{% endfor %}{% endblock %}", {"summaries"}),
        ("{% set a = params.x %}{% block user %}{{ a }}{% endblock %}", {"params"}),
        ('{% block user %}{% include "_reads.md.j2" %}{% endblock %}', {"triage", "item"}),
        (
            '{% block user %}{% for item in record.x %}{% include "_reads.md.j2" %}{% endfor %}{% endblock %}',
            {"record", "triage"},
        ),
        ('{% set item = 1 %}{% block user %}{% include "_reads.md.j2" %}{% endblock %}', {"triage"}),
        ('{% from "_macros.md.j2" import shout %}{% block user %}{{ shout(record.name) }}{% endblock %}', {"record"}),
        ("{% block user %}{% for n in range(2) %}{{ dict(a=n) }}{% endfor %}{% endblock %}", set()),
    ],
)
def test_names_that_the_user_block_reads_from_outside(write: Write, body: str, names: set[str]) -> None:
    files = {"_reads.md.j2": "{{ item }}{{ triage.category }}", **MACROS}

    assert write(body, "params: {tone: {default: warm}, x: {default: y}}\n", files).reads == names


# Version


def test_version_covers_all_files(write: Write) -> None:
    body = '{% from "_macros.md.j2" import shout %}{% block user %}{% include "_part.md.j2" %}{% endblock %}'
    files = {**MACROS, "_part.md.j2": '{% include "_deep.md.j2" %}', "_deep.md.j2": "x", "note.sql": "SELECT 1 AS id"}
    front = "select: note.sql\nkey: id\n"
    before = write(body, front, files)

    assert set(before.sources) == {"note.md.j2", *files}
    assert before.select_sql == "SELECT 1 AS id"
    for file, text in files.items():
        after = write(body, front, {**files, file: text + "\n"})
        assert after.hash != before.hash, file
    assert write(body + "{# a comment #}", front, files).hash != before.hash
    assert write(body, front, files).hash == before.hash


def test_file_that_is_not_used_is_not_part_of_the_version(write: Write) -> None:
    assert write(files={"_part.md.j2": "x"}).hash == write(files={"_part.md.j2": "y"}).hash


def test_select_may_be_in_the_template(write: Write) -> None:
    assert write(front="select: SELECT 1 AS id\nkey: id\n").select_sql == "SELECT 1 AS id"
    assert write().select_sql is None


@pytest.mark.parametrize("file", ["gone.sql", "../note.sql"])
def test_select_that_is_not_in_the_folder_is_reported(write: Write, folder: Path, file: str) -> None:
    (folder.parent / "note.sql").write_text("SELECT 1", encoding="utf-8")

    assert f"`select` names '{file}'" in mistake(write, USER, f"select: {file}\nkey: id\n")


def test_key_of_a_fan_in_is_all_unless_it_is_named(write: Write) -> None:
    assert write().key == "all"
    assert write(front="key: digest\n").key == "digest"


# Output class and examples


def test_missing_output_class_is_told_with_those_there_are(write: Write) -> None:
    with pytest.raises(OutputClassError, match=r"no output class 'Nothing'.*Available: .*Note, .*ProductCopy"):
        write(front="output: Nothing\n")


@pytest.mark.parametrize("name", ["Output", "BaseModel", "Line", "words", "Field"])
def test_what_is_no_output_class_is_not_taken_for_one(write: Write, name: str) -> None:
    with pytest.raises(OutputClassError, match="no output class"):
        write(front=f"output: {name}\n")


EXAMPLE = "examples:\n- record: {name: Tea}\n  answer: {title: Fine, stars: 5}\n"


def test_example_comes_before_the_record(write: Write) -> None:
    template = write(front=EXAMPLE)

    assert template.render_example(1, {}) == ("Name: Tea", '{"title":"Fine","stars":5}')


@pytest.mark.parametrize(
    ("front", "message"),
    [
        (
            EXAMPLE.replace("stars: 5", "stars: 9"),
            "the answer of example 1 is not a valid Note: stars: Input should be",
        ),
        (EXAMPLE + "- record: {title: Tea}\n  answer: {title: Fine, stars: 5}\n", "with the record of example 2"),
    ],
)
def test_wrong_example_is_reported_by_its_number(write: Write, front: str, message: str) -> None:
    assert message in mistake(write, USER, front)


def test_example_is_checked_with_parameters(write: Write) -> None:
    body = "{% block user %}{{ params.tone.upper() }} {{ record.name }}{% endblock %}"

    template = write(body, "params: {tone: {choices: [warm, cold]}}\n" + EXAMPLE)

    assert template.render_example(1, {"tone": "cold"})[0] == "COLD Tea"


def test_heads_are_read_and_one_that_can_not_be_has_its_error(folder: Path, write: Write) -> None:
    write(name="good")
    (folder / "deep.md.j2").write_text("---\noutput: " + "[" * 1000 + "\n---\n", encoding="utf-8")
    (folder / "bytes.md.j2").write_bytes(b"---\noutput: \xff\n---\n")
    (folder / "wrong.md.j2").write_text("---\noutput: Note\nmodel: 5\n---\n", encoding="utf-8")
    (folder / os.fsdecode(b"name\xff.md.j2")).symlink_to(folder / "good.md.j2")

    heads = dict(read_heads(folder))

    good = heads.pop("good")
    assert isinstance(good, FrontMatter)
    assert good.output_name == "Note"
    assert {name: str(head).partition(": ")[2] for name, head in heads.items() if name != "wrong"} == {
        "deep": "the front matter can't be read: it is nested too deeply.",
        "bytes": "the file is not UTF-8 text (byte 12).",
        "name\udcff": str(heads["name\udcff"]).partition(": ")[2],
    }
    assert all(isinstance(head, TemplateError) for head in heads.values())
    assert list(dict(read_heads(folder, ["wrong"]))) == ["wrong"]

"""`presswork templates` lists, lints and shows templates, without a key, a request or Prefect."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from db.clock import now
from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from tests.commands.conftest import FRONT, Desk, call, interrupted
from tests.db.rows import Book, sha


@pytest.fixture(autouse=True)
def no_endpoint(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here needs one."""
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")


def test_list_says_what_each_is_for(desk: Desk) -> None:
    desk.template("step", front="---\noutput: SubjectLine\ndescription: Says [b]more[/b]\n---\n")
    desk.template("broken", front="---\noutput: [\n---\n")
    desk.template("_part", front="")

    listed = {item["name"]: item for item in json.loads(call("templates", "list", "--json").stdout)}
    screen = call("templates", "list").stdout

    assert set(listed) == {"notes", "step", "broken"}
    assert listed["notes"]["selects"]
    assert not listed["step"]["selects"]
    assert "not valid YAML" in listed["broken"]["error"]
    assert "Says [b]more[/b] (a step of a flow)" in screen


def test_lint_ends_well_where_there_are_notes_only(desk: Desk) -> None:
    result = call("templates", "lint")

    assert result.exit_code == 0
    assert "1 template: 0 errors, 1 note." in result.stdout


def test_lint_names_file_line_and_mistake(desk: Desk) -> None:
    desk.template("wrong", blocks="{% block user %}\n{{ record.nothing }}\n{% endblock %}")

    screen = call("templates", "lint", "wrong")
    told = json.loads(call("templates", "lint", "wrong", "--json").stdout)

    assert screen.exit_code == 2
    assert "error: wrong.md.j2, line 8: The select does not provide `record.nothing`" in screen.stdout
    assert told["errors"] == 1
    assert told["findings"][0]["line"] == 8
    assert call("templates", "lint", "absent").exit_code == 2


def test_show_prints_the_exact_request_and_sends_nothing(desk: Desk) -> None:
    desk.notes({1: "one", 2: "two [bold]"})

    screen = call("templates", "show", "notes", "--key", "2")
    told = json.loads(call("templates", "show", "notes", "--key", "2", "--json").stdout)

    assert screen.exit_code == 0
    assert "two [bold]" in screen.stdout
    assert "anthropic (assumed" in screen.stdout
    assert told["request"]["messages"] == [{"role": "user", "content": "two [bold]"}]
    # Too short for the model to cache, so that it is not marked.
    assert [set(block) for block in told["request"]["system"]] == [{"type", "text"}]
    assert told["prompt_hash"] in screen.stdout
    assert desk.sent() == 0
    assert not desk.ledger.exists()


def test_show_takes_params_and_the_endpoints_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.notes({1: "one", 2: "two"})
    desk.template("some", front=FRONT.replace("notes\n", "notes WHERE id = :which\nparams: {which: {type: int}}\n"))
    shown = ("templates", "show", "some", "--key", "2", "--set", "which=2", "--json")
    assumed = json.loads(call(*shown).stdout)
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "gateway")

    named = json.loads(call(*shown).stdout)

    assert named["endpoint"] == "gateway"
    assert named["prompt_hash"] != assumed["prompt_hash"]
    assert named["request"] == assumed["request"]
    assert "needs the parameter 'which'" in call("templates", "show", "some", "--key", "2").stderr
    assert "takes an int" in call("templates", "show", "some", "--key", "2", "--set", "which=x").stderr


def test_show_finds_the_sandbox_as_a_run_does(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.notes({1: "one"})
    shown = ("templates", "show", "notes", "--key", "1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", desk.sandbox)

    screen = call(*shown).stdout
    found = json.loads(call(*shown, "--json").stdout)

    assert found["endpoint"] == "sandbox"
    assert "assumed" not in screen
    assert desk.sent() == 0
    monkeypatch.setenv("PRESSWORK_ENDPOINT", "sandbox")
    assert json.loads(call(*shown, "--json").stdout)["prompt_hash"] == found["prompt_hash"]


def test_show_assumes_claude_where_the_endpoint_does_not_answer(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.notes({1: "one"})
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")

    shown = call("templates", "show", "notes", "--key", "1")

    assert shown.exit_code == 0
    assert "anthropic (assumed" in shown.stdout


@pytest.fixture
def versions(desk: Desk) -> list[str]:
    """Two versions of a template in the ledger, with a generation each, the older one first."""
    found = []
    with desk.opened() as ledger:
        for number, words in enumerate(("Write.", "Write [b]more[/b] \x1b[31m.")):
            hashed = sha(words)
            row = TemplateRow(
                hash=hashed, name="product_copy", sources={"product_copy.md.j2": words}, first_seen_at=now()
            )
            book = Book(ledger)
            add_templates(ledger, [row])
            book.add(f"k{number}", template_hash=hashed)
            book.add(f"bad{number}", template_hash=hashed, status="invalid", output=None, output_hash=None)
            book.close()
            found.append(hashed)
    return found


def test_history_lists_templates_and_the_versions_of_one(versions: list[str]) -> None:
    (line,) = json.loads(call("templates", "history", "--json").stdout)
    found = json.loads(call("templates", "history", "product_copy", "--json").stdout)
    screen = call("templates", "history", "product_copy").stdout

    assert (line["name"], line["last_used"]) == ("product_copy", versions[1])
    # The template of the book itself was never used.
    assert [version["hash"] for version in found] == [*reversed(versions), sha("template")]
    figures = found[0]["use"]["figures"]
    assert (figures["generations"], figures["without_content"], figures["failure_rate"]) == (2, 1, 0.5)
    assert (figures["cost_each_usd"], figures["usage"]["cost_usd"]) == (0.01, 0.02)
    assert "1 (50 %)" in screen
    assert "4 of these generations are of the sandbox, which bills nothing." in screen
    assert f"diff {versions[0][:12]} {versions[1][:12]} --of template" in screen
    assert "product_copy" in call("templates", "history").stdout


def test_history_shows_the_source_of_a_version_as_text(versions: list[str]) -> None:
    screen = call("templates", "history", "product_copy", "--version", versions[1][:8]).stdout

    assert "Write [b]more[/b] ␛[31m." in screen


@pytest.mark.parametrize(
    "wrong", [("nothing",), ("product_copy", "--version", "zz"), ("product_copy", "--version", "")]
)
def test_history_says_what_there_is(versions: list[str], wrong: tuple[str, ...]) -> None:
    result = call("templates", "history", *wrong)

    assert result.exit_code == 2
    assert "templates history" in result.stderr or versions[1][:12] in result.stderr


def test_history_without_a_ledger_says_how_to_get_one(desk: Desk) -> None:
    assert call("templates", "history").exit_code == 2


def test_show_reports_a_key_that_is_not_unique(desk: Desk) -> None:
    desk.notes({1: "one", 2: "two", 3: "three"})
    desk.template(front=FRONT.replace("SELECT id,", "SELECT id / 2 AS id,"))

    assert call("templates", "show", "notes", "--key", "0").exit_code == 0
    shown = call("templates", "show", "notes", "--key", "1")
    assert shown.exit_code == 2
    assert "the key 'id' is not unique: 1 record repeats one, such as 1." in shown.stderr


@pytest.mark.parametrize("flags", [("show", "--key", "1"), ("lint",)])
def test_path_of_a_template_suggests_its_name(desk: Desk, flags: tuple[str, ...]) -> None:
    shown = call("templates", *flags, "templates/notes.md.j2")

    assert shown.exit_code == 2
    assert "Did you mean 'notes'?" in shown.stderr


def test_show_says_how_a_key_of_several_columns_is_written(desk: Desk) -> None:
    desk.notes({1: "one"})
    desk.template("some", front=FRONT.replace("key: id", "key: [id, text]"))

    assert "join them with |" in call("templates", "show", "some", "--key", "1").stderr
    assert call("templates", "show", "some", "--key", "1|one").exit_code == 0


def test_show_names_the_values_that_are_null(desk: Desk) -> None:
    desk.notes({1: None, 2: "two"})
    blocks = "{% block user %}Text: {{ record.text }}{{ params.tone }}.{% endblock %}"
    desk.template(
        "some", front=FRONT.replace("---\nselect", "---\nparams: {tone: {default: null}}\nselect"), blocks=blocks
    )

    screen = call("templates", "show", "some", "--key", "1").stdout
    told = json.loads(call("templates", "show", "some", "--key", "1", "--json").stdout)
    whole = json.loads(call("templates", "show", "notes", "--key", "2", "--json").stdout)

    assert told["request"]["messages"] == [{"role": "user", "content": "Text: ."}]
    assert told["nulls"] == ["record.text", "params.tone"]
    assert [line.split() for line in screen.splitlines() if line.startswith("NULL")] == [
        ["NULL", "record.text,", "params.tone"]
    ]
    assert whole["nulls"] == []


def test_byte_order_mark_is_no_fault(desk: Desk) -> None:
    desk.notes({1: "one"})
    file = desk.templates / "notes.md.j2"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())

    (listed,) = json.loads(call("templates", "list", "--json").stdout)

    assert listed["selects"]
    assert call("templates", "lint").exit_code == 0
    assert call("templates", "show", "notes", "--key", "1").exit_code == 0


def test_show_of_an_unknown_key_is_an_error(desk: Desk) -> None:
    desk.notes({1: "one"})

    result = call("templates", "show", "notes", "--key", "9")

    assert result.exit_code == 2
    assert "no record whose id is '9'" in result.stderr


def test_ctrl_c_ends_a_select_that_takes_for_ever(desk: Desk) -> None:
    desk.notes({1: "one"})
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    desk.template(front=FRONT.replace("FROM notes", f"FROM notes WHERE ({endless}) > 0"))

    with interrupted(lambda: is_open(desk.folder / "source.sqlite")):
        result = call("templates", "show", "notes", "--key", "1")

    assert (result.exit_code, result.stderr) == (130, "Stopped by Ctrl-C.\n")


def is_open(file: Path) -> bool:
    """Whether this process has had a file open for a while."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if descriptor.readlink() == file:
                time.sleep(0.5)
                return True
    return False

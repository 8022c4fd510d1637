"""Another version of a template: by its hash in the ledger, or by a revision of git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.clock import now
from db.ledger.rows import TemplateRow
from db.ledger.writing import add_templates
from db.readers.audit.filters import FilterError
from presswork.errors import ConfigurationError
from presswork.prompts.templates import load_template
from presswork.settings import load_settings
from presswork.trying.sessions import TrySession
from presswork.trying.trials import Asked
from presswork.trying.versions import open_version
from tests.engine.workshop import Workshop

HEAD = "---\noutput: SubjectLine\n---\n"
PART = "{% block user %}{% include '_shop.md.j2' %}{{ record.name }}{% endblock %}"
Commit = Callable[[str], str]


def git(folder: Path, *arguments: str) -> str:
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PATH": os.environ["PATH"]}
    who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, env=own, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "shop" / "templates"
    folder.mkdir(parents=True)
    write(folder, "note", HEAD + PART)
    write(folder, "_shop", "A shop. ")
    return folder


@pytest.fixture
def commit(templates: Path) -> Commit:
    """Commit all files as they are, in a repository above the templates; the commit's hash."""
    git(templates.parent, "init", "-q")

    def commit(message: str) -> str:
        git(templates.parent, "add", "-A")
        git(templates.parent, "commit", "-qm", message)
        return git(templates.parent, "rev-parse", "HEAD")

    return commit


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.md.j2").write_text(text, encoding="utf-8")


def store(ledger: Engine, name: str, sources: Mapping[str, str], version: str) -> None:
    add_templates(ledger, [TemplateRow(hash=version, name=name, sources=dict(sources), first_seen_at=now())])


def parts_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_branch_tag_ancestor_and_hash_name_a_revision(templates: Path, commit: Commit) -> None:
    first = commit("first")
    git(templates.parent, "tag", "v1")
    git(templates.parent, "branch", "older/one")
    before = load_template(templates, "note")
    write(templates, "_shop", "A large shop. ")
    commit("second")
    for name in ("v1", "older/one", "HEAD~1", first, first[:9]):
        with open_version(templates, None, "note", f"git:{name}") as opened:
            assert opened.hash == before.hash
            assert load_template(opened.folder, "note").sources == before.sources
            assert opened.label == f"git:{name} ({first[:10]})"
            assert opened.folder.name == "templates"
        assert not opened.folder.exists()


def test_folder_ends_with_an_interrupt(templates: Path, commit: Commit) -> None:
    commit("first")
    with pytest.raises(KeyboardInterrupt), open_version(templates, None, "note", "git:HEAD") as opened:
        raise KeyboardInterrupt
    assert not opened.folder.parent.exists()


def test_uncommitted_edit_is_not_part_of_a_revision(templates: Path, commit: Commit) -> None:
    commit("first")
    write(templates, "note", HEAD + "{% block user %}Edited{% endblock %}")
    write(templates, "new", HEAD + PART)
    with open_version(templates, None, "note", "git:HEAD") as opened:
        assert parts_of(opened.folder) == {"note.md.j2", "_shop.md.j2"}
        assert "Edited" not in load_template(opened.folder, "note").sources["note.md.j2"]


def test_repository_of_the_templates_alone_has_revisions_too(templates: Path) -> None:
    git(templates, "init", "-q")
    git(templates, "add", "-A")
    git(templates, "commit", "-qm", "first")
    with open_version(templates, None, "note", "git:HEAD") as opened:
        assert parts_of(opened.folder) == {"note.md.j2", "_shop.md.j2"}


@pytest.mark.parametrize(
    "revision", ["missing", "", " ", "--output=stolen", "-h", "HEAD:templates", "a\0b", "v1\n", "HEAD..HEAD", "$(id)"]
)
def test_text_that_names_no_commit_is_an_error(templates: Path, commit: Commit, revision: str) -> None:
    commit("first")
    before = parts_of(templates.parent)
    with (
        pytest.raises(ConfigurationError, match="There is no revision"),
        open_version(templates, None, "note", f"git:{revision}"),
    ):
        pass
    assert parts_of(templates.parent) == before


def test_hostile_revision_is_shown_without_its_controls(templates: Path, commit: Commit) -> None:
    commit("first")
    with (
        pytest.raises(ConfigurationError, match="␛") as raised,
        open_version(templates, None, "note", "git:\x1b[2J"),
    ):
        pass
    assert "\x1b" not in str(raised.value)


def test_folder_outside_of_git_is_an_error(templates: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="is in no git repository"),
        open_version(templates, None, "note", "git:HEAD"),
    ):
        pass


def test_machine_without_git_is_an_error(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(templates))
    with (
        pytest.raises(ConfigurationError, match="no git on this machine"),
        open_version(templates, None, "note", "git:HEAD"),
    ):
        pass


def test_renamed_template_lists_those_of_then(templates: Path, commit: Commit) -> None:
    commit("first")
    (templates / "note.md.j2").rename(templates / "line.md.j2")
    commit("renamed")
    with (
        pytest.raises(ConfigurationError, match=r"no template 'line' .* Available there: note") as raised,
        open_version(templates, None, "line", "git:HEAD~1"),
    ):
        pass
    assert "git:HEAD~1 (" in str(raised.value)


def test_revision_before_the_folder_is_an_error(templates: Path, commit: Commit) -> None:
    moved = templates.rename(templates.parent / "hidden")
    git(templates.parent, "commit", "-qm", "nothing", "--allow-empty")
    moved.rename(templates)
    commit("templates")
    with (
        pytest.raises(ConfigurationError, match="Available there: none"),
        open_version(templates, None, "note", "git:HEAD~1"),
    ):
        pass


def test_broken_version_says_which_one_it_is(templates: Path, commit: Commit) -> None:
    write(templates, "note", HEAD + "{% block user %}{{ record.name {% endblock %}")
    commit("broken")
    with (
        pytest.raises(ConfigurationError, match=r"version git:HEAD \(.* can't be used today. note.md.j2, line 4"),
        open_version(templates, None, "note", "git:HEAD"),
    ):
        pass


def test_repository_of_a_hook_does_not_mislead(
    templates: Path, commit: Commit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit("first")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    with open_version(templates, None, "note", "git:HEAD") as opened:
        assert "note.md.j2" in parts_of(opened.folder)


def test_links_in_a_revision_lead_nowhere_else(templates: Path, commit: Commit, tmp_path: Path) -> None:
    (tmp_path / "secret.md.j2").write_text("secret", encoding="utf-8")
    (templates / "linked.md.j2").symlink_to("note.md.j2")
    (templates / "_out.md.j2").symlink_to(tmp_path / "secret.md.j2")
    write(templates, "leak", HEAD + "{% block user %}{% include '_out.md.j2' %}{% endblock %}")
    commit("links")
    with open_version(templates, None, "linked", "git:HEAD") as opened:
        assert PART in load_template(opened.folder, "linked").sources["linked.md.j2"]
    with (
        pytest.raises(ConfigurationError, match="which is not in templates/"),
        open_version(templates, None, "leak", "git:HEAD"),
    ):
        pass


def test_stored_version_is_found_by_the_beginning_of_its_hash(templates: Path, ledger: Engine) -> None:
    before = load_template(templates, "note")
    store(ledger, "note", before.sources, before.hash)
    write(templates, "_shop", "A large shop. ")
    (templates / "new.md.j2").touch()
    with open_version(templates, ledger, "note", before.hash[:8].upper()) as opened:
        assert (opened.hash, opened.label, opened.note) == (before.hash, before.hash[:12], None)
        assert parts_of(opened.folder) == {"note.md.j2", "_shop.md.j2"}


def test_unknown_version_lists_the_stored_ones(templates: Path, ledger: Engine) -> None:
    stored = load_template(templates, "note")
    store(ledger, "note", stored.sources, stored.hash)
    other = "f" * 8 if not stored.hash.startswith("f" * 8) else "e" * 8
    with (
        pytest.raises(FilterError, match=f"Available: {stored.hash[:12]}"),
        open_version(templates, ledger, "note", other),
    ):
        pass
    with pytest.raises(FilterError, match="write 'git:HEAD~1'"), open_version(templates, ledger, "note", "HEAD~1"):
        pass


def test_ambiguous_beginning_lists_the_versions(templates: Path, ledger: Engine) -> None:
    for number in range(2):
        store(ledger, "note", {"note.md.j2": str(number)}, f"abc{number}" + "0" * 60)
    with (
        pytest.raises(FilterError, match="beginning of 2 template versions"),
        open_version(templates, ledger, "note", "abc"),
    ):
        pass


def test_version_of_another_template_is_not_this_ones(templates: Path, ledger: Engine) -> None:
    store(ledger, "other", {"other.md.j2": ""}, "a" * 64)
    with (
        pytest.raises(ConfigurationError, match="'aaaa' is a version of 'other', and not of 'note'"),
        open_version(templates, ledger, "note", "aaaa"),
    ):
        pass


def test_stored_version_without_a_part_is_an_error(templates: Path, ledger: Engine) -> None:
    whole = load_template(templates, "note")
    store(ledger, "note", {"note.md.j2": whole.sources["note.md.j2"]}, whole.hash)
    with (
        pytest.raises(ConfigurationError, match=r"can't be used today\. note\.md\.j2: it includes '_shop.md.j2'"),
        open_version(templates, ledger, "note", whole.hash),
    ):
        pass


def test_stored_version_with_another_source_is_an_error(templates: Path, ledger: Engine) -> None:
    sources = {**load_template(templates, "note").sources, "_shop.md.j2": "Changed by hand"}
    store(ledger, "note", sources, "a" * 64)
    with (
        pytest.raises(ConfigurationError, match="are those of version"),
        open_version(templates, ledger, "note", "aaaa"),
    ):
        pass


def test_stored_file_outside_of_the_folder_is_never_written(templates: Path, ledger: Engine, tmp_path: Path) -> None:
    store(ledger, "note", {"note.md.j2": HEAD + PART, "../../../stolen.md.j2": "x"}, "a" * 64)
    with (
        pytest.raises(ConfigurationError, match="outside of the folder"),
        open_version(templates, ledger, "note", "aaaa"),
    ):
        pass
    assert not list(tmp_path.rglob("stolen*"))


def test_without_a_ledger_only_git_has_versions(templates: Path) -> None:
    with pytest.raises(ConfigurationError, match="no ledger yet"), open_version(templates, None, "note", "aaaa"):
        pass


async def test_version_of_a_run_says_that_its_class_has_changed(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.numbered(1)
    await workshop.run()
    version = load_template(workshop.templates, "note").hash
    with open_version(workshop.templates, workshop.ledger, "note", version) as opened:
        assert opened.note is None
    with workshop.ledger.begin() as connection:
        # As if the class of then had made another schema.
        connection.exec_driver_sql("UPDATE prompts SET request = replace(request, '$json\":\"', '$json\":\"0')")
    with open_version(workshop.templates, workshop.ledger, "note", version) as opened:
        assert opened.note is not None
        assert "output class SubjectLine has changed" in opened.note


def test_fields_of_a_version_are_its_own(templates: Path, commit: Commit) -> None:
    fields = "---\noutput: {title: {type: str}}\n---\n{% block user %}x{% endblock %}"
    write(templates, "note", fields)
    commit("fields")
    write(templates, "note", fields.replace("title", "headline"))
    with open_version(templates, None, "note", "git:HEAD") as opened:
        assert opened.note is None
        assert list(load_template(opened.folder, "note").output_class.model_fields) == ["title"]


def test_version_with_a_mistake_that_stops_a_run_is_an_error(templates: Path, commit: Commit) -> None:
    write(
        templates,
        "note",
        "---\nselect: SELECT id FROM items\nkey: name\noutput: SubjectLine\nmax_tokens: 0\n---\n" + PART,
    )
    commit("mistake")
    with (
        pytest.raises(ConfigurationError, match=r"version git:HEAD \(.* can't be used today. note.md.j2"),
        open_version(templates, None, "note", "git:HEAD"),
    ):
        pass


async def test_two_versions_share_a_cap_and_leave_the_content(workshop: Workshop) -> None:
    workshop.numbered(3)
    summary = await workshop.run()
    version = load_template(workshop.templates, "note").hash
    workshop.template("Another line about {{ record.name }}.")
    before = workshop.rows("SELECT * FROM content ORDER BY record_key")
    with open_version(workshop.templates, workshop.ledger, "note", version[:12]) as opened:
        async with TrySession(load_settings()) as session:
            old = await session.run(Asked("note"), templates_dir=opened.folder)
            new = await session.run(Asked("note"))
    assert (old.requests, new.requests) == (0, 3)
    # The stored version's answers cost nothing now, and what they cost then is known.
    assert [record.is_cached for record in old.records] == [True] * 3
    assert sum(record.answer_usd or 0 for record in old.records) == summary.cost_usd
    assert [record.key for record in old.records] == [record.key for record in new.records]
    assert new.session_usd == new.cost_usd
    assert workshop.value("SELECT resumes_run_id FROM runs WHERE id = :id", id=new.run_id) == old.run_id
    assert workshop.rows("SELECT * FROM content ORDER BY record_key") == before


async def test_cap_counts_both_versions(workshop: Workshop, tmp_path: Path) -> None:
    workshop.numbered(2)
    folder = tmp_path / "then"
    folder.mkdir()
    write(folder, "note", (workshop.templates / "note.md.j2").read_text().replace("A line", "Some line"))
    async with TrySession(load_settings()) as session:
        old = await session.run(Asked("note", max_cost=10), templates_dir=folder)
        assert old.cost_usd is not None
        new = await session.run(Asked("note", max_cost=float(old.cost_usd)))
    assert (old.stopped, new.requests) == (None, 0)
    assert new.stopped is not None


async def test_param_that_a_version_did_not_have_is_left_out(workshop: Workshop) -> None:
    workshop.numbered(1)
    version = load_template(workshop.templates, "note")
    store(workshop.ledger, "note", version.sources, version.hash)
    file = workshop.templates / "note.md.j2"
    source = file.read_text(encoding="utf-8").replace("key: id\n", "key: id\nparams: {tone: {type: str}}\n")
    file.write_text(source.replace("A line", "A {{ params.tone }} line"), encoding="utf-8")
    asked = Asked("note", sets={"tone": "dry"})
    with open_version(workshop.templates, workshop.ledger, "note", version.hash) as opened:
        async with TrySession(load_settings()) as session:
            old = await session.run(opened.fitted(asked), templates_dir=opened.folder)
            new = await session.run(asked)
    assert [trial.records[0].prompt for trial in (old, new)] == ["A line about item 0.", "A dry line about item 0."]


def test_current_folder_has_versions_too(templates: Path, commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    commit("first")
    monkeypatch.chdir(templates)
    with open_version(Path(), None, "note", "git:HEAD") as opened:
        assert (opened.folder.name, len(parts_of(opened.folder))) == ("templates", 2)

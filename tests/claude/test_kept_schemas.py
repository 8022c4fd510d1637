"""Schemas that are kept for the lint: the same as the SDK's, never stale, and no loss if the folder is unusable."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from presswork.claude import kept_schemas
from presswork.claude.kept_schemas import schemas_kept
from presswork.claude.output_schema import output_schema
from presswork.errors import OutputClassError


class Letter(BaseModel):
    subject: Annotated[str, Field(max_length=60, description="Ein Wort mit ß, ein Zeichen: \u2028")]
    price: Annotated[float, Field(ge=0.1, examples=[1e-7, 10**20])]


class LongerLetter(Letter):
    subject: Annotated[str, Field(max_length=61)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the SDK was asked to turn into a schema."""
    schemas: list[Any] = []
    by_sdk = kept_schemas._by_sdk

    def ask(schema: Any) -> Any:
        schemas.append(schema)
        return by_sdk(schema)

    monkeypatch.setattr(kept_schemas, "_by_sdk", ask)
    return schemas


def schema_in(folder: Path, output_class: type[BaseModel] = Letter) -> dict[str, Any]:
    with schemas_kept(folder):
        return output_schema(output_class)


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_kept_schema_is_the_one_of_the_sdk_to_the_letter(tmp_path: Path, asked: list[Any]) -> None:
    plain = output_schema(Letter)

    shown = [repr(schema_in(tmp_path / "kept")) for _time in range(3)]

    assert shown == [repr(plain)] * 3
    assert len(asked) == 2  # without a folder, and the first time with one


def test_another_class_or_another_sdk_is_asked_for_again(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    schema_in(tmp_path)
    schema_in(tmp_path, LongerLetter)
    monkeypatch.setattr(kept_schemas, "version", lambda _name: "999.0")
    schema_in(tmp_path)

    assert len(asked) == 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text(""),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: file.write_text(file.read_text().replace("string", "number")),
        lambda file: file.write_bytes(b"\xff\xfe"),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["empty", "cut off", "changed", "no text", "a folder"],
)
def test_damaged_file_is_not_used(tmp_path: Path, asked: list[Any], spoil: Callable[[Path], object]) -> None:
    first = schema_in(tmp_path)
    spoil(only_file(tmp_path))

    assert schema_in(tmp_path) == first
    assert len(asked) == 2


def test_damaged_file_is_replaced(tmp_path: Path, asked: list[Any]) -> None:
    schema_in(tmp_path)
    only_file(tmp_path).write_text("", encoding="utf-8")
    schema_in(tmp_path)
    schema_in(tmp_path)

    assert len(asked) == 2


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/schemas"])
def test_folder_that_cannot_be_written_fails_nothing(place: str) -> None:
    assert schema_in(Path(place)) == output_schema(Letter)


@pytest.mark.parametrize("value", [(1, 2), {1: "one"}, float("nan"), object()])
def test_schema_that_json_would_change_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    sent = {"type": "object", "examples": value}
    monkeypatch.setattr(kept_schemas, "_by_sdk", lambda _schema: sent)

    assert schema_in(tmp_path) is schema_in(tmp_path) is sent
    assert list(tmp_path.iterdir()) == []


def test_class_that_the_api_cannot_accept_is_refused_each_time(tmp_path: Path) -> None:
    class Nested(BaseModel):
        anything: Any

    for _time in range(2):
        with pytest.raises(OutputClassError):
            schema_in(tmp_path, Nested)


def test_processes_that_write_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from tests.claude.test_kept_schemas import schema_in\n"
        "from tests.claude.test_kept_schemas import Letter, output_schema\n"
        "for _ in range(100):\n"
        "    assert schema_in(Path(sys.argv[1])) == output_schema(Letter)\n"
        "    [file.unlink(missing_ok=True) for file in Path(sys.argv[1]).glob('*.json')]\n"
        "schema_in(Path(sys.argv[1]))\n"
    )
    root = Path(__file__).parents[2]
    at_once = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=root) for _each in range(2)]

    assert [process.wait(timeout=200) for process in at_once] == [0, 0]
    assert schema_in(tmp_path) == output_schema(Letter)

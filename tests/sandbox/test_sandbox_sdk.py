"""The SDK's own tests of messages, models and batches against the sandbox: a client that no one here wrote.

They are in the SDK's source distribution and need packages that this project does not; docs/sandbox.md says how to get
both. SDK_SDIST names the distribution, SDK_PYTHON a Python that has the packages.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sandbox import sandbox_process

SDIST = os.environ.get("SDK_SDIST", "")
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not SDIST, reason="SDK_SDIST names no source distribution of anthropic; see docs/sandbox.md"),
]
_FAILED = re.compile(r"^(?:FAILED|ERROR) \S+::(\w+)", re.MULTILINE)
_PASSED = re.compile(r"(\d+) passed")
# They ask for batches that nobody made: by the id `message_batch_id`, and after the id `after_id`.
_OF_NO_BATCH = re.compile(r"test_\w+_(retrieve|cancel|delete)(_with_all_params)?|test_method_list_with_all_params")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdk")
    with tarfile.open(SDIST) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def outcome(source: Path, *files: str) -> tuple[int, set[str]]:
    """How many tests pass, and the names of those that do not."""
    python = os.environ.get("SDK_PYTHON", sys.executable)
    command = [
        python,
        "-m",
        "pytest",
        "-n0",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"tests/api_resources/{it}" for it in files),
    ]
    with sandbox_process() as url:
        environment = os.environ | {"TEST_API_BASE_URL": url}
        done = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    passed = _PASSED.search(done.stdout)
    assert passed, done.stdout[-2000:] + done.stderr[-2000:]
    return int(passed[1]), set(_FAILED.findall(done.stdout))


def test_sdks_tests_of_messages_and_models_pass_but_for_retired_models(source: Path) -> None:
    passed, failed = outcome(source, "test_messages.py", "test_models.py")
    assert failed == {"test_deprecated_model_warning"}, "it asks retired models, which answer 404"
    assert passed >= 100


def test_sdks_tests_of_batches_pass_where_the_batch_was_made(source: Path) -> None:
    passed, failed = outcome(source, "messages/test_batches.py")
    assert not [name for name in failed if not _OF_NO_BATCH.fullmatch(name)]
    assert passed >= 60

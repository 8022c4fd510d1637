"""Fixtures: the smallest real thing of each kind. A database, a sandbox, a Prefect server: none is a stand-in.

`ledger_url` gives each test a new ledger, on SQLite and on PostgreSQL. The sandbox and Prefect's server run in
processes of their own, once a session; nothing here reaches further than loopback.
"""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType

import certifi
import pytest
from filelock import FileLock
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from bench.postgres import own_postgres
from db.ledger.connecting import connect_ledger, open_ledger, upgrade
from db.machine import here
from presswork.operate.command_server.server_context import own_server
from tests.machines import SetMachine, using
from tests.nights.simulated.loop import LoneLoop

ROOT = Path(__file__).resolve().parent.parent
CHINOOK = Path(os.environ.get("PRESSWORK_TEST_CHINOOK", ROOT.parent / "shared" / "data" / "chinook.sqlite"))

pytest_plugins = ["tests.pieces"]

PREFECT_DATABASE = "prefect.db"

# Before Prefect is loaded: a flow that is called where no server is set up must not start one, unseen and for seconds.
os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"

MEMORY_FOR_FILES = 2 * 1024**3
"""The free memory that the files of all tests may need, and the databases of each process's PostgreSQL."""
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

WEIGHTS = {"slow": 200, "browser": 20, "prefect": 20, "mariadb": 10, "postgres": 4}
"""About how much longer a test with this mark takes than one without."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode, and the files of tests in memory, for this process and all that it starts."""
    # Where no bytecode may be written, each process would compile all that it loads, which is half of what a command
    # costs that loads Prefect. `make install` has compiled the packages in their place.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A commit on a disk waits for it, some milliseconds, and the tests make tens of thousands.
    folder = _memory_folder()
    if folder is not None and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector not look through all modules and tests again and again: they stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let several processes begin with the files that take longest, so that none works alone at the end."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    weights: Counter[Path] = Counter()
    for item in items:
        weights[item.path] += max([WEIGHTS.get(mark.name, 1) for mark in item.iter_markers()], default=1)
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture
def machine() -> Iterator[SetMachine]:
    """The machine of all that the test calls in this process; its answers can be set."""
    with using(SetMachine()) as machine:
        yield machine


@pytest.fixture
def loop(machine: SetMachine) -> LoneLoop:
    """A loop in which minutes pass in milliseconds; its time, from 1000 s on, is the machine's monotonic clock."""
    # The stubs call abstract what asyncio itself only leaves unimplemented.
    loop = LoneLoop(1000.0)  # type: ignore[abstract]
    machine.monotonic = loop.time
    return loop


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the person who runs the tests reach them."""
    forget_settings(monkeypatch)


@pytest.fixture(autouse=True)
def own_ledger_clock() -> None:
    """Let the times of one test's ledger not reach the next test: in a process, the ledger's time never goes back."""
    here().ledger_clock.reset()


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Forget what this process was told to be set, by its environment or by a developer's .env."""
    for name in list(os.environ):
        if name.startswith(("PRESSWORK_", "ANTHROPIC_")):
            patch.delenv(name)
    patch.setenv("DO_NOT_TRACK", "1")
    # No test leaves a server behind.
    patch.setenv("PRESSWORK_KEEP_SERVER", "0")
    # A value that is set, even to nothing, wins over one of a developer's .env.
    patch.setattr("presswork.settings.load_dotenv", lambda *_args, **_options: False)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A real PostgreSQL, out of a wheel; the URL of its maintenance database."""
    with own_postgres("presswork-postgres-", _memory_folder()) as url:
        # These databases need not survive a power cut.
        _execute(url, "ALTER SYSTEM SET fsync = off")
        _execute(url, "ALTER SYSTEM SET max_wal_size = '128MB'")
        _execute(url, "SELECT pg_reload_conf()")
        yield url


def _memory_folder() -> Path | None:
    """Return a folder in memory; None if there is none with room."""
    folder = Path("/dev/shm")  # noqa: S108 - all files get folders of their own in it
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > MEMORY_FOR_FILES
    return folder if has_room else None


def new_postgres_database(server: str, how: str = "") -> str:
    """Make an empty database, with the options of CREATE DATABASE that `how` holds, and return its URL."""
    name = f"presswork_{uuid.uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name} {how}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop_postgres_database(server: str, url: str) -> None:
    """Remove a database, whoever is still connected to it."""
    _execute(server, f"DROP DATABASE {make_url(url).database} WITH (FORCE)")


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that has no tables yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        return
    server: str = request.getfixturevalue("postgres_server")
    url = new_postgres_database(server)
    yield url
    drop_postgres_database(server, url)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[str]:
    """The URL of a real MariaDB, the machine's own; skips where there is none."""
    server, setup = (shutil.which(name, path=SYSTEM_PATH) for name in ("mariadbd", "mariadb-install-db"))
    if server is None or setup is None:
        pytest.skip("there is no mariadbd on this machine (Debian: mariadb-server)")
    with tempfile.TemporaryDirectory(prefix="presswork-mariadb-") as folder:
        # A server that starts removes the temporary tables that it finds, also those of another worker's server.
        own = [f"--datadir={folder}/data", f"--tmpdir={folder}", *(["--user=root"] if os.geteuid() == 0 else [])]
        made = [setup, "--no-defaults", *own, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, check=True, capture_output=True)
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]
        where = [f"--socket={folder}/socket", f"--pid-file={folder}/pid", "--skip-networking"]
        running = subprocess.Popen([server, "--no-defaults", *own, *where, *quick], stderr=subprocess.DEVNULL)
        try:
            # So that no test depends on a name of the machine's user: root, and its socket.
            yield _answering(f"mysql+pymysql://root@localhost/mysql?unix_socket={folder}/socket&charset=utf8mb4")
        finally:
            running.terminate()
            running.wait(timeout=120)


def _answering(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            _execute(url, "SELECT 1")
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return url


SOURCES = [
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
    "duckdb",
]
"""The kinds of database that selects are run on."""


@pytest.fixture(params=SOURCES)
def source_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of each kind that selects are run on."""
    with new_source(request, tmp_path) as url:
        yield url


@contextmanager
def new_source(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Make an empty database of the kind that a fixture's param names; its URL."""
    match request.param:
        case "postgres":
            server: str = request.getfixturevalue("postgres_server")
            url = new_postgres_database(server)
            yield url
            drop_postgres_database(server, url)
        case "mariadb":
            server = request.getfixturevalue("mariadb_server")
            name = f"presswork_{uuid.uuid4().hex[:12]}"
            _execute(server, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
            _execute(server, f"DROP DATABASE {name}")
        case kind:
            yield f"{kind}:///{folder / f'source.{kind}'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite ledger, to copy: that takes a tenth of the time that migrating one takes."""
    file = tmp_path_factory.mktemp("template") / "ledger.sqlite"
    open_ledger(f"sqlite:///{file}").dispose()
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a new PostgreSQL ledger, to copy."""
    url = new_postgres_database(postgres_server)
    engine = connect_ledger(url)
    upgrade(engine)
    engine.dispose()
    return str(engine.url.database)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a new ledger, migrated."""
    if request.param == "sqlite":
        yield request.getfixturevalue("new_sqlite_ledger_url")
        return
    server: str = request.getfixturevalue("postgres_server")
    url = new_postgres_database(server, f"TEMPLATE {request.getfixturevalue('postgres_template')}")
    yield url
    drop_postgres_database(server, url)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Engine]:
    """A new ledger, open."""
    engine = open_ledger(ledger_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_ledger_url(tmp_path: Path) -> str:
    """The URL of a SQLite ledger, for tests that do not depend on the database; it is made on first use."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def new_sqlite_ledger_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a new SQLite ledger, migrated, for tests that do not depend on the database."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'ledger.sqlite')}"


@pytest.fixture
def chinook_url() -> str:
    """The URL of the Chinook data, which lies beside the repository."""
    if not CHINOOK.is_file():
        pytest.skip(f"the Chinook data is not at {CHINOOK}; set PRESSWORK_TEST_CHINOOK to its path")
    return f"sqlite:///{CHINOOK}"


@pytest.fixture(scope="session")
def prefect_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's server of Prefect keeps its database and its log."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_client() -> ModuleType:
    """The module tests.prefect_client, for tests that use Prefect."""
    import tests.prefect_client  # noqa: PLC0415 - it loads Prefect, in seconds, and few tests need that

    return tests.prefect_client


@pytest.fixture(scope="session")
def prefect_server(
    prefect_folder: Path, prefect_client: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Prefect's server, once for each process that runs tests; the URL of its API."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        # A test that looks at its task runs waits until the server has written them, by default for five seconds.
        patch.setenv("PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL", "1")
        patch.setenv("PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL", "1")
        server = own_server(timeout_s=120, home=prefect_folder, with_ui=True)
        with _tables_made_once(tmp_path_factory) as (made, are_there):
            if are_there:
                _copy_database(made, prefect_folder / PREFECT_DATABASE)
            else:
                url = stack.enter_context(server)
                _copy_database(prefect_folder / PREFECT_DATABASE, made)
        if are_there:
            # Not while the tables are locked: the other processes would wait for each other's start.
            url = stack.enter_context(server)
        yield url
        prefect_client.drain()


@contextmanager
def _tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bool]]:
    """Yield the path of an empty database of Prefect's, and whether it is there; else the block has to make it.

    Making the tables takes as long as all the rest of a server's start, so all processes of a session share them.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    made = folder / PREFECT_DATABASE
    with FileLock(folder / f"{PREFECT_DATABASE}.lock"):
        yield made, made.exists()


def _copy_database(file: Path, target: Path) -> None:
    with closing(sqlite3.connect(file)) as made, closing(sqlite3.connect(target)) as copy:
        made.backup(copy)


@pytest.fixture
def prefect_home(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder for one more server, which finds its tables there."""
    home = tmp_path / "prefect-home"
    home.mkdir()
    with _tables_made_once(tmp_path_factory) as (made, are_there):
        if are_there:
            _copy_database(made, home / PREFECT_DATABASE)
    if not are_there:
        request.getfixturevalue("prefect_server")
        _copy_database(made, home / PREFECT_DATABASE)
    return home


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file with one root certificate: each client reads all that there are, for nothing that goes over loopback."""
    end = "-----END CERTIFICATE-----\n"
    file = tmp_path_factory.mktemp("certificates") / "one.pem"
    file.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield str(file)


@pytest.fixture
def prefect_api(prefect_server: str, prefect_client: ModuleType, one_certificate: str) -> Iterator[str]:
    """Prefect in this process, set up to use the session's server."""
    with prefect_client.prefect_at(prefect_server, one_certificate):
        yield prefect_server

"""Settings from the environment and `.env`: one typed place, read once when a run opens.

Stands alone at the bottom of flows, so that every part reads the same values and none parses the environment
itself. Variables that belong to others keep their own names: ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL are the
SDK's, PREFECT_API_URL is Prefect's.
"""

import os
import tempfile
from pathlib import Path

from dotenv import load_dotenv
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from presswork.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
"""The project's root, wherever the command was started from."""


class Settings(BaseSettings):
    """What an installation decides; each field is read from PRESSWORK_<NAME>. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="PRESSWORK_", extra="ignore")

    database_url: str | None = Field(None, description="The ledger; default a SQLite file in the project's root.")
    source_url: str | None = Field(None, description="Where `select` runs; default the ledger's database.")
    endpoint: str | None = Field(None, description="The name of the endpoint behind ANTHROPIC_BASE_URL.")
    templates_dir: Path = Field(ROOT / "templates", description="Where the prompt files are.")

    concurrency: int = Field(50, ge=1, le=2000, description="Requests in flight at most.")
    rpm: int | None = Field(None, ge=1, description="Requests a minute at most; unset: as the endpoint allows.")
    itpm: int | None = Field(None, ge=1, description="Input tokens a minute at most.")
    otpm: int | None = Field(None, ge=1, description="Output tokens a minute at most.")
    chunk_size: int | None = Field(None, ge=1, le=1000, description="Prompts in a chunk; unset: 1 or 50.")
    max_cost: float | None = Field(None, gt=0, description="USD that a run may spend, with those it resumes.")

    request_timeout_s: float = Field(600, gt=0, le=3600)
    request_retries: int = Field(4, ge=0, le=20, description="Retries within a request, at passing trouble.")
    retry_wait_max_s: float = Field(20, gt=0, le=600, description="Longest pause of our own between two retries.")
    retry_after_cap_s: float = Field(60, gt=0, le=3600, description="Longest `retry-after` that is honoured.")
    repairs: int = Field(2, ge=0, le=10, description="How often an invalid answer is asked again.")
    escalations: int = Field(1, ge=0, le=5, description="How often a truncated answer is asked again.")
    max_paid_requests: int = Field(
        8, ge=1, le=1000, description="Requests for one prompt in a run that were answered or perhaps billed, at most."
    )
    give_up_after: int = Field(3, ge=1, description="Bad outcomes of one prompt after which it is skipped.")

    chunk_retries: int = Field(5, ge=0, le=50, description="Prefect's retries of a chunk, across an outage.")
    chunk_retry_delay_s: float = Field(15, ge=0, le=3600, description="Doubles up to five minutes.")
    commit_interval_s: float = Field(0.05, ge=0, le=5, description="How long the writer gathers rows.")
    database_patience_s: float = Field(300, ge=0, description="How long answers wait for a database that is away.")
    spill_dir: Path = Field(ROOT / ".presswork" / "spill", description="Where answers wait for the ledger.")
    spool_dir: Path | None = Field(None, description="Where a run keeps the records it selected; in the state folder.")
    shard_attempts: int = Field(3, ge=1, le=20, description="How often a shard that crashes is started.")
    shard_patience_s: float = Field(300, gt=0, description="How long shards may stand still before their run goes on.")
    stop_wait_s: float = Field(30, ge=0, description="How long a stopped run waits for what is in flight.")
    prefect_startup_timeout_s: float = Field(120, gt=0)
    state_dir: Path = Field(
        ROOT / ".presswork", description="Where Prefect's databases, the logs of services and the records of runs lie."
    )
    notify_block: str | None = Field(
        None, pattern=r"^[a-z0-9-]+/.+$", description="A Prefect block, as type/name, that is told of failed runs."
    )
    api_key_block: str | None = Field(None, description="A Prefect Secret block that holds the API key.")

    @property
    def spool_folder(self) -> Path:
        """Where a run keeps the records that it has selected, until it completes."""
        return self.spool_dir or self.state_dir / "spools"

    @property
    def spill_folders(self) -> tuple[Path, Path]:
        """Where answers wait for the ledger: the folder that is set, and the system's where that one was full."""
        return self.spill_dir, Path(tempfile.gettempdir()) / "presswork-spill"


def load_environment() -> None:
    """Read `.env`, without overriding the environment; to be called before Prefect is loaded."""
    load_dotenv(ROOT / ".env", override=False)
    # Presswork lets nothing phone home.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def load_settings() -> Settings:
    """Read `.env` and the environment; ConfigurationError names what is wrong."""
    load_environment()
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"PRESSWORK_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"A setting is wrong: {wrong}.") from None


def source_variable(name: str | None) -> str:
    """Name the environment variable that holds a source's database URL."""
    return f"PRESSWORK_SOURCE_{name.upper()}_URL" if name else "PRESSWORK_SOURCE_URL"


def source_url(settings: Settings, name: str | None) -> str | None:
    """Return the database URL of a named source; None means the ledger's own database.

    A named source without a variable raises ConfigurationError that says which one to set.
    """
    if name is None:
        return settings.source_url
    url = os.environ.get(source_variable(name))
    if not url:
        raise ConfigurationError(
            f"The source {name!r} has no database: set {source_variable(name)} to its SQLAlchemy URL."
        )
    return url


def ledger_url(settings: Settings, endpoint: str) -> str:
    """Return the ledger's URL; what the sandbox answers goes to a file of its own unless a ledger is named."""
    if settings.database_url:
        return settings.database_url
    return f"sqlite:///{ROOT / ('presswork-sandbox.sqlite' if endpoint == 'sandbox' else 'presswork.sqlite')}"

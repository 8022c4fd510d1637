"""Read the settings from the environment and `.env` into one typed class, once when a run opens.

Every part of Presswork gets its settings here; no other module parses the environment. Variables of other programs
keep their names: ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL are the SDK's, PREFECT_API_URL is Prefect's.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

from dotenv import load_dotenv
from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError, model_validator

from presswork.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
"""The project's root, which does not depend on the current folder."""
SETTINGS_PREFIX = "PRESSWORK_"
AUDIT_URL = "PRESSWORK_AUDIT_URL"
"""The variable with the address of the audit room, which `presswork up` sets for its runs."""


class Settings(BaseModel):
    """An installation's settings. Each field is read from PRESSWORK_<NAME>, in any case. Durations are in seconds.

    Not pydantic-settings: it loads much that nothing here needs, and every command reads its settings.
    """

    database_url: str | None = Field(None, description="The ledger. Default: a SQLite file in the project's root.")
    source_url: str | None = Field(None, description="The database where `select` runs. Default: the ledger's.")
    endpoint: str | None = Field(
        None, description="Your name for the endpoint at ANTHROPIC_BASE_URL. Content is kept per name."
    )
    templates_dir: Path = Field(ROOT / "templates", description="The folder of the prompt files.")

    concurrency: int = Field(50, ge=1, le=2000, description="Maximum requests in flight.")
    rpm: int | None = Field(None, ge=1, description="Maximum requests a minute. Default: the endpoint's limit.")
    itpm: int | None = Field(None, ge=1, description="Maximum input tokens a minute.")
    otpm: int | None = Field(None, ge=1, description="Maximum output tokens a minute.")
    chunk_size: int | None = Field(
        None, ge=1, le=1000, description="Prompts in a chunk. Default: 1 for small jobs, else 100."
    )
    max_cost: float | None = Field(None, gt=0, description="US dollars that a run may spend, including resumed runs.")

    request_timeout_s: float = Field(600, gt=0, le=3600)
    request_retries: int = Field(4, ge=0, le=20, description="Retries of one request after a temporary error.")
    retry_wait_max_s: float = Field(
        20, gt=0, le=600, description="Maximum wait between retries without a `retry-after` header."
    )
    retry_after_cap_s: float = Field(60, gt=0, le=3600, description="Maximum wait for a `retry-after` header.")
    repairs: int = Field(2, ge=0, le=10, description="Maximum repairs of an invalid answer.")
    escalations: int = Field(1, ge=0, le=5, description="Maximum retries of a truncated answer, with more tokens.")
    max_paid_requests: int = Field(
        8, ge=1, le=1000, description="Maximum requests for one prompt in a run that were answered or perhaps billed."
    )
    give_up_after: int = Field(3, ge=1, description="Failures of one prompt after which it is skipped.")

    chunk_retries: int = Field(5, ge=0, le=50, description="Prefect's retries of a chunk during an outage.")
    chunk_retry_delay_s: float = Field(15, ge=0, le=3600, description="First delay; doubles up to five minutes.")
    commit_interval_s: float = Field(0.05, ge=0, le=5, description="How long the writer collects rows for a commit.")
    database_patience_s: float = Field(300, ge=0, description="How long a run waits for an unavailable ledger.")
    spill_dir: Path = Field(ROOT / ".presswork" / "spill", description="The folder of the spill files.")
    spool_dir: Path | None = Field(None, description="The folder of selected records. Default: in the state folder.")
    shard_attempts: int = Field(3, ge=1, le=20, description="Maximum starts of a shard that crashes.")
    shard_patience_s: float = Field(300, gt=0, description="How long shards may stall before the run does their work.")
    stop_wait_s: float = Field(30, ge=0, description="How long a stopped run waits for requests in flight.")
    prefect_startup_timeout_s: float = Field(120, gt=0)
    keep_server: bool = Field(True, description="Whether a server that a command started stays for the next one.")
    state_dir: Path = Field(
        ROOT / ".presswork", description="The folder of Prefect's databases, services' logs and selected records."
    )
    notify_block: str | None = Field(
        None, pattern=r"^[a-z0-9-]+/.+$", description="A Prefect notification block (type/name) for failed runs."
    )
    api_key_block: str | None = Field(None, description="A Prefect Secret block that holds the API key.")

    audit_host: str = Field("127.0.0.1", min_length=1, description="The address on which the audit room listens.")
    audit_port: int = Field(4201, ge=0, le=65535, description="Its port. 0: `presswork up` does not start it.")
    audit_url: Annotated[str | None, BeforeValidator(lambda given: given or None)] = Field(
        None, pattern=r"^https?://[\w.~:\[\]/%-]+$", description="Its address, for links in Prefect. Empty: no links."
    )
    audit_user: str | None = Field(None, description="The user of the audit room.")
    audit_password: SecretStr | None = Field(None, description="The password of the audit room's user.")

    @model_validator(mode="before")
    @classmethod
    def _read_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        variables = {name.upper(): value for name, value in os.environ.items()}
        set_here = {name: variables.get(SETTINGS_PREFIX + name.upper()) for name in cls.model_fields}
        return {name: value for name, value in set_here.items() if value is not None} | given

    @property
    def spool_folder(self) -> Path:
        """The folder where a run keeps its selected records until it completes."""
        return self.spool_dir or self.state_dir / "spools"

    @property
    def spill_folders(self) -> tuple[Path, Path]:
        """The folders of spill files: the configured one, and the system's temporary one if the first was full."""
        return self.spill_dir, Path(tempfile.gettempdir()) / "presswork-spill"


def load_environment() -> None:
    """Read `.env` without overriding the environment. Call it before Prefect is loaded."""
    load_dotenv(ROOT / ".env", override=False)
    # No library may send telemetry.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def load_settings() -> Settings:
    """Read `.env` and the environment. Raises ConfigurationError that names each wrong setting."""
    load_environment()
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{SETTINGS_PREFIX}{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(f"A setting is wrong: {wrong}.") from None


def source_variable(name: str | None) -> str:
    """Name the environment variable that holds a source's database URL."""
    return f"PRESSWORK_SOURCE_{name.upper()}_URL" if name else "PRESSWORK_SOURCE_URL"


def source_url(settings: Settings, name: str | None) -> str | None:
    """Return the database URL of a source; None means the ledger's database.

    Raises ConfigurationError if a named source has no variable.
    """
    if name is None:
        return settings.source_url
    url = os.environ.get(source_variable(name))
    if not url:
        raise ConfigurationError(
            f"The source {name!r} has no database. Set {source_variable(name)} to its SQLAlchemy URL."
        )
    return url


def ledger_url(settings: Settings, endpoint: str) -> str:
    """Return the ledger's URL. Without a setting, the sandbox's answers go to a separate SQLite file."""
    if settings.database_url:
        return settings.database_url
    return f"sqlite:///{ROOT / ('presswork-sandbox.sqlite' if endpoint == 'sandbox' else 'presswork.sqlite')}"

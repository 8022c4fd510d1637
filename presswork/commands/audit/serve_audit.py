"""`presswork audit`: serve the audit room until Ctrl-C."""

import os
from contextlib import closing

from presswork.audit.guards import Password
from presswork.audit.next_runs import NextRuns, PrefectApi
from presswork.audit.serving import Listening, serve
from presswork.errors import ConfigurationError
from presswork.operate.installation import SERVER, read_state
from presswork.operate.processes import ended_by_signals
from presswork.settings import Settings
from presswork.terminal.audit_flags import AuditFlags
from presswork.terminal.endings import CommandContext
from presswork.terminal.ledgers import first_url, ledger_name


def serve_audit(command: CommandContext, flags: AuditFlags) -> None:
    """Serve until Ctrl-C; the address is printed as soon as it listens."""
    settings = command.settings
    if flags.uds is not None and (flags.host is not None or flags.port is not None):
        raise ConfigurationError("Give either --uds, or --host and --port.")
    listening = Listening(
        host=flags.host or settings.audit_host,
        port=settings.audit_port if flags.port is None else flags.port,
        uds=flags.uds,
        public_url=settings.audit_url,
    )

    def read_url() -> str:
        # At each request, because the first run may create the ledger later.
        return first_url(settings, sandbox=flags.sandbox)

    def announce(address: str) -> None:
        ledger = ledger_name(read_url())
        command.answer(
            {"url": address, "ledger": ledger},
            lambda console: console.print(
                f"The audit room is open at {address}. It shows {ledger}, and only reads it. Ctrl-C closes it.",
                soft_wrap=True,
                markup=False,
            ),
        )

    api = find_api(settings)
    with ended_by_signals(), closing(NextRuns(lambda: find_api(settings))) as ask_next:
        serve(
            listening,
            read_url,
            password=_password(settings),
            prefect_url=None if api is None else api.ui_url,
            ask_next=ask_next,
            started=announce,
        )


def find_api(settings: Settings) -> PrefectApi | None:
    """Find the Prefect server to ask: the one that is configured, else the one that `presswork up` has started here."""
    given = os.environ
    state = read_state(settings.state_dir.resolve())
    url = given.get("PREFECT_API_URL") or (state.api if state and state.living(SERVER) else None)
    if not url:
        return None
    auth_string = given.get("PREFECT_API_AUTH_STRING")
    if not auth_string and state is not None and state.api == url.rstrip("/"):
        auth_string = given.get("PREFECT_SERVER_API_AUTH_STRING")
    return PrefectApi(url, auth_string, given.get("PREFECT_API_KEY"))


def _password(settings: Settings) -> Password | None:
    user, secret = settings.audit_user, settings.audit_password
    if (user is None) != (secret is None):
        raise ConfigurationError("Set both PRESSWORK_AUDIT_USER and PRESSWORK_AUDIT_PASSWORD, or neither.")
    if user is None or secret is None:
        return None
    if not user or ":" in user or not secret.get_secret_value():
        raise ConfigurationError(
            "PRESSWORK_AUDIT_USER needs a name without a colon, and PRESSWORK_AUDIT_PASSWORD needs a password."
        )
    return Password(user, secret.get_secret_value())

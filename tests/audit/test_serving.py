"""Where the audit room may be served, and by which names a browser may reach it."""

from __future__ import annotations

from pathlib import Path

import pytest

from presswork.audit.guards import Password
from presswork.audit.serving import Listening, check_listening
from presswork.errors import ConfigurationError

PASSWORD = Password("ada", "geheim")
EVERYWHERE = ".".join("0000")


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "", "192.0.2.7", "audit.example"])
def test_other_machines_need_a_password(host: str) -> None:
    with pytest.raises(ConfigurationError, match="needs a password"):
        check_listening(Listening(host=host), None)

    check_listening(Listening(host=host), PASSWORD)


@pytest.mark.parametrize(
    "listening",
    [
        Listening(),
        Listening(host="localhost"),
        Listening(host="::1"),
        Listening(host="127.0.0.2"),
        Listening(host=EVERYWHERE, uds=Path("audit.sock")),
    ],
)
def test_this_machine_needs_none(listening: Listening) -> None:
    check_listening(listening, None)


def test_only_its_own_names_reach_it() -> None:
    assert set(Listening().hosts()) == {"127.0.0.1", "localhost", "::1", "[::1]"}
    assert "audit.example" in Listening(public_url="https://audit.example/presswork").hosts()
    assert "192.0.2.7" in Listening(host="192.0.2.7").hosts()
    assert "*" not in Listening(host=EVERYWHERE, public_url="https://audit.example").hosts()
    assert Listening(host=EVERYWHERE).hosts() == ["*"], "a name that nobody has said; the password protects it"

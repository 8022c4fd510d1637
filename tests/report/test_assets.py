"""Keys of assets are names that Prefect accepts, without a user, a password or a query."""

from __future__ import annotations

from prefect.assets import Asset
from sqlalchemy import make_url

from presswork.report.prefect.events import asset_key


def test_asset_key_holds_no_user_password_or_query() -> None:
    key = asset_key(make_url("postgresql+psycopg://me:secret@db.example:5432/shop?sslpassword=other"), "a b")
    assert key == "postgresql://db.example-5432/shop/a-b"
    assert Asset(key=key).key == key


def test_names_in_other_scripts_are_different_assets() -> None:
    ledger = make_url("sqlite:///ledger.sqlite")
    names = ["商品", "手紙", "Käse", "हिन्दी", "two words", "q&a"]
    keys = [asset_key(ledger, "templates", name) for name in names]
    assert len(set(keys)) == len(names)
    assert keys[0].endswith("/商品")
    assert [Asset(key=key).key for key in keys] == keys

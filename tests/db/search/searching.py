"""Ledgers to search in, and a plain search to compare with: it reads every answer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

from db.readers.audit.filters import Filter
from db.readers.audit.searches import SearchPage, search
from tests.db.rows import Book


def closed_book(ledger: Engine, texts: dict[str, Any], **run: Any) -> dict[str, str]:
    """Write a run with these answers by record key, and close it; return the ids by key."""
    book = Book(ledger, **run)
    ids = {key: book.add(key, output={"text": text}) for key, text in texts.items()}
    book.close()
    return ids


def keys_of(page: SearchPage) -> list[str]:
    return [hit.line.record_key for hit in page.hits]


def found_keys(ledger: Engine, words: str, **wanted: Any) -> list[str]:
    """Search to the end, page by page; return the keys in the order in which they were found."""
    before, keys = None, []
    while True:
        page = search(ledger, Filter(words=words, **wanted), before, limit=3, within_s=60)
        keys += keys_of(page)
        if page.before is None:
            return keys
        before = page.before

"""The files that pages use are the ones that were vendored, and nothing is fetched from elsewhere."""

from __future__ import annotations

import hashlib
import re

from presswork.audit.rendering import AUDIT_FOLDER, STATIC


def test_vendored_files_are_those_that_were_noted() -> None:
    noted = (STATIC / "VENDORED.md").read_text(encoding="utf-8")
    rows = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in noted.splitlines() if line.startswith("| ")][1:]

    assert [(row[0], row[2]) for row in rows] == [("oat.min.css", "0.6.1")]
    for row in rows:
        assert hashlib.sha256((STATIC / row[0]).read_bytes()).hexdigest() == row[-1]
    assert "The MIT License" in (STATIC / "OAT-LICENSE.txt").read_text(encoding="utf-8")


def test_no_page_has_a_script_a_style_or_anything_from_elsewhere() -> None:
    for file in sorted((AUDIT_FOLDER / "html").iterdir()):
        source = file.read_text(encoding="utf-8")
        assert not re.search(r"<script|<style|\sstyle=|\son[a-z]+=|javascript:|https?://|\|\s*safe\b|Markup", source), (
            file.name
        )


def test_no_style_sheet_fetches_anything() -> None:
    for file in STATIC.glob("*.css"):
        urls = re.findall(r"url\(([^)]*)\)|@import", file.read_text(encoding="utf-8"))
        assert all(url.strip("\"'").startswith("data:") for url in urls), file.name

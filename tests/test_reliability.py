"""The page of promises: every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_promise_names_a_test_that_exists(root: Path) -> None:
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", page)
    assert len(named) >= 40
    missing = [
        f"{file}::{test}"
        for file, test in named
        if f"\ndef {test}(" not in (root / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_row_of_promises_names_its_test(root: Path) -> None:
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| Promise", "| ---"))]
    assert [row for row in promises if "::test_" not in row] == []

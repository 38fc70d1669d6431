"""Every method has a page in the documentation, which says when it wins and where it comes from, and every page is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgetune.methods import METHODS

PAGES = Path(__file__).parents[2] / "docs" / "methods"
INDEX = (PAGES / "README.md").read_text("utf-8")
PAGE_OF = {
    name: page
    for names, page in re.findall(r"^\| (`[^|]+) \| \[[^]]+\]\(([a-z-]+\.md)\)", INDEX, re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", names)
}


@pytest.mark.parametrize("name", METHODS)
def test_a_page_tells_when_a_method_wins_and_where_it_comes_from(name: str) -> None:
    text = (PAGES / PAGE_OF[name]).read_text("utf-8")
    assert name in text and "## When it wins, and when not" in text
    assert "arxiv.org/abs/" in text or name == "head"


def test_every_page_is_found() -> None:
    assert {path.name for path in PAGES.glob("*.md")} == {"README.md", "auto.md", *PAGE_OF.values()}

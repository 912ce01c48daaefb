"""Links between the pages lead somewhere, and every page is in the index."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from steps import ROOT, found, name_of

PAGES = [*found(), ROOT / "deploy/README.md", ROOT / "benchmarks/README.md", ROOT / "schemas/README.md"]
INDEX = ROOT / "docs/README.md"


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Files that a page links to, and the heading within, if any; the web is not asked."""
    for token in MarkdownIt().enable("table").parse(page.read_text("utf-8")):
        for child in token.children or []:
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str) and not re.match(r"[a-z]+:", target):
                file, _, heading = target.partition("#")
                yield (page.parent / file).resolve() if file else page, heading


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_links_lead_somewhere(page: Path) -> None:
    for file, heading in links(page):
        assert file.exists(), f"{name_of(page)} links to {file}, which is not there"
        assert not heading or heading in anchors(file), (
            f"{name_of(page)} links to #{heading}, no heading of {file}"
        )


def test_every_page_is_in_the_index() -> None:
    listed = {file for file, _ in links(INDEX)}
    for page in found():
        known = page in listed or page in (INDEX, ROOT / "README.md")
        assert known, f"{name_of(page)} is not in docs/README.md: add a line to its table"

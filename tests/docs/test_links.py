"""Every link of README, CHANGELOG and docs leads to a file there is, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nexus_devtools.documents import pages

REPOSITORY = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
PAGES = [*pages(REPOSITORY), "CHANGELOG.md"]


def anchors(path: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    found = set()
    for heading in HEADING.findall(path.read_text("utf-8")):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = REPOSITORY / page
    for link in LINK.findall(here.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_page_of_docs_is_in_the_index() -> None:
    index = (REPOSITORY / "docs" / "README.md").read_text("utf-8")
    named = set(LINK.findall(index))
    found = {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {"README.md"}
    assert sorted(found - named) == []

"""Every command in the pages of docs/howto/, run in order against real processes."""

from pathlib import Path

import pytest
from following import follow
from steps import found, name_of

PAGES = [page for page in found() if page.parent.name == "howto"]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_commands_work(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path)

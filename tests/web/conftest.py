from collections.abc import Iterator

import pytest
from browsers import chromium
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for a module: while it is open, its thread can run no loop of asyncio."""
    with chromium() as browser:
        yield browser

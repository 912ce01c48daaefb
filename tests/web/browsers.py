"""Debian's Chromium, and the page in it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

SCREENSHOTS = Path("runs/screenshots")
DESKTOP = (1360, 900)
CHROMIUM = shutil.which("chromium")

expect.set_options(timeout=30_000)  # a busy machine takes its time; nothing here waits for what does not come

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for as long as the context lasts."""
    # a browser of root has no sandbox
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, quiet: bool = True) -> Iterator[Page]:
    """The page, live; `quiet` demands that nothing was complained of in the console."""
    width, height = DESKTOP
    context = browser.new_context(
        viewport={"width": width, "height": height}, reduced_motion="reduce", ignore_https_errors=True
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    expect(page.locator("#chip-live")).to_have_text("live")
    yield page
    context.close()
    assert not quiet or not complaints, complaints

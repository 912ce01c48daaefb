"""The AsyncAPI document, judged by AsyncAPI's own parser and opened in a browser without a network."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mqtt_mdi.wire.asyncapi import CHANNELS, document

SCHEMAS = Path(__file__).parents[2] / "schemas"
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    NODE is None or not (SCHEMAS / "node_modules/.ready").exists(),
    reason="no Node.js, or no schemas/node_modules: with node and npm on PATH, make test fetches it",
)


def checked(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(SCHEMAS / "asyncapi.cjs"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("asyncapi") / "made" / "asyncapi.html"
    ran = checked(target)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr
    return target


@pytest.fixture(scope="module")
def page(rendered: Path) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    # a browser of root has no sandbox
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        context = browser.new_context(offline=True)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda asked: complaints.append(asked.url))
        page.goto(rendered.as_uri())
        yield page
        browser.close()
    assert not complaints


def test_the_official_parser_finds_nothing_to_say(rendered: Path) -> None:
    assert rendered.stat().st_size > 1_000_000


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    wrong = document()
    del wrong["channels"]["truth"]["address"]
    wrong["operations"]["sendTruth"]["action"] = "shout"
    shutil.copytree(SCHEMAS, tmp_path, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    bad = tmp_path / "asyncapi.json"
    bad.write_text(json.dumps(wrong), "utf-8")
    ran = checked(tmp_path / "never.html", bad)
    assert ran.returncode == 1, ran.stderr
    assert "error: operations/sendTruth/action: " in ran.stdout
    assert not (tmp_path / "never.html").exists()


def test_a_document_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "asyncapi.json"
    ran = checked(tmp_path / "never.html", missing)
    assert ran.returncode == 1
    assert str(missing) in ran.stdout + ran.stderr


def test_every_channel_and_message_is_on_the_page(page: Page) -> None:
    told = page.locator("#asyncapi")
    expect(told).to_contain_text("mqtt-mdi", timeout=60_000)
    for channel in CHANNELS.values():
        expect(told).to_contain_text(f"mdi/v1/{{pipeline}}/{channel.address}")
    for message in document()["components"]["messages"]:
        expect(told).to_contain_text(message)


def test_a_schema_from_a_file_beside_it_is_in_it(page: Page) -> None:
    expect(page.locator("#asyncapi")).to_contain_text("latency_ms", timeout=60_000)

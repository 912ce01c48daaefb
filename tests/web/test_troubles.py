"""The page while something else is broken: it says what, and is well again by itself."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from browsers import needs_chromium, opened
from live import Broker, Pipeline, mqtt_mdi, until
from pages import Server, where
from playwright.sync_api import Browser, expect

from mqtt_mdi.core.types import DeviceState, Result
from mqtt_mdi.runtime.broker import running_broker
from mqtt_mdi.wire.messages import DEVICE_STATE, RESULT

Alone = tuple[Pipeline, Server]


@pytest.fixture(scope="module")
def alone(
    mosquitto: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Alone]:
    """A coordinator without devices; what there would be, a test says in their place."""
    with Pipeline(mosquitto, next(names), tmp_path_factory.mktemp("alone")) as pipeline:
        coordinator = pipeline.coordinator("--http", ":0", "--policy", '{"silence_s": 600}')
        yield pipeline, where(coordinator)


def answer(pipeline: Pipeline, frame: str, class_name: str = "Coat") -> None:
    result = Result("cam1", frame, "ok", 4, class_name, 0.9, 1, "device-1", 3.0)
    pipeline.client.publish(pipeline.topics.results("cam1"), RESULT.encode(result))


@needs_chromium
def test_opened_while_the_broker_is_down(
    mosquitto: Broker,  # noqa: ARG001 -- skips where there is none
    names: Iterator[str],
    browser: Browser,
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        with running_broker("mosquitto") as url:
            pipeline = stack.enter_context(Pipeline(Broker("mosquitto", url), next(names), tmp_path))
            server = where(pipeline.coordinator("--http", ":0"))
        until(lambda: not server.now["connected"])
        page = stack.enter_context(opened(browser, server.url, quiet=False))
        expect(page.locator("#chip-broker")).to_have_text("broker lost")
        expect(page.locator("#banner")).to_contain_text(f"no connection to the broker {url}")
        page.locator("#patch").fill('{"window": 80}')
        page.locator("#publish").click()
        expect(page.locator("#verdict")).to_contain_text("Rejected: there is no connection")
        stack.enter_context(running_broker("mosquitto", url.port))
        expect(page.locator("#chip-broker")).to_have_text("broker")
        expect(page.locator("#banner")).to_be_hidden()
        page.locator("#publish").click()
        expect(page.locator("#verdict")).to_have_text("Published as version 2.")


@needs_chromium
def test_opened_while_the_database_is_locked(alone: Alone, browser: Browser) -> None:
    pipeline, server = alone
    with closing(sqlite3.connect(pipeline.database, isolation_level=None)) as locking:
        locking.execute("BEGIN EXCLUSIVE")
        answer(pipeline, "while-locked")
        until(lambda: server.now["storage_error"])
        with opened(browser, server.url) as page:
            expect(page.locator("#chip-storage")).to_have_text("database stuck")
            expect(page.locator("#banner")).to_contain_text("another program keeps it locked")
            locking.execute("ROLLBACK")
            expect(page.locator("#chip-storage")).to_have_text("database")
            expect(page.locator("#banner")).to_be_hidden()
            expect(page.locator("#answers")).to_contain_text("while-locked")


@needs_chromium
def test_odd_names_are_shown_as_they_are(alone: Alone, browser: Browser) -> None:
    pipeline, server = alone
    odd = ("-", "0", "__proto__", "constructor", "hasOwnProperty", "N" * 64)
    counters = {"<b>bold</b>": 1, "__proto__": 2, "ключ": 3}
    for name in odd:
        state = DeviceState(name, "b", stages=(1, 2, 3, 4), counters=counters)
        pipeline.client.publish(pipeline.topics.device(name), DEVICE_STATE.encode(state), retain=True)
    answer(pipeline, "a.b:c", "<img src=x onerror=alert(1)>")
    with opened(browser, server.url) as page:
        expect(page.locator("#now-devices")).to_have_text(f"{len(odd)} of {len(odd)}")
        expect(page.locator("#answers")).to_contain_text("<img src=x onerror=alert(1)>")
        for name in odd:
            expect(page.locator(f"#graph [data-device='{name}']")).to_have_attribute("data-health", "online")
            row = page.locator(f"#devices [data-row='{name}']")
            expect(row).to_contain_text("<b>bold</b> 1")
            expect(row).to_contain_text("ключ 3")
        assert page.locator("#answers img, #devices td:last-child b").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for number in range(20):
            name = f"more-{number}"
            state = DeviceState(name, "b", stages=(1,))
            pipeline.client.publish(pipeline.topics.device(name), DEVICE_STATE.encode(state))
        for name in odd:
            expect(page.locator(f"#tiles [data-device='{name}']")).to_have_attribute("data-health", "online")


def test_a_database_of_an_older_version_is_not_served(mosquitto: Broker, tmp_path: Path) -> None:
    common = ("coordinator", "--broker", mosquitto.address, "--pipeline", "never", "--http", ":0")
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.execute("CREATE TABLE results (id INTEGER PRIMARY KEY)")
    done = mqtt_mdi(*common, "--db", "old.db", cwd=tmp_path)
    assert done.returncode == 5
    assert "Use that version, or give another path" in done.stderr
    assert "the page is on" not in done.stderr

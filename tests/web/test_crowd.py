"""A page of a thousand devices: told in little, shown as tiles, and well again when they have gone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from browsers import SCREENSHOTS, needs_chromium, opened
from live import Broker, Pipeline, until
from pages import where
from playwright.sync_api import Browser, expect

from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.wire.messages import DEVICE_STATE

pytestmark = needs_chromium

DEVICES = 1000
CLEARED = b""


def tell_of(pipeline: Pipeline, states: dict[str, bytes]) -> None:
    """Publish retained states as fast as the broker takes them."""
    last = list(states)[-1]
    for name, payload in states.items():
        topic = pipeline.topics.device(name)
        if name == last:
            pipeline.client.publish(topic, payload.decode(), retain=True)
        else:
            pipeline.client._client.publish(topic, payload, qos=0, retain=True)


def state(number: int, *, online: bool = True) -> bytes:
    """One of many alike; every tenth is a source."""
    role: Literal["source", "device"] = "source" if number % 10 == 0 else "device"
    stages = () if role == "source" else (number % 4 + 1,)
    told = DeviceState(name(number), "b", online, role, stages, input_queue=number, output_queue=3)
    return DEVICE_STATE.encode(told)


def name(number: int) -> str:
    return f"unit-{number:04}"


def test_a_thousand_devices_are_shown_and_go(
    mosquitto: Broker, names: Iterator[str], browser: Browser, tmp_path: Path
) -> None:
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        coordinator = pipeline.coordinator("--http", ":0", "--policy", '{"silence_s": 600}')
        server = where(coordinator)
        with opened(browser, server.url) as page:
            expect(page.locator("#graph")).to_contain_text("No devices have told of themselves yet")
            tell_of(pipeline, {name(number): state(number) for number in range(DEVICES)})
            expect(page.locator("#now-devices")).to_have_text("900 of 900", timeout=60_000)
            expect(page.locator("#now-roles")).to_have_text("online; 100 of 100 sources")
            expect(page.locator("#tiles li")).to_have_count(DEVICES)
            expect(page.locator("#graph")).to_be_hidden()
            expect(page.locator("#crowd-trouble")).to_have_text("All are online.")
            told = server.ask("/api/snapshot")
            assert len(told.body) < 100 * DEVICES
            assert (told.json["links"], told.json["devices"]) == ([], [])

            tell_of(pipeline, {name(7): state(7, online=False)})
            tile = page.locator(f"[data-device='{name(7)}']")
            expect(tile).to_have_attribute("data-health", "offline")
            expect(page.locator("#crowd-trouble")).to_have_text(f"1 offline: {name(7)}")
            rows = page.locator("#devices tbody tr")
            expect(rows.first).to_contain_text(f"{name(7)}offline")
            expect(page.locator("#found")).to_have_text("1 to 25 of 1,000, trouble first")
            page.get_by_role("button", name="Next", exact=True).click()
            expect(page.locator("#found")).to_have_text("26 to 50 of 1,000, trouble first")
            page.get_by_label("Find a device").fill("unit-012")
            expect(rows).to_have_count(10)
            page.locator(f"[data-device='{name(4)}']").click()
            expect(rows).to_have_count(1)
            expect(rows.first).to_contain_text(name(4))
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / "thousand.png", full_page=True)

        tell_of(pipeline, dict.fromkeys(map(name, range(DEVICES)), CLEARED))
        until(lambda: server.now["roles"] == {"device": [0, 900], "source": [0, 100]}, within_s=60)
        coordinator.kill()
        where(pipeline.coordinator("--http", f":{server.port}"))
        with opened(browser, server.url) as page:
            expect(page.locator("#crowd")).to_be_hidden()
            expect(page.locator("#graph")).to_contain_text("No devices have told of themselves yet")

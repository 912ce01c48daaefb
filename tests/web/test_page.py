"""The page in a browser, on a running pipeline. Screenshots lie in runs/screenshots afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsers import DESKTOP, SCREENSHOTS, needs_chromium, opened
from live import Broker, Pipeline, Process, running, until
from pages import STAGES, Server, rows, send_sample, shown, where
from playwright.sync_api import Browser, Page, expect

from mqtt_mdi.core.policy import Policy

PHONE = (390, 844)

pytestmark = needs_chromium

Shown = tuple[Pipeline, Server, dict[str, Process]]


@pytest.fixture(scope="module")
def live(
    mosquitto: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    with shown(mosquitto, next(names), tmp_path_factory.mktemp("page")) as parts:
        send_sample(parts[0], "cam1", 40)
        yield parts


@pytest.fixture
def page(live: Shown, browser: Browser) -> Iterator[Page]:
    with opened(browser, live[1].url) as page:
        yield page


def test_it_shows_the_truth_in_the_database(live: Shown, page: Page) -> None:
    pipeline = live[0]
    totals = "SELECT count(*), count(correct), 100.0 * avg(correct) FROM results"
    [(answered, graded, accuracy)] = rows(pipeline.database, totals)
    expect(page.locator("#now-answered")).to_have_text(f"{answered} answered in all")
    expect(page.locator("#now-graded")).to_have_text(f"of {graded} graded answers")
    expect(page.locator("#now-accuracy")).to_have_text(f"{accuracy:.2f}%")
    by_exit = dict(rows(pipeline.database, "SELECT exit_stage, count(*) FROM results GROUP BY 1"))
    for stage in range(1, 5):
        row = page.locator(f"[data-exit='{stage}']")
        expect(row).to_have_attribute("data-count", str(by_exit.get(stage, 0)))
    last = "SELECT frame_id, class_name FROM results ORDER BY id DESC LIMIT 40"
    expect(page.locator("#answers tbody tr")).to_have_count(min(answered, 40))
    for row, (frame, name) in zip(
        page.locator("#answers tbody tr").all(), rows(pipeline.database, last), strict=True
    ):
        assert row.locator("td").nth(2).inner_text() == frame
        assert row.locator("td").nth(3).inner_text() == name
    for device, stages in STAGES.items():
        row = page.locator(f"#devices [data-row='{device}']")
        expect(row).to_contain_text("online")
        expect(row).to_contain_text(stages.replace(",", ", "))
        expect(page.locator(f"#graph [data-device='{device}']")).to_have_attribute("data-health", "online")
        expect(page.locator(f"#graph [data-device='{device}'] .digit.held")).to_have_text(stages.split(","))
    expect(page.locator("#chart-throughput .empty")).to_be_hidden()


def test_an_edit_by_keyboard_changes_where_frames_leave(live: Shown, page: Page, tmp_path: Path) -> None:
    pipeline, server, _ = live
    common = ("--broker", pipeline.broker.address, "--pipeline", pipeline.topics.pipeline)
    before = server.now["policy_version"]
    with running(tmp_path, "sensor", *common, "--id", "cam2", "--frames", "0", "--rate", "40"):
        until(lambda: server.now["answered"] > 80)
        for stage in (1, 2, 3):
            field = page.get_by_label(f"Threshold of exit {stage}, exact")
            expect(field).to_be_enabled()
            field.focus()
            page.keyboard.press("Control+A")
            page.keyboard.type("1")
        expect(page.locator("#patch")).to_have_value('{\n  "thresholds": [1,1,1]\n}')
        page.locator("#publish").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#verdict")).to_have_text(f"Published as version {before + 1}.")
        expect(page.locator("#chip-policy")).to_have_text(f"policy v{before + 1}")
        expect(page.locator("#versions li").first).to_contain_text("policy/set")
        last = page.locator("[data-exit='4']")
        until(lambda: float(last.get_attribute("data-share") or 0) > 0.5)
    # the first of them may have been run by a device that had not heard of the new version yet
    stages = f"SELECT exit_stage FROM results WHERE policy_version = {before + 1} ORDER BY id DESC LIMIT 20"
    assert set(rows(pipeline.database, stages)) == {(4,)}
    page.locator("#versions li").nth(1).get_by_role("button").click()
    page.locator("#publish").click()
    expect(page.locator("#verdict")).to_have_text(f"Published as version {before + 2}.")
    assert server.now["thresholds"][0] < 1


def test_the_editor_tells_faults_before_and_races_after(live: Shown, page: Page) -> None:
    pipeline, server, _ = live
    patch, publish, verdict = (page.locator(name) for name in ("#patch", "#publish", "#verdict"))
    expect(publish).to_be_disabled()
    for text, words in (
        ('{"window": ', "Not JSON"),
        ('{"window": "wide"}', "window"),
        ('{"thresholds": [0.5]}', "3 early exits"),
        ('{"widnow": 7}', "widnow"),
    ):
        patch.fill(text)
        expect(verdict).to_contain_text(words)
        expect(publish).to_be_disabled()
    patch.fill('{"window": 80}')
    expect(publish).to_be_enabled()
    version = server.now["policy_version"]
    pipeline.client.publish(pipeline.topics.policy_set, {"window": 70})
    expect(verdict).to_contain_text(f"Version {version + 1} was published meanwhile")
    expect(patch).to_have_value('{"window": 80}')
    publish.click()
    expect(verdict).to_have_text(f"Published as version {version + 2}.")
    page.locator("summary").click()
    expect(page.locator("#policy-body")).to_contain_text('"window": 80')


def test_what_strangers_write_stays_text(live: Shown, page: Page) -> None:
    pipeline = live[0]
    letter = {"reporter": "device-1", "topic": "<b>x</b>", "reason": "<img src=x onerror=alert(1)>"}
    pipeline.client.publish(pipeline.topics.deadletter("device-1"), letter)
    expect(page.locator("#letters")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("#letters img, #letters b").count() == 0


def test_a_killed_device_turns_red_in_its_time(live: Shown, page: Page) -> None:
    pipeline, _, processes = live
    processes["device-2"].kill()
    within = 1000 * (Policy(thresholds=()).silence_s + 10)  # ten seconds for a busy machine
    box = page.locator("#graph [data-device='device-2']")
    expect(box).to_have_attribute("data-health", "offline", timeout=within)
    expect(page.locator("#devices [data-row='device-2'] .health")).to_have_class("health bad")
    fill = "e => getComputedStyle(e.querySelector('.box')).stroke"
    assert box.evaluate(fill) == "rgb(198, 40, 40)"
    until(lambda: rows(pipeline.database, "SELECT online FROM devices WHERE device = 'device-2'") == [(0,)])
    expect(page.locator("#now-devices")).to_have_text("2 of 3")
    processes["device-2"] = pipeline.device("device-2", "2,3,4")
    expect(box).to_have_attribute("data-health", "online")


def test_it_can_be_read_everywhere(page: Page) -> None:
    expect(page.locator("#answers tbody tr").first).to_be_visible()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for kind, (width, height) in {"desktop": DESKTOP, "phone": PHONE}.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            expect(page.locator("#chart-throughput .empty")).to_be_hidden()
            expect(page.locator("#graph svg")).to_have_attribute("width", str(_inner_width(page)))
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=SCREENSHOTS / f"{kind}-{scheme}.png", full_page=True)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def _inner_width(page: Page) -> int:
    width: int = page.locator("#graph").evaluate("element => Math.floor(element.clientWidth)")
    return width


def test_it_comes_back_with_the_coordinator(
    mosquitto: Broker, names: Iterator[str], browser: Browser, tmp_path: Path
) -> None:
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        first = pipeline.coordinator("--http", ":0")
        server = where(first)
        with opened(browser, server.url, quiet=False) as page:
            expect(page.locator("#graph")).to_contain_text("No devices have told of themselves yet")
            expect(page.locator("#answers")).to_contain_text("No frame has been answered yet")
            first.kill()
            expect(page.locator("#banner")).to_contain_text("No connection to the coordinator")
            where(pipeline.coordinator("--http", f":{server.port}"))
            expect(page.locator("#chip-live")).to_have_text("live")
            expect(page.locator("#banner")).to_be_hidden()


def test_a_stranger_is_asked_for_the_token(
    mosquitto: Broker, names: Iterator[str], browser: Browser, tmp_path: Path
) -> None:
    with Pipeline(mosquitto, next(names), tmp_path) as pipeline:
        server = where(pipeline.coordinator("--http", "0.0.0.0:0"))
        page = browser.new_page()
        page.goto(server.url.partition("?")[0])
        page.get_by_label("Token").fill(server.token)
        page.keyboard.press("Enter")
        expect(page.locator("#chip-live")).to_have_text("live")
        page.close()

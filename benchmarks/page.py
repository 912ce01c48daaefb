"""The page in Chromium while a coordinator hears 200 devices and 1,000 results a second."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import measure
from measure import Row
from playwright.sync_api import Page, expect, sync_playwright

from mqtt_mdi.runtime.broker import free_ports

LOADS = ((5, 1000), (16, 1000), (200, 1000))
SECONDS = 8.0
SETTLE_S = 4.0
ASKS_S = 1.2
START_S = 60.0

COUNT_FRAMES = """
seconds => new Promise(done => {
  let frames = 0, longest = 0, busy = 0, last = performance.now();
  const begun = last;
  const add = list => { for (const task of list.getEntries()) busy += task.duration; };
  const tasks = new PerformanceObserver(add);
  tasks.observe({ type: "longtask" });
  const look = now => {
    frames += 1;
    longest = Math.max(longest, now - last);
    last = now;
    if (now - begun < 1000 * seconds) requestAnimationFrame(look);
    else { tasks.disconnect(); done([1000 * frames / (now - begun), longest, busy / (now - begun)]); }
  };
  requestAnimationFrame(look);
})
"""


def page(rounds: int) -> list[Row]:
    """Frames a second of the page, beside those of an empty page in the same browser under the same load."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("skipped: no chromium on PATH", file=sys.stderr)
        return []
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        shown = browser.new_page(viewport={"width": 1360, "height": 900})
        rows = [row for load in LOADS for row in _measured(shown, *load, max(1, rounds // 2))]
        browser.close()
    return rows


def _measured(shown: Page, devices: int, rate: int, rounds: int) -> list[Row]:
    found: list[Row] = []
    with _loaded(devices, rate) as (url, coordinator):
        for _ in range(rounds):
            shown.goto("about:blank")
            empty, _, _ = shown.evaluate(COUNT_FRAMES, SECONDS)
            cost = _cost(url, coordinator)
            shown.goto(url)
            expect(shown.locator("#chip-live")).to_have_text("live", timeout=1000 * START_S)
            time.sleep(SETTLE_S)
            begun, before = time.monotonic(), _answered(url)
            frames, longest, busy = shown.evaluate(COUNT_FRAMES, SECONDS)
            answered = (_answered(url) - before) / (time.monotonic() - begun)
            found.append(
                {
                    "devices": devices,
                    "results/s": answered,
                    "empty page, frames/s": empty,
                    "page, frames/s": frames,
                    "page / empty": frames / empty,
                    "longest frame, ms": longest,
                    "long tasks, %": 100 * busy,
                    **cost,
                }
            )
            shown.goto("about:blank")
    return measure.medians(found, "devices")


@contextmanager
def _loaded(devices: int, rate: int) -> Iterator[tuple[str, Popen[bytes]]]:
    """A coordinator with its page, and who keeps it busy; once it has heard of all devices."""
    with ExitStack() as stack:
        database = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "page.db")
        broker = stack.enter_context(measure.broker())
        port = free_ports("127.0.0.1", 1)
        url = f"http://127.0.0.1:{port}/"
        options = ("--broker", str(broker), "--pipeline", "crowd", "--db", database, "--http", f":{port}")
        program = (sys.executable, "-m", "mqtt_mdi", "coordinator")
        coordinator = stack.enter_context(measure.child(*program, *options))
        _wait(lambda: _told(url)["connected"])
        stack.enter_context(measure.child("crowd.py", str(broker.port), "crowd", str(devices), str(rate)))
        _wait(lambda: _told(url)["roles"]["device"][0] == devices)
        yield url, coordinator


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if condition():
                return
        except URLError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError(f"the pipeline is not up within {START_S:.0f} s")
        time.sleep(0.1)


def _told(url: str) -> Any:  # noqa: ANN401 -- JSON
    with urlopen(f"{url}api/snapshot", timeout=10) as answer:
        return json.load(answer)


def _answered(url: str) -> int:
    answered: int = _told(url)["answered"]
    return answered


def _cost(url: str, coordinator: Popen[bytes]) -> Row:
    """What the coordinator tells a page, and its CPU with and without one that asks."""
    cpu = measure.cpu_seconds(coordinator.pid)
    time.sleep(SECONDS)
    alone = (measure.cpu_seconds(coordinator.pid) - cpu) / SECONDS
    sizes: list[int] = []
    with urlopen(f"{url}api/events", timeout=10) as stream:
        begun, cpu, asked = time.monotonic(), measure.cpu_seconds(coordinator.pid), 0.0
        while (now := time.monotonic()) - begun < SECONDS:
            line = stream.readline()
            sizes += [len(line)] if line.startswith(b"data:") else []
            if now - asked > ASKS_S:
                asked = now
                for path in ("recent", "devices", f"history?seconds=300&since={time.time() - 2}"):
                    urlopen(f"{url}api/{path}", timeout=10).read()
    seconds = time.monotonic() - begun
    return {
        "event, kB": sum(sizes) / len(sizes) / 1e3,
        "events, kB/s": sum(sizes) / seconds / 1e3,
        "coordinator's CPU alone, %": 100 * alone,
        "watched, %": 100 * (measure.cpu_seconds(coordinator.pid) - cpu) / seconds,
    }

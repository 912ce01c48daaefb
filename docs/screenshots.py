"""Take the pictures of the page again, from a real run: five emulated boards, one of them killed.

    python docs/screenshots.py      two minutes; needs the extra `test`, Mosquitto and Chromium

Writes page.png, page-dark.png and page-phone.png beside itself, in 256 colours.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.cli.demo import running_parts
from mqtt_mdi.runtime.broker import free_ports, running_broker
from mqtt_mdi.web.address import LOOPBACK, Address, PageSettings

HERE = Path(__file__).parent
DEVICES, EMULATED = 5, 1e8
RATE = 60
RUN_S, DEAD_S = 100, 8
VICTIM = "device-4"
SHOTS = (("page", 1360, 1090, "light"), ("page-dark", 1360, 1090, "dark"), ("page-phone", 390, 1500, "light"))


def main() -> None:
    """Run, kill, look."""
    address = Address(LOOPBACK, free_ports(LOOPBACK, 1))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(running_broker("mosquitto"))
        parts = stack.enter_context(
            running_parts(
                broker,
                "demo",
                SHIPPED_BUNDLE,
                folder / "page.db",
                DEVICES,
                EMULATED,
                PageSettings(address),
                lambda: None,
            )
        )
        sensor = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mqtt_mdi",
                "sensor",
                "--id",
                "cam1",
                "--frames",
                "0",
                "--rate",
                str(RATE),
            ],
            env={**os.environ, "MDI_BROKER": str(broker)},
            stderr=subprocess.DEVNULL,
        )
        stack.callback(sensor.wait)
        stack.callback(sensor.terminate)
        time.sleep(RUN_S)
        next(part for part in parts if part.name == VICTIM).process.kill()
        time.sleep(DEAD_S)
        for name, width, height, scheme in SHOTS:
            _shoot(address.url(), HERE / f"{name}.png", width, height, scheme)


def _shoot(url: str, path: Path, width: int, height: int, scheme: str) -> None:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(url)
        _wait_until_drawn(page)
        picture = Image.open(BytesIO(page.screenshot()))
        picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, 4, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


def _wait_until_drawn(page: Page) -> None:
    expect(page.locator("#chip-live")).to_have_text("live", timeout=20_000)
    expect(page.locator("#chart-throughput .empty")).to_be_hidden(timeout=20_000)
    expect(page.locator("#answers tbody tr").nth(5)).to_be_visible(timeout=20_000)
    time.sleep(2)  # flows are measured over seconds


if __name__ == "__main__":
    main()

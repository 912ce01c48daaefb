"""The page with TLS: who trusts its authority gets it, who comes without TLS gets nothing."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import pytest
from browsers import needs_chromium, opened
from live import Broker, Pipeline, Process, mqtt_mdi
from pages import Server, where
from playwright.sync_api import Browser, expect

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.certificates import issue, make_authority
from mqtt_mdi.runtime.tls import server_context


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    authority = make_authority()
    authority.write(folder, "ca")
    make_authority().write(folder, "stranger")
    issue(authority, "server", "gateway", ["gateway", "127.0.0.1"]).write(folder, "page")
    (folder / "broken.crt").write_text("no certificate")
    return folder


@pytest.fixture(scope="module")
def secured(
    mosquitto: Broker, names: Iterator[str], secrets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Process, Server]]:
    with Pipeline(mosquitto, next(names), tmp_path_factory.mktemp("page")) as pipeline:
        files = ("--http-cert", str(secrets / "page.crt"), "--http-key", str(secrets / "page.key"))
        coordinator = pipeline.coordinator("--http", "0.0.0.0:0", *files)
        yield coordinator, replace(where(coordinator), ca=secrets / "ca.crt")


def test_who_trusts_its_authority_gets_it(secured: tuple[Process, Server], secrets: Path) -> None:
    _, server = secured
    assert server.url.startswith("https://127.0.0.1:")
    assert server.ask("/api/snapshot", Authorization=f"Bearer {server.token}").json["connected"]
    opened = server.ask(f"/?token={server.token}")
    assert opened.status == 303
    assert {"secure", "httponly"} <= {
        word.strip().lower() for word in opened.headers["set-cookie"].split(";")
    }
    with pytest.raises(ssl.SSLCertVerificationError):
        replace(server, ca=secrets / "stranger.crt").ask("/")


def test_without_tls_nothing_is_told_and_the_log_says_why(secured: tuple[Process, Server]) -> None:
    coordinator, server = secured
    with pytest.raises((HTTPException, OSError)):
        Server(server.url.replace("https:", "http:")).ask(f"/?token={server.token}")
    said = coordinator.wait_to_say("without TLS: its address begins with https://")
    assert "in the clear" not in said
    assert "Traceback" not in said
    assert server.ask("/api/snapshot", Authorization=f"Bearer {server.token}").status == 200


@needs_chromium
def test_a_browser_gets_in_with_the_token(secured: tuple[Process, Server], browser: Browser) -> None:
    _, server = secured
    with opened(browser, server.url) as page:
        assert page.url == server.url.partition("?")[0]
        expect(page.locator("#graph")).to_contain_text("No devices have told of themselves yet")


def test_an_open_stream_does_not_keep_the_coordinator(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], secrets: Path
) -> None:
    files = ("--http-cert", str(secrets / "page.crt"), "--http-key", str(secrets / "page.key"))
    coordinator = new_pipeline(mosquitto).coordinator("--http", ":0", *files)
    watching = replace(where(coordinator), ca=secrets / "ca.crt").connection()
    watching.request("GET", "/api/events")
    assert watching.getresponse().readline().startswith(b"data: ")
    assert coordinator.stop() == 0
    watching.close()
    assert "Traceback" not in coordinator.said()


def test_elsewhere_without_tls_it_warns(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    coordinator = new_pipeline(mosquitto).coordinator("--http", "0.0.0.0:0")
    coordinator.wait_to_say("in the clear: give --http-cert and --http-key")


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("page.crt", None, "give both --http-cert and --http-key"),
        ("gone.crt", "page.key", "gone.crt cannot be read"),
        ("broken.crt", "page.key", "not in PEM format"),
        ("page.crt", "ca.key", "do not belong together"),
    ],
)
def test_files_that_cannot_be_used_are_named(secrets: Path, cert: str, key: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        server_context(secrets / cert, None if key is None else secrets / key)


def test_at_its_start_a_coordinator_says_which_file_is_bad(
    mosquitto: Broker, secrets: Path, tmp_path: Path
) -> None:
    common = ("coordinator", "--broker", mosquitto.address, "--pipeline", "never", "--db", "never.db")
    files = ("--http-cert", str(secrets / "broken.crt"), "--http-key", str(secrets / "page.key"))
    done = mqtt_mdi(*common, "--http", ":0", *files, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("broken.crt")) == (2, 1)

"""The page's server beside a real coordinator: what it tells is what the database holds."""

import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from live import PATIENCE_S, Broker, Pipeline, mqtt_mdi, until
from pages import Server, rows, send_sample, shown, where

from mqtt_mdi.cli.page import showing
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import running_broker
from mqtt_mdi.web.address import Address, PageSettings
from mqtt_mdi.wire.schemas import json_schemas

TOTALS = """
    SELECT count(*) FILTER (WHERE status = 'ok'), count(*) FILTER (WHERE status = 'failed'),
           count(correct), count(*) FILTER (WHERE correct) FROM results
"""


@pytest.fixture(scope="module")
def running(
    mosquitto: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pipeline, Server]]:
    with shown(mosquitto, next(names), tmp_path_factory.mktemp("page")) as (pipeline, server, _):
        yield pipeline, server


def test_the_snapshot_says_what_the_database_holds(running: tuple[Pipeline, Server]) -> None:
    pipeline, server = running
    send_sample(pipeline, "cam1", 40)
    now = until(lambda: (told := server.now)["graded"] >= 40 and told)
    assert rows(pipeline.database, TOTALS) == [
        (now["answered"], now["failed"], now["graded"], now["correct"])
    ]
    by_exit = dict(rows(pipeline.database, "SELECT exit_stage, count(*) FROM results GROUP BY 1"))
    assert now["exits"] == [by_exit.get(stage, 0) for stage in range(1, 5)]
    assert now["connected"]
    assert now["storage_error"] is None
    devices = {told["device"]: (told["online"], told["stages"]) for told in now["devices"]}
    assert devices == {
        "device-1": (True, [1, 2]),
        "device-2": (True, [2, 3, 4]),
        "device-3": (True, [1, 3, 4]),
        "source-1": (True, []),
    }
    flows = until(lambda: [link for link in server.now["links"] if link["bytes_s"] is not None])
    assert {(link["from"], link["to"]) for link in flows} <= {(a, b) for a in devices for b in devices}


def test_devices_can_be_looked_for(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    told = server.ask("/api/devices?search=VICE-&first=1").json
    assert (told["found"], told["first"]) == (3, 1)
    assert [device["device"] for device in told["devices"]] == ["device-2", "device-3"]
    assert {device["health"] for device in told["devices"]} <= {"online", "silent"}
    assert server.ask("/api/devices?first=7").json["devices"] == []
    for first in ("-1", "x", "1" * 10, "%C2%B9"):
        assert server.ask(f"/api/devices?first={first}").status == 400


def test_history_and_rows_are_the_database(running: tuple[Pipeline, Server]) -> None:
    pipeline, server = running
    send_sample(pipeline, "cam2", 20)
    until(lambda: rows(pipeline.database, "SELECT sum(answered) >= 20 FROM windows") == [(1,)])
    lately = server.ask("/api/history?seconds=300").json
    [(answered, graded, correct)] = rows(
        pipeline.database, "SELECT sum(answered), sum(graded), sum(correct) FROM windows"
    )
    assert sum(lately["exits_lately"]) == answered
    assert sum(point["graded"] for point in lately["points"]) == graded
    assert sum(point["correct"] for point in lately["points"]) == correct
    later = server.ask(f"/api/history?seconds=300&since={lately['points'][-1]['at']}").json
    assert later["points"][0]["at"] >= lately["points"][-1]["at"] - 1
    assert server.ask("/api/history?seconds=week").status == 400

    told = server.ask("/api/recent").json["answers"]
    stored = rows(
        pipeline.database, "SELECT frame_id, class_name, label FROM results ORDER BY id DESC LIMIT 40"
    )
    assert [(row["frame_id"], row["class_name"], row["label"]) for row in told] == stored
    assert all(row["truth_name"] for row in told)


def test_an_accepted_edit_is_in_force_for_all(running: tuple[Pipeline, Server]) -> None:
    pipeline, server = running
    version = server.now["policy_version"]
    done = server.edit({"lease_s": 3.5}, version)
    assert (done.status, done.json) == (200, {"accepted": True, "version": version + 1, "reason": None})
    pipeline.client.wait_for_last(pipeline.topics.policy, lambda told: told["lease_s"] == 3.5)
    stored = f"SELECT origin FROM policies WHERE version = {version + 1}"
    until(lambda: rows(pipeline.database, stored) == [("policy/set",)])
    told = server.ask("/api/policy").json
    assert told["policy"]["lease_s"] == 3.5
    newest = told["history"][0]
    assert (newest["version"], newest["changed"]) == (version + 1, {"lease_s": 3.5})
    assert server.edit({"lease_s": None}).json["accepted"]
    assert server.ask("/api/policy").json["policy"]["lease_s"] == 2.0


@pytest.mark.parametrize(
    "patch", [{"thresholds": [0.5]}, {"window": "many"}, {"no such field": 1}, {"version": 9}]
)
def test_a_rejected_edit_hears_what_mqtt_hears(running: tuple[Pipeline, Server], patch: object) -> None:
    pipeline, server = running
    before = server.now["policy_version"]
    refused = server.edit(patch)
    assert refused.status == 409
    client, topics = pipeline.client, pipeline.topics
    heard = len(client.on(topics.policy_result))
    client.publish(topics.policy_set, patch)  # type: ignore[arg-type]
    over_mqtt = client.wait_on(topics.policy_result, heard + 1)[-1].json
    assert refused.json["reason"] == over_mqtt["reason"]
    assert server.now["policy_version"] == before


def test_of_two_edits_of_one_version_one_is_told(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    version = server.now["policy_version"]
    with ThreadPoolExecutor(8) as pool:
        replies = [pool.submit(server.edit, {"window": 60 + n}, version) for n in range(8)]
    told = [reply.result().json for reply in replies]
    assert sum(reply["accepted"] for reply in told) == 1
    assert server.now["policy_version"] == version + 1
    reason = next(reply["reason"] for reply in told if not reply["accepted"])
    assert f"version {version + 1} came while version {version} was edited" in reason


def test_what_is_no_edit_is_refused(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    before = server.now["policy_version"]
    assert server.ask("/api/policy", b"{", Content_Type="application/json").status == 400
    assert server.ask("/api/policy", {"patch": [1]}).status == 400
    assert server.ask("/api/policy", {"patch": {}, "expected": "1"}).status == 400
    assert server.ask("/api/policy", b'{"patch": {}}', Content_Type="text/plain").status == 415
    assert server.ask("/api/policy", {"patch": {"a": "x" * 2**18}}).status == 413
    assert server.ask("/api/policy", method="DELETE").status == 405
    assert server.ask("/api/nothing").status == 404
    assert server.ask("/static/../server.py").status == 404
    assert server.now["policy_version"] == before


def test_other_sites_are_kept_out(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    assert server.ask("/api/snapshot", Host="rebound.example").status == 403
    assert server.ask("/api/snapshot", Host="[not.an.address").status == 403
    assert server.ask("/api/snapshot", Origin="http://[").status == 403
    foreign = server.ask("/api/policy", {"patch": {"window": 1}}, Origin="http://evil.example")
    assert foreign.status == 403
    own = f"http://localhost:{server.port}"
    assert server.ask("/api/snapshot", Host=f"localhost:{server.port}", Origin=own).status == 200
    page = server.ask("/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert b"<script>" not in page.body
    assert server.ask("/api/schema").json == json_schemas()["policy-patch"]


def test_elsewhere_than_on_loopback_a_token_is_asked_for(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    server = where(pipeline.coordinator("--http", "0.0.0.0:0"))
    assert len(server.token) >= 32
    for path in ("/", "/api/snapshot", "/api/events", "/api/policy", "/?token=wrong"):
        assert server.ask(path).status == 401
    assert server.edit({"window": 1}).status == 401
    assert server.ask("/static/style.css").status == 200
    assert server.ask("/api/snapshot", Authorization=f"Bearer {server.token}").status == 200
    assert server.ask("/api/snapshot", Authorization="Bearer wröng").status == 401
    for opened in (
        server.ask(f"/?token={server.token}"),
        server.ask("/login", f"token={server.token}".encode()),
    ):
        assert (opened.status, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite" in cookie.replace("samesite", "SameSite")
        assert server.ask("/api/snapshot", Cookie=cookie.partition(";")[0], Host="gateway.lan").status == 200
    assert server.ask("/login", b"token=wrong").status == 401


def test_a_given_token_is_asked_for_on_loopback_too(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    pipeline.env["MDI_HTTP_TOKEN"] = "a long enough secret"
    server = where(pipeline.coordinator("--http", ":0"))
    assert server.ask("/api/snapshot").status == 401
    assert server.ask("/api/snapshot", Authorization="Bearer a long enough secret").status == 200


def test_what_cannot_be_served_is_said_at_the_start(mosquitto: Broker, tmp_path: Path) -> None:
    common = ("coordinator", "--broker", mosquitto.address, "--pipeline", "never", "--db", "never.db")
    short = mqtt_mdi(*common, "--http", ":0", "--http-token", "guess", cwd=tmp_path)
    assert (short.returncode, "16 or more" in short.stderr) == (2, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = mqtt_mdi(*common, "--http", f":{port}", cwd=tmp_path)
    assert (busy.returncode, f"cannot listen on 127.0.0.1:{port}" in busy.stderr) == (2, True)


@pytest.mark.parametrize("text", ["8080", "http://x:1", ":", ":65536", ":-1", "a b:80"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one like :8080"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "url", "loopback"),
    [
        (":8080", "http://127.0.0.1:8080/", True),
        ("[::1]:80", "http://[::1]:80/", True),
        ("localhost:80", "http://localhost:80/", True),
        ("0.0.0.0:80", "http://127.0.0.1:80/", False),
        ("gateway:80", "http://gateway:80/", False),
        ("192.168.1.7:80", "http://192.168.1.7:80/", False),
    ],
)
def test_addresses(text: str, url: str, loopback: bool) -> None:  # noqa: FBT001 -- a case
    address = Address.parse(text)
    assert (address.url(), address.is_loopback) == (url, loopback)
    assert address.url("abc", tls=True) == f"https{url.removeprefix('http')}?token=abc"
    assert Address.parse(str(address)) == address


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'mqtt-mdi\[page\]'"),
        showing(None, PageSettings(Address("", 0))),  # type: ignore[arg-type]
    ):
        pass


def test_who_sends_no_whole_request_is_hung_up_on(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    whole = b"GET /api/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
    begun = b"POST /api/policy HTTP/1.1\r\nHost: localhost\r\n"
    body = b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    with ExitStack() as stack:
        watching = stack.enter_context(closing(server.connection()))
        watching.request("GET", "/api/events")
        stream = watching.getresponse()
        where = ("127.0.0.1", server.port)
        lazy = [stack.enter_context(socket.create_connection(where, PATIENCE_S)) for _ in range(4)]
        for connection, sent in zip(lazy, (b"", begun, begun + body, whole + begun), strict=True):
            connection.sendall(sent)
        for connection in lazy:
            while connection.recv(4096):
                pass
        assert stream.readline().startswith(b"data: ")


def test_who_does_not_read_holds_up_nobody(running: tuple[Pipeline, Server]) -> None:
    _, server = running
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", server.port))
        lazy.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        watching = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        watching.request("GET", "/api/events")
        stream = watching.getresponse()
        assert stream.getheader("content-type", "").startswith("text/event-stream")
        events = [stream.readline() for _ in range(6)]
        watching.close()
        assert [line[:6] for line in events[::2]] == [b"data: "] * 3


def test_an_open_stream_does_not_keep_the_coordinator(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline]
) -> None:
    pipeline = new_pipeline(mosquitto)
    coordinator = pipeline.coordinator("--http", ":0")
    watching = HTTPConnection("127.0.0.1", where(coordinator).port, timeout=PATIENCE_S)
    watching.request("GET", "/api/events")
    stream = watching.getresponse()
    assert stream.readline().startswith(b"data: ")
    assert coordinator.stop() == 0
    assert stream.read()[-1:] == b"\n", "cut off"
    watching.close()
    assert "Traceback" not in coordinator.said()


def test_without_a_broker_nothing_is_changed(names: Iterator[str], tmp_path: Path) -> None:
    with running_broker("embedded") as url:
        broker = Broker("embedded", url)
        pipeline = Pipeline(broker, next(names), tmp_path)
        coordinator = pipeline.coordinator("--http", ":0")
        server = where(coordinator)
        assert server.now["connected"]
    with pipeline:
        until(lambda: not server.now["connected"])
        refused = server.edit({"window": 7})
        assert (refused.status, refused.json["accepted"]) == (409, False)
        assert "there is no connection" in refused.json["reason"]
        assert server.ask("/api/policy").json["policy"]["window"] == 64

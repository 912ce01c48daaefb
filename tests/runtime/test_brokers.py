import os
import platform
import re
import socket
import threading
from pathlib import Path

import pytest
from live import Broker, Client
from paho.mqtt import client as paho

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime import broker as brokers
from mqtt_mdi.runtime.broker import choose, free_ports, mosquitto_program, running_broker

SHIPPED_CONFIG = Path(__file__).parents[2] / "broker" / "mosquitto.conf"


def test_auto_takes_mosquitto_where_there_is_one(mosquitto: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mosquitto.kind == choose("auto") == choose("mosquitto") == "mosquitto"
    assert choose("embedded") == "embedded"
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr("mqtt_mdi.runtime.broker._SBIN", (os.devnull,))
    assert choose("auto") == "embedded"
    with pytest.raises(ConfigError, match=r"no mosquitto on PATH or in .*: install it, or use the embedded"):
        choose("mosquitto")


def test_mosquitto_is_found_where_only_root_looks(
    mosquitto: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mosquitto"
    program.symlink_to(mosquitto_program() or "")
    monkeypatch.setattr("mqtt_mdi.runtime.broker._SBIN", (str(tmp_path),))
    monkeypatch.setenv("PATH", os.devnull)
    assert mosquitto_program() == str(program)
    with running_broker(choose("auto")) as url, Client(Broker(mosquitto.kind, url)):
        pass


def test_both_versions_of_the_protocol(broker: Broker) -> None:
    with Client(broker, "both") as new, Client(broker, "both", version=paho.MQTTv311) as old:
        new.publish("both", b"from new")
        old.publish("both", b"from old")
        for client in (new, old):
            assert {heard.payload for heard in client.wait_on("both", 2)} == {b"from new", b"from old"}


def test_large_payloads_pass(broker: Broker) -> None:
    payload = os.urandom(8 * 2**20)
    with Client(broker, "large") as client:
        client.publish("large", payload)
        assert client.wait_for(lambda heard: heard.topic == "large").payload == payload


def test_a_broker_on_a_host_is_told_the_same_of_its_memory() -> None:
    told = SHIPPED_CONFIG.with_name("mosquitto.service.conf").read_text()
    settings = " ".join(f"{name}={value}" for name, value in brokers._KEPT_MEMORY.items())
    assert f"[Service]\nEnvironment={settings}\n" in told


def children() -> set[str]:
    return {*Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split()}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has such settings")
def test_mosquitto_keeps_the_memory_of_large_messages() -> None:
    burst, before = 100, children()
    with running_broker("mosquitto") as url, Client(Broker("mosquitto", url), "large") as client:
        [mosquitto] = children() - before
        faults = []
        for told in (burst, 2 * burst):
            for _ in range(burst):
                client.publish("large", bytes(100_000))
            client.wait_on("large", told)
            stat = Path(f"/proc/{mosquitto}/stat").read_text()
            faults.append(int(stat.rpartition(")")[2].split()[7]))
    assert faults[1] - faults[0] < burst  # by default, 17 for each message


def test_a_port_in_use_is_named(broker: Broker) -> None:
    expected = f"cannot listen on 127.0.0.1:{broker.url.port}: .* choose another --port"
    with pytest.raises(ConfigError, match=expected), running_broker(broker.kind, broker.url.port):
        pass


def test_the_second_port_of_the_embedded_broker_counts(embedded: Broker) -> None:
    first = free_ports("127.0.0.1", 2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 1))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{first + 1}"), running_broker(embedded.kind, first):
            pass


def test_its_port_is_free_again_after_it(broker: Broker) -> None:
    port = free_ports("127.0.0.1", 2)
    for _ in range(2):
        with running_broker(broker.kind, port) as url, Client(Broker(broker.kind, url)):
            assert url.port == port


def test_both_configurations_of_mosquitto_turn_nagle_off() -> None:
    for config in (brokers._MOSQUITTO, SHIPPED_CONFIG.read_text()):
        assert re.search(r"^set_tcp_nodelay true$", config, re.MULTILINE)
        assert re.search(r"^max_inflight_messages 1000$", config, re.MULTILINE)
        queued = re.search(r"^max_queued_messages (\d+)$", config, re.MULTILINE)
        assert queued
        assert int(queued[1]) >= 100_000

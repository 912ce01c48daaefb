"""A Mosquitto with access control, made as users make one, and plain clients that go to it as somebody."""

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from dotenv import dotenv_values
from live import PATIENCE_S, mqtt_mdi, until
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from mqtt_mdi.runtime.broker import free_ports, mosquitto_program
from mqtt_mdi.runtime.broker_url import BrokerURL

CONFIGURATION = Path(__file__).parent.parent / "broker" / "mosquitto.secure.conf"
OBSERVER = "observer"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def mosquitto_with(configuration: str, folder: Path, *ports: int) -> Iterator[subprocess.Popen[bytes]]:
    """Mosquitto with this configuration, once it listens at these ports."""
    file = folder / f"mosquitto-{ports[0]}.conf"
    # As root it would become a user who may not read what lies here.
    file.write_text(configuration + "\nuser root\n")
    log = folder / f"mosquitto-{ports[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen([mosquitto_program() or "", "-c", str(file)], stdout=output, stderr=output)
    try:
        for port in ports:
            until(partial(listens, port), log.read_text)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def mosquitto_of_its_own(folder: Path, *lines: str) -> Iterator[BrokerURL]:
    """A mosquitto on a free port with these lines in its configuration."""
    url = BrokerURL("127.0.0.1", free_ports("127.0.0.1", 1))
    with mosquitto_with("\n".join((f"listener {url.port} {url.host}", *lines)), folder, url.port):
        yield url


@dataclass(frozen=True)
class Secured:
    """A running broker with the shipped configuration; its secrets lie in `folder`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def environment(self, user: str) -> dict[str, str]:
        """What the process of a user is started with."""
        settings = {name: value or "" for name, value in dotenv_values(self.folder / f"{user}.env").items()}
        return settings | {"MDI_CA": str(self.ca)}

    def url(self, user: str) -> BrokerURL:
        return replace(BrokerURL.parse(self.environment(user)["MDI_BROKER"]), ca=self.ca)

    def reload(self) -> None:
        os.kill(self.process.pid, signal.SIGHUP)


@contextmanager
def secured_broker(folder: Path, users: str) -> Iterator[Secured]:
    """The broker for users given as in a file of `mqtt-mdi users`; OBSERVER may do everything."""
    if not (folder / "ca.crt").exists():
        made = mqtt_mdi("certs", "--out", str(folder), "--host", "localhost")
        assert made.returncode == 0, made.stderr
    port = free_ports("127.0.0.1", 1)
    name_users(folder, users, port)
    configuration = CONFIGURATION.read_text()
    for shipped, here in (
        ("/mosquitto/secrets", str(folder)),
        ("listener 8883", f"listener {port} 127.0.0.1"),
        ("persistence true", "persistence false"),
    ):
        assert shipped in configuration
        configuration = configuration.replace(shipped, here)
    with mosquitto_with(configuration + "\nsys_interval 1\n", folder, port) as process:
        yield Secured(folder, port, process)


def name_users(folder: Path, users: str, port: int) -> None:
    """Run `mqtt-mdi users`, and let the observer do everything."""
    file = folder / "users.yaml"
    file.write_text(f"{users}\nwatched:\n  viewer: [{OBSERVER}]\n")
    done = mqtt_mdi("users", str(file), "--out", str(folder), "--broker", f"mqtts://localhost:{port}")
    assert done.returncode == 0, done.stderr
    with (folder / "acl").open("a") as acl:
        acl.write(f"\nuser {OBSERVER}\ntopic readwrite #\ntopic read $SYS/#\n")


class Peer:
    """A plain client that goes by what the broker does, not by what it says."""

    def __init__(
        self, url: BrokerURL, version: MQTTProtocolVersion = paho.MQTTv5, client_id: str = ""
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.lost = 0
        self._subscribed: set[int] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version)
        self._client.max_inflight_messages_set(1000)
        self._client.username_pw_set(url.username, url.password)
        self._client.tls_set_context(ssl.create_default_context(cafile=url.ca))
        self._client.on_message = lambda _c, _d, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        self._client.on_subscribe = lambda _c, _d, mid, *_rest: self._subscribed.add(mid)
        self._client.on_disconnect = self._disconnected
        self._client.connect(url.host, url.port)
        self._client.loop_start()
        until(self._client.is_connected)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave; a user has one connection at a time, and two clients of one would push each other out."""
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, payload: bytes, *topics: str, retain: bool = False, **more: object) -> None:
        """Publish on each topic and wait until the broker has done with them, allowed or not.

        `more` are MQTT 5 properties by paho's names.
        """
        properties = Properties(PacketTypes.PUBLISH) if more else None  # type: ignore[no-untyped-call]
        for name, value in more.items():
            setattr(properties, name, value)
        for sent in [
            self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
            for topic in topics
        ]:
            sent.wait_for_publish(PATIENCE_S)
            assert sent.is_published()

    def hear(self, *filters: str) -> None:
        """Subscribe; when the broker has answered, all it gave out before has come, too."""
        _, mid = self._client.subscribe([(text, 1) for text in filters])
        assert mid is not None
        until(lambda: mid in self._subscribed)

    def _disconnected(self, *_what: object) -> None:
        self.lost += 1

"""TLS to a real Mosquitto: what is refused, in which words, and what is tried again."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from live import Broker, mqtt_mdi, until
from secured import mosquitto_with

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import free_ports
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.certificates import Pair, issue, make_authority
from mqtt_mdi.runtime.client import READS_A_TURN, Connection
from mqtt_mdi.runtime.tls import tls_context

LISTENERS = ("good", "expired", "elsewhere", "wants-certificate", "plain")


@dataclass(frozen=True)
class Brokers:
    """One Mosquitto with a listener of each kind; ann's password is `secret`."""

    folder: Path
    authority: Pair
    ports: dict[str, int]

    def url(self, kind: str, user: str = "ann:secret@") -> str:
        return f"mqtt{'' if kind == 'plain' else 's'}://{user}localhost:{self.ports[kind]}"

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def show(self, url: str, **files: str) -> subprocess.CompletedProcess[str]:
        """Ask the broker for the policy, as any command would connect."""
        named = [word for name, file in files.items() for word in (f"--{name}", file)]
        return mqtt_mdi("policy", "show", "--timeout", "20", "--broker", url, *named)


@pytest.fixture(scope="module")
def brokers(mosquitto: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:  # noqa: ARG001 -- skips
    folder = tmp_path_factory.mktemp("tls")
    first = free_ports("127.0.0.1", len(LISTENERS))
    ports = {name: first + number for number, name in enumerate(LISTENERS)}
    authority = make_authority()
    authority.write(folder, "ca")
    make_authority().write(folder, "stranger")
    issue(authority, "server", "localhost", ["localhost", "127.0.0.1"]).write(folder, "good")
    issue(authority, "server", "localhost", ["localhost"], days=-1).write(folder, "expired")
    issue(authority, "server", "elsewhere", ["elsewhere.example"]).write(folder, "elsewhere")
    issue(authority, "client", "ann").write(folder, "ann")
    issue(make_authority(), "client", "ann").write(folder, "forged")
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(folder / "passwords"), "ann", "secret"], check=True)
    lines = [f"password_file {folder}/passwords"]
    for name, port in ports.items():
        lines.append(f"listener {port} 127.0.0.1")
        if name != "plain":
            pair = folder / (name if name in ("expired", "elsewhere") else "good")
            lines += [f"certfile {pair}.crt", f"keyfile {pair}.key"]
        if name == "wants-certificate":
            lines += [f"cafile {folder}/ca.crt", "require_certificate true", "use_identity_as_username true"]
    with mosquitto_with("\n".join(lines), folder, *ports.values()):
        yield Brokers(folder, authority, ports)


def test_with_the_right_files_it_connects(brokers: Brokers) -> None:
    for url, files in (
        (brokers.url("good"), {"ca": "ca.crt"}),
        (brokers.url("good").replace("localhost", "127.0.0.1"), {"ca": "ca.crt"}),
        (brokers.url("wants-certificate", ""), {"ca": "ca.crt", "cert": "ann.crt", "key": "ann.key"}),
    ):
        paths = {name: brokers.folder / file for name, file in files.items()}
        with closing(Connection(replace(BrokerURL.parse(url), **paths), "right")) as opened:
            until(lambda opened=opened: opened.poll(0.1) is not None and opened.connected)
            assert isinstance(opened._socket, ssl.SSLSocket)
            assert opened._socket.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("good", {}, "not signed by an authority that this system trusts"),
        ("good", {"ca": "stranger.crt"}, "not signed by the authority in"),
        ("expired", {"ca": "ca.crt"}, "its certificate has expired"),
        ("elsewhere", {"ca": "ca.crt"}, "its certificate is not for the name localhost: connect by a name"),
        (
            "wants-certificate",
            {"ca": "ca.crt"},
            "it wants a client certificate: name one with --cert and --key",
        ),
        (
            "wants-certificate",
            {"ca": "ca.crt", "cert": "forged.crt", "key": "forged.key"},
            "it does not take our certificate",
        ),
        ("good", {"ca": "nowhere.crt"}, "nowhere.crt cannot be read: No such file or directory"),
        ("good", {"ca": "passwords"}, "passwords: no certificate in PEM format in it"),
        ("good", {"ca": "ca.crt", "cert": "ann.crt"}, "give both --cert and --key, or neither"),
        ("good", {"ca": "ca.crt", "cert": "ann.crt", "key": "forged.key"}, "do not belong together"),
        ("good", {"ca": "ca.crt", "cert": "ann.crt", "key": "nowhere.key"}, "--key"),
        ("plain", {"ca": "ca.crt"}, "--ca, --cert and --key are for TLS; write mqtts://"),
    ],
)
def test_what_is_wrong_with_certificates_is_said(
    brokers: Brokers, kind: str, files: dict[str, str], message: str
) -> None:
    shown = brokers.show(brokers.url(kind), **{name: brokers.file(file) for name, file in files.items()})
    assert message in shown.stderr
    assert "error: " in shown.stderr
    assert shown.returncode == 2


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("ann:guess@", "refuses us: Not authorized; check the user, password and id"),
        ("eve:secret@", "refuses us: Not authorized; check the user, password and id"),
        ("", "refuses us: Not authorized; it wants a user and a password"),
    ],
)
def test_a_refused_login_ends_the_process(brokers: Brokers, user: str, message: str) -> None:
    ended = mqtt_mdi("device", "--broker", brokers.url("good", user), "--ca", brokers.file("ca.crt"))
    assert message in ended.stderr
    assert "secret" not in ended.stderr
    assert "guess" not in ended.stderr
    assert ended.returncode == 2


def test_without_tls_at_the_port_of_tls(brokers: Brokers) -> None:
    shown = brokers.show(brokers.url("good").replace("mqtts", "mqtt"))
    assert "it speaks TLS at this port: write mqtts:// and name its authority with --ca" in shown.stderr
    assert shown.returncode == 2


def test_with_tls_at_a_port_without(brokers: Brokers) -> None:
    shown = brokers.show(brokers.url("plain").replace("mqtt", "mqtts"), ca=brokers.file("ca.crt"))
    assert "it speaks MQTT without TLS at this port: use its TLS port" in shown.stderr
    assert shown.returncode == 2


def test_a_key_with_a_passphrase_does_not_stop_to_ask(brokers: Brokers) -> None:
    locked = brokers.file("locked.key")
    subprocess.run(
        ["openssl", "ec", "-aes256", "-in", brokers.file("ann.key"), "-out", locked, "-passout", "pass:x"],
        check=True,
        capture_output=True,
    )
    with pytest.raises(ConfigError, match="or the key has a passphrase"):
        tls_context(None, brokers.folder / "ann.crt", Path(locked))


def test_nothing_older_than_1_2() -> None:
    context = tls_context(None, None, None)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_broker_that_is_away_or_restarts_is_tried_again(brokers: Brokers) -> None:
    port = free_ports("127.0.0.1", 1)
    url = replace(BrokerURL("localhost", port, "ann", "secret", tls=True), ca=brokers.folder / "ca.crt")
    configuration = (
        f"password_file {brokers.folder}/passwords\nlistener {port} 127.0.0.1\n"
        f"certfile {brokers.folder}/good.crt\nkeyfile {brokers.folder}/good.key"
    )
    with closing(Connection(url, "patient")) as opened:
        opened.poll(0.1)
        assert not opened.connected
        for _ in range(2):
            with mosquitto_with(configuration, brokers.folder, port):
                until(lambda: opened.poll(0.1) is not None and opened.connected)
            until(lambda: opened.poll(0.1) is not None and not opened.connected)


class OwnPeer:
    """A TLS server that does to each client what a test wants, where Mosquitto cannot be brought to it."""

    def __init__(self, brokers: Brokers) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(brokers.file("good.crt"), brokers.file("good.key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = replace(
            BrokerURL("localhost", self._listener.getsockname()[1], tls=True), ca=brokers.folder / "ca.crt"
        )

    def serve(self, greeting: bytes) -> threading.Thread:
        thread = threading.Thread(target=self._serve, args=(greeting,), daemon=True)
        thread.start()
        return thread

    def _serve(self, greeting: bytes) -> None:
        raw, _ = self._listener.accept()
        try:
            with self.context.wrap_socket(raw, server_side=True) as client:
                client.recv(4096)
                client.sendall(greeting)
                client.recv(4096)
        except OSError:
            raw.close()

    def close(self) -> None:
        self._listener.close()


def test_what_tls_has_decrypted_is_read_though_no_socket_tells(brokers: Brokers) -> None:
    messages = 2 * READS_A_TURN
    connack, publish = b"\x20\x03\x00\x00\x00", b"\x30\x05\x00\x01t\x00x"
    with closing(OwnPeer(brokers)) as peer:
        served = peer.serve(connack + messages * publish)  # less than 16 KiB: one record of TLS
        with closing(Connection(peer.url, "reader")) as opened:
            until(lambda: opened.poll(1.0) is not None and opened.connected)
            heard = len(opened.poll(0.0))
            while heard and (more := len(opened.poll(0.0))):
                heard += more
        served.join()
    assert heard > READS_A_TURN


def test_with_tls_1_2_a_missing_certificate_is_told_by_the_handshake(brokers: Brokers) -> None:
    with closing(OwnPeer(brokers)) as peer:
        peer.context.maximum_version = ssl.TLSVersion.TLSv1_2
        peer.context.verify_mode = ssl.CERT_REQUIRED
        peer.context.load_verify_locations(brokers.file("ca.crt"))
        served = peer.serve(b"")
        shown = brokers.show(str(peer.url), ca=brokers.file("ca.crt"))
        served.join()
    assert "it wants a client certificate" in shown.stderr
    assert shown.returncode == 2


def test_a_broker_that_lets_us_in_but_not_subscribe_is_an_error(brokers: Brokers) -> None:
    connack, denied = b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x87"
    with closing(OwnPeer(brokers)) as peer:
        served = peer.serve(connack + denied)
        with closing(Connection(peer.url, "listener")) as opened:
            opened.on_connected = lambda: opened.subscribe("anything")
            with pytest.raises(ConfigError, match="it does not let this user subscribe"):
                until(lambda: opened.poll(1.0) is None)
        served.join()

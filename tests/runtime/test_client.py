import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import Broker, Client, until
from secured import mosquitto_of_its_own

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.broker import free_ports, running_broker
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.client import BACKOFF_S, HEADER_BYTES, Connection
from mqtt_mdi.runtime.message import Message, Will


@contextmanager
def connection(url: BrokerURL, **more: object) -> Iterator[Connection]:
    name = f"test-{random.getrandbits(40):x}"
    opened = Connection(url, name, **more)  # type: ignore[arg-type]
    with closing(opened):
        yield opened


def connect(opened: Connection) -> None:
    until(lambda: opened.poll(0.1) is not None and opened.connected)


def hear(opened: Connection, count: int) -> list[Message]:
    heard: list[Message] = []

    def enough() -> bool:
        heard.extend(opened.poll(0.1))
        return len(heard) >= count

    until(enough, lambda: heard)
    return heard


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://gateway", BrokerURL("gateway", 1883)),
        ("gateway", BrokerURL("gateway", 1883)),
        ("gateway:1884", BrokerURL("gateway", 1884)),
        ("10.0.0.1:1884", BrokerURL("10.0.0.1", 1884)),
        ("mqtts://gateway", BrokerURL("gateway", 8883, tls=True)),
        ("mqtt://user:pass@gateway:1", BrokerURL("gateway", 1, "user", "pass")),
        ("mqtt://user@gateway", BrokerURL("gateway", 1883, "user")),
        ("mqtt://us%40er:p%3Aa%2Fss@gateway", BrokerURL("gateway", 1883, "us@er", "p:a/ss")),
        ("mqtt://[::1]:1884", BrokerURL("::1", 1884)),
    ],
)
def test_addresses(text: str, expected: BrokerURL) -> None:
    assert BrokerURL.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mqtt://",
        "http://gateway",
        "mqtt://gateway:many",
        "mqtt://gateway:70000",
        "mqtt://[::1",
        "mqtt://:1883",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="expected mqtt://user:password@host:1883"):
        BrokerURL.parse(text)


@given(st.text())
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    with suppress(ConfigError):
        BrokerURL.parse(text)


def test_an_address_shows_no_password() -> None:
    assert str(BrokerURL.parse("mqtts://user:secret@[::1]")) == "mqtts://user@[::1]:8883"


def test_nagle_is_off(broker: Broker) -> None:
    with connection(broker.url) as opened:
        connect(opened)
        assert opened._socket is not None
        assert opened._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.alone
def test_a_quality_1_round_trip_does_not_wait_for_nagle(mosquitto: Broker) -> None:
    with connection(mosquitto.url) as opened:
        connect(opened)
        opened.subscribe("round/trip", qos=1)
        times = []
        for number in range(21):
            began = time.perf_counter()
            opened.publish("round/trip", bytes([number]), qos=1)
            hear(opened, 1)
            times.append(time.perf_counter() - began)
    # 44 ms is what delayed acknowledgement costs each message; the median hides a busy machine.
    assert sorted(times)[10] < 0.030


def test_messages_keep_their_properties(broker: Broker) -> None:
    with connection(broker.url) as opened:
        connect(opened)
        opened.subscribe("properties", qos=1)
        user = (("signature", "c2ln"), ("more", "x"))
        opened.publish(
            "properties",
            b"x",
            qos=1,
            content_type="image/png",
            response_topic="r",
            correlation=b"\0c",
            user_properties=user,
        )
        (heard,) = hear(opened, 1)
    assert (heard.topic, heard.payload, heard.qos, heard.retain) == ("properties", b"x", 1, False)
    assert (heard.content_type, heard.response_topic, heard.correlation) == ("image/png", "r", b"\0c")
    assert heard.user_properties == user


def test_a_byte_order_mark_in_a_property_is_no_reason_to_hang_up(mosquitto: Broker) -> None:
    with connection(mosquitto.url, manual_ack=True) as opened:
        connect(opened)
        opened.subscribe("marked", qos=1)
        opened.publish("marked", b"1", qos=1, content_type="\ufeffjson")
        opened.publish("marked", b"2", qos=1, content_type="json")
        first, second = hear(opened, 2)
        assert [(m.payload, m.content_type, m.epoch) for m in (first, second)] == [
            (b"1", None, 1),
            (b"2", "json", 1),
        ]


def test_a_retained_message_keeps_its_user_properties(broker: Broker) -> None:
    with connection(broker.url) as opened:
        connect(opened)
        opened.publish("kept", b"x", qos=1, retain=True, user_properties=(("signature", "c2ln"),))
        until(lambda: opened.poll(0.1) is not None and not opened.unsent())
        opened.subscribe("kept", qos=1)
        (heard,) = hear(opened, 1)
    assert (heard.retain, heard.user_properties) == (True, (("signature", "c2ln"),))


def test_another_thread_can_wake_it(broker: Broker) -> None:
    with connection(broker.url) as opened:
        connect(opened)
        opened.poll(0)
        opened.wake()
        began = time.monotonic()
        opened.poll(10.0)
        assert time.monotonic() - began < 9.0
    opened.wake()  # a late call after the end harms nobody


def test_a_goodbye_keeps_the_will_and_a_cut_tells_it(broker: Broker) -> None:
    with Client(broker, "will/#") as witness:
        with connection(broker.url, will=Will("will/polite", b"gone")) as opened:
            connect(opened)
        with connection(broker.url, will=Will("will/cut", b"gone")) as opened:
            connect(opened)
            assert opened._socket is not None
            opened._socket.shutdown(socket.SHUT_RDWR)
            witness.wait_for(lambda heard: heard.topic == "will/cut" and heard.payload == b"gone")
        assert not witness.on("will/polite")


def test_it_reconnects_and_subscribes_anew(broker: Broker) -> None:
    births: list[float] = []
    with connection(broker.url) as opened:

        def born() -> None:
            births.append(time.monotonic())
            opened.subscribe("again", qos=1)
            opened.publish("again", b"still here", qos=1)

        opened.on_connected = born
        (first,) = hear(opened, 1)
        assert opened._socket is not None
        opened._socket.shutdown(socket.SHUT_RDWR)
        (second,) = hear(opened, 1)
    assert (first.epoch, second.epoch) == (1, 2)
    assert births[1] - births[0] > 0.5 * BACKOFF_S[0]


def test_what_was_published_while_away_is_sent_after(broker: Broker) -> None:
    port = free_ports("127.0.0.1", 2)
    url = BrokerURL("127.0.0.1", port)
    with connection(url) as opened:
        opened.publish("early", b"kept", qos=1)
        assert opened.unsent() == 1
        opened.poll(0.1)
        with running_broker(broker.kind, port), Client(Broker(broker.kind, url), "early") as other:
            until(lambda: opened.poll(0.1) is not None and not opened.unsent())
            other.wait_for(lambda heard: heard.payload == b"kept")


def test_more_than_mqtt_can_number_is_lost_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with connection(BrokerURL("127.0.0.1", free_ports("127.0.0.1", 1))) as opened:
        for _ in range(65_535):
            opened.publish("early", b"", qos=1)
        assert not caplog.text
        opened.publish("late", b"", qos=1)
        assert "one on late; 65535 wait for its acknowledgement" in caplog.text


def test_waiting_grows_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    url = BrokerURL("127.0.0.1", free_ports("127.0.0.1", 1))
    with connection(url) as opened:
        waits = []
        for _ in range(8):
            opened._next_try = 0.0
            began = time.monotonic()
            opened.poll(0)
            waits.append((opened._next_try - time.monotonic(), opened._next_try - began))
    least, most = BACKOFF_S
    assert 0.7 * least < waits[0][1]
    assert waits[0][0] < 1.3 * least
    assert all(wait < 1.3 * most for wait, _ in waits)
    assert 0.7 * most < waits[-1][1]
    assert f"broker {url}: [Errno 111] Connection refused; trying again in 0.2 s" in caplog.text
    assert "trying again in 10.0 s" in caplog.text


def test_a_name_nobody_knows_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    with connection(BrokerURL("no-such-host.invalid", 1883)) as opened:
        opened.poll(0)
        assert not opened.connected
    assert "broker mqtt://no-such-host.invalid:1883:" in caplog.text
    assert "trying again" in caplog.text


def test_unacknowledged_messages_come_again(mosquitto: Broker) -> None:
    with connection(mosquitto.url, manual_ack=True, session_expiry_s=60) as opened:
        opened.on_connected = lambda: opened.subscribe("acknowledged", qos=1)
        connect(opened)
        opened.publish("acknowledged", b"1", qos=1)
        opened.publish("acknowledged", b"2", qos=1)
        first, second = hear(opened, 2)
        opened.acknowledge(first)
        opened.poll(0.1)
        assert opened._socket is not None
        opened._socket.shutdown(socket.SHUT_RDWR)
        (again,) = hear(opened, 1)
        assert (again.payload, again.epoch) == (b"2", 2)
        opened.acknowledge(second)  # of the first connection: its number counts for nothing now
        opened.acknowledge(again)


@pytest.mark.usefixtures("mosquitto")
def test_what_the_broker_would_hang_up_on_is_not_sent(tmp_path: Path) -> None:
    with (
        mosquitto_of_its_own(tmp_path, "allow_anonymous true", "max_packet_size 1000") as url,
        connection(url) as opened,
    ):
        connect(opened)
        opened.subscribe("large/#")
        largest = 1000 - len("large/0") - HEADER_BYTES
        for qos in (0, 1):
            assert not opened.publish(f"large/{qos}", bytes(largest + 1), qos=qos)
            assert opened.publish(f"large/{qos}", bytes(largest), qos=qos)
        heard = hear(opened, 2)
        assert [len(message.payload) for message in heard] == [largest, largest]
        assert {message.epoch for message in heard} == {1}


@pytest.fixture
def guarded(tmp_path: Path, mosquitto: Broker) -> Iterator[Callable[[str], BrokerURL]]:
    """A mosquitto that wants a password; makes its URL for a user."""
    del mosquitto  # there is one
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "ann", "secret"], check=True)
    passwords.chmod(0o644)
    with mosquitto_of_its_own(tmp_path, f"password_file {passwords}") as url:
        yield lambda user: BrokerURL.parse(f"mqtt://{user}@{url.host}:{url.port}")


def test_a_wrong_password_ends_the_matter(guarded: Callable[[str], BrokerURL]) -> None:
    with connection(guarded("ann:secret")) as opened:
        connect(opened)
    for user in ("ann:guess", "eve"):
        with (
            connection(guarded(user)) as opened,
            pytest.raises(ConfigError, match="check the user, password and id"),
        ):
            connect(opened)


@pytest.mark.parametrize(
    "url", ["mqtt://h:1", "mqtts://u@h:2", "mqtt://u:p%2F%23s%40@[::1]:1883", "mqtt://a%20b:%3Asecret@h:3"]
)
def test_a_url_with_its_password_reads_back(url: str) -> None:
    parsed = BrokerURL.parse(url)
    assert BrokerURL.parse(parsed.with_password()) == parsed
    assert parsed.password is None or parsed.password not in str(parsed)

import socket
import struct
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.client import MQTTMessage
from paho.mqtt.properties import VariableByteIntegers

from mqtt_mdi.runtime.buffered import MOST_UNSENT, READ_BYTES, BufferedClient

CONNACK = bytes([0x20, 3, 0, 0, 0])


def publish(payload: bytes, *, mid: int = 0, properties: bytes = b"", flags: int = 0) -> bytes:
    """A PUBLISH packet of MQTT 5 on topic `t`, at quality 1 if it has an identifier, section 3.3."""
    body = struct.pack("!H", 1) + b"t" + (struct.pack("!H", mid) if mid else b"")
    body += VariableByteIntegers.encode(len(properties)) + properties + payload
    length = VariableByteIntegers.encode(len(body))
    return bytes([0x30 | flags | (2 if mid else 0)]) + bytes(length) + body


class Wired:
    """A client whose broker is the other end of a pair of sockets."""

    def __init__(self) -> None:
        self.client = BufferedClient("me", manual_ack=False)
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(0)
        self.client._sock = self.ours
        self.heard: list[bytes] = []
        self.plain: list[tuple[bytes, int, bool, int]] = []
        self.client.on_message = self._hear
        self.client.on_plain = self._hear_plain

    def _hear(self, _client: object, _data: object, message: MQTTMessage) -> None:
        self.heard.append(message.payload)

    def _hear_plain(self, topic: bytes, payload: bytes, *rest: int) -> None:
        self.heard.append(payload)
        self.plain.append((topic, *rest))  # type: ignore[arg-type]

    def read(self) -> None:
        self.client.loop_read()
        while self.client.has_arrived:
            self.client.loop_read()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@settings(deadline=None, max_examples=60)
@given(
    payloads=st.lists(st.binary(max_size=300), max_size=12),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
def test_packets_may_arrive_in_any_pieces(payloads: list[bytes], cuts: list[int]) -> None:
    with closing(Wired()) as wired:
        stream = b"".join(publish(payload) for payload in payloads)
        place = 0
        while stream:
            cut = cuts[place % len(cuts)]
            place += 1
            wired.theirs.sendall(stream[:cut])
            stream = stream[cut:]
            wired.read()
        assert wired.heard == payloads


def test_a_message_larger_than_the_buffer() -> None:
    with closing(Wired()) as wired:
        packet = publish(bytes(3 * READ_BYTES))
        wired.theirs.settimeout(0)
        while packet:
            try:
                packet = packet[wired.theirs.send(packet) :]
            except BlockingIOError:
                wired.read()
        while not wired.heard:
            wired.read()
        assert len(wired.heard[0]) == 3 * READ_BYTES


def test_what_is_published_leaves_together_and_in_order() -> None:
    with closing(Wired()) as wired:
        for number in range(5):
            wired.client.publish("t", bytes([number]))
        assert wired.client.want_write()
        wired.theirs.settimeout(0)
        wired.client.flush()
        assert not wired.client.want_write()
        assert wired.theirs.recv(1000) == b"".join(publish(bytes([number])) for number in range(5))


def test_a_broker_that_does_not_read_fills_no_memory_and_misses_nothing() -> None:
    with closing(Wired()) as wired:
        sent = [bytes([number]) * 100_000 for number in range(60)]
        for payload in sent:
            wired.client.publish("t", payload)
            wired.client.flush()
            assert len(wired.client._unsent) <= MOST_UNSENT + 2 * 100_000
        expected = b"".join(map(publish, sent))
        came = bytearray()
        while len(came) < len(expected):
            came += wired.theirs.recv(2**20)
            wired.client.flush()
        assert came == expected


def test_closing_sends_what_waits() -> None:
    with closing(Wired()) as wired:
        wired.client.publish("t", b"last words")
        wired.client.disconnect()
        came = wired.theirs.recv(1000)
        assert came.startswith(publish(b"last words"))
        assert came[len(publish(b"last words"))] == 0xE0


def test_a_new_connection_begins_with_empty_buffers() -> None:
    with closing(Wired()) as wired:
        wired.theirs.sendall(publish(b"whole") + publish(b"cut short")[:5])
        wired.read()
        wired.client.publish("t", b"x")
        wired.client._sock_close()
        assert not wired.client.has_arrived
        assert not wired.client.want_write()


def test_messages_come_in_order_with_properties_and_without() -> None:
    with closing(Wired()) as wired:
        content_type = b"\x03\x00\x01x"
        wired.theirs.sendall(
            publish(b"plain", mid=0x1234, flags=1)
            + publish(b"typed", mid=7, properties=content_type)
            + publish(b"again, at quality 0")
        )
        wired.read()
        assert wired.heard == [b"plain", b"typed", b"again, at quality 0"]
        assert wired.plain == [(b"t", 1, True, 0x1234), (b"t", 0, False, 0)]
        wired.client.flush()
        assert wired.theirs.recv(100) == b"\x40\x02\x12\x34" + b"\x40\x02\x00\x07"


def test_properties_that_paho_cannot_read_are_passed_over() -> None:
    mark = b"\x03\x00\x03\xef\xbb\xbf"  # a content type of U+FEFF
    with closing(Wired()) as wired:
        wired.theirs.sendall(publish(b"marked", mid=7, properties=mark * 25) + publish(b"next"))
        wired.read()
        assert wired.heard == [b"marked", b"next"]
        assert wired.plain[0] == (b"t", 1, False, 7)


@settings(deadline=None, max_examples=60)
@given(flags=st.integers(0, 15), body=st.binary(min_size=1, max_size=40))
def test_whatever_a_publish_packet_holds_it_is_heard_or_ends_the_connection(flags: int, body: bytes) -> None:
    with closing(Wired()) as wired:
        wired.theirs.sendall(bytes([0x30 | flags, len(body)]) + body)
        wired.read()
        assert len(wired.heard) == 1 or wired.client._sock is None or (flags >> 1) & 3 == 2


def test_nothing_is_acknowledged_without_a_connection() -> None:
    with closing(Wired()) as wired:
        wired.client._sock_close()
        wired.client.ack(1, 1)
        assert not wired.client._unsent
